"""Keys of networks and trainings, chained: equal keys stand for equal bytes. No torch."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from edgeloop.core.campaign import Data, Task, Training
from edgeloop.core.frozen import key_of
from edgeloop.core.lightening import Lightening
from edgeloop.core.model_format import ModelFormat
from edgeloop.core.network import NetworkSpec
from edgeloop.errors import MissingExtraError, UserError
from edgeloop.ports import TrainingJob
from edgeloop.processes.files import sha256_of

_METHOD = 3
"""Raised whenever this room would train the same job to other weights or write other files."""


def network_key(network: NetworkSpec, channel_multiple: int) -> str:
    """The key of an untrained network: source, size, seed, weights to start from; not where its files lie."""
    plain = network.model_dump(mode="json")
    if network.source_sha256 is not None and network.factory is not None:
        plain["factory"] = network.factory.rpartition(":")[2]
    if network.weights_sha256 is not None:
        plain["weights"] = None
    if network.file_sha256 is not None:
        plain["file"] = None
    return key_of("network", plain, channel_multiple)


def training_key(job: TrainingJob) -> str:
    """The key of a training. Parents and teachers are named by their folders, which are named by their keys.

    Raises MissingExtraError where torch is not installed, UserError where a file that the task names is missing.
    """
    if job.network.file is not None:
        return _fixed_key(job, job.network.file)
    packages = ["torch"] + (["torch-pruning"] if Lightening.parse(job.lightening).pruned_pct else [])
    try:
        versions = [metadata.version(package) for package in packages]
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(str(error.name), "train", "training") from error
    return key_of(
        "training",
        _METHOD,
        network_key(job.network, job.channel_multiple),
        job.lightening,
        _task_parts(job.task),
        job.data_sha256,
        _recipe_parts(job),
        Path(job.parent).name if job.parent else None,
        Path(job.widened_from).name if job.widened_from else None,
        Path(job.teacher).name if job.teacher else None,
        Path(job.goes_on_from).name if job.goes_on_from else None,
        versions,
    )


def _fixed_key(job: TrainingJob, file: str) -> str:
    """The key of M1's outputs on the data, where it is a file: on training data too where it teaches."""
    return key_of(
        "fixed",
        _METHOD,
        network_key(job.network, job.channel_multiple),
        _task_parts(job.task),
        job.data_sha256,
        job.recipe.teacher == "m1",
        *_runner_of(file),
    )


def _runner_of(file: str) -> list[str]:
    """Versions of what runs M1's file on this host. Raises MissingExtraError."""
    model_format = ModelFormat.of(Path(file)) or ModelFormat.TFLITE
    extras = {package.name: package.extra for package in model_format.row.runtime}
    try:
        return [metadata.version(package) for package in extras]
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(str(error.name), extras[str(error.name)], "running M1") from error


def sizes_key(network: NetworkSpec, task: Task, data: Data, channel_multiple: int) -> str:
    """The key of what a network would cost on these data."""
    return key_of("sizes", network_key(network, channel_multiple), task, data)


def _task_parts(task: Task) -> dict[str, object]:
    """The task with the digest of each file that it names instead of the file's place."""
    parts: dict[str, object] = {"kind": task.kind, "loss": _code(task.loss), "distillation": _code(task.distillation)}
    parts["metrics"] = {name: _code(reference) for name, reference in task.metrics.items()}
    return parts


def _code(reference: str | None) -> list[str] | None:
    if reference is None:
        return None
    file, _, name = reference.rpartition(":")
    try:
        return [sha256_of(Path(file)), name]
    except OSError as error:
        raise UserError(f"{file}: can't be read: {error.strerror}", next_step=f"it is named as {reference}") from error


def _recipe_parts(job: TrainingJob) -> dict[str, object]:
    """The part of the recipe that bears on this job, so that another distillation weight does not train M1 anew."""
    recipe: Training = job.recipe
    is_lightened = job.lightening != "fp32"
    trained_float = job.parent is None and job.network.weights is None
    fine = is_lightened or job.parent is not None or job.teacher is not None
    parts: dict[str, object] = {"batch": recipe.batch, "seed": recipe.seed}
    if job.widened_from is not None:
        parts |= {"epochs_widened": recipe.epochs_widened, "rate_widened": recipe.lightened_learning_rate}
    elif trained_float:
        parts |= {"epochs": recipe.epochs, "learning_rate": recipe.learning_rate}
    if trained_float or not is_lightened:
        parts |= {"precision": recipe.precision}
    if fine:
        epochs = recipe.epochs_fine_tuned if job.goes_on_from else recipe.epochs_lightened
        parts |= {"epochs_lightened": epochs, "rate_lightened": recipe.lightened_learning_rate}
    if recipe.patience is not None:
        parts |= {"patience": recipe.patience}
    if recipe.device != "cpu":
        parts |= {"device": recipe.device}
    if job.teacher is not None:
        parts |= {"temperature": recipe.temperature}
        if is_lightened:
            parts |= {"distillation_weight": recipe.distillation_weight, "schedule": recipe.schedule}
        else:
            parts |= {"m1_distillation_weight": recipe.m1_distillation_weight}
    return parts
