"""Losses, distillation, and the loop's own rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from edgeloop.core.campaign import Task  # noqa: E402
from edgeloop.errors import DataError, UserError  # noqa: E402
from edgeloop.training.fit import FitSamples, FitSettings, fit, predict  # noqa: E402
from edgeloop.training.loss_schedules import Distillation, Labels  # noqa: E402
from edgeloop.training.objective import Objective, teacher_share  # noqa: E402

pytestmark = pytest.mark.train

COURSE = FitSettings(epochs=3, batch=4, learning_rate=0.05, seed=0, rate_key="learning_rate")


def test_the_teachers_share_stays_then_falls_to_nothing_in_the_last_third():
    assert [teacher_share(0.5, x) for x in (0.0, 0.5, 2 / 3, 5 / 6, 1.0)] == pytest.approx([0.5, 0.5, 0.5, 0.25, 0.0])


def test_distillation_of_classes_is_t_squared_times_the_divergence():
    student, teacher = torch.tensor([[1.0, -1.0], [0.0, 2.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    p, q = torch.softmax(teacher / 2, -1), torch.softmax(student / 2, -1)
    expected = 4 * (p * (p.log() - q.log())).sum(-1).mean()
    objective = Objective(Task(), temperature=2.0)
    assert objective.distillation({"y": student}, {"y": teacher}).item() == pytest.approx(expected.item(), rel=1e-5)
    assert objective.distillation({"y": teacher}, {"y": teacher}).item() == pytest.approx(0.0, abs=1e-6)


def test_values_are_compared_in_the_networks_own_shape():
    loss = Objective(Task(kind="regression")).loss({"y": torch.tensor([[1.0], [3.0]])}, {"t": torch.tensor([0.0, 3.0])})
    assert loss.item() == pytest.approx(0.5)


def test_several_outputs_are_matched_by_name():
    outputs = {"a": torch.zeros(2, 1), "b": torch.ones(2, 1)}
    objective = Objective(Task(kind="regression"))
    assert objective.loss(outputs, {"b": torch.ones(2, 1), "a": torch.zeros(2, 1)}).item() == 0.0
    with pytest.raises(DataError, match="y/c: the network has no output of this name, it has a, b"):
        objective.loss(outputs, {"c": torch.ones(2, 1), "a": torch.zeros(2, 1)})


def test_a_custom_task_with_a_teacher_needs_a_distillation_of_its_own(tmp_path):
    (tmp_path / "t.py").write_text("def f(outputs, targets): return 1.0")
    reference = f"{tmp_path}/t.py:f"
    task = Task(kind="custom", loss=reference, metrics={"m": reference}, agreement=reference)
    with pytest.raises(UserError, match="distillation"):
        Objective(task, has_teacher=True)
    with pytest.raises(UserError, match="gave float, a loss is one number"):
        Objective(task).loss({}, {})


def regression():
    torch.manual_seed(0)
    x = torch.randn(22, 3)
    return FitSamples((x,), {"y": x.sum(1, keepdim=True)})


def labels(samples):
    return Labels(Objective(Task(kind="regression")), samples.targets)


def trained(seed=0, lesson=None, course=COURSE, **more):
    torch.manual_seed(5)
    network, samples = nn.Linear(3, 1), regression()
    course = replace(course, seed=seed)
    history = fit(network, ["y"], samples, lesson or labels(samples), course, lambda _: None, **more)
    return network, history


def test_equal_seeds_give_equal_weights_and_others_do_not():
    first, again, other = trained()[0], trained()[0], trained(seed=1)[0]
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_an_epoch_is_whole_batches_and_the_loss_falls():
    shares = []
    _, history = trained(at_share=shares.append)
    assert len(shares) == 3 * (22 // 4)
    assert [e.epoch for e in history] == [1, 2, 3]
    assert history[-1].loss < history[0].loss


def test_fewer_samples_than_a_batch_are_one_batch():
    network = nn.Linear(3, 1)
    course = FitSettings(1, 64, 0.01, 0, "learning_rate")
    assert len(fit(network, ["y"], regression(), labels(regression()), course, lambda _: None)) == 1


def test_a_teacher_is_listened_to():
    wrong = {"y": torch.full((22, 1), 7.0)}
    alone, taught = trained()[0], trained(lesson=Distillation(labels(regression()), wrong, 0.5))[0]
    assert taught.bias.item() > alone.bias.item()


def test_the_training_ends_after_its_patience_and_keeps_the_best_weights():
    losses, seen = iter([3.0, 1.0, 2.0, 2.0, 0.5]), []

    def validation_loss():
        seen.append(network.weight.detach().clone())
        return next(losses)

    torch.manual_seed(5)
    network, samples = nn.Linear(3, 1), regression()
    course = replace(COURSE, epochs=5, patience=2)
    history = fit(network, ["y"], samples, labels(samples), course, lambda _: None, validation_loss=validation_loss)
    assert [e.validation_loss for e in history] == [3.0, 1.0, 2.0, 2.0]
    assert torch.equal(network.weight, seen[1])


def test_a_patience_counts_and_the_best_is_chosen_only_from_the_share_that_is_judged():
    losses, seen = iter([3.0, 2.0, 2.5, 4.0, 0.5]), []

    def validation_loss():
        seen.append(network.weight.detach().clone())
        return next(losses)

    torch.manual_seed(5)
    network, samples = nn.Linear(3, 1), regression()
    course = replace(COURSE, epochs=12, patience=2, counts_from=1 / 3)
    history = fit(network, ["y"], samples, labels(samples), course, lambda _: None, validation_loss=validation_loss)
    assert [e.validation_loss for e in history] == [None] * 4 + [3.0, 2.0, 2.5, 4.0]
    assert torch.equal(network.weight, seen[1])


def test_lower_precision_trains_too_and_leaves_float_weights():
    network, history = trained(course=replace(COURSE, precision=torch.bfloat16))
    assert network.weight.dtype is torch.float32
    assert history[-1].loss < history[0].loss
    assert not torch.equal(network.weight, trained()[0].weight)


def test_a_loss_that_is_not_finite_names_the_key_to_lower():
    samples = FitSamples((torch.full((8, 3), 1e38),), {"y": torch.zeros(8, 1)})
    with pytest.raises(UserError, match="diverged") as raised:
        fit(nn.Linear(3, 1), ["y"], samples, labels(samples), COURSE, lambda _: None)
    assert "training.learning_rate" in raised.value.lines()[0]


def test_predictions_cover_all_samples_in_order():
    x = torch.randn(600, 3)
    network = nn.Linear(3, 2)
    assert torch.allclose(predict(network, ["y"], [x])["y"], network(x), atol=1e-6)
