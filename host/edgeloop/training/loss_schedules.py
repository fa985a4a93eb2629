"""Losses of a training: of the targets, of a teacher's outputs, or one after the other.

A loss term turns a batch's outputs into a loss. Schedules are made of terms: docs/explanation/training.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from edgeloop.training.objective import Objective, Tensors, teacher_share

Run = Callable[[torch.Tensor], Tensors]
"""(sample numbers) -> a network's outputs on these samples."""


class LossTerm(Protocol):
    """One way to turn outputs into a loss."""

    def loss(self, outputs: Tensors, index: torch.Tensor, progress: float) -> torch.Tensor:
        """Return the loss of a batch, a scalar.

        `outputs` are the network's on the samples `index`; `progress` (0 to 1) is how much of this term's part is over.
        """
        ...


@dataclass(frozen=True, slots=True)
class Labels:
    """The task's loss on the targets."""

    objective: Objective
    targets: Tensors

    def loss(self, outputs: Tensors, index: torch.Tensor, progress: float) -> torch.Tensor:  # noqa: ARG002 -- the port's
        return self.objective.loss(outputs, _at(self.targets, index))


@dataclass(frozen=True, slots=True)
class Distillation:
    """(1 - a) loss on the targets + a distillation from a teacher that does not change; a falls to 0 late.

    With a = 1 at the start the targets have no say at all, and a stays 1.
    """

    labels: Labels
    teacher: Tensors
    """Its outputs on all training samples, in their order: they are the same in every epoch."""
    share: float

    def loss(self, outputs: Tensors, index: torch.Tensor, progress: float) -> torch.Tensor:
        share = 1.0 if self.share == 1.0 else teacher_share(self.share, progress)
        objective = self.labels.objective
        if share == 1.0:
            return objective.distillation(outputs, _at(self.teacher, index))
        loss = self.labels.loss(outputs, index, progress)
        if share == 0.0:
            return loss
        return (1 - share) * loss + share * objective.distillation(outputs, _at(self.teacher, index))


@dataclass(frozen=True, slots=True)
class UnlabelledDistillation:
    """A distillation, and beside it one from the teacher on as many samples that have no targets."""

    labelled_term: Distillation
    network: Run
    """The learner on unlabelled samples."""
    teacher: Tensors
    """The teacher's outputs on all of them."""
    order: torch.Generator

    def loss(self, outputs: Tensors, index: torch.Tensor, progress: float) -> torch.Tensor:
        share = 1.0 if self.labelled_term.share == 1.0 else teacher_share(self.labelled_term.share, progress)
        loss = self.labelled_term.loss(outputs, index, progress)
        if share == 0.0:
            return loss
        n = len(next(iter(self.teacher.values())))
        choice = torch.randint(n, (len(index),), generator=self.order)
        return loss + share * self.labelled_term.labels.objective.distillation(
            self.network(choice), _at(self.teacher, choice)
        )


@dataclass(slots=True)
class MutualDistillation:
    """Learner and teacher learn together, each from the targets and from the other (QKD, arXiv:1911.12491).

    The teacher is a float network that adapts to what a quantized learner can follow.
    """

    labels: Labels
    teacher: nn.Module
    run_teacher: Run
    share: float
    learning_rate: float
    _optimizer: torch.optim.Optimizer | None = field(default=None, init=False)

    def loss(self, outputs: Tensors, index: torch.Tensor, progress: float) -> torch.Tensor:  # noqa: ARG002 -- the port's
        if self._optimizer is None:
            self._optimizer = torch.optim.AdamW(self.teacher.parameters(), self.learning_rate)
        objective, targets = self.labels.objective, _at(self.labels.targets, index)
        self.teacher.train()
        teacher_outputs = self.run_teacher(index)
        own = objective.loss(teacher_outputs, targets)
        from_learner = objective.distillation(teacher_outputs, _without_gradients(outputs))
        self._optimizer.zero_grad()
        ((1 - self.share) * own + self.share * from_learner).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.teacher.eval()
        learner = objective.distillation(outputs, _without_gradients(teacher_outputs))
        return (1 - self.share) * objective.loss(outputs, targets) + self.share * learner


@dataclass(slots=True)
class DeferredLoss:
    """A term that can be prepared only when it begins, such as by a teacher that learns until then."""

    make: Callable[[], LossTerm]
    _term: LossTerm | None = field(default=None, init=False)

    def loss(self, outputs: Tensors, index: torch.Tensor, progress: float) -> torch.Tensor:
        if self._term is None:
            self._term = self.make()
        return self._term.loss(outputs, index, progress)


@dataclass(frozen=True, slots=True)
class LossStage:
    """A loss term and its part of the steps."""

    name: str
    share: float
    term: LossTerm


@dataclass(frozen=True, slots=True)
class LossSequence:
    """Terms one after the other; `stages` have shares that add up to 1."""

    stages: Sequence[LossStage]

    @property
    def last_begins(self) -> float:
        """Share of the steps after which the last stage begins."""
        return sum(stage.share for stage in self.stages[:-1])

    def loss(self, outputs: Tensors, index: torch.Tensor, progress: float) -> torch.Tensor:
        before = 0.0
        for stage in self.stages[:-1]:
            if progress < before + stage.share:
                return stage.term.loss(outputs, index, (progress - before) / stage.share)
            before += stage.share
        last = self.stages[-1]
        return last.term.loss(outputs, index, min(1.0, (progress - before) / last.share))


def _at(tensors: Tensors, index: torch.Tensor) -> Mapping[str, torch.Tensor]:
    return {name: value[index] for name, value in tensors.items()}


def _without_gradients(tensors: Tensors) -> Mapping[str, torch.Tensor]:
    return {name: value.detach() for name, value in tensors.items()}
