"""M1's file run on the data once: its metrics, and what M3 is taught of it on the training samples."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.analysis.scoring import Scorer
from edgeloop.core.artifact import Artifact
from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.core.measurement import Arrays
from edgeloop.data.shapes import network_io
from edgeloop.errors import HarnessError
from edgeloop.host_runtime.tflite import predict_tflite
from edgeloop.ports import TrainedNetwork, TrainingJob, TrainingProgress
from edgeloop.processes.limits import ProcessLimits
from edgeloop.ready_models.compilation import predict_compiled
from edgeloop.ready_models.reference_file import is_compiled_file, open_reference_file
from edgeloop.training.summary import write_trained

if TYPE_CHECKING:
    from edgeloop.training.train import TeacherOutputs

_OUTPUTS = "outputs.npz"
_SECONDS_A_SAMPLE = 0.5
_PREDICT_S_MIN = 600.0
_SUM_TOLERANCE = 0.01
"""Of the sum of a row of probabilities from 1."""
_PROBABILITY_MIN = 1e-6
PROBABILITIES = "its outputs are probabilities, whose logarithms teach as logits"


def run_reference_file(
    job: TrainingJob, key: str, data: DataSet, networks: Path, report: TrainingProgress
) -> TrainedNetwork:
    """Run M1's file on validation data and, where it teaches, on training and unlabelled data; write `networks/<key>`.

    Raises UserError and its kind, ModelError, HarnessError.
    """
    from edgeloop.training.result import new_training_folder

    began = time.monotonic()
    model = open_reference_file(job.network, network_io(data, job.task))
    splits = {"validation": data.validation}
    if job.recipe.teacher == "m1":
        splits |= {"train": data.train}
        splits |= {"unlabelled": data.unlabelled} if data.unlabelled is not None else {}
    outputs = {}
    for place, (name, split) in enumerate(splits.items()):
        report("running M1 on the data", place / len(splits))
        outputs[name] = _run_on(model, split)
    scorer = Scorer(job.task)
    metrics = scorer.values(outputs["validation"], scorer.targets(data.validation.x, data.validation.y))
    note = None
    steps = {spec.name: spec.scale or 0.0 for spec in model.outputs}
    if "train" in outputs and job.task.kind == "classification" and _are_probabilities(outputs["train"], steps):
        note = PROBABILITIES
        outputs = {name: _logits(of_split, steps) for name, of_split in outputs.items()}
    network = TrainedNetwork(
        key=key,
        folder=str(networks / key),
        seconds=time.monotonic() - began,
        epochs=0,
        validation=metrics,
        note=note,
    )
    with new_training_folder(networks, key) as folder:
        arrays = {f"{name}/{n}": y for name, ys in outputs.items() if name != "validation" for n, y in ys.items()}
        if arrays:
            np.savez(folder / _OUTPUTS, **arrays)  # type: ignore[arg-type]
        write_trained(folder, network, job, [])
    return network


def read_teacher_outputs(folder: Path) -> TeacherOutputs:
    """Return what M1 gave on the samples that are taught. Raises HarnessError where it was not asked."""
    from edgeloop.training.train import TeacherOutputs

    try:
        with np.load(folder / _OUTPUTS) as file:
            arrays = dict(file)
    except (OSError, ValueError) as error:
        raise HarnessError(f"{folder / _OUTPUTS}: can't be read: {error}") from error

    def of(split: str) -> Arrays:
        return {name.partition("/")[2]: values for name, values in arrays.items() if name.startswith(f"{split}/")}

    return TeacherOutputs(of("train"), of("unlabelled") or None)


def _run_on(model: Artifact, split: DataSplit) -> dict[str, NDArray[Any]]:
    predict = predict_compiled if is_compiled_file(model) else predict_tflite
    limits = ProcessLimits(deadline_s=max(_PREDICT_S_MIN, _SECONDS_A_SAMPLE * len(split)))
    return predict(model, split.x, limits)


def _are_probabilities(outputs: Arrays, steps: Mapping[str, float]) -> bool:
    """Return whether every row of every output is nonnegative and sums to 1; quantized parts are each off by half a
    step."""
    return all(
        bool((values >= 0).all())
        and bool((np.abs(values.sum(axis=-1) - 1) <= _SUM_TOLERANCE + steps[name] / 2 * values.shape[-1]).all())
        for name, values in outputs.items()
    )


def _logits(outputs: Arrays, steps: Mapping[str, float]) -> dict[str, NDArray[Any]]:
    """Logarithms of probabilities, those that were stored as 0 taken as half a step."""
    return {
        name: np.log(np.maximum(values, max(_PROBABILITY_MIN, steps[name] / 2))).astype(np.float32)
        for name, values in outputs.items()
    }
