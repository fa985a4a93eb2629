"""What a training is told at each step: the labels, a teacher, or one after the other.

A lesson turns a batch's outputs into a loss. Schedules are made of lessons: docs/explanation/training.md.
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
    """One way of teaching."""

    def loss(self, given: Tensors, index: torch.Tensor, done: float) -> torch.Tensor:
        """Return the loss of a batch: `given` are the outputs on the samples `index`; `done` (0 to 1) of the lesson
        is over."""
        ...


@dataclass(frozen=True, slots=True)
class Labels:
    """The task's loss on the targets."""

    objective: Objective
    targets: Tensors

    def loss(self, given: Tensors, index: torch.Tensor, done: float) -> torch.Tensor:  # noqa: ARG002 -- the port's
        return self.objective.loss(given, _at(self.targets, index))


@dataclass(frozen=True, slots=True)
class Taught:
    """(1 - a) loss on the targets + a distillation from a teacher that does not change; a falls to 0 late.

    With a = 1 at the start the targets have no say at all, and a stays 1.
    """

    labels: Labels
    teacher: Tensors
    """Its outputs on all training samples, in their order: they are the same in every epoch."""
    share: float

    def loss(self, given: Tensors, index: torch.Tensor, done: float) -> torch.Tensor:
        share = 1.0 if self.share == 1.0 else teacher_share(self.share, done)
        objective = self.labels.objective
        if share == 1.0:
            return objective.distillation(given, _at(self.teacher, index))
        loss = self.labels.loss(given, index, done)
        if share == 0.0:
            return loss
        return (1 - share) * loss + share * objective.distillation(given, _at(self.teacher, index))


@dataclass(frozen=True, slots=True)
class TaughtUnlabelled:
    """A lesson, and beside it the teacher's outputs on as many samples that have no targets."""

    lesson: Taught
    network: Run
    """The learner on unlabelled samples."""
    teacher: Tensors
    """The teacher's outputs on all of them."""
    order: torch.Generator

    def loss(self, given: Tensors, index: torch.Tensor, done: float) -> torch.Tensor:
        share = 1.0 if self.lesson.share == 1.0 else teacher_share(self.lesson.share, done)
        loss = self.lesson.loss(given, index, done)
        if share == 0.0:
            return loss
        n = len(next(iter(self.teacher.values())))
        drawn = torch.randint(n, (len(index),), generator=self.order)
        return loss + share * self.lesson.labels.objective.distillation(self.network(drawn), _at(self.teacher, drawn))


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

    def loss(self, given: Tensors, index: torch.Tensor, done: float) -> torch.Tensor:  # noqa: ARG002 -- the port's
        if self._optimizer is None:
            self._optimizer = torch.optim.AdamW(self.teacher.parameters(), self.learning_rate)
        objective, targets = self.labels.objective, _at(self.labels.targets, index)
        self.teacher.train()
        taught = self.run_teacher(index)
        own = objective.loss(taught, targets)
        from_learner = objective.distillation(taught, _detached(given))
        self._optimizer.zero_grad()
        ((1 - self.share) * own + self.share * from_learner).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.teacher.eval()
        learner = objective.distillation(given, _detached(taught))
        return (1 - self.share) * objective.loss(given, targets) + self.share * learner


@dataclass(slots=True)
class DeferredLoss:
    """A lesson that can be prepared only when it begins, such as by a teacher that learns until then."""

    make: Callable[[], LossTerm]
    _made: LossTerm | None = field(default=None, init=False)

    def loss(self, given: Tensors, index: torch.Tensor, done: float) -> torch.Tensor:
        if self._made is None:
            self._made = self.make()
        return self._made.loss(given, index, done)


@dataclass(frozen=True, slots=True)
class Term:
    """A lesson and its part of the steps."""

    name: str
    share: float
    lesson: LossTerm


@dataclass(frozen=True, slots=True)
class LossSequence:
    """Lessons one after the other; `terms` have shares that add up to 1."""

    terms: Sequence[Term]

    @property
    def last_begins(self) -> float:
        """Share of the steps after which the last lesson begins."""
        return sum(term.share for term in self.terms[:-1])

    def loss(self, given: Tensors, index: torch.Tensor, done: float) -> torch.Tensor:
        begun = 0.0
        for term in self.terms[:-1]:
            if done < begun + term.share:
                return term.lesson.loss(given, index, (done - begun) / term.share)
            begun += term.share
        last = self.terms[-1]
        return last.lesson.loss(given, index, min(1.0, (done - begun) / last.share))


def _at(tensors: Tensors, index: torch.Tensor) -> Mapping[str, torch.Tensor]:
    return {name: value[index] for name, value in tensors.items()}


def _detached(tensors: Tensors) -> Mapping[str, torch.Tensor]:
    return {name: value.detach() for name, value in tensors.items()}
