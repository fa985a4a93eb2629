"""One training from start to folder: float, or with fake quantization from a float network's weights.

The graph that trains is the one that is exported: a lightened network is trained as the folded graph with fake
quantizers on every tensor that the runtime quantizes. That same graph, quantizers taken out and weights on their
grids, is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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
from edgeloop.ports import TrainedNetwork, TrainingJob, TrainingProgress
from edgeloop.training.fake_quantize import FakeQuantized
from edgeloop.training.fit import Epoch, FitSamples, FitSettings, arrays, by_name, fit, fitting_threads, predict
from edgeloop.training.graph import exported_graph
from edgeloop.training.loss_schedules import (
    DeferredLoss,
    Distillation,
    Labels,
    LossSequence,
    LossStage,
    LossTerm,
    MutualDistillation,
    Run,
    UnlabelledDistillation,
)
from edgeloop.training.objective import Objective, Tensors
from edgeloop.training.prune import prune, settle
from edgeloop.training.quantizers import QuantizerPhase
from edgeloop.training.result import ProbeInputs, new_training_folder, read_master, write_result
from edgeloop.training.sensitivity import layer_choices, measure_sensitivities
from edgeloop.training.summary import write_trained

_EXPORT_BATCH = 4
_FREEZE_AT = 2 / 3
"""Share of the steps after which ranges stay as they are."""
_SETTLING_SAMPLES = 4096
"""Training samples that batch norms of a pruned network take their statistics from."""
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class TrainableNetwork:
    """A network to be trained, in the data's own names and layout: channel-last inputs and outputs, in this order."""

    network: nn.Module
    """Takes and returns tensors in the order of `signature`."""
    weights_of: nn.Module
    """The part of it whose state dict is kept: the user's own module."""
    signature: NetworkSignature
    has_weights: bool
    """True where it brings weights that it starts from."""

    @property
    def inside(self) -> str:
        """The name of the user's own module in the network; empty where it is the network."""
        names: dict[int, str] = {id(module): name for name, module in self.network.named_modules()}
        return names[id(self.weights_of)]


@dataclass(frozen=True, slots=True)
class TeacherOutputs:
    """A teacher that is no network of ours: its outputs on the samples that are taught, computed once."""

    train: Arrays
    unlabelled: Arrays | None


def train(
    job: TrainingJob,
    key: str,
    subject: TrainableNetwork,
    teacher: TrainableNetwork | TeacherOutputs | None,
    data: DataSet,
    networks: Path,
    report: TrainingProgress,
) -> TrainedNetwork:
    """Train, evaluate on validation data, and write `networks/<key>`.

    A float network that brings weights is only evaluated, unless the job has a parent or a teacher. Raises UserError
    (the user's code, data or recipe), HarnessError.
    """
    run = _Run(job, subject, teacher, data, report)
    with fitting_threads(subject.network, run.train, job.recipe.batch):
        return _train_and_write(job, key, subject, run, ProbeInputs.of(data, subject.signature), networks)


def _train_and_write(
    job: TrainingJob, key: str, subject: TrainableNetwork, run: _Run, probe: ProbeInputs, networks: Path
) -> TrainedNetwork:
    began_s = time.monotonic()
    epochs: list[Epoch] = run.float_epochs()
    float_metrics = run.metrics(subject.network)
    subject.network.cpu()  # tensors that are exported and saved lie on the processor
    weights = {name: value.detach().clone() for name, value in subject.weights_of.state_dict().items()}
    samples = [x[:_EXPORT_BATCH].cpu() for x in run.train.inputs]
    rung, network = Lightening.parse(job.lightening), subject.network
    if rung.pruned_pct:
        network = prune(network, samples, rung.pruned_pct, job.channel_multiple)
        settle(network, run.batches(_SETTLING_SAMPLES))
    sensitivities = run.sensitivities(exported_graph(network, samples), rung) if rung.is_mixed else ()
    fewer_bits = {layer.name for layer in least_sensitive(sensitivities, rung.share_pct)}
    fake = FakeQuantized(exported_graph(network, samples), rung, fewer_bits)
    lightened_metrics, master = None, None
    if job.lightening != "fp32":
        if job.goes_on_from is not None:
            fake.start_from(read_master(Path(job.goes_on_from)))
        epochs += run.lightened_epochs(fake)
        lightened_metrics = run.metrics(fake.module)
        fake.module.cpu()
        master = fake.master()
    inputs = [torch.from_numpy(probe.inputs[name]) for name in subject.signature.inputs]
    outputs = arrays(predict(fake.module, subject.signature.outputs, inputs))
    result = TrainedNetwork(
        key=key,
        folder=str(networks / key),
        seconds=time.monotonic() - began_s,
        epochs=len(epochs),
        validation=float_metrics,
        lightened=lightened_metrics,
        layers=layer_choices(fake, sensitivities, subject.inside) if lightened_metrics is not None else (),
    )
    with new_training_folder(networks, key) as partial:
        write_result(
            partial,
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
        write_trained(partial, result, job, [asdict(epoch) for epoch in epochs])
    return result


class _Run:
    """The pieces of one job that float and lightened training share."""

    def __init__(
        self,
        job: TrainingJob,
        subject: TrainableNetwork,
        teacher: TrainableNetwork | TeacherOutputs | None,
        data: DataSet,
        report: TrainingProgress,
    ) -> None:
        reconstruct = job.task.kind == "autoencoder"
        self._job = job
        self._subject = subject
        self._teacher = teacher
        self._data = data
        self._report = report
        self._device = device_of(job.recipe)
        self._scorer = Scorer(job.task)
        self._objective = Objective(job.task, temperature=job.recipe.temperature, has_teacher=teacher is not None)

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
        recipe, is_lightened = self._job.recipe, self._job.lightening != "fp32"
        has_teacher = self._teacher is not None and not is_lightened
        if not self._subject.has_weights:
            settings = self._settings(recipe.epochs, recipe.learning_rate, "learning_rate")
        elif self._job.widened_from is not None:
            settings = self._settings(recipe.epochs_widened, recipe.lightened_learning_rate, "lightened_learning_rate")
        elif not is_lightened and (self._job.parent is not None or has_teacher):
            settings = self._fine_settings()
        else:
            self._subject.network.eval()
            return []
        network = self._subject.network
        loss_term = self._distillation(network, recipe.m1_distillation_weight) if has_teacher else self._labels

        def validation_loss() -> float:
            loss = self._validation_loss(network.eval())
            network.train()
            return loss

        network.train()
        history = fit(
            network,
            self._subject.signature.outputs,
            self.train,
            loss_term,
            replace(settings, precision=_PRECISIONS[recipe.precision]),
            lambda progress: self._report("training the float network", progress),
            validation_loss=validation_loss,
        )
        network.eval()
        return history

    def lightened_epochs(self, fake: FakeQuantized) -> list[Epoch]:
        """Calibrate on calibration data, then train the fake-quantized graph and freeze its ranges."""
        module = self._calibrate(fake)
        loss_term, settings = self._lightened_loss(module), self._fine_settings()
        if isinstance(loss_term, LossSequence):  # a patience that ran out earlier would leave the last stage out
            settings = replace(settings, counts_from=loss_term.last_begins)
        fake.enter(QuantizerPhase.LEARN)
        is_frozen = False

        def freeze_late(progress: float) -> None:
            nonlocal is_frozen
            if progress >= _FREEZE_AT and not is_frozen:
                fake.enter(QuantizerPhase.FROZEN)
                is_frozen = True

        def validation_loss() -> float:
            with fake.ranges_held():
                return self._validation_loss(module)

        what = f"training {self._job.lightening}"
        history = fit(
            module,
            self._subject.signature.outputs,
            self.train,
            loss_term,
            settings,
            lambda progress: self._report(what, progress),
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
        """The rise in loss on validation data that each layer causes when it alone takes fewer bits."""
        fake = FakeQuantized(graph, rung)
        module = self._calibrate(fake)
        fake.enter(QuantizerPhase.FROZEN)
        return measure_sensitivities(
            fake,
            lambda: self._validation_loss(module),
            lambda progress: self._report(f"layers' sensitivities for {rung}", progress),
        )

    def _calibrate(self, fake: FakeQuantized) -> GraphModule:
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

    def _lightened_loss(self, module: nn.Module) -> LossTerm:
        """The loss of a lightened training under its schedule: docs/explanation/training.md."""
        recipe, teacher = self._job.recipe, self._teacher
        if teacher is None:
            return self._labels
        if recipe.schedule == "simple":
            return self._distillation(module, recipe.distillation_weight)
        first = LossStage("labels", 1 / 3, self._labels)
        if recipe.schedule == "patent3":
            return LossSequence(
                (first, LossStage("distillation", 2 / 3, self._distillation(module, recipe.distillation_weight)))
            )
        assert isinstance(teacher, TrainableNetwork), "a teacher that learns too is a network"
        together = MutualDistillation(
            self._labels,
            teacher.network,
            _outputs_on(teacher.network, teacher.signature, self._view_of(teacher, self._data.train)),
            recipe.distillation_weight,
            recipe.lightened_learning_rate,
        )
        tutoring = DeferredLoss(lambda: self._distillation(module, recipe.distillation_weight))
        return LossSequence((first, LossStage("co-studying", 1 / 3, together), LossStage("tutoring", 1 / 3, tutoring)))

    @property
    def _labels(self) -> Labels:
        return Labels(self._objective, self.train.targets)

    def _distillation(self, learner: nn.Module, share: float) -> LossTerm:
        """The targets' loss and the teacher's: training data are the same in every epoch, so it answers once."""
        distillation = Distillation(self._labels, self._teacher_outputs(self._data.train), share)
        extra = self._data.unlabelled
        if extra is None:
            return distillation
        signature = self._subject.signature
        inputs = FitSamples.of(extra, signature).on(self._device).inputs
        order = torch.Generator().manual_seed(self._job.recipe.seed)
        run = _outputs_on(learner, signature, inputs)
        return UnlabelledDistillation(distillation, run, self._teacher_outputs(extra), order)

    def _teacher_outputs(self, split: DataSplit) -> Tensors:
        """The teacher's outputs on all samples of a split."""
        teacher = self._teacher
        assert teacher is not None, "only a training with a teacher asks for its outputs"
        if isinstance(teacher, TeacherOutputs):
            outputs = teacher.train if split is self._data.train else teacher.unlabelled
            assert outputs is not None, "a teacher is asked about training and unlabelled samples alone"
            return {n: torch.from_numpy(np.array(v, dtype=np.float32)).to(self._device) for n, v in outputs.items()}
        return predict(teacher.network, teacher.signature.outputs, self._view_of(teacher, split))

    def _view_of(self, teacher: TrainableNetwork, split: DataSplit) -> tuple[torch.Tensor, ...]:
        return FitSamples.of(split, teacher.signature).on(self._device).inputs

    def _validation_loss(self, network: nn.Module) -> float:
        outputs = predict(network, self._subject.signature.outputs, self._validation.inputs)
        return float(self._objective.loss(outputs, self._validation.targets))

    def _settings(self, epochs: int, learning_rate: float, rate_key: str) -> FitSettings:
        recipe = self._job.recipe
        return FitSettings(epochs, recipe.batch, learning_rate, recipe.seed, rate_key, recipe.patience)

    def _fine_settings(self) -> FitSettings:
        recipe = self._job.recipe
        epochs = recipe.epochs_fine_tuned if self._job.goes_on_from is not None else recipe.epochs_lightened
        return self._settings(epochs, recipe.lightened_learning_rate, "lightened_learning_rate")


def device_of(recipe: Training) -> torch.device:
    """The device that a recipe trains on. Raises UserError where it asks for a GPU and torch finds none."""
    has_gpu = torch.cuda.is_available()
    if recipe.device == "cuda" and not has_gpu:
        raise UserError(
            "training.device is cuda, and torch finds no GPU",
            next_step='install a CUDA build of torch, or set device = "auto"',
        )
    return torch.device("cuda" if has_gpu and recipe.device != "cpu" else "cpu")


def _outputs_on(network: nn.Module, signature: NetworkSignature, inputs: Sequence[torch.Tensor]) -> Run:
    return lambda index: by_name(network(*(x[index] for x in inputs)), signature.outputs)
