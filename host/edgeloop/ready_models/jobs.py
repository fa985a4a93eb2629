"""Jobs of the child processes that convert or compile ready models and their answers, shared by both halves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from edgeloop.builders.tvm.versions import TvmTarget
from edgeloop.core.frozen import Frozen
from edgeloop.core.network import NetworkSizes
from edgeloop.core.tensors import TensorSpec
from edgeloop.host_runtime.shapes import InputShapes


class ConvertJob(Frozen):
    """Convert a file to a .tflite."""

    source: Path
    model: Path
    """Where the .tflite goes."""
    form: str
    shapes: InputShapes
    calibration: Path | None
    """An .npz of samples by the names of the data, for the forms that need them."""


class ConvertAnswer(Frozen):
    inputs: tuple[str, ...]
    """The file's own names, in their order."""
    outputs: tuple[str, ...]
    bytes_before_strip: int


class InspectGraphJob(Frozen):
    """Open a file as TVM's graph."""

    do: Literal["inspect"] = "inspect"
    source: Path
    shapes: InputShapes


class InspectGraphAnswer(Frozen):
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sizes: NetworkSizes


class CompileGraphJob(Frozen):
    """Compile a file for a processor."""

    do: Literal["compile"] = "compile"
    source: Path
    shapes: InputShapes
    target: TvmTarget
    folder: Path
    """Where `model.so` goes, and another library for this machine where the target is not its own."""


class CompileGraphAnswer(Frozen):
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    processor: str
    """As an artifact's tools have it."""


GraphJob = Annotated[InspectGraphJob | CompileGraphJob, Field(discriminator="do")]
GRAPH_JOBS: TypeAdapter[GraphJob] = TypeAdapter(GraphJob)
