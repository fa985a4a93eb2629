"""TVM: a network that was compiled into a shared library, on the smallest runtime there is for it.

What is needed is tvm_ffi, typing_extensions and one library out of the package apache-tvm, `lib/libtvm_runtime.so`; the
compiler stays on the host. The library says its tensors itself, in the string `edgeloop_artifact`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import sys
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

import numpy as np

from edgeloop_agent.engines.base import InProcessEngine, ModelFile
from edgeloop_agent.errors import RefusedError
from edgeloop_agent.text import one_line
from edgeloop_agent.wire import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes. Compiled code loads whole vectors from its inputs and crashes where one does not begin on such a boundary."""
_CPU, _POOLED = 1, 2
_SPECS = "edgeloop_artifact"
_FUNCTIONS = "edgeloop_functions"
"""A library of single functions says them here: [name, [[type, shape] of each argument]] of each."""
_NOT_OURS = "the library was not built by edgeloop: it does not say its tensors"


class Tvm(InProcessEngine):
    """One compiled network. Inputs have memory of their own, which setting one copies into."""

    name = "tvm"
    package = "apache-tvm-ffi"

    def __init__(self) -> None:
        self._ffi = _import_ffi()
        self._runtime = ctypes.CDLL(str(_runtime_library()), ctypes.RTLD_GLOBAL)
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._memory: list[Any] = []
        self._results: list[Any] = []
        self._call: Optional[Callable[[], None]] = None

    @property
    def version(self) -> str:
        """Name and version of the runtime, such as `tvm 0.27.0.post1`; that of tvm_ffi where only it has one here."""
        for package in ("apache-tvm", self.package):
            try:
                version = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
            return "%s %s" % (self.name if package == "apache-tvm" else "tvm with tvm-ffi", version)
        return "%s of unknown version" % self.name

    def open(self, model: ModelFile) -> None:
        """Open the library and give its inputs memory."""
        if model.shapes is not None or model.delegate is not None:
            raise RefusedError("a compiled network has shapes of its own, and no delegate")
        _one_by_one(model.threads)
        description = self._description(model.path, _SPECS)
        try:
            self._inputs, self._outputs = (
                [Tensor(**spec) for spec in description[key]] for key in ("inputs", "outputs")
            )
        except (KeyError, TypeError) as error:
            raise RefusedError(_NOT_OURS) from error
        try:
            machine = self._ffi.load_module(model.path)["vm_load_executable"]()
            machine["vm_initialization"](_CPU, 0, _POOLED)
            run = machine["main"]
        except (RuntimeError, AttributeError, ValueError) as error:
            raise RefusedError("%s refuses the library: %s" % (self.version, one_line(error))) from error
        self._memory = [_aligned_zeros(tensor.dtype, tensor.shape) for tensor in self._inputs]
        arguments = [self._ffi.from_dlpack(array) for array in self._memory]
        self._call = _bind(run, arguments, self._results, single=len(self._outputs) == 1)

    def functions(self, path: str, seed: int) -> list[Callable[[], None]]:
        """Of a library that was built to be timed; functions of equal arguments share their memory."""
        _one_by_one(1)
        random = np.random.default_rng(seed)
        memory: dict[str, list[Any]] = {}
        description = self._description(path, _FUNCTIONS)
        try:
            library = self._ffi.load_module(path)
            calls: list[Callable[[], None]] = []
            for name, arguments in description:
                kind = json.dumps(arguments)
                if kind not in memory:
                    memory[kind] = [self._ffi.from_dlpack(_random(random, *argument)) for argument in arguments]
                calls.append(partial(library[name], *memory[kind]))
        except (RuntimeError, AttributeError, ValueError, TypeError) as error:
            raise RefusedError("%s refuses the library: %s" % (self.version, one_line(error))) from error
        return calls

    def _description(self, path: str, symbol: str) -> Any:
        """The library's own words on itself. Raises RefusedError."""
        try:
            return json.loads(ctypes.c_char_p.in_dll(ctypes.CDLL(path), symbol).value or b"{}")
        except OSError as error:
            raise RefusedError("%s can't load the library: %s" % (self.version, one_line(error))) from error
        except ValueError as error:
            raise RefusedError(_NOT_OURS) from error

    def part(self, content: bytes, threads: int) -> Tvm:  # noqa: ARG002 -- the face of every engine
        raise RefusedError("a compiled network can't be run operator by operator")

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def outputs(self) -> list[Tensor]:
        return self._outputs

    def setters(self) -> list[tuple[Callable[[int, Any], None], int]]:
        return [(self._set_input, index) for index in range(len(self._inputs))]

    def getters(self) -> list[tuple[Callable[[int], Any], int]]:
        return [(self._get_output, index) for index in range(len(self._outputs))]

    def places(self) -> dict[int, Optional[tuple[int, int]]]:
        return {}

    def invoker(self) -> Callable[[], None]:
        assert self._call is not None, "a network is loaded before it runs"
        return self._call

    def _set_input(self, index: int, values: NDArray[Any]) -> None:
        np.copyto(self._memory[index], values, casting="no")

    def _get_output(self, index: int) -> NDArray[Any]:
        return np.from_dlpack(self._results[index]).copy()


def _bind(run: Callable[..., Any], arguments: list[Any], results: list[Any], *, single: bool) -> Callable[[], None]:
    """One inference, whose outputs are in `results` afterwards."""

    def one() -> None:
        results[:] = (run(*arguments),)

    def several() -> None:
        results[:] = run(*arguments)

    return one if single else several


def _one_by_one(threads: int) -> None:
    """Read by TVM when its first function runs; cores are pinned by the agent, not by TVM."""
    os.environ.update(TVM_NUM_THREADS=str(threads), TVM_BIND_THREADS="0")


def _random(random: np.random.Generator, dtype: str, shape: list[int]) -> NDArray[Any]:
    values = _aligned_zeros(dtype, shape)
    values[...] = random.standard_normal(shape) if values.dtype.kind == "f" else random.integers(0, 100, shape)
    return values


def _aligned_zeros(name: str, shape: list[int]) -> NDArray[Any]:
    """Zeros of a type and shape that begin where compiled code expects them."""
    dtype = np.dtype(name)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _import_ffi() -> Any:
    """Import tvm_ffi without torch, which it would import where there is one: a second, and 200 MB of the session."""
    before = sys.modules.get("torch")
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tvm_ffi
    finally:
        if before is None:
            del sys.modules["torch"]
        else:
            sys.modules["torch"] = before
    return tvm_ffi


def _runtime_library() -> Path:
    """The one library of apache-tvm that a board needs. Raises ImportError."""
    spec = importlib.util.find_spec("tvm")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder) / "lib" / "libtvm_runtime.so"
        if path.is_file():
            return path
    raise ImportError("there is no tvm/lib/libtvm_runtime.so: it comes with the package apache-tvm")
