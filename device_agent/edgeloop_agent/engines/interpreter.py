"""What the TFLite interpreters have in common. They differ in the package they come from, and in their kernels."""

from __future__ import annotations

import contextlib
from importlib import metadata
from typing import Any, Callable, Optional

import numpy as np

from edgeloop_agent.engines import delegation
from edgeloop_agent.wire import Tensor, WireDelegate


class RefusedError(Exception):
    """The engine, or the rule for inputs, does not take this model or these data: one line."""


class DelegateError(Exception):
    """A delegate's library can't be loaded, or the delegate does not start, whatever the model: one line, and whose
    it is."""

    def __init__(self, detail: str, owner: str) -> None:
        super().__init__(detail)
        self.owner = owner


class CrashedError(Exception):
    """What ran the model in a process of its own ended badly: one line, and the signal that it died of."""

    def __init__(self, detail: str, signal: Optional[int]) -> None:
        super().__init__(detail)
        self.signal = signal


class Engine:
    """One runtime, and after `load` one model in it."""

    name: str
    """As in the job."""
    package: str
    """Distribution that the runtime comes in."""

    def __init__(self, interpreter: Callable[..., Any], load_delegate: Callable[..., Any]) -> None:
        self._interpreter_class = interpreter
        self._load_delegate = load_delegate
        self._interpreter: Any = None
        self._sources: list[Any] = []
        self._sinks: list[Any] = []
        self.delegated: Optional[dict[str, Any]] = None
        """The delegate that was asked for, and what it took; None where none was."""

    @property
    def version(self) -> str:
        """Name and version, such as `litert 2.3.0`."""
        try:
            return "%s %s" % (self.name, metadata.version(self.package))
        except metadata.PackageNotFoundError:
            return "%s of unknown version" % self.name

    def load(
        self,
        path: str,
        threads: int,
        shapes: Optional[list[list[int]]] = None,
        delegate: Optional[WireDelegate] = None,
    ) -> None:
        """Read a model and allocate its tensors, its inputs resized to `shapes` first.

        `delegate` is given the model before any that the runtime adds by itself. Raises RefusedError, DelegateError.
        """
        self._open(threads, shapes, delegate, model_path=path)

    def load_content(self, content: bytes, threads: int) -> None:
        """The same with a model's bytes, in its own shapes."""
        self._open(threads, None, None, model_content=content)

    def _open(
        self, threads: int, shapes: Optional[list[list[int]]], delegate: Optional[WireDelegate], **model: Any
    ) -> None:
        if delegate is not None:
            model["experimental_delegates"] = [self._started(delegate)]
        try:
            self._interpreter = self._interpreter_class(num_threads=threads, **model)
            if delegate is not None:
                nodes = self._interpreter._get_ops_details()  # noqa: SLF001 -- nothing else tells the graph's nodes
                self.delegated = {"name": delegate.name, **delegation.counted(nodes)}
            self._resize(shapes)
            self._interpreter.allocate_tensors()
            self._sources = self._interpreter.get_input_details()
            self._sinks = self._interpreter.get_output_details()
        except (ValueError, RuntimeError, OSError, TypeError, MemoryError) as error:
            beside = "" if delegate is None else " with the delegate %s" % delegate.name
            raise RefusedError("%s%s refuses the model: %s" % (self.version, beside, one_line(error))) from error
        if not self._sources or not self._sinks:
            raise RefusedError("the model has %d inputs and %d outputs" % (len(self._sources), len(self._sinks)))

    def _started(self, delegate: WireDelegate) -> Any:
        try:
            return self._load_delegate(delegate.library, delegate.options)
        except (OSError, AttributeError) as error:
            what = "the delegate %s: its library can't be loaded: %s" % (delegate.name, one_line(error))
            raise DelegateError(what, "user") from error
        except (ValueError, RuntimeError) as error:
            what = "the delegate %s (%s) does not start: %s" % (delegate.name, delegate.library, one_line(error))
            raise DelegateError(what, "lab") from error

    def functions(self, path: str, seed: int) -> list[Callable[[], None]]:  # noqa: ARG002 -- the face of every engine
        """The functions of a library, each bound to random arguments. Raises RefusedError."""
        raise RefusedError("%s has models, and no libraries of functions" % self.version)

    def _resize(self, shapes: Optional[list[list[int]]]) -> None:
        if shapes is None:
            return
        details = self._interpreter.get_input_details()
        if len(shapes) != len(details):
            raise RefusedError("the model has %d inputs, shapes are given for %d" % (len(details), len(shapes)))
        for detail, shape in zip(details, shapes):  # noqa: B905 -- Python 3.9
            self._interpreter.resize_tensor_input(int(detail["index"]), shape)

    def inputs(self) -> list[Tensor]:
        """Inputs in the model's own order."""
        return [_tensor(detail) for detail in self._sources]

    def outputs(self) -> list[Tensor]:
        """Outputs in the model's own order."""
        return [_tensor(detail) for detail in self._sinks]

    def setters(self) -> list[tuple[Callable[[int, Any], None], int]]:
        """For each input the function and the index to set it with: bound before any timing."""
        return [(self._interpreter.set_tensor, int(detail["index"])) for detail in self._sources]

    def getters(self) -> list[tuple[Callable[[int], Any], int]]:
        """For each output the function that returns a copy, and its index."""
        return [(self._interpreter.get_tensor, int(detail["index"])) for detail in self._sinks]

    def places(self) -> dict[int, Optional[tuple[int, int]]]:
        """Address and bytes of every tensor, scratch buffers included, by its number; None where it has no memory.

        A tensor inside a delegate has none: the delegate keeps its own, and does not tell.
        """
        found: dict[int, Optional[tuple[int, int]]] = {}
        for detail in self._interpreter.get_tensor_details():
            index = int(detail["index"])
            found[index] = None
            with contextlib.suppress(ValueError, RuntimeError):
                view = self._interpreter.tensor(index)()
                found[index] = (int(view.__array_interface__["data"][0]), int(view.nbytes))
                del view  # a runtime refuses to run while somebody holds one
        return found

    def invoker(self) -> Callable[[], None]:
        """The call that runs one inference."""
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


def one_line(error: BaseException, limit: int = 300) -> str:
    """The last line that says something, cut to a bound."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "".join(c if c.isprintable() else " " for c in (lines[-1] if lines else ""))
    return text[:limit] or type(error).__name__
