"""Jobs of the TVM builder's child process and its answers, shared by both halves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from edgeloop.builders.parity import Rule
from edgeloop.builders.tvm.schedule import TileChoice
from edgeloop.builders.tvm.versions import TvmTarget
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import Frozen
from edgeloop.core.tensors import TensorSpec
from edgeloop.host_runtime.sample_files import SampleFiles


class BuildLibraryJob(Frozen):
    """Compile a .tflite, and compare what it gives with the probe of the trained network."""

    do: Literal["build"] = "build"
    model: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    target: TvmTarget
    choices: dict[str, TileChoice] | None
    """By workload, what tuning chose; None: a rule chooses all."""
    probe: Path
    rule: Rule
    folder: Path
    """Where `model.so` goes, another library for this machine where the target is not its own, and `outputs.npz` where
    the task brings its own agreement."""


class BuildLibraryAnswer(Frozen):
    artifact: Artifact
    """Its path is the model's name in the folder."""


class TimedSchedules(Frozen):
    """Every choice of one function that was timed, and the best of them."""

    best: TileChoice
    choices: tuple[TileChoice, ...]


class CandidatesJob(Frozen):
    """Compile into one library what tuning measures next of a network's functions."""

    do: Literal["candidates"] = "candidates"
    model: Path
    target: TvmTarget
    timings: dict[str, TimedSchedules]
    """By workload."""
    trials: int
    candidates_max: int
    folder: Path
    """Where `candidates.so` goes."""


class ScheduleCandidate(Frozen):
    """One function in one schedule."""

    workload: str
    function: str
    choice: TileChoice
    symbol: str | None
    """Its name in the library; None where the choice gives no schedule."""


class CandidatesAnswer(Frozen):
    candidates: tuple[ScheduleCandidate, ...]
    """In the order of the library."""
    workloads: tuple[str, ...]
    """Of the network's functions that can be tuned."""


class RunLibraryJob(Frozen):
    """Run a library for this machine on samples."""

    do: Literal["predict"] = "predict"
    library: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    samples: SampleFiles


TvmJob = Annotated[BuildLibraryJob | CandidatesJob | RunLibraryJob, Field(discriminator="do")]
TVM_JOBS: TypeAdapter[TvmJob] = TypeAdapter(TvmJob)
