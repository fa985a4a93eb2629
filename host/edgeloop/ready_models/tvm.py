"""Ready models that TVM compiles: ONNX files, and archives of torch.export. The parent's half.

What is measured depends on the board: a file is inspected first, and compiled once its processor is known. What is
compiled is kept by content, shapes, processor and versions of the tools; files are opened in child processes only.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from edgeloop.builders.tvm import versions
from edgeloop.builders.tvm.builder import CHILD, running
from edgeloop.builders.tvm.compile_child import MODEL
from edgeloop.builders.tvm.processor import this_processor
from edgeloop.builders.tvm.versions import TvmTarget
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays
from edgeloop.core.network import NetworkSizes
from edgeloop.errors import BuildError, DataError
from edgeloop.host_runtime.model_files import ONNX, digest
from edgeloop.host_runtime.shapes import is_channels_first
from edgeloop.host_runtime.tflite import predict_in_child
from edgeloop.processes.json_child import ChildError, ChildProcess, python_module, raise_told
from edgeloop.ready_models.converted import Conversion, kept

_CHILD = python_module("edgeloop.ready_models.tvm_child")
_DEADLINE_S = 900.0
_SUFFIXES = (ONNX, ".pt2")


def is_compilable(path: Path) -> bool:
    """Whether TVM compiles this format."""
    return path.suffix in _SUFFIXES


def compiled_root() -> Path:
    """Where compiled files are kept, for every run and command of this user."""
    return user_cache_path("edgeloop") / "compiled"


def inspected(
    path: Path, asked: Conversion, *, deadline_s: float = _DEADLINE_S, memory_max_bytes: int | None = None
) -> tuple[Artifact, NetworkSizes]:
    """What a file takes and gives, and what it costs for one sample; nothing is compiled, and it stays as it is.

    Raises MissingExtraError where the toolchain is not installed, UserError, ModelError for a file that TVM can't
    compile, BuildError where the toolchain crashes or takes too long.
    """
    _tools(path)
    sha256 = digest(path)
    with tempfile.TemporaryDirectory(prefix="edgeloop-inspect-") as name:
        answer = _ask(path, _job("inspect", path, asked), Path(name), deadline_s, memory_max_bytes)
    found = Artifact(
        path=str(path.resolve()),
        sha256=sha256,
        deployed_bytes=path.stat().st_size,
        inputs=answer["inputs"],
        outputs=answer["outputs"],
    )
    return found, NetworkSizes.model_validate(answer["sizes"])


def compiled(
    path: Path,
    asked: Conversion,
    target: TvmTarget,
    root: Path,
    *,
    deadline_s: float = _DEADLINE_S,
    memory_max_bytes: int | None = None,
) -> Artifact:
    """Compile a file for a processor, or find it compiled below `root`: `model.so`, and another library for this
    machine where the processor is not its own. Names of inputs and outputs are the file's own. Raises as `inspected`.
    """
    tools = _tools(path)
    key = key_of(
        "compiled",
        versions.FORMAT,
        digest(path),
        {name: list(shape) for name, shape in asked.shapes.items()},
        {name: list(shape) for name, shape in asked.samples.items()},
        target,
        this_processor(),
        tools,
    )

    def compile_in(folder: Path) -> Artifact:
        job = _job("compile", path, asked) | {"processor": target.model_dump(), "target": str(folder)}
        answer = _ask(path, job, folder, deadline_s, memory_max_bytes)
        content = (folder / MODEL).read_bytes()
        return Artifact(
            path=str(folder / MODEL),
            sha256=hashlib.sha256(content).hexdigest(),
            deployed_bytes=len(content),
            inputs=answer["inputs"],
            outputs=answer["outputs"],
            tools=tools | {"processor": answer["processor"]},
            converted_from=str(path.resolve()),
        )

    return kept(path, root / key, compile_in)


def predict_compiled(
    artifact: Artifact, inputs: Arrays, *, deadline_s: float = _DEADLINE_S, memory_max_bytes: int | None = None
) -> dict[str, NDArray[Any]]:
    """Return the outputs of a compiled model on this host by name, (n, ...), for channel-last samples.

    Raises DataError where the arrays don't fit, HarnessError where running it crashes or takes too long.
    """
    given = {spec.name: _given(artifact, spec.name, inputs) for spec in artifact.inputs if spec.name in inputs}
    return predict_in_child(
        CHILD, running(artifact), artifact, given, deadline_s=deadline_s, memory_max_bytes=memory_max_bytes
    )


def _given(artifact: Artifact, name: str, inputs: Arrays) -> NDArray[Any]:
    """As the model takes it: channels first where it has them so, floats in its own bits."""
    spec, values = next(spec for spec in artifact.inputs if spec.name == name), inputs[name]
    if is_channels_first(spec.shape, values.shape[1:]):
        values = np.moveaxis(values, -1, 1)
    if values.shape[1:] != spec.shape[1:]:
        raise DataError(
            f"{artifact.path}: input {name} takes samples of shape {spec.shape[1:]}, not {values.shape[1:]}"
        )
    if values.dtype == spec.dtype:
        return values
    if values.dtype.kind != "f" or np.dtype(spec.dtype).kind != "f":
        raise DataError(f"{artifact.path}: input {name} takes {spec.dtype}, the data are {values.dtype}")
    return values.astype(spec.dtype)


def _tools(path: Path) -> dict[str, str]:
    """Raises MissingExtraError."""
    return versions.tool_versions() | (
        versions.onnx_versions(f"reading {path.name}")
        if path.suffix == ONNX
        else versions.torch_versions(f"reading {path.name}")
    )


def _job(what: str, path: Path, asked: Conversion) -> dict[str, Any]:
    return {
        "do": what,
        "source": str(path.resolve()),
        "shapes": {name: list(shape) for name, shape in asked.shapes.items()},
        "samples": {name: list(shape) for name, shape in asked.samples.items()},
    }


def _ask(
    path: Path, job: Mapping[str, Any], folder: Path, deadline_s: float, memory_max_bytes: int | None
) -> dict[str, Any]:
    log, result = folder / "build.log", folder / "result.json"
    try:
        answer = ChildProcess(_CHILD, log, memory_max_bytes).finish(job, result, deadline_s)
    except ChildError as failure:
        raise BuildError(
            f"{path}: reading it with TVM: the process {failure}",
            next_step=failure.more and f"in a campaign {failure.more} gives it more",
        ) from failure
    result.unlink()
    raise_told(answer, str(path))
    return answer
