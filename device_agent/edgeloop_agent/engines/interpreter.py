"""The part that the TFLite interpreters share. They differ in the package they come from, and in their kernels."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from importlib import metadata
from typing import Any, Callable, Optional

import numpy as np

from edgeloop_agent.engines import delegation
from edgeloop_agent.engines.base import InProcessEngine, ModelFile
from edgeloop_agent.errors import DelegateError, RefusedError
from edgeloop_agent.text import one_line
from edgeloop_agent.wire import Tensor, WireDelegate


class TfliteInterpreter(InProcessEngine):
    """One of the TFLite runtimes."""

    package: str
    """Distribution that the runtime comes in."""

    def __init__(self) -> None:
        self._interpreter_class, self._load_delegate = self.import_runtime()
        self._interpreter: Any = None
        self._sources: list[Any] = []
        self._sinks: list[Any] = []

    @staticmethod
    @abstractmethod
    def import_runtime() -> tuple[Callable[..., Any], Callable[..., Any]]:
        """The runtime's `Interpreter` and `load_delegate`. Raises ImportError."""

    @property
    def version(self) -> str:
        try:
            return "%s %s" % (self.name, metadata.version(self.package))
        except metadata.PackageNotFoundError:
            return "%s of unknown version" % self.name

    def open(self, model: ModelFile) -> None:
        """Read the model and allocate its tensors, its inputs resized first."""
        self.open_with(model.threads, model.shapes, model.delegate, model_path=model.path)

    def part(self, content: bytes, threads: int) -> TfliteInterpreter:
        part = type(self)()
        part.open_with(threads, None, None, model_content=content)
        return part

    def open_with(
        self, threads: int, shapes: Optional[list[list[int]]], delegate: Optional[WireDelegate], **model: Any
    ) -> None:
        if delegate is not None:
            model["experimental_delegates"] = [self._start_delegate(delegate)]
        try:
            self._interpreter = self._interpreter_class(num_threads=threads, **model)
            if delegate is not None:
                nodes = self._interpreter._get_ops_details()  # noqa: SLF001 -- nothing else tells the graph's nodes
                self.delegate_share = {"name": delegate.name, **delegation.count_operators(nodes)}
            self._resize(shapes)
            self._interpreter.allocate_tensors()
            self._sources = self._interpreter.get_input_details()
            self._sinks = self._interpreter.get_output_details()
        except (ValueError, RuntimeError, OSError, TypeError, MemoryError) as error:
            beside = "" if delegate is None else " with the delegate %s" % delegate.name
            raise RefusedError("%s%s refuses the model: %s" % (self.version, beside, one_line(error))) from error
        if not self._sources or not self._sinks:
            raise RefusedError("the model has %d inputs and %d outputs" % (len(self._sources), len(self._sinks)))

    def _start_delegate(self, delegate: WireDelegate) -> Any:
        try:
            return self._load_delegate(delegate.library, delegate.options)
        except (OSError, AttributeError) as error:
            what = "the delegate %s: its library can't be loaded: %s" % (delegate.name, one_line(error))
            raise DelegateError(what, "user") from error
        except (ValueError, RuntimeError) as error:
            what = "the delegate %s (%s) does not start: %s" % (delegate.name, delegate.library, one_line(error))
            raise DelegateError(what, "lab") from error

    def _resize(self, shapes: Optional[list[list[int]]]) -> None:
        if shapes is None:
            return
        details = self._interpreter.get_input_details()
        if len(shapes) != len(details):
            raise RefusedError("the model has %d inputs, shapes are given for %d" % (len(details), len(shapes)))
        for detail, shape in zip(details, shapes):  # noqa: B905 -- Python 3.9
            self._interpreter.resize_tensor_input(int(detail["index"]), shape)

    def inputs(self) -> list[Tensor]:
        return [_tensor(detail) for detail in self._sources]

    def outputs(self) -> list[Tensor]:
        return [_tensor(detail) for detail in self._sinks]

    def setters(self) -> list[tuple[Callable[[int, Any], None], int]]:
        return [(self._interpreter.set_tensor, int(detail["index"])) for detail in self._sources]

    def getters(self) -> list[tuple[Callable[[int], Any], int]]:
        return [(self._interpreter.get_tensor, int(detail["index"])) for detail in self._sinks]

    def places(self) -> dict[int, Optional[tuple[int, int]]]:
        """As the face says. A tensor inside a delegate has no memory here: the delegate keeps its own."""
        places: dict[int, Optional[tuple[int, int]]] = {}
        for detail in self._interpreter.get_tensor_details():
            index = int(detail["index"])
            places[index] = None
            with contextlib.suppress(ValueError, RuntimeError):
                view = self._interpreter.tensor(index)()
                places[index] = (int(view.__array_interface__["data"][0]), int(view.nbytes))
                del view  # a runtime refuses to run while somebody holds one
        return places

    def invoker(self) -> Callable[[], None]:
        return self._interpreter.invoke  # type: ignore[no-any-return]


def _tensor(detail: Any) -> Tensor:
    quantization = detail["quantization_parameters"]
    scales = [float(scale) for scale in quantization["scales"]]
    if len(scales) > 1:
        raise RefusedError("tensor %s has a scale for each channel, which no input or output may have" % detail["name"])
    return Tensor(
        name=str(detail["name"]),
        dtype=np.dtype(detail["dtype"]).name,
        shape=[int(size) for size in detail["shape"]],
        scale=scales[0] if scales else None,
        zero_point=int(quantization["zero_points"][0]) if scales else None,
    )
