"""What is expected of an untried candidate, from findings about others."""

from __future__ import annotations

import pytest

from edgeloop.core.campaign import Search
from edgeloop.core.lightening import Lightening
from edgeloop.core.limits import parse_limits
from edgeloop.core.network import NetworkSpec
from edgeloop.core.verdict import Family, Finding, Outcome
from edgeloop.search.gaussian_process import LimitModel
from edgeloop.search.ranking import LIKELY
from edgeloop.search.size_model import predicted_bytes
from edgeloop.search.space import Point, SearchSpace
from edgeloop.testing.fakes.simulated_board import simulated_sizes

M1 = NetworkSpec(family="ds_cnn")
WIDTHS = (1.19, 1.41, 1.68, 2.0, 2.83)
RUNGS = ("fp32", "w8a8", "w4a8")


def expectation() -> LimitModel:
    sizes = simulated_sizes(M1)
    search = Search(widths=WIDTHS, lightenings=RUNGS, threads=(1, 2))
    space = SearchSpace(
        search=search,
        m1=M1,
        m1_sizes=sizes,
        m1_lightening="fp32",
        m1_bytes=predicted_bytes(sizes, Lightening.parse("fp32")),
        larger="factory",
        teacher="none",
        limits=parse_limits(["top1=0.9", "latency.p50_ms=10"]),
        sizes_of=simulated_sizes,
    )
    return LimitModel(space)


def finding(family: Family, observed: float, limit: float, *, more_is_better: bool = False) -> Finding:
    gap = observed - limit if more_is_better else limit - observed
    return Finding(
        limit_id=family.value,
        family=family,
        text="",
        unit="",
        outcome=Outcome.PASS if gap > 0 else Outcome.FAIL,
        limit=limit,
        observed=observed,
        gap=gap,
        reason="",
    )


def test_before_anything_was_measured_nothing_speaks_against_a_point() -> None:
    assert expectation().outside(Point(0, 0, 0)) == {}


def test_what_was_measured_far_outside_a_limit_is_expected_there_and_what_is_far_inside_is_not() -> None:
    known = expectation()
    known.learn(Point(2, 1, 0), finding(Family.SPEED, 20, 10))
    known.learn(Point(2, 1, 1), finding(Family.SPEED, 5, 10))
    assert known.outside(Point(2, 1, 0))[Family.SPEED] > 0.99
    assert known.outside(Point(2, 1, 1))[Family.SPEED] < 0.01


def test_a_larger_network_is_likelier_too_slow_and_less_likely_too_inaccurate() -> None:
    known = expectation()
    known.learn(Point(2, 1, 0), finding(Family.SPEED, 10.5, 10))
    known.learn(Point(2, 1, 0), finding(Family.ACCURACY, 0.89, 0.9, more_is_better=True))
    chances = [known.outside(Point(network, 1, 0)) for network in range(len(WIDTHS))]
    slow, wrong = ([chance[family] for chance in chances] for family in (Family.SPEED, Family.ACCURACY))
    assert slow == sorted(slow)
    assert wrong[2:] == sorted(wrong[2:], reverse=True)
    assert min(wrong[:2]) > LIKELY > wrong[-1]


def test_a_rung_that_measured_slower_at_one_width_is_expected_to_be_slower_at_others() -> None:
    known = expectation()
    known.learn(Point(1, 1, 0), finding(Family.SPEED, 6, 10))
    before = known.outside(Point(2, 2, 0))[Family.SPEED]
    known.learn(Point(1, 2, 0), finding(Family.SPEED, 12, 10))
    assert known.outside(Point(2, 2, 0))[Family.SPEED] > max(before, LIKELY)
    assert known.outside(Point(2, 1, 0))[Family.SPEED] < LIKELY, "the other rung is not blamed"


def test_another_thread_count_that_measured_faster_is_not_blamed_for_the_first() -> None:
    known = expectation()
    known.learn(Point(1, 1, 0), finding(Family.SPEED, 12, 10))
    known.learn(Point(1, 1, 1), finding(Family.SPEED, 6, 10))
    assert known.outside(Point(2, 1, 0))[Family.SPEED] > LIKELY
    assert known.outside(Point(2, 1, 1))[Family.SPEED] < 0.5


def test_accuracy_belongs_to_the_network_and_its_rung_whatever_runs_it() -> None:
    known = expectation()
    known.learn(Point(1, 1, 0), finding(Family.ACCURACY, 0.87, 0.9, more_is_better=True))
    assert known.outside(Point(1, 1, 1))[Family.ACCURACY] > 0.95


@pytest.mark.parametrize(("observed", "limit"), [(0.2, 0.1), (30.0, 10.0)])
def test_an_error_metric_fails_above_its_limit(observed: float, limit: float) -> None:
    known = expectation()
    known.learn(Point(1, 1, 0), finding(Family.ACCURACY, observed, limit))
    assert known.outside(Point(1, 1, 0))[Family.ACCURACY] > 0.95


def test_a_metric_beyond_1_and_figures_of_0_are_understood_or_left_out() -> None:
    known = expectation()
    known.learn(Point(1, 1, 0), finding(Family.ACCURACY, 35.0, 30.0, more_is_better=True))
    assert known.outside(Point(1, 1, 0))[Family.ACCURACY] < 0.1
    known.learn(Point(1, 1, 0), finding(Family.ACCURACY, 1.0, 0.9, more_is_better=True))
    assert known.outside(Point(1, 1, 0))[Family.ACCURACY] < 0.01
    fresh = expectation()
    fresh.learn(Point(1, 1, 0), finding(Family.ENERGY, -1.0, 10.0))
    fresh.learn(Point(1, 1, 0), finding(Family.SPEED, 1.0, 0.0))
    fresh.learn(Point(1, 1, 0), finding(Family.SIZE, 100.0, 10.0))
    assert fresh.outside(Point(1, 1, 0)) == {}
