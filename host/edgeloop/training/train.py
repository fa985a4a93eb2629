"""One training from start to folder: float, or with fake quantization from a float network's weights.

What trains is what is exported: a lightened network is trained as the folded graph with fake quantizers on every
tensor that the runtime quantizes, and that same graph, quantizers taken out and weights on their grids, is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from edgeloop.core.dataset import DataSet
from edgeloop.core.lightening import Lightening
from edgeloop.core.network import NetworkSignature
from edgeloop.measure.scoring import Scorer
from edgeloop.ports import TrainedNetwork, TrainingJob
from edgeloop.training.fit import Course, Epoch, Samples, Teaching, arrays, fit, fitting_threads, predict
from edgeloop.training.graph import exported_graph
from edgeloop.training.insert import FakeQuantized
from edgeloop.training.objective import Objective
from edgeloop.training.quantizers import Phase
from edgeloop.training.result import ProbeInputs, unpublished, write_result
from edgeloop.training.summary import write_trained

_EXPORT_BATCH = 4
_FREEZE_AT = 2 / 3
"""Share of the steps after which ranges stay as they are."""

Report = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """A network to be trained, in the data's own terms: channel-last inputs and outputs, in this order."""

    network: nn.Module
    """Takes and returns tensors in the order of `signature`."""
    weights_of: nn.Module
    """The part of it whose state dict is kept: the user's own module."""
    signature: NetworkSignature
    started: bool
    """Whether it brings weights that it starts from."""


def train(
    job: TrainingJob, key: str, subject: Subject, teacher: Subject | None, data: DataSet, networks: Path, report: Report
) -> TrainedNetwork:
    """Train, evaluate on validation data, and write `networks/<key>`.

    A float network that brings weights is only evaluated, unless the job has a parent or a teacher. Raises UserError
    (the user's code, data or recipe), HarnessError.
    """
    run = _Run(job, subject, teacher, data, report)
    with fitting_threads(subject.network, run.train, job.recipe.batch):
        return _trained(job, key, subject, run, ProbeInputs.of(data, subject.signature), networks)


def _trained(
    job: TrainingJob, key: str, subject: Subject, run: _Run, probe: ProbeInputs, networks: Path
) -> TrainedNetwork:
    began = time.monotonic()
    epochs: list[Epoch] = run.float_epochs()
    float_metrics = run.metrics(subject.network)
    weights = {name: value.detach().clone() for name, value in subject.weights_of.state_dict().items()}
    graph = exported_graph(subject.network, [x[:_EXPORT_BATCH] for x in run.train.inputs])
    fake = FakeQuantized(graph, Lightening.parse(job.lightening))
    lightened = None
    if job.lightening != "fp32":
        epochs += run.lightened_epochs(fake)
        lightened = run.metrics(fake.module)
    inputs = [torch.from_numpy(probe.inputs[name]) for name in subject.signature.inputs]
    outputs = arrays(predict(fake.module, subject.signature.outputs, inputs))
    trained = TrainedNetwork(
        key=key,
        folder=str(networks / key),
        seconds=time.monotonic() - began,
        epochs=len(epochs),
        validation=float_metrics,
        lightened=lightened,
    )
    with unpublished(networks, key) as made:
        write_result(
            made,
            fake.to_float(),
            lightening=fake.lightening,
            signature=subject.signature,
            probe=probe,
            outputs=outputs,
            activations=fake.activations,
            layers=fake.layers,
            weights=weights,
        )
        write_trained(made, trained, job, [asdict(epoch) for epoch in epochs])
    return trained


class _Run:
    """The pieces of one job that float and lightened training share."""

    def __init__(
        self, job: TrainingJob, subject: Subject, teacher: Subject | None, data: DataSet, report: Report
    ) -> None:
        reconstruct = job.task.kind == "autoencoder"
        self._job = job
        self._subject = subject
        self._data = data
        self._report = report
        self._scorer = Scorer(job.task)
        self._objective = Objective(job.task, temperature=job.recipe.temperature, taught=teacher is not None)
        self.train = Samples.of(data.train, subject.signature, reconstruct=reconstruct)
        self._validation = Samples.of(data.validation, subject.signature, reconstruct=reconstruct)
        self._calibration = Samples.of(data.calibration, subject.signature, reconstruct=reconstruct)
        self._teaching = self._taught_by(teacher) if teacher is not None else None

    def float_epochs(self) -> list[Epoch]:
        """Train the float network where the job asks for it: it has no weights yet, or is to be trained further."""
        recipe, lightened = self._job.recipe, self._job.lightening != "fp32"
        if not self._subject.started:
            course = Course(recipe.epochs, recipe.batch, recipe.learning_rate, recipe.seed, "learning_rate")
        elif not lightened and (self._job.parent is not None or self._teaching is not None):
            course = self._fine_course()
        else:
            self._subject.network.eval()
            return []
        network = self._subject.network.train()
        teaching = None if lightened else self._teaching
        history = fit(
            network,
            self._subject.signature.outputs,
            self.train,
            self._objective,
            course,
            lambda done: self._report("training the float network", done),
            teaching=teaching,
        )
        network.eval()
        return history

    def lightened_epochs(self, fake: FakeQuantized) -> list[Epoch]:
        """Calibrate on calibration data, then train the fake-quantized graph and freeze its ranges."""
        course = self._fine_course()
        module = fake.module
        fake.enter(Phase.CALIBRATE)
        with torch.no_grad():
            for batch in zip(*(torch.split(x, course.batch) for x in self._calibration.inputs), strict=True):
                module(*batch)
        fake.enter(Phase.LEARN)
        frozen = False

        def freeze_late(done: float) -> None:
            nonlocal frozen
            if done >= _FREEZE_AT and not frozen:
                fake.enter(Phase.FROZEN)
                frozen = True

        what = f"training {self._job.lightening}"
        history = fit(
            module,
            self._subject.signature.outputs,
            self.train,
            self._objective,
            course,
            lambda done: self._report(what, done),
            teaching=self._teaching,
            at_share=freeze_late,
        )
        fake.enter(Phase.FROZEN)
        return history

    def metrics(self, network: nn.Module) -> dict[str, float]:
        """The task's metrics on validation data."""
        outputs = arrays(predict(network, self._subject.signature.outputs, self._validation.inputs))
        validation = self._data.validation
        return self._scorer.values(outputs, self._scorer.targets(validation.x, validation.y))

    def _fine_course(self) -> Course:
        recipe = self._job.recipe
        return Course(
            recipe.epochs_lightened,
            recipe.batch,
            recipe.lightened_learning_rate,
            recipe.seed,
            "lightened_learning_rate",
        )

    def _taught_by(self, teacher: Subject) -> Teaching:
        """Training data are the same in every epoch, so the teacher says once what it thinks of them."""
        inputs = Samples.of(self._data.train, teacher.signature).inputs
        outputs = predict(teacher.network.eval(), teacher.signature.outputs, inputs)
        return Teaching(outputs, self._job.recipe.distillation_weight)
