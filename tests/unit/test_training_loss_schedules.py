"""What a lesson makes of a batch, and how lessons follow each other."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edgeloop.core.campaign import Task  # noqa: E402
from edgeloop.training.fit import FitSamples, FitSettings, by_name, fit  # noqa: E402
from edgeloop.training.loss_schedules import (  # noqa: E402
    DeferredLoss,
    Distillation,
    Labels,
    LossSequence,
    LossStage,
    MutualDistillation,
    UnlabelledDistillation,
)
from edgeloop.training.objective import Objective  # noqa: E402

pytestmark = pytest.mark.train

OBJECTIVE = Objective(Task(kind="regression"))
TARGETS = {"y": torch.zeros(6, 1)}
TEACHER = {"y": torch.full((6, 1), 3.0)}
INDEX = torch.arange(4)
GIVEN = {"y": torch.ones(4, 1)}


def test_a_teachers_share_is_mixed_with_the_labels_and_ends_with_them():
    lesson = Distillation(Labels(OBJECTIVE, TARGETS), TEACHER, 0.5)
    assert lesson.loss(GIVEN, INDEX, 0.0).item() == pytest.approx(0.5 * 1 + 0.5 * 4)
    assert lesson.loss(GIVEN, INDEX, 1.0).item() == pytest.approx(1.0)


def test_with_a_share_of_1_the_difference_of_outputs_alone_counts_to_the_end():
    unusable = Labels(OBJECTIVE, {"y": torch.full((6, 1), torch.nan)})
    lesson = Distillation(unusable, TEACHER, 1.0)
    assert [lesson.loss(GIVEN, INDEX, done).item() for done in (0.0, 1.0)] == pytest.approx([4.0, 4.0])


def test_unlabelled_samples_add_the_difference_to_the_teacher_only():
    lesson = UnlabelledDistillation(
        Distillation(Labels(OBJECTIVE, TARGETS), TEACHER, 0.5),
        lambda index: {"y": torch.ones(len(index), 1)},
        {"y": torch.full((9, 1), 5.0)},
        torch.Generator().manual_seed(0),
    )
    assert lesson.loss(GIVEN, INDEX, 0.0).item() == pytest.approx(2.5 + 0.5 * 16)
    assert lesson.loss(GIVEN, INDEX, 1.0).item() == pytest.approx(1.0)


def test_lessons_follow_each_other_each_with_its_own_course():
    seen = []

    class Notes:
        def __init__(self, name):
            self.name = name

        def loss(self, given, index, done):
            seen.append((self.name, round(done, 3)))
            return torch.zeros(())

    made = []

    def late():
        made.append(len(seen))
        return Notes("c")

    lesson = LossSequence(
        (
            LossStage("a", 1 / 3, Notes("a")),
            LossStage("b", 1 / 3, Notes("b")),
            LossStage("c", 1 / 3, DeferredLoss(late)),
        )
    )
    for done in (0.0, 0.25, 0.5, 0.75, 0.999):
        lesson.loss(GIVEN, INDEX, done)
    assert seen == [("a", 0.0), ("a", 0.75), ("b", 0.5), ("c", 0.25), ("c", 0.997)]
    assert made == [3]
    assert lesson.last_begins == pytest.approx(2 / 3)


def test_in_co_studying_the_teacher_learns_from_labels_and_from_the_learner():
    torch.manual_seed(0)
    x = torch.randn(64, 3)
    samples = FitSamples((x,), {"y": x.sum(1, keepdim=True)})
    teacher, learner = nn.Linear(3, 1), nn.Linear(3, 1)
    before = teacher.weight.detach().clone()

    def error(network):
        return float((network(x) - samples.targets["y"]).square().mean())

    errors = error(teacher), error(learner)
    lesson = MutualDistillation(
        Labels(OBJECTIVE, samples.targets), teacher, lambda index: by_name(teacher(x[index]), ["y"]), 0.5, 0.02
    )
    fit(learner, ["y"], samples, lesson, FitSettings(8, 8, 0.02, 0, "learning_rate"), lambda _: None)
    assert not torch.equal(teacher.weight, before)
    assert error(teacher) < errors[0]
    assert error(learner) < errors[1]
