"""Ready models that TVM compiles: ONNX files, and archives of torch.export. The parent's half.

What is measured depends on the board: a file is inspected first, and compiled once its processor is known. What is
compiled is kept by content, shapes, processor and versions of the tools; files are opened in child processes only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from edgeloop.builders.tvm import versions
from edgeloop.builders.tvm.builder import predict_library
from edgeloop.builders.tvm.processor import this_processor
from edgeloop.builders.tvm.versions import MODEL, TvmTarget
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays
from edgeloop.core.model_format import Compiler, ModelFormat, Reader
from edgeloop.core.network import NetworkSizes
from edgeloop.errors import BuildError, DataError, UserError
from edgeloop.host_runtime.model_files import digest
from edgeloop.host_runtime.shapes import NO_SHAPES, InputShapes, is_channels_first
from edgeloop.processes.files import sha256_of
from edgeloop.processes.json_child import ChildError, faults_at, python_module, run_in_child
from edgeloop.processes.limits import DEFAULT_LIMITS, ProcessLimits
from edgeloop.ready_models.jobs import CompileGraphAnswer, CompileGraphJob, InspectGraphAnswer, InspectGraphJob
from edgeloop.ready_models.model_cache import cache_root, find_or_make

_CHILD = python_module("edgeloop.ready_models.compile_model_child")
_READER_VERSIONS: Mapping[Reader, Callable[[str], dict[str, str]]] = {
    Reader.ONNX: versions.onnx_versions,
    Reader.TORCH: versions.torch_versions,
}
"""Of a purpose; each raises MissingExtraError."""

_Answer = TypeVar("_Answer", bound=BaseModel)


def compilation_cache() -> Path:
    """The folder of compiled files, for every run and command of this user."""
    return cache_root("compiled")


def inspect_model(
    path: Path, shapes: InputShapes = NO_SHAPES, limits: ProcessLimits = DEFAULT_LIMITS
) -> tuple[Artifact, NetworkSizes]:
    """Return what a file takes and gives, and what it costs for one sample; nothing is compiled, and it stays as it is.

    Raises MissingExtraError where the toolchain is not installed, UserError, ModelError for a file that TVM can't
    compile, BuildError where the toolchain crashes or takes too long.
    """
    _tools(path)
    sha256 = digest(path)
    with tempfile.TemporaryDirectory(prefix="edgeloop-inspect-") as name:
        job = InspectGraphJob(source=path.resolve(), shapes=shapes)
        answer = _ask(path, job, InspectGraphAnswer, Path(name), limits)
    artifact = Artifact(
        path=str(path.resolve()),
        sha256=sha256,
        deployed_bytes=path.stat().st_size,
        inputs=answer.inputs,
        outputs=answer.outputs,
    )
    return artifact, answer.sizes


def compile_model(
    path: Path, shapes: InputShapes, target: TvmTarget, cache: Path, limits: ProcessLimits = DEFAULT_LIMITS
) -> Artifact:
    """Compile a file for a processor, or find it compiled below `cache`: `model.so`, and another library for this
    machine where the processor is not its own. Names of inputs and outputs are the file's own. Raises as
    `inspect_model`.
    """
    tools = _tools(path)
    key = key_of(
        "compiled",
        versions.FORMAT,
        digest(path),
        shapes.inputs,
        shapes.samples,
        target,
        this_processor(),
        tools,
    )

    def make(folder: Path) -> Artifact:
        job = CompileGraphJob(source=path.resolve(), shapes=shapes, target=target, folder=folder)
        answer = _ask(path, job, CompileGraphAnswer, folder, limits)
        library = folder / MODEL
        return Artifact(
            path=str(library),
            sha256=sha256_of(library),
            deployed_bytes=library.stat().st_size,
            inputs=answer.inputs,
            outputs=answer.outputs,
            tools=tools | {"processor": answer.processor},
            converted_from=str(path.resolve()),
        )

    return find_or_make(path, cache / key, make)


def predict_compiled(
    artifact: Artifact, inputs: Arrays, limits: ProcessLimits = DEFAULT_LIMITS
) -> dict[str, NDArray[Any]]:
    """Return the outputs of a compiled model on this host by name, (n, ...), for channel-last samples.

    Raises DataError where the arrays don't fit, HarnessError where running it crashes or takes too long.
    """
    arrays = {
        spec.name: _as_model_takes(artifact, spec.name, inputs) for spec in artifact.inputs if spec.name in inputs
    }
    return predict_library(artifact, arrays, limits)


def _as_model_takes(artifact: Artifact, name: str, inputs: Arrays) -> NDArray[Any]:
    """Channels first where the model has them so, floats in its own bits."""
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
    """Versions of what reads and compiles a file. Raises MissingExtraError, UserError for a file of another format."""
    model_format = ModelFormat.of(path)
    if model_format is None or model_format.row.compiler is not Compiler.TVM:
        raise UserError(f"{path}: no model that TVM compiles")
    return versions.tool_versions() | _READER_VERSIONS[model_format.row.reader](f"reading {path.name}")


def _ask(path: Path, job: BaseModel, answer: type[_Answer], folder: Path, limits: ProcessLimits) -> _Answer:
    try:
        with faults_at(str(path)):
            return run_in_child(_CHILD, job, answer, folder, limits, log="build.log")
    except ChildError as failure:
        raise BuildError(
            f"{path}: reading it with TVM: the process {failure}",
            next_step=failure.more and f"in a campaign {failure.more} gives it more",
        ) from failure
