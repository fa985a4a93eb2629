"""Jobs of the runtime's child process and its answers, shared by both halves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from edgeloop.core.frozen import Frozen
from edgeloop.core.network import NetworkSizes
from edgeloop.core.profile import Operator
from edgeloop.core.tensors import TensorSpec
from edgeloop.host_runtime.sample_files import SampleFiles
from edgeloop.host_runtime.shapes import NO_SHAPES, InputShapes, Shape


class InspectJob(Frozen):
    do: Literal["inspect"] = "inspect"
    model: Path
    shapes: InputShapes = NO_SHAPES
    for_delegate: bool = False
    """True where it may have operators that only a delegate knows."""


class InspectAnswer(Frozen):
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    resized: bool


class CountJob(Frozen):
    """Count what a model costs for one sample."""

    do: Literal["count"] = "count"
    model: Path
    shapes: tuple[Shape, ...] | None
    """Whole shapes that the inputs are resized to; None leaves them as they are."""


class CountAnswer(Frozen):
    sizes: NetworkSizes
    lightening: str
    """The form that most of it is stored in."""


class OperatorsJob(Frozen):
    do: Literal["operators"] = "operators"
    model: Path


class OperatorsAnswer(Frozen):
    operators: int


class SplitJob(Frozen):
    """Cut a model into its operators, each a model of its own, in one .zip."""

    do: Literal["split"] = "split"
    model: Path
    parts: Path


class SplitAnswer(Frozen):
    operators: tuple[Operator, ...]
    parts: tuple[tuple[int, ...], ...]


class PredictJob(Frozen):
    do: Literal["predict"] = "predict"
    model: Path
    shapes: tuple[Shape, ...] | None
    samples: SampleFiles


class PredictAnswer(Frozen):
    """Nothing: the outputs are in the file that the job names."""


RuntimeJob = Annotated[InspectJob | CountJob | OperatorsJob | SplitJob | PredictJob, Field(discriminator="do")]
RUNTIME_JOBS: TypeAdapter[RuntimeJob] = TypeAdapter(RuntimeJob)
