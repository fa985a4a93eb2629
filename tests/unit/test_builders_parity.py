"""The parity gate refuses a model that says something else, and nothing that rounding alone explains."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.builders import parity
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import BuildError, ParityError

CLASSES = (TensorSpec(name="y", dtype="int8", shape=(1, 4), scale=0.1, zero_point=0),)
FLOATS = (TensorSpec(name="y", dtype="float32", shape=(1, 4)),)


def _logits(n: int = 1000) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)


def test_where_every_margin_is_too_small_to_judge_nothing_is_refused() -> None:
    ties = np.zeros((10, 4), np.float32)
    judged = parity.compare({"y": ties}, {"y": ties}, CLASSES, "top1")
    assert (judged.n, judged.ties_left_out, judged.agreement_upper) == (0, 10, 1.0)
    parity.refuse_disagreement(judged)


def test_margins_under_one_step_and_ties_are_left_out() -> None:
    expected = np.array([[1.0, 0.95, 0, 0], [1.0, 1.0, 0, 0], [2.0, 0, 0, 0]], np.float32)
    built = np.array([[0.9, 1.0, 0, 0], [0.9, 1.0, 0, 0], [2.0, 0, 0, 0]], np.float32)
    judged = parity.compare({"y": built}, {"y": expected}, CLASSES, "top1")
    assert (judged.n, judged.ties_left_out, judged.agreement) == (1, 2, 1.0)


def test_float_outputs_leave_out_exact_ties_only() -> None:
    expected = np.array([[1.0, 0.999, 0, 0], [1.0, 1.0, 0, 0]], np.float32)
    judged = parity.compare({"y": expected}, {"y": expected}, FLOATS, "top1")
    assert (judged.n, judged.ties_left_out) == (1, 1)
    assert judged.steps_mean is None


def test_a_model_that_is_surely_under_99_percent_is_refused_with_the_numbers() -> None:
    expected = _logits()
    built = expected.copy()
    built[:100] = -built[:100]
    judged = parity.compare({"y": built}, {"y": expected}, FLOATS, "top1")
    with pytest.raises(ParityError, match=r"agrees .* on 9\d\.\d+% of 1000 inputs"):
        parity.refuse_disagreement(judged)


def test_a_model_whose_interval_reaches_99_percent_passes() -> None:
    expected = _logits()
    built = expected.copy()
    built[:11] = np.roll(built[:11], 1, axis=1)
    judged = parity.compare({"y": built}, {"y": expected}, FLOATS, "top1")
    assert judged.agreement < 0.99
    parity.refuse_disagreement(judged)


def test_values_are_compared_in_output_steps() -> None:
    expected = _logits()
    near = parity.compare({"y": expected + 0.3}, {"y": expected}, CLASSES, "steps")
    far = parity.compare({"y": expected + 0.5}, {"y": expected}, CLASSES, "steps")
    assert (near.agreement, far.agreement) == (1.0, 0.0)
    assert near.steps_mean == pytest.approx(3, rel=1e-3)


def test_one_output_without_classes_falls_back_to_steps() -> None:
    expected = _logits()[:, :1]
    specs = (TensorSpec(name="y", dtype="float32", shape=(1, 1)),)
    assert "steps" in parity.compare({"y": expected}, {"y": expected}, specs, "top1").rule


def test_a_tasks_own_agreement_replaces_the_rule() -> None:
    expected = _logits(10)
    base = parity.compare({"y": expected}, {"y": expected}, FLOATS, "custom")
    judged = parity.from_agreement(np.arange(10) < 8, base, "task.py:same")
    assert judged.agreement == 0.8
    assert "task.py:same" in judged.rule


@pytest.mark.parametrize("bad", [np.full((10, 4), np.nan, np.float32), np.zeros((10, 5), np.float32)])
def test_outputs_that_cant_be_compared_are_a_failed_build(bad: np.ndarray) -> None:
    with pytest.raises(BuildError, match="output 'y'"):
        parity.compare({"y": bad}, {"y": _logits(10)}, FLOATS, "top1")
