"""The user's pipeline on the board: from an encoded sample to a result, with the network in the middle.

A class with `load(encoded) -> decoded`, `preprocess(decoded) -> array or {input: array}` and `postprocess({output:
array}) -> array or {name: array}`, in one file, imported in the session's process only. Arrays are those of one
sample: a batch of 1 is left out, and may be given or not. Whatever the pipeline does wrong is one line.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import signal
import sys
from types import FrameType
from typing import Any, Callable, Optional

import numpy as np

from edgeloop_agent.errors import PipelineError, RefusedError
from edgeloop_agent.loaded_model import LoadedModel
from edgeloop_agent.samples import refuse_types, storer, to_real
from edgeloop_agent.text import kind_and_line

METHODS = ("load", "preprocess", "postprocess")
RESULTS_MAX = 16
RAISED = (Exception, SystemExit)
_RESULT_NAME = re.compile(r"\A[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_RESULT_TYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "b1"}


class StagedPipeline:
    """The user's object, bound to one engine. Raises PipelineError where it can't be made."""

    def __init__(self, path: str, class_name: str, label: str, inputs: list[str], outputs: list[str]) -> None:
        """`inputs` and `outputs` are the names of the model's own, in its order."""
        self._path, self.label = path, label
        self._inputs, self._outputs = inputs, outputs
        self._user = self._make(class_name)
        self.load: Callable[[Any], Any] = self._user.load
        self.preprocess: Callable[[Any], Any] = self._user.preprocess
        self.postprocess: Callable[[Any], Any] = self._user.postprocess

    def _make(self, class_name: str) -> Any:
        spec = importlib.util.spec_from_file_location("edgeloop_pipeline", self._path)
        assert spec is not None and spec.loader is not None, "a path that ends in .py has a loader"  # noqa: PT018
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # as a dataclass in it wants to be found
        sys.dont_write_bytecode = True  # the cache holds files by hash, and nothing else
        try:
            spec.loader.exec_module(module)
        except RAISED as error:
            raise self._error("can't be imported on the board", error) from error
        try:
            user = getattr(module, class_name)()
        except RAISED as error:
            raise self._error("can't be made on the board", error) from error
        for name in METHODS:
            try:
                inspect.signature(getattr(user, name)).bind(None)
            except (AttributeError, TypeError, ValueError) as error:
                raise PipelineError("%s: %s takes one argument" % (self.label, name)) from error
        return user

    def _error(self, what: str, error: BaseException) -> PipelineError:
        return PipelineError("%s %s%s: %s" % (self.label, what, self._place(error), kind_and_line(error)))

    def bind(self, model: LoadedModel) -> tuple[Callable[[Any], None], Callable[[], dict[str, Any]]]:
        """Return copy_in, which quantizes and sets the inputs, and copy_out, which gets and dequantizes the outputs."""
        where = "%s.preprocess" % self.label
        setters, getters = model.setters(), model.getters()
        sources = [
            (self._inputs[i], *setters[i], tensor, storer(tensor, self._inputs[i]), {np.dtype(tensor.dtype)})
            for i, tensor in enumerate(model.inputs())
        ]
        sinks = [
            (self._outputs[i], *getters[i], tensor, _inner(tensor.shape) != tuple(tensor.shape))
            for i, tensor in enumerate(model.outputs())
        ]
        alone = sources[0][0] if len(sources) == 1 else None
        names = {source[0] for source in sources}

        def copy_in(value: object) -> None:
            arrays = value
            if alone is not None and (not isinstance(value, dict) or len(value) == 1):  # whatever the two call it
                arrays = {alone: next(iter(value.values())) if isinstance(value, dict) else value}
            if not isinstance(arrays, dict) or set(arrays) != names:
                words = ", ".join(map(str, arrays)) if isinstance(arrays, dict) else type(value).__name__
                raise PipelineError("%s gave %s; the inputs are %s" % (where, words[:200], ", ".join(sorted(names))))
            for name, set_input, number, tensor, store, types in sources:
                values = arrays[name]
                if not isinstance(values, np.ndarray):
                    raise PipelineError(
                        "%s gave a %s for input %s, not an array" % (where, type(values).__name__, name)
                    )
                if list(values.shape) != tensor.shape:
                    if values.shape != _inner(tensor.shape):
                        raise PipelineError(
                            "%s gave the shape %s for input %s, which takes %s"
                            % (where, values.shape, name, _inner(tensor.shape))
                        )
                    values = values.reshape(tensor.shape)
                try:
                    if values.dtype not in types:
                        refuse_types(name, values.dtype, tensor)
                        types.add(values.dtype)
                    values = store(values)
                except RefusedError as error:
                    raise PipelineError("%s: %s" % (where, error)) from error
                set_input(number, values)

        def copy_out() -> dict[str, Any]:
            outputs = {}
            for name, get, number, tensor, has_batch in sinks:
                values = to_real(get(number), tensor)
                outputs[name] = values[0] if has_batch else values
            return outputs

        return copy_in, copy_out

    def results(self, outcome: object) -> dict[str, Any]:
        """Return the result of postprocess as arrays by name. Raises PipelineError for what is no array of numbers."""
        where = "%s.postprocess" % self.label
        alone = self._outputs[0] if len(self._outputs) == 1 else "result"
        arrays = outcome if isinstance(outcome, dict) else {alone: outcome}
        if not 0 < len(arrays) <= RESULTS_MAX:
            raise PipelineError("%s gave %d results, wanted 1 to %d" % (where, len(arrays), RESULTS_MAX))
        results = {}
        for name, value in arrays.items():
            if not isinstance(name, str) or not _RESULT_NAME.match(name):
                raise PipelineError("%s named a result %r; letters, digits, _ . - are wanted" % (where, str(name)[:40]))
            if not isinstance(value, (np.ndarray, np.generic)) or value.dtype.str[1:] not in _RESULT_TYPES:
                kind = value.dtype.name if isinstance(value, (np.ndarray, np.generic)) else type(value).__name__
                raise PipelineError("%s gave %s for %s, wanted an array of numbers" % (where, kind, name))
            results[name] = np.ascontiguousarray(value, value.dtype.newbyteorder("=")).reshape(value.shape)
        return results

    def fault(self, error: BaseException) -> Optional[PipelineError]:
        """The error as the user's, None where it does not come from the pipeline's file."""
        if isinstance(error, PipelineError):
            return error
        place = self._place(error)
        if not place:
            return None
        return PipelineError("%s%s: %s" % (self.label, place, kind_and_line(error)))

    def _place(self, error: BaseException) -> str:
        """`.load, line 12`: the method that was called and the last line of the user's own file; empty if none is."""
        if isinstance(error, SyntaxError) and error.filename == self._path:
            return ", line %s" % error.lineno
        method, line, trace = "", 0, error.__traceback__
        while trace is not None:
            code = trace.tb_frame.f_code
            if code.co_filename == self._path:
                method, line = method or _method(code.co_name), trace.tb_lineno
            trace = trace.tb_next
        return "%s, line %d" % (method, line) if line else ""

    def tell_where_it_hangs(self, tell: Callable[[str], None]) -> None:
        """At SIGTERM, which comes at the deadline, say which line of the pipeline had not returned; then die of it."""

        def name_line(number: int, frame: Optional[FrameType]) -> None:
            method, line = "", 0
            while frame is not None:
                if frame.f_code.co_filename == self._path:
                    method, line = _method(frame.f_code.co_name), line or frame.f_lineno
                frame = frame.f_back
            if line:
                tell("%s%s had not returned, line %d" % (self.label, method, line))
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

        signal.signal(signal.SIGTERM, name_line)


def _method(name: str) -> str:
    return "." + name if name in METHODS else ""


def _inner(shape: list[int]) -> tuple[int, ...]:
    return tuple(shape[1:] if shape[:1] == [1] else shape)
