"""One training from start to folder: float, or with fake quantization from a float network's weights.

What trains is what is exported: a lightened network is trained as the folded graph with fake quantizers on every
tensor that the runtime quantizes, and that same graph, quantizers taken out and weights on their grids, is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule

from edgeloop.analysis.scoring import Scorer
from edgeloop.core.campaign import Training
from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.core.lightening import Lightening
from edgeloop.core.measurement import Arrays
from edgeloop.core.mixed_precision import Sensitivity, least_sensitive
from edgeloop.core.network import NetworkSignature
from edgeloop.errors import UserError
from edgeloop.ports import TrainedNetwork, TrainingJob
from edgeloop.training.fake_quantize import FakeQuantized
from edgeloop.training.fit import Epoch, FitSamples, FitSettings, arrays, fit, fitting_threads, named, predict
from edgeloop.training.graph import exported_graph
from edgeloop.training.loss_schedules import (
    DeferredLoss,
    Labels,
    LossSequence,
    LossTerm,
    MutualDistillation,
    Run,
    Taught,
    TaughtUnlabelled,
    Term,
)
from edgeloop.training.objective import Objective, Tensors
from edgeloop.training.prune import pruned, settle
from edgeloop.training.quantizers import QuantizerPhase
from edgeloop.training.result import ProbeInputs, read_master, unpublished, write_result
from edgeloop.training.sensitivity import choices, look
from edgeloop.training.summary import write_trained

_EXPORT_BATCH = 4
_FREEZE_AT = 2 / 3
"""Share of the steps after which ranges stay as they are."""
_SETTLING_SAMPLES = 4096
"""Training samples that batch norms of a pruned network take their statistics from."""
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Report = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class TrainableNetwork:
    """A network to be trained, in the data's own terms: channel-last inputs and outputs, in this order."""

    network: nn.Module
    """Takes and returns tensors in the order of `signature`."""
    weights_of: nn.Module
    """The part of it whose state dict is kept: the user's own module."""
    signature: NetworkSignature
    started: bool
    """Whether it brings weights that it starts from."""

    @property
    def inside(self) -> str:
        """The name of the user's own module in the network; empty where it is the network."""
        names: dict[int, str] = {id(module): name for name, module in self.network.named_modules()}
        return names[id(self.weights_of)]


@dataclass(frozen=True, slots=True)
class TeacherOutputs:
    """A teacher that is no network of ours: what it gave, once, on the samples that are taught."""

    train: Arrays
    unlabelled: Arrays | None


def train(
    job: TrainingJob,
    key: str,
    subject: TrainableNetwork,
    teacher: TrainableNetwork | TeacherOutputs | None,
    data: DataSet,
    networks: Path,
    report: Report,
) -> TrainedNetwork:
    """Train, evaluate on validation data, and write `networks/<key>`.

    A float network that brings weights is only evaluated, unless the job has a parent or a teacher. Raises UserError
    (the user's code, data or recipe), HarnessError.
    """
    run = _Run(job, subject, teacher, data, report)
    with fitting_threads(subject.network, run.train, job.recipe.batch):
        return _trained(job, key, subject, run, ProbeInputs.of(data, subject.signature), networks)


def _trained(
    job: TrainingJob, key: str, subject: TrainableNetwork, run: _Run, probe: ProbeInputs, networks: Path
) -> TrainedNetwork:
    began = time.monotonic()
    epochs: list[Epoch] = run.float_epochs()
    float_metrics = run.metrics(subject.network)
    subject.network.cpu()  # what is exported and saved lies on the processor
    weights = {name: value.detach().clone() for name, value in subject.weights_of.state_dict().items()}
    samples = [x[:_EXPORT_BATCH].cpu() for x in run.train.inputs]
    rung, network = Lightening.parse(job.lightening), subject.network
    if rung.pruned_pct:
        network = pruned(network, samples, rung.pruned_pct, job.channel_multiple)
        settle(network, run.batches(_SETTLING_SAMPLES))
    looked = run.sensitivities(exported_graph(network, samples), rung) if rung.is_mixed else ()
    taken = {layer.name for layer in least_sensitive(looked, rung.share_pct)}
    fake = FakeQuantized(exported_graph(network, samples), rung, taken)
    lightened, master = None, None
    if job.lightening != "fp32":
        if job.goes_on_from is not None:
            fake.start_from(read_master(Path(job.goes_on_from)))
        epochs += run.lightened_epochs(fake)
        lightened = run.metrics(fake.module)
        fake.module.cpu()
        master = fake.master()
    inputs = [torch.from_numpy(probe.inputs[name]) for name in subject.signature.inputs]
    outputs = arrays(predict(fake.module, subject.signature.outputs, inputs))
    trained = TrainedNetwork(
        key=key,
        folder=str(networks / key),
        seconds=time.monotonic() - began,
        epochs=len(epochs),
        validation=float_metrics,
        lightened=lightened,
        layers=choices(fake, looked, subject.inside) if lightened is not None else (),
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
            master=master,
        )
        write_trained(made, trained, job, [asdict(epoch) for epoch in epochs])
    return trained


class _Run:
    """The pieces of one job that float and lightened training share."""

    def __init__(
        self,
        job: TrainingJob,
        subject: TrainableNetwork,
        teacher: TrainableNetwork | TeacherOutputs | None,
        data: DataSet,
        report: Report,
    ) -> None:
        reconstruct = job.task.kind == "autoencoder"
        self._job = job
        self._subject = subject
        self._teacher = teacher
        self._data = data
        self._report = report
        self._device = device_of(job.recipe)
        self._scorer = Scorer(job.task)
        self._objective = Objective(job.task, temperature=job.recipe.temperature, taught=teacher is not None)

        def samples(split: DataSplit) -> FitSamples:
            return FitSamples.of(split, subject.signature, reconstruct=reconstruct).on(self._device)

        self.train = samples(data.train)
        self._validation = samples(data.validation)
        self._calibration = samples(data.calibration)
        subject.network.to(self._device)
        if isinstance(teacher, TrainableNetwork):
            teacher.network.to(self._device).eval()

    def float_epochs(self) -> list[Epoch]:
        """Train the float network where the job asks for it: it has no weights yet, or is to be trained further."""
        recipe, lightened = self._job.recipe, self._job.lightening != "fp32"
        taught = self._teacher is not None and not lightened
        if not self._subject.started:
            course = self._course(recipe.epochs, recipe.learning_rate, "learning_rate")
        elif self._job.widened_from is not None:
            course = self._course(recipe.epochs_widened, recipe.lightened_learning_rate, "lightened_learning_rate")
        elif not lightened and (self._job.parent is not None or taught):
            course = self._fine_course()
        else:
            self._subject.network.eval()
            return []
        network = self._subject.network
        lesson = self._taught(network, recipe.m1_distillation_weight) if taught else self._labels

        def validation_loss() -> float:
            loss = self._validation_loss(network.eval())
            network.train()
            return loss

        network.train()
        history = fit(
            network,
            self._subject.signature.outputs,
            self.train,
            lesson,
            replace(course, precision=_PRECISIONS[recipe.precision]),
            lambda done: self._report("training the float network", done),
            validation_loss=validation_loss,
        )
        network.eval()
        return history

    def lightened_epochs(self, fake: FakeQuantized) -> list[Epoch]:
        """Calibrate on calibration data, then train the fake-quantized graph and freeze its ranges."""
        module = self._calibrated(fake)
        lesson, course = self._lightened_lesson(module), self._fine_course()
        if isinstance(lesson, LossSequence):  # a patience that ran out earlier would leave the last lesson untaught
            course = replace(course, judged_from=lesson.last_begins)
        fake.enter(QuantizerPhase.LEARN)
        frozen = False

        def freeze_late(done: float) -> None:
            nonlocal frozen
            if done >= _FREEZE_AT and not frozen:
                fake.enter(QuantizerPhase.FROZEN)
                frozen = True

        def validation_loss() -> float:
            with fake.looking():
                return self._validation_loss(module)

        what = f"training {self._job.lightening}"
        history = fit(
            module,
            self._subject.signature.outputs,
            self.train,
            lesson,
            course,
            lambda done: self._report(what, done),
            at_share=freeze_late,
            validation_loss=validation_loss,
        )
        fake.enter(QuantizerPhase.FROZEN)
        return history

    def batches(self, samples_max: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """The first training samples, on the processor."""
        yield from zip(
            *(torch.split(x[:samples_max].cpu(), self._job.recipe.batch) for x in self.train.inputs), strict=True
        )

    def sensitivities(self, graph: GraphModule, rung: Lightening) -> tuple[Sensitivity, ...]:
        """What each layer that may take fewer bits adds to the loss on validation data if it alone takes them."""
        fake = FakeQuantized(graph, rung)
        module = self._calibrated(fake)
        fake.enter(QuantizerPhase.FROZEN)
        return look(
            fake,
            lambda: self._validation_loss(module),
            lambda done: self._report(f"layers' sensitivities for {rung}", done),
        )

    def _calibrated(self, fake: FakeQuantized) -> GraphModule:
        """Let calibration data through, so that ranges are those of the network as it starts."""
        module = fake.module.to(self._device)
        fake.enter(QuantizerPhase.CALIBRATE)
        with torch.no_grad():
            for batch in zip(*(torch.split(x, self._job.recipe.batch) for x in self._calibration.inputs), strict=True):
                module(*batch)
        return module

    def metrics(self, network: nn.Module) -> dict[str, float]:
        """The task's metrics on validation data."""
        outputs = arrays(predict(network, self._subject.signature.outputs, self._validation.inputs))
        validation = self._data.validation
        return self._scorer.values(outputs, self._scorer.targets(validation.x, validation.y))

    def _lightened_lesson(self, module: nn.Module) -> LossTerm:
        """What the schedule makes of a lightened training: docs/explanation/training.md."""
        recipe, teacher = self._job.recipe, self._teacher
        if teacher is None:
            return self._labels
        if recipe.schedule == "simple":
            return self._taught(module, recipe.distillation_weight)
        first = Term("labels", 1 / 3, self._labels)
        if recipe.schedule == "patent3":
            return LossSequence((first, Term("distillation", 2 / 3, self._taught(module, recipe.distillation_weight))))
        assert isinstance(teacher, TrainableNetwork), "a teacher that learns too is a network"
        together = MutualDistillation(
            self._labels,
            teacher.network,
            _outputs_on(teacher.network, teacher.signature, self._view_of(teacher, self._data.train)),
            recipe.distillation_weight,
            recipe.lightened_learning_rate,
        )
        tutoring = DeferredLoss(lambda: self._taught(module, recipe.distillation_weight))
        return LossSequence((first, Term("co-studying", 1 / 3, together), Term("tutoring", 1 / 3, tutoring)))

    @property
    def _labels(self) -> Labels:
        return Labels(self._objective, self.train.targets)

    def _taught(self, learner: nn.Module, share: float) -> LossTerm:
        """Training data are the same in every epoch, so the teacher says once what it thinks of them."""
        lesson = Taught(self._labels, self._opinions(self._data.train), share)
        unlabelled = self._data.unlabelled
        if unlabelled is None:
            return lesson
        signature = self._subject.signature
        inputs = FitSamples.of(unlabelled, signature).on(self._device).inputs
        order = torch.Generator().manual_seed(self._job.recipe.seed)
        run = _outputs_on(learner, signature, inputs)
        return TaughtUnlabelled(lesson, run, self._opinions(unlabelled), order)

    def _opinions(self, split: DataSplit) -> Tensors:
        """The teacher's outputs on all samples of a split."""
        teacher = self._teacher
        assert teacher is not None, "only a taught network is told a teacher's opinion"
        if isinstance(teacher, TeacherOutputs):
            given = teacher.train if split is self._data.train else teacher.unlabelled
            assert given is not None, "a teacher is asked about training and unlabelled samples alone"
            return {n: torch.from_numpy(np.array(v, dtype=np.float32)).to(self._device) for n, v in given.items()}
        return predict(teacher.network, teacher.signature.outputs, self._view_of(teacher, split))

    def _view_of(self, teacher: TrainableNetwork, split: DataSplit) -> tuple[torch.Tensor, ...]:
        return FitSamples.of(split, teacher.signature).on(self._device).inputs

    def _validation_loss(self, network: nn.Module) -> float:
        outputs = predict(network, self._subject.signature.outputs, self._validation.inputs)
        return float(self._objective.loss(outputs, self._validation.targets))

    def _course(self, epochs: int, learning_rate: float, rate_key: str) -> FitSettings:
        recipe = self._job.recipe
        return FitSettings(epochs, recipe.batch, learning_rate, recipe.seed, rate_key, recipe.patience)

    def _fine_course(self) -> FitSettings:
        recipe = self._job.recipe
        epochs = recipe.epochs_fine_tuned if self._job.goes_on_from is not None else recipe.epochs_lightened
        return self._course(epochs, recipe.lightened_learning_rate, "lightened_learning_rate")


def device_of(recipe: Training) -> torch.device:
    """The device that a recipe trains on. Raises UserError where it asks for a GPU and torch finds none."""
    found = torch.cuda.is_available()
    if recipe.device == "cuda" and not found:
        raise UserError(
            "training.device is cuda, and torch finds no GPU",
            next_step='install a CUDA build of torch, or set device = "auto"',
        )
    return torch.device("cuda" if found and recipe.device != "cpu" else "cpu")


def _outputs_on(network: nn.Module, signature: NetworkSignature, inputs: Sequence[torch.Tensor]) -> Run:
    return lambda index: named(network(*(x[index] for x in inputs)), signature.outputs)
