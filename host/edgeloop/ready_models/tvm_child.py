"""The child process that compiles a model nobody built here: `python -m edgeloop.ready_models.tvm_child`.

In: an .onnx or .pt2, shapes for open dimensions, and what to do. `inspect` gives its tensors and what it costs;
`compile` a `model.so` for a processor, compared with what ONNX's own reference or torch makes of a random sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.builders.tvm import counting, layout
from edgeloop.builders.tvm.compile_child import MODEL, compile_module, lowered, run_library
from edgeloop.builders.tvm.versions import TvmTarget, on_host, this_host
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import ModelError
from edgeloop.processes import json_child
from edgeloop.ready_models.onnx import OnnxModel
from edgeloop.ready_models.tvm_torch_export import TorchProgram

_FAILED = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""What TVM raises for what it can't do."""
_TOLERANCE = 1e-3
"""Of the largest output: sums in another order differ by 1e-6 or so, a graph that was read wrongly by far more."""


def _prepare() -> None:
    """Nothing: a file that is refused is refused before TVM is imported, which takes seconds."""


def _work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Inspect, or compile. Raises ModelError, UserError."""
    path = Path(job["source"])
    kind = OnnxModel if path.suffix == ".onnx" else TorchProgram
    model = kind(path, job["shapes"], job["samples"])
    graph = layout.folded(model.imported())
    inputs = _specs(model.inputs, model.dtypes, model.shapes)
    outputs = _outputs(graph["main"], model.outputs)
    told = {
        "inputs": [spec.model_dump(mode="json") for spec in inputs],
        "outputs": [spec.model_dump(mode="json") for spec in outputs],
    }
    if job["do"] == "inspect":
        return told | {"sizes": counting.counted(graph)}
    given = _sample(inputs)
    expected = model.run(given)
    target = TvmTarget.model_validate(job["processor"])
    return told | {"processor": _compile(graph, target, Path(job["target"]), (inputs, outputs), given, expected)}


def _specs(names: Sequence[str], dtypes: Sequence[str], found: Sequence[tuple[int, ...]]) -> tuple[TensorSpec, ...]:
    """Raises ModelError for floats of other bits, which have no schedule."""
    for name, dtype in zip(names, dtypes, strict=True):
        if "float" in dtype and dtype != "float32":
            raise ModelError(f"{name} is {dtype}, which is not compiled here", next_step="export it as float32")
    return tuple(
        TensorSpec(name=name, dtype=dtype, shape=shape) for name, dtype, shape in zip(names, dtypes, found, strict=True)
    )


def _outputs(main: Any, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Raises ModelError for what no board could be asked for: a shape that depends on values, no tensor at all."""
    given = main.ret_ty
    kinds = list(given.fields) if hasattr(given, "fields") else [given]
    if len(kinds) != len(names):
        raise ModelError(f"gives {len(kinds)} tensors, and says that it gives {len(names)}")
    found = []
    for name, kind in zip(names, kinds, strict=True):
        try:
            found.append(tuple(int(size) for size in kind.shape.values))
        except (TypeError, AttributeError, ValueError) as error:
            raise ModelError(f"output {name} has no shape that is known before it runs: {kind}") from error
    return _specs(names, [str(kind.dtype) for kind in kinds], found)


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
    given: Sequence[NDArray[Any]],
    expected: Sequence[NDArray[Any]] | None,
) -> str:
    """Compile with channels last, or as the graph is where that can't be done; LLVM's name of the core."""
    here, why = this_host(), ""
    for way in (layout.channels_last, lambda graph: graph):
        made = folder / f"way-{bool(why):d}"  # a library that was loaded once is not read again by its name
        made.mkdir()
        try:
            module = way(graph)
            cpu, _ = compile_module(lowered(module, target), target, made / MODEL, *specs)
            if target != here:
                compile_module(lowered(module, here), here, made / on_host(), *specs)
            _compare(run_library(made / (MODEL if target == here else on_host()), *specs, given), expected)
        except _FAILED as error:
            why = json_child.one_line(error)
            print(f"left out: {why}")  # noqa: T201 -- the child's log
            continue
        for built in made.iterdir():
            built.replace(folder / built.name)
        return f"{target.triple} {cpu}"
    raise ModelError(f"TVM can't compile it: {why}", next_step="convert it to a .tflite for LiteRT")


def _compare(made: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]] | None) -> None:
    """Raises ValueError where the library gives something else than the model."""
    for ours, theirs in zip(made, expected or (), strict=expected is not None):
        if ours.shape != theirs.shape:
            raise ValueError(f"gives the shape {ours.shape} where the model gives {theirs.shape}")
        most = float(np.abs(theirs.astype(np.float64)).max(initial=0.0))
        apart = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0.0))
        if not apart <= _TOLERANCE * most + 1e-6:
            raise ValueError(f"gives other values than the model: {apart:.2g} apart where the largest is {most:.2g}")


if __name__ == "__main__":
    json_child.serve(_work, prepare=_prepare)
