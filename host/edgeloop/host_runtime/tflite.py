"""Ready models: what a .tflite takes and gives, read in a child process, and its outputs on this host.

A file that is cut short or hostile can crash the runtime, so the controller's process never opens one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel

from edgeloop.core.artifact import Artifact
from edgeloop.core.measurement import Arrays
from edgeloop.core.network import NetworkSizes
from edgeloop.core.profile import Parts
from edgeloop.errors import DataError, HarnessError, ModelError, UserError
from edgeloop.host_runtime.jobs import (
    CountAnswer,
    CountJob,
    InspectAnswer,
    InspectJob,
    OperatorsAnswer,
    OperatorsJob,
    PredictAnswer,
    PredictJob,
    SplitAnswer,
    SplitJob,
)
from edgeloop.host_runtime.model_files import DESCRIPTION, read_description
from edgeloop.host_runtime.sample_files import SampleFiles, read_samples, write_samples
from edgeloop.host_runtime.shapes import NO_SHAPES, InputShapes
from edgeloop.processes.files import sha256_of
from edgeloop.processes.json_child import ChildError, faults_at, python_module, run_in_child
from edgeloop.processes.limits import ProcessLimits

INSPECT_LIMITS: Final = ProcessLimits(deadline_s=30.0)
PREDICT_LIMITS: Final = ProcessLimits(deadline_s=600.0)
_RUNTIME = python_module("edgeloop.host_runtime.litert_child")
_IDENTIFIER = b"TFL3"

_Answer = TypeVar("_Answer", bound=BaseModel)


def read_tflite(
    path: Path,
    shapes: InputShapes = NO_SHAPES,
    *,
    for_delegate: bool = False,
    limits: ProcessLimits = INSPECT_LIMITS,
) -> Artifact:
    """Return what is known of a ready .tflite: hash, bytes, and its inputs and outputs by name.

    Names come from the signature where there is one, else from the tensors, else from their positions. Dynamic
    dimensions take what `shapes` say of inputs by name, or else the shape of one sample of the data; a batch that
    neither says is 1. A file `for_delegate` may have operators that only the delegate knows: it is then described, and
    not prepared to run.
    Raises UserError where there is no such file, or no such input, ModelError where it is no usable model.
    """
    _check_readable(path)
    if not is_tflite(path):
        empty = path.stat().st_size == 0
        raise ModelError(
            f"{path}: not a .tflite file" + (" (it is empty)" if empty else " (bytes 4 to 8 are not TFL3)"),
            next_step="give a model that the TFLite or LiteRT converter wrote",
        )
    job = InspectJob(model=path.resolve(), shapes=shapes, for_delegate=for_delegate)
    try:
        with faults_at(str(path)):
            answer = _ask(_RUNTIME, job, InspectAnswer, limits)
    except ChildError as failure:
        raise ModelError(
            f"{path}: damaged or hostile: the process that loaded it {failure.message}",
            next_step="compare its hash with the original's",
        ) from failure
    return Artifact(
        path=str(path.resolve()),
        sha256=sha256_of(path),
        deployed_bytes=path.stat().st_size,
        inputs=answer.inputs,
        outputs=answer.outputs,
        resized=answer.resized,
    )


def read_library(path: Path) -> Artifact:
    """Return what is known of a model.so that edgeloop built: from `artifact.json` beside it, never by loading it.

    Raises UserError where there is no such file, ModelError where it is not the file that its description is of.
    """
    _check_readable(path)
    step = "keep model.so and artifact.json together, as a run puts them out in best/"
    description = path.with_name(DESCRIPTION)
    try:
        artifact = read_description(path.parent)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no {DESCRIPTION} beside it", next_step=step) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{description}: can't be read as the description of a built model", next_step=step) from error
    if sha256_of(path) != artifact.sha256:
        raise ModelError(f"{description}: describes another file than {path.name}", next_step=step)
    return artifact.model_copy(update={"path": str(path.resolve()), "deployed_bytes": path.stat().st_size})


def predict_tflite(
    artifact: Artifact, inputs: Arrays, limits: ProcessLimits = PREDICT_LIMITS
) -> dict[str, NDArray[Any]]:
    """Return the outputs of a .tflite on this host by name, (n, ...), dequantized to float32.

    Same dtype goes in raw, float is quantized by the tensor's own scale. Raises DataError where the arrays don't fit,
    ModelError where the model can't be loaded, HarnessError where running it crashes or takes too long.
    """

    def job(samples: SampleFiles) -> PredictJob:
        return PredictJob(model=Path(artifact.path), shapes=artifact.resized_to, samples=samples)

    return predict_in_child(_RUNTIME, job, artifact, inputs, limits)


def predict_in_child(
    command: Sequence[str],
    job: Callable[[SampleFiles], BaseModel],
    artifact: Artifact,
    inputs: Arrays,
    limits: ProcessLimits = PREDICT_LIMITS,
) -> dict[str, NDArray[Any]]:
    """Give a child a job with the samples, and return the outputs by name; raises as `predict_tflite`."""
    missing = [spec.name for spec in artifact.inputs if spec.name not in inputs]
    if missing:
        raise DataError(f"{artifact.path}: no data for input {', '.join(missing)}; given: {', '.join(inputs)}")
    with tempfile.TemporaryDirectory(prefix="edgeloop-predict-") as name:
        samples = SampleFiles(inputs=Path(name) / "inputs.npz", outputs=Path(name) / "outputs.npz")
        write_samples(samples.inputs, [inputs[spec.name] for spec in artifact.inputs])
        try:
            with faults_at(artifact.path):
                _ask(command, job(samples), PredictAnswer, limits)
        except ChildError as failure:
            raise HarnessError(
                f"{artifact.path}: running it on this host: the process {failure}",
                next_step=failure.more and f"{failure.more} gives it more",
            ) from failure
        return dict(zip((spec.name for spec in artifact.outputs), read_samples(samples.outputs), strict=True))


def split_tflite(artifact: Artifact, path: Path, limits: ProcessLimits = PREDICT_LIMITS) -> Parts:
    """Cut a .tflite into its operators, each a model of its own, into a .zip. Equal models give equal bytes.

    Raises ModelError where it can't be run operator by operator, HarnessError where cutting crashes or takes too long.
    """
    job = SplitJob(model=Path(artifact.path), parts=path)
    answer = _ask_about(artifact, "cutting it into its operators", job, SplitAnswer, limits)
    return Parts(path=str(path), sha256=sha256_of(path), operators=answer.operators, parts=answer.parts)


def count_tflite(artifact: Artifact, limits: ProcessLimits = PREDICT_LIMITS) -> tuple[NetworkSizes, str]:
    """Return what a .tflite costs, counted on its own graph for one sample, and the lightening that it is stored in.

    Raises ModelError where it has nothing to count, HarnessError where counting crashes or takes too long.
    """
    job = CountJob(model=Path(artifact.path), shapes=artifact.resized_to)
    answer = _ask_about(artifact, "counting its operators", job, CountAnswer, limits)
    return answer.sizes, answer.lightening


def count_operators(artifact: Artifact, limits: ProcessLimits = INSPECT_LIMITS) -> int:
    """Return how many operators a .tflite has. Raises ModelError, HarnessError where looking crashes."""
    job = OperatorsJob(model=Path(artifact.path))
    return _ask_about(artifact, "reading its operators", job, OperatorsAnswer, limits).operators


def is_tflite(path: Path) -> bool:
    """Return whether a file begins as a .tflite does."""
    with path.open("rb") as handle:
        return handle.read(8)[4:] == _IDENTIFIER


def _check_readable(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path}: is a folder, and no SavedModel", next_step="name the model's file in it")
    try:
        path.open("rb").close()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from error


def _ask_about(artifact: Artifact, what: str, job: BaseModel, answer: type[_Answer], limits: ProcessLimits) -> _Answer:
    """The runtime child's answer about a model. Raises HarnessError where it crashes or takes too long, and what it
    reports."""
    try:
        with faults_at(artifact.path):
            return _ask(_RUNTIME, job, answer, limits)
    except ChildError as failure:
        raise HarnessError(f"{artifact.path}: {what}: the process {failure}") from failure


def _ask(command: Sequence[str], job: BaseModel, answer: type[_Answer], limits: ProcessLimits) -> _Answer:
    with tempfile.TemporaryDirectory(prefix="edgeloop-runtime-") as name:
        return run_in_child(command, job, answer, Path(name), limits)
