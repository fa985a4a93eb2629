"""The work of the training process: the one place where networks, data and training meet.

`edgeloop.training.training_child` loads this module by name and calls its functions, one at a time.
"""

from __future__ import annotations

import functools
import pickle
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.core.campaign import Data, Task
from edgeloop.core.dataset import DataSet
from edgeloop.core.network import NetworkIO, NetworkSizes, NetworkSpec
from edgeloop.errors import DataError, HarnessError
from edgeloop.ports import TrainedNetwork, TrainingJob, TrainingProgress
from edgeloop.ready_models.reference_file import count_reference_file
from edgeloop.ready_models.reference_outputs import read_teacher_outputs, run_reference_file
from edgeloop.training.key import training_key
from edgeloop.training.summary import read_trained
from edgeloop.training.train import TeacherOutputs, TrainableNetwork
from edgeloop.training.train import train as run_training

if TYPE_CHECKING:
    import torch

    from edgeloop.models.channel_last import BuiltNetwork


def prepare(threads: int) -> None:
    """Set torch up for equal results from equal jobs."""
    import torch

    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)  # noqa: FBT003 -- torch's own signature
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # for finding faults, at each allocation


def train(job: TrainingJob, networks: Path, report: TrainingProgress) -> TrainedNetwork:
    """Train a job, or find it done. Raises UserError (the user's code, data or recipe) or HarnessError."""
    from edgeloop.data import network_io
    from edgeloop.models.channel_last import BuiltNetwork

    key = training_key(job)
    earlier = read_trained(networks / key)
    if earlier is not None:
        return earlier[0]
    report("loading data", 0.0)
    data = _data(job.data)
    if data.sha256 != job.data_sha256:
        raise DataError("the data changed since this run began", next_step="start a new run, or put the old data back")
    if job.network.file is not None:
        return run_reference_file(job, key, data, networks, report)
    subject = _subject(job.network, job, data, job.parent)
    if job.widened_from is not None:
        small = _trained_subject(job.widened_from, data)
        assert isinstance(small.network, BuiltNetwork)
        assert isinstance(subject.network, BuiltNetwork)
        _widen(small.network, subject.network, network_io(data, job.task), job.network)
        subject = replace(subject, has_weights=True)
    teacher = _teacher(job.teacher, data) if job.teacher is not None else None
    return run_training(job, key, subject, teacher, data, networks, report)


def describe(network: NetworkSpec, task: Task, data: Data, channel_multiple: int) -> NetworkSizes:
    """Return the sizes of a network.

    Raises UserError where it can't be built or exported, ModelError where channels are to be removed and can't be.
    """
    from edgeloop.data import network_io
    from edgeloop.models.build import build_network
    from edgeloop.models.describe import describe as sizes
    from edgeloop.training.prune import prune

    io = network_io(_data(data), task)
    if network.file is not None:
        return count_reference_file(network, io)

    def change(whole: BuiltNetwork) -> BuiltNetwork:
        if network.widened_from is not None:  # with any weights: a refusal is known before M1 is trained
            _widen(build_network(_widened_spec(network), io, channel_multiple), whole, io, network)
        return prune(whole, _zeros(whole, io), network.pruned_pct, channel_multiple) if network.pruned_pct else whole

    return sizes(network, io, channel_multiple, change)


def _widened_spec(network: NetworkSpec) -> NetworkSpec:
    """The network that a wider one is widened from."""
    assert network.widened_from is not None
    return network.model_copy(update={"width": network.widened_from, "widened_from": None, "pruned_pct": 0})


def _widen(small: BuiltNetwork, wide: BuiltNetwork, io: NetworkIO, network: NetworkSpec) -> None:
    from edgeloop.models.widen import widen

    widen(small, wide, io, seed=network.seed, source=network.factory or f"family {network.family!r}")


def _zeros(network: BuiltNetwork, io: NetworkIO) -> list[torch.Tensor]:
    """Two samples of zeros, in the order of the network's arguments."""
    import torch

    shapes = {tensor.name: tensor for tensor in io.inputs}
    inputs = [shapes[name] for name in network.signature.inputs]
    return [torch.zeros(2, *tensor.shape, dtype=getattr(torch, tensor.dtype)) for tensor in inputs]


@functools.lru_cache(maxsize=1)
def _data(data: Data) -> DataSet:
    from edgeloop.data import load

    return load(data)


def _teacher(folder: str, data: DataSet) -> TrainableNetwork | TeacherOutputs:
    """The network that was trained in a folder, or the outputs of an M1 that is a file."""
    earlier = read_trained(Path(folder))
    if earlier is not None and earlier[1].network.file is not None:
        return read_teacher_outputs(Path(folder))
    return _trained_subject(folder, data)


def _trained_subject(folder: str, data: DataSet) -> TrainableNetwork:
    """The float network that was trained in a folder. Raises HarnessError where none was."""
    earlier = read_trained(Path(folder))
    if earlier is None:
        raise HarnessError(f"{folder}: the folder has no finished training in it")
    return _subject(earlier[1].network, earlier[1], data, folder)


def _subject(spec: NetworkSpec, job: TrainingJob, data: DataSet, folder: str | None) -> TrainableNetwork:
    """Build a network; with a folder, with the float weights that were trained there."""
    import torch

    from edgeloop.data import network_io
    from edgeloop.models.build import build_network

    if folder is not None:  # its weights replace those that the specification names
        spec = spec.model_copy(update={"weights": None, "weights_sha256": None})
    network = build_network(spec, network_io(data, job.task), job.channel_multiple)
    if folder is not None:
        file = Path(folder) / "weights.pt"
        try:
            network.network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise HarnessError(f"{file}: does not fit the network that it was trained as: {error}") from error
    return TrainableNetwork(
        network, network.network, network.signature, has_weights=folder is not None or spec.weights is not None
    )
