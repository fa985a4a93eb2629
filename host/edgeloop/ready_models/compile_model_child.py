"""The child process that opens a model nobody built here as TVM's graph, and counts or compiles it, one job on stdin.

`python -m edgeloop.ready_models.compile_model_child`. A library is compared with what ONNX's own reference or torch
makes of a random sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from edgeloop.builders.tvm import counting, layout
from edgeloop.builders.tvm.compile_child import compile_module, lower, run_library
from edgeloop.builders.tvm.versions import MODEL, TvmTarget, host_library_name, host_target
from edgeloop.core.model_format import ModelFormat, Reader
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import ModelError, one_line
from edgeloop.host_runtime.shapes import InputShapes, Shape
from edgeloop.processes import json_child
from edgeloop.processes.files import move_file
from edgeloop.ready_models.jobs import (
    GRAPH_JOBS,
    CompileGraphAnswer,
    CompileGraphJob,
    GraphJob,
    InspectGraphAnswer,
    InspectGraphJob,
)
from edgeloop.ready_models.onnx import OnnxModel
from edgeloop.ready_models.torch_program import TorchProgram

_TVM_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""Raised by TVM for what it can't do."""
_TOLERANCE = 1e-3
"""Of the largest output: sums in another order differ by 1e-6 or so, a graph that was read wrongly by far more."""


class _GraphModel(Protocol):
    """A file that TVM imports, with the shapes of its inputs settled."""

    inputs: list[str]
    outputs: list[str]
    dtypes: list[str]
    shapes: list[Shape]

    def import_graph(self) -> Any: ...

    def run(self, sample: Sequence[NDArray[Any]]) -> list[NDArray[Any]] | None:
        """Run another runtime on one sample; None where it can't."""
        ...


_OPENERS: Mapping[Reader, Callable[[Path, InputShapes], _GraphModel]] = {
    Reader.ONNX: OnnxModel,
    Reader.TORCH: TorchProgram,
}


def _prepare() -> None:
    """Nothing: a file that is refused is refused before TVM is imported, which takes seconds."""


def _work(job: GraphJob) -> BaseModel:
    """Inspect, or compile. Raises ModelError, UserError."""
    model_format = ModelFormat.of(job.source)
    assert model_format is not None, "the parent looked at the format"
    model = _OPENERS[model_format.row.reader](job.source, job.shapes)
    graph = layout.fold_constants(model.import_graph())
    inputs = _specs(model.inputs, model.dtypes, model.shapes)
    outputs = _outputs(graph["main"], model.outputs)
    match job:
        case InspectGraphJob():
            return InspectGraphAnswer(inputs=inputs, outputs=outputs, sizes=counting.count(graph))
        case CompileGraphJob():
            sample = _sample(inputs)
            processor = _compile(graph, job.target, job.folder, (inputs, outputs), sample, model.run(sample))
            return CompileGraphAnswer(inputs=inputs, outputs=outputs, processor=processor)


def _specs(names: Sequence[str], dtypes: Sequence[str], shapes: Sequence[Shape]) -> tuple[TensorSpec, ...]:
    """Raises ModelError for floats of other bits, which have no schedule."""
    for name, dtype in zip(names, dtypes, strict=True):
        if "float" in dtype and dtype != "float32":
            raise ModelError(f"{name} is {dtype}, which is not compiled here", next_step="export it as float32")
    return tuple(
        TensorSpec(name=name, dtype=dtype, shape=shape)
        for name, dtype, shape in zip(names, dtypes, shapes, strict=True)
    )


def _outputs(main: Any, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Raises ModelError for what no board could be asked for: a shape that depends on values, no tensor at all."""
    result = main.ret_ty
    kinds = list(result.fields) if hasattr(result, "fields") else [result]
    if len(kinds) != len(names):
        raise ModelError(f"gives {len(kinds)} tensors, and says that it gives {len(names)}")
    shapes: list[Shape] = []
    for name, kind in zip(names, kinds, strict=True):
        try:
            shapes.append(tuple(int(size) for size in kind.shape.values))
        except (TypeError, AttributeError, ValueError) as error:
            raise ModelError(f"output {name} has no shape that is known before it runs: {kind}") from error
    return _specs(names, [str(kind.dtype) for kind in kinds], shapes)


def _sample(inputs: Sequence[TensorSpec]) -> list[NDArray[Any]]:
    random = np.random.default_rng(0)
    return [
        random.random(spec.shape, np.float32)
        if spec.dtype == "float32"
        else random.integers(0, 2, spec.shape).astype(spec.dtype)
        for spec in inputs
    ]


def _compile(
    graph: Any,
    target: TvmTarget,
    folder: Path,
    specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
    sample: Sequence[NDArray[Any]],
    reference: Sequence[NDArray[Any]] | None,
) -> str:
    """Compile with channels last, or as the graph is where that can't be done; return the processor in words."""
    host, why = host_target(), ""
    for way in (layout.channels_last, lambda graph: graph):
        attempt = folder / f"way-{bool(why):d}"  # a library that was loaded once is not read again by its name
        attempt.mkdir()
        try:
            module = way(graph)
            cpu, _ = compile_module(lower(module, target), target, attempt / MODEL, *specs)
            host_library = attempt / (MODEL if target == host else host_library_name())
            if target != host:
                compile_module(lower(module, host), host, host_library, *specs)
            _compare(run_library(host_library, *specs, sample), reference)
        except _TVM_ERRORS as error:
            why = one_line(error)
            print(f"left out: {why}")  # noqa: T201 -- the child's log
            continue
        for library in attempt.iterdir():
            move_file(library, folder / library.name)
        return f"{target.triple} {cpu}"
    raise ModelError(f"TVM can't compile it: {why}", next_step="convert it to a .tflite for LiteRT")


def _compare(outputs: Sequence[NDArray[Any]], reference: Sequence[NDArray[Any]] | None) -> None:
    """Raises ValueError where the library gives something else than the model."""
    for ours, theirs in zip(outputs, reference or (), strict=reference is not None):
        if ours.shape != theirs.shape:
            raise ValueError(f"gives the shape {ours.shape} where the model gives {theirs.shape}")
        most = float(np.abs(theirs.astype(np.float64)).max(initial=0.0))
        apart = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0.0))
        if not apart <= _TOLERANCE * most + 1e-6:
            raise ValueError(f"gives other values than the model: {apart:.2g} apart where the largest is {most:.2g}")


if __name__ == "__main__":
    json_child.serve(_work, GRAPH_JOBS, prepare=_prepare)
