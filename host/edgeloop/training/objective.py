"""The function that training minimizes: the task's loss on the targets, and distillation from a teacher's outputs.

Distillation of classes: T^2 KL(teacher / T || student / T), Hinton, Vinyals, Dean, arXiv:1503.02531; of values: the
mean squared error to the teacher's values. Both losses are joined as (1 - a) loss + a distillation.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from edgeloop.core.campaign import Task
from edgeloop.errors import DataError, UserError
from edgeloop.user_code.functions import call_function, load_function

Tensors = Mapping[str, torch.Tensor]


class Objective:
    """The loss of a task. `loss(outputs, targets)` and `distillation(outputs, teacher)` return scalars."""

    def __init__(self, task: Task, *, temperature: float = 2.0, has_teacher: bool = False) -> None:
        """Raises UserError for a function that can't be loaded, or a custom task that is taught without its own.

        There is no loss to fall back on there: which outputs of a custom network may be compared, and how, is the
        user's to say.
        """
        self._task = task
        self._temperature = temperature
        self._own_loss = load_function(task.loss) if task.loss else None
        self._own_distillation = load_function(task.distillation) if task.distillation else None
        if has_teacher and task.kind == "custom" and self._own_distillation is None:
            raise UserError(
                "a custom task with a teacher needs a distillation loss of its own",
                next_step='give [task] distillation = "file.py:name", or set [training] teacher = "none"',
            )

    def loss(self, outputs: Tensors, targets: Tensors) -> torch.Tensor:
        """Mean over the batch, summed over outputs; raises UserError where the user's own loss fails."""
        if self._own_loss is not None:
            assert self._task.loss is not None
            return _scalar(
                call_function(self._own_loss, self._task.loss, dict(outputs), dict(targets)), self._task.loss
            )
        pairs = _pairs(outputs, targets)
        if self._task.kind == "classification":
            return _sum([functional.cross_entropy(output, target.reshape(-1)) for output, target in pairs])
        return _sum([functional.mse_loss(output, target.reshape(output.shape)) for output, target in pairs])

    def distillation(self, outputs: Tensors, teacher: Tensors) -> torch.Tensor:
        """The distance of the outputs from the teacher's; raises UserError where the user's own function fails."""
        reference = self._task.distillation
        if self._own_distillation is not None and reference is not None:
            value = call_function(self._own_distillation, reference, dict(outputs), dict(teacher))
            return _scalar(value, reference)
        pairs = _pairs(outputs, teacher)
        if self._task.kind == "classification":
            return _sum([self._divergence(output, example) for output, example in pairs])
        return _sum([functional.mse_loss(output, example) for output, example in pairs])

    def _divergence(self, output: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        t = self._temperature
        student = functional.log_softmax(output / t, dim=-1)
        target = functional.log_softmax(teacher / t, dim=-1)
        return t * t * functional.kl_div(student, target, reduction="batchmean", log_target=True)


def teacher_share(start: float, progress: float) -> float:
    """Return the share of distillation at `progress` (0 to 1): `start`, falling to 0 in the last third.

    The labels have the last word.
    """
    return start * min(1.0, 3.0 * (1.0 - progress))


def _pairs(outputs: Tensors, targets: Tensors) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A single output belongs to a single target whatever their names; several are matched by name."""
    if len(outputs) == 1 and len(targets) == 1:
        return [(next(iter(outputs.values())), next(iter(targets.values())))]
    missing = [name for name in targets if name not in outputs]
    if missing or not targets:
        raise DataError(
            f"y/{missing[0]}: the network has no output of this name, it has {', '.join(outputs)}"
            if missing
            else "there is no y to train on"
        )
    return [(outputs[name], target) for name, target in targets.items()]


def _sum(losses: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(losses).sum() if len(losses) > 1 else losses[0]


def _scalar(value: object, reference: str) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.dim() != 0:
        what = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise UserError(f"{reference}: gave {what}, a loss is one number", next_step="return its mean over the batch")
    return value
