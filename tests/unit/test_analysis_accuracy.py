"""Bounds of scores: Tango for paired shares, the bootstrap for means and whole sets, both at their nominal error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeloop.analysis.accuracy import REPLICATES, Scores, difference_bound, resamples, tango_bound
from edgeloop.analysis.percentiles import Side


def scores(per_sample: NDArray[np.float64], *, higher: bool = True, root: bool = False) -> Scores:
    values = np.asarray(per_sample, dtype=np.float64)
    value = float(np.sqrt(values.mean()) if root else values.mean())
    return Scores("m", higher, value, len(values), per_sample=values, root=root)


def test_samples_that_are_right_or_wrong_make_a_share_and_others_do_not() -> None:
    assert scores(np.array([0.0, 1.0, 1.0])).is_share
    assert not scores(np.array([0.0, 0.5, 1.0])).is_share


def test_without_a_differing_sample_there_is_still_doubt() -> None:
    z2 = 1.6448536**2
    assert tango_bound(0, 0, 500, 0.95, "upper") == pytest.approx(z2 / (500 + z2), abs=1e-6)
    assert tango_bound(0, 0, 500, 0.95, "lower") == pytest.approx(-z2 / (500 + z2), abs=1e-6)


@pytest.mark.parametrize(("gained", "lost", "n"), [(0, 1, 44), (12, 3, 90), (5, 5, 40), (30, 80, 1000)])
@pytest.mark.parametrize("side", ["lower", "upper"])
def test_at_tangos_bound_the_score_statistic_is_the_quantile(gained: int, lost: int, n: int, side: Side) -> None:
    difference = tango_bound(gained, lost, n, 0.975, side)

    def unlikelihood(share: float) -> float:  # of the multinomial, where the difference is what it is
        logs = (math.log(max(p, 1e-300)) for p in (share + difference, share, 1 - 2 * share - difference))
        return -sum(count * log for count, log in zip((gained, lost, n - gained - lost), logs, strict=True))

    span = (max(0.0, -difference), (1 - difference) / 2)
    share = scipy.optimize.minimize_scalar(unlikelihood, bounds=span, options={"xatol": 1e-12}).x
    statistic = (gained - lost - n * difference) / math.sqrt(n * (2 * share + difference - difference**2))
    assert statistic == pytest.approx(1.959964 if side == "lower" else -1.959964, abs=1e-3)


@given(st.integers(1, 400), st.data())
def test_tango_mirrors_and_holds_the_difference(n: int, data: st.DataObject) -> None:
    gained = data.draw(st.integers(0, n))
    lost = data.draw(st.integers(0, n - gained))
    low, high = tango_bound(gained, lost, n, 0.95, "lower"), tango_bound(gained, lost, n, 0.95, "upper")
    assert -1 <= low <= (gained - lost) / n + 1e-9
    assert (gained - lost) / n - 1e-9 <= high <= 1
    assert low == pytest.approx(-tango_bound(lost, gained, n, 0.95, "upper"), abs=1e-9)


def test_a_drop_at_the_limit_is_let_pass_in_five_of_a_hundred() -> None:
    rng = np.random.default_rng(21)
    n, drop, trials = 1000, 0.02, 4000
    draws = rng.multinomial(n, [0.04, 0.02, 0.94], size=trials)  # lost, gained, the rest
    passed = [tango_bound(int(g), int(lost), n, 0.95, "lower") > -drop for lost, g, _ in draws]
    assert np.mean(passed) == pytest.approx(0.05, abs=0.012)


def test_a_mean_at_the_limit_is_let_pass_in_about_five_of_a_hundred_skewed_or_not() -> None:
    rng = np.random.default_rng(22)
    passed = 0
    for _ in range(250):
        passed += scores(rng.exponential(1.0, 200), higher=False).bound(0.95, "upper") < 1.0
    assert passed / 250 == pytest.approx(0.05, abs=0.04)


def test_equal_scores_leave_nothing_to_resample() -> None:
    assert scores(np.full(30, 0.3)).bound(0.95, "upper") == pytest.approx(0.3)
    same = scores(np.array([0.2, 0.5, 0.7]))
    assert difference_bound(same, same, 0.95, "upper") == 0.0


def test_pairing_takes_out_what_both_models_find_hard() -> None:
    rng = np.random.default_rng(23)
    hard = rng.exponential(1.0, 300)
    ours, theirs = scores(hard + 0.01, higher=False), scores(hard, higher=False)
    assert difference_bound(ours, theirs, 0.95, "upper") == pytest.approx(0.01, abs=1e-9)
    assert ours.bound(0.95, "upper") - ours.value > 0.05


def test_a_root_mean_square_is_paired_on_the_same_resamples() -> None:
    rng = np.random.default_rng(24)
    squares = rng.exponential(1.0, 300)
    ours, theirs = scores(4 * squares, root=True), scores(squares, root=True)
    low, high = (difference_bound(ours, theirs, 0.95, side) for side in ("lower", "upper"))
    assert low < ours.value - theirs.value < high
    assert ours.value == pytest.approx(2 * theirs.value)
    assert math.isclose(high, theirs.bound(0.95, "upper"), rel_tol=0.05)  # 2 rmse - rmse


def test_different_numbers_of_samples_are_not_paired() -> None:
    with pytest.raises(ValueError, match="3 samples can't be paired with 2"):
        difference_bound(scores(np.ones(3)), scores(np.ones(2)), 0.95, "upper")


def test_resamples_repeat_and_come_in_blocks_of_bounded_size() -> None:
    one, two = (list(resamples(10_000, REPLICATES)) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert sum(len(block) for block in one) == REPLICATES
    assert max(block.size for block in one) <= 4_000_000
    assert one[0].min() >= 0
    assert one[0].max() < 10_000


def test_scores_have_samples_or_resamples_and_not_both() -> None:
    with pytest.raises(ValueError, match="either"):
        Scores("m", higher_is_better=True, value=0.5, n=3)
