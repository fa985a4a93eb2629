"""What a finished trial says."""

import pytest

from edgeloop.core.events import Trial, TrialErrored
from edgeloop.core.limits import parse_limits
from edgeloop.core.network import Candidate, NetworkSpec
from edgeloop.core.plan import Plan
from edgeloop.core.verdict import Family, Finding, Outcome
from edgeloop.errors import Owner
from edgeloop.search.moves import (
    Intent,
    best_first,
    in_figures,
    result_of,
    score_of,
    worst_findings,
)
from edgeloop.search.rung_costs import RungComparison, RungCosts, in_percent
from edgeloop.testing.fakes.simulated_board import SimulatedBoard, Truth, simulated_sizes

CANDIDATE = Candidate(network=NetworkSpec(family="ds_cnn"), lightening="w8a8")
LIMITS = parse_limits(["latency.p90_ms=11", "top1=0.9", "size_bytes=1000"])


class Unrated:
    def rating(self, candidate: Candidate) -> tuple[float | None, int | None]:
        return 0.5, 900


def trial(
    latency_ms: float = 9.0, accuracy: float = 0.95, size: int = 900, number: int = 1, fault: Outcome | None = None
) -> Trial:
    """A finished trial; p90 is 1.1 times the latency."""
    board = SimulatedBoard(
        LIMITS,
        lambda _: Truth(latency_ms, accuracy, size, 1000),
        faults={} if fault is None else {CANDIDATE.key: fault},
        sizes_of=simulated_sizes,
    )
    return board.measure(number, CANDIDATE, "why", Unrated())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("finished", "intent"),
    [
        (trial(), Intent.PASSED),
        (trial(accuracy=0.8), Intent.LOWER),
        (trial(latency_ms=12), Intent.RAISE),
        (trial(size=1001), Intent.RAISE),
        (trial(latency_ms=20, accuracy=0.85), Intent.SMALLER),
        (trial(latency_ms=10.01, accuracy=0.5), Intent.LARGER),
        (trial(fault=Outcome.INCONCLUSIVE), Intent.NEIGHBOUR),
        (trial(fault=Outcome.ERROR, accuracy=0.1), Intent.KEEP),
        (trial(fault=Outcome.INVALID, accuracy=0.1), Intent.KEEP),
    ],
    ids=lambda value: value.name if isinstance(value, Intent) else "",
)
def test_each_outcome_turns_the_search_its_own_way(finished: Trial, intent: Intent) -> None:
    assert result_of(finished).intent is intent


def test_equal_to_the_limit_is_no_pass() -> None:
    assert result_of(trial(size=1000)).intent is Intent.RAISE
    assert result_of(trial(accuracy=0.9)).intent is Intent.LOWER


def test_over_several_targets_one_measured_failure_counts() -> None:
    good, bad = trial(), trial(latency_ms=12)
    both = good.model_copy(
        update={"judgements": (bad.judgements[0], good.judgements[0].model_copy(update={"target": "another"}))}
    )
    assert result_of(both).intent is Intent.RAISE


def test_of_several_targets_the_one_with_the_least_room_says_what_to_expect_unless_it_was_not_measured() -> None:
    fast, slow = (trial(latency_ms=ms).judgements[0] for ms in (5.0, 20.0))
    slow = slow.model_copy(update={"target": "slow"})
    hot = trial(latency_ms=50.0, fault=Outcome.INVALID).judgements[0].model_copy(update={"target": "hot"})
    found = {finding.family: finding.observed for finding in worst_findings([fast, slow, hot])}
    assert found == {Family.SPEED: pytest.approx(22.0), Family.ACCURACY: 0.95, Family.SIZE: 900}


def test_a_later_judgement_on_the_same_target_replaces_the_earlier() -> None:
    looked_good = trial().model_copy(update={"judgements": (*trial().judgements, *trial(latency_ms=12).judgements)})
    assert result_of(looked_good).intent is Intent.RAISE


def test_a_pass_under_a_quick_plan_does_not_count_as_one() -> None:
    quick = trial().judgements[0].model_copy(update={"plan": Plan.of("quick")})
    reading = result_of(trial().model_copy(update={"judgements": (quick,)}))
    assert reading.intent is Intent.PASSED
    assert not reading.may_pass


def test_an_error_after_a_measured_failure_says_nothing_of_the_network() -> None:
    lost = TrialErrored(trial=1, stage="measure", owner=Owner.LAB, message="lease lost")
    reading = result_of(trial(accuracy=0.1).model_copy(update={"error": lost}))
    assert reading.intent is Intent.KEEP
    assert "lab" in reading.not_measured


def test_a_figure_says_what_was_measured_and_the_limit() -> None:
    judged = trial(latency_ms=12.4 / 1.1).judgements[0]
    assert in_figures(judged.verdict.findings[0]) == "latency p90 12.4 ms is over 11 ms"
    assert in_figures(trial(accuracy=0.8).judgements[0].verdict.findings[1]) == "top1 0.8 is under 0.9"
    assert (
        in_figures(trial(size=1000).judgements[0].verdict.findings[2])
        == "deployed_size 1000 bytes is the limit itself, which is no pass"
    )


def test_an_undecided_figure_shows_its_interval() -> None:
    finding = Finding(
        limit_id="L1",
        family=Family.SPEED,
        text="latency p50 under 10 ms",
        unit="ms",
        outcome=Outcome.INCONCLUSIVE,
        limit=10,
        observed=9.9,
        interval=(9.5, None),
        reason="",
    )
    assert in_figures(finding) == "latency p50 9.9 ms (9.5 to open) can't be told from 10 ms"


def test_the_nearest_miss_is_the_one_least_outside_its_limits() -> None:
    far, near = trial(latency_ms=20, number=1), trial(latency_ms=10.5, number=2)
    passed, lost = trial(number=3), trial(number=4, fault=Outcome.ERROR)
    assert [t.number for t in best_first([far, near, passed, lost])] == [3, 2, 1]


def test_the_score_prefers_the_more_accurate_of_two_equally_fast() -> None:
    better, worse = score_of(trial(accuracy=0.97)), score_of(trial(accuracy=0.93))
    assert better is not None
    assert worse is not None
    assert better > worse
    assert score_of(trial(fault=Outcome.ERROR)) is None


def test_faster_means_by_more_than_the_noise() -> None:
    costs = RungCosts()
    for rung, latency in enumerate((10.0, 5.0, 9.95)):
        costs.learn(0, 0, rung, trial(latency_ms=latency).judgements[0])
    faster, equal = costs.compare(Family.SPEED, 0, 0, 0, 1), costs.compare(Family.SPEED, 0, 0, 0, 2)
    assert faster == RungComparison(ratio=0.5, better=True, network=0)
    assert equal is not None
    assert not equal.better
    assert in_percent(Family.SPEED, faster) == "50 % faster"
    assert "within" in in_percent(Family.SPEED, equal) or "not faster" in in_percent(Family.SPEED, equal)
    assert costs.compare(Family.SPEED, 0, 0, 0, 3) is None


def test_a_comparison_at_another_network_serves_where_none_was_made_here() -> None:
    costs = RungCosts()
    costs.learn(2, 0, 0, trial(latency_ms=10).judgements[0])
    costs.learn(2, 0, 1, trial(latency_ms=14).judgements[0])
    found = costs.compare(Family.SPEED, 0, 0, 0, 1)
    assert found is not None
    assert found.network == 2
    assert in_percent(Family.SPEED, found) == "40 % slower"


def test_an_invalid_measurement_teaches_no_cost() -> None:
    costs = RungCosts()
    for rung in (0, 1):
        costs.learn(0, 0, rung, trial(fault=Outcome.INVALID).judgements[0])
    assert costs.compare(Family.SPEED, 0, 0, 0, 1) is None


def energetic(energy_mj: float, limit_mj: float = 50.0, accuracy: float = 0.95) -> Trial:
    board = SimulatedBoard(
        parse_limits([f"energy_per_period_mj={limit_mj:g}", "top1=0.9"]),
        lambda _: Truth(9.0, accuracy, 900, 1000, energy_mj),
        faults={},
        sizes_of=simulated_sizes,
    )
    return board.measure(1, CANDIDATE, "why", Unrated())  # type: ignore[arg-type]


def test_energy_turns_the_search_as_speed_does() -> None:
    assert result_of(energetic(49)).intent is Intent.PASSED
    assert result_of(energetic(50)).intent is Intent.RAISE
    assert result_of(energetic(60)).failures[Family.ENERGY].unit == "mJ"
    assert result_of(energetic(80, accuracy=0.89)).intent is Intent.SMALLER
    assert result_of(energetic(50.1, accuracy=0.5)).intent is Intent.LARGER


def test_less_energy_means_by_more_than_the_noise() -> None:
    costs = RungCosts()
    for rung, energy in enumerate((40.0, 30.0, 39.9, 50.0)):
        costs.learn(0, 0, rung, energetic(energy).judgements[0])
    less, equal, more = (costs.compare(Family.ENERGY, 0, 0, 0, rung) for rung in (1, 2, 3))
    assert less == RungComparison(ratio=0.75, better=True, network=0)
    assert in_percent(Family.ENERGY, less) == "25 % less energy"
    assert equal is not None
    assert more is not None
    assert in_percent(Family.ENERGY, equal) == "no less energy beyond the noise (0 %)"
    assert in_percent(Family.ENERGY, more) == "25 % more energy"
    assert costs.compare(Family.ENERGY, 0, 0, 0, 4) is None
