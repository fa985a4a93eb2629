"""Intervals over sessions cover what they claim, and percentiles are taken from enough samples."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from factories import make_session
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeloop.analysis.percentiles import Bursts, Side, burst_length, clock_step_ns, leaning, percentile, samples_needed
from edgeloop.analysis.spread import RULES, RatioSpread, Rule, ratio_by_rounds, rule_named, spread_of, summarise
from edgeloop.analysis.statistics import (
    LogMean,
    Statistic,
    estimate_in,
    split_confidence,
    student_t,
    wilson,
    wilson_bound,
)
from edgeloop.core.measurement import Session
from edgeloop.errors import HarnessError

MS = 1_000_000
PLAIN, CAREFUL = RULES["t-log-sessions/1"], RULES["t-log-sessions/2"]


def bound(sessions: list[Session], statistic: Statistic, confidence: float, side: Side) -> float | None:
    spread = spread_of(sessions, statistic, PLAIN)
    return None if spread is None else spread.bound(confidence, side)


def ratio(ours: list[Session], theirs: list[Session], rule: Rule = CAREFUL) -> RatioSpread:
    found = ratio_by_rounds(ours, theirs, "p50", rule)
    assert found is not None
    return found


def session(latencies: NDArray[np.int64], label: str = "candidate", index: int = 0, outcome: str = "ok") -> Session:
    return make_session(
        index=index,
        label=label,
        outcome=outcome,
        detail="" if outcome == "ok" else "SIGSEGV",
        latencies_ns=np.asarray(latencies, dtype=np.int64),
        warmups_ns=np.array([9 * MS], dtype=np.int64),
        load_ns=3 * MS,
        first_ns=2 * MS,
        peak_rss_bytes=None,
        runtime_rss_bytes=None,
    )


def sessions(values_ms: list[float], label: str = "candidate") -> list[Session]:
    """One session for each value, all of whose samples took it."""
    return [session(np.full(300, round(ms * MS)), label, i) for i, ms in enumerate(values_ms)]


@pytest.mark.parametrize(("percent", "needed"), [(50, 5), (90, 29), (99, 299)])
def test_a_percentile_needs_as_many_samples_as_wilks_says(percent: float, needed: int) -> None:
    assert samples_needed(percent, 0.95) == needed


@pytest.mark.parametrize("degrees", [1, 2, 7, 100])
def test_students_quantile_is_scipys(degrees: int) -> None:
    assert student_t(0.975, degrees) == pytest.approx(scipy.stats.t.ppf(0.975, degrees), rel=1e-9)


def test_the_verdicts_start_without_importing_scipy_stats() -> None:
    code = (
        "import sys, edgeloop.analysis.verdict as v, edgeloop.analysis.statistics as s; "
        "assert not any(m.startswith('scipy') for m in sys.modules); s.student_t(0.95, 3); "
        "assert 'scipy.stats' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_bound_is_students_t_on_the_logarithms_of_one_estimate_a_session() -> None:
    values = [9.0, 10.0, 12.0, 11.0]
    logs = np.log(np.array(values) * MS)
    expected = math.exp(logs.mean() + scipy.stats.t.ppf(0.95, 3) * logs.std(ddof=1) / 2)
    assert bound(sessions(values), "p90", 0.95, "upper") == pytest.approx(expected)


def test_more_samples_in_a_session_do_not_narrow_the_interval() -> None:
    few = [session(np.full(50, ms * MS), index=ms) for ms in (9, 10, 12)]
    many = [session(np.full(5000, ms * MS), index=ms) for ms in (9, 10, 12)]
    assert bound(few, "p50", 0.95, "upper") == bound(many, "p50", 0.95, "upper")


def test_one_session_has_no_interval_and_none_has_no_number() -> None:
    assert bound(sessions([10.0]), "p50", 0.95, "upper") is None
    assert bound([], "p50", 0.95, "upper") is None
    assert summarise(sessions([10.0]), 0.95).interval == {}
    with pytest.raises(ValueError, match="no session"):
        summarise([session(np.array([]), outcome="crashed")], 0.95)


def test_a_summary_is_made_of_geometric_means_over_sessions() -> None:
    summary = summarise([*sessions([8.0, 12.5]), session(np.array([]), outcome="crashed")], 0.95)
    assert (summary.sessions, summary.samples) == (2, 600)
    assert summary.p50 == pytest.approx(10 * MS)
    assert summary.min == 8 * MS
    assert (summary.first, summary.load) == (pytest.approx(2 * MS), pytest.approx(3 * MS))
    low, high = summary.interval["p50"].low, summary.interval["p50"].high
    assert low < summary.p50 < high
    assert low * high == pytest.approx(summary.p50**2)  # symmetric on the logarithm


def test_sessions_without_a_load_time_are_our_own_fault() -> None:
    incomplete = [
        Session(**{name: getattr(s, name) for name in Session.__slots__} | {"load_ns": None}) for s in sessions([9.0])
    ]
    with pytest.raises(HarnessError, match="load"):
        summarise(incomplete, 0.95)


def test_a_session_p99_of_few_heavy_tailed_samples_is_not_biased_low() -> None:
    rng = np.random.default_rng(5)
    truth = math.exp(scipy.stats.norm.ppf(0.99))
    found = [estimate_in(session(np.round(rng.lognormal(0, 1, 300) * MS)), "p99") for _ in range(800)]
    assert np.mean(np.array(found, dtype=float) > truth * MS) == pytest.approx(0.5, abs=0.05)


def simulated_estimates(rng: np.random.Generator, trials: int, count: int) -> NDArray[np.float64]:
    """Session estimates (trials, count) of true geometric mean 1, spread by 5 %."""
    return rng.lognormal(0.0, 0.05, (trials, count))


@pytest.mark.parametrize("count", [3, 8])
def test_at_the_limit_a_bound_is_on_the_wrong_side_in_five_of_a_hundred(count: int) -> None:
    rng = np.random.default_rng(11)
    uppers = [LogMean.of(row).bound(0.95, "upper") for row in simulated_estimates(rng, 3000, count)]
    wrong = np.mean([upper is not None and upper < 1 for upper in uppers])
    assert wrong == pytest.approx(0.05, abs=0.012)  # three standard errors


def test_two_looks_together_keep_the_nominal_error() -> None:
    rng = np.random.default_rng(12)
    wrong = 0
    for row in simulated_estimates(rng, 3000, 16):
        first = LogMean.of(row[:8])
        upper, lower = (first.bound(split_confidence(0.95, 1), side) for side in ("upper", "lower"))
        assert upper is not None
        assert lower is not None
        passed = upper < 1
        if upper >= 1 >= lower:  # inconclusive: extended once
            second = LogMean.of(row).bound(split_confidence(0.95, 2), "upper")
            passed = second is not None and second < 1
        wrong += passed
    assert 0.025 < wrong / 3000 <= 0.05


def test_looks_share_the_error_and_a_third_look_is_refused() -> None:
    shares = [1 - split_confidence(0.95, look) for look in (1, 2)]
    assert sum(shares) == pytest.approx(0.05)
    assert split_confidence(0.95, 1, looks=1) == 0.95
    with pytest.raises(ValueError, match="look 3 of 2"):
        split_confidence(0.95, 3)


def test_a_ratio_pairs_rounds_so_that_drift_cancels() -> None:
    drift = [1.0, 1.3, 1.7, 2.2]
    found = ratio(sessions([2 * d for d in drift]), sessions([4 * d for d in drift], "reference"))
    assert found.ratio.estimate == pytest.approx(0.5)
    upper = found.ratio.bound(0.95, "upper")
    assert upper is not None
    assert upper < 0.501


def test_a_crashed_session_takes_its_round_out_and_shifts_no_other() -> None:
    ours, theirs = sessions([2.0, 3.0, 4.0]), sessions([4.0, 6.0, 8.0], "reference")
    ours[1] = session(np.array([]), index=1, outcome="crashed")
    found = ratio(ours, theirs)
    assert found.ratio.n == 2
    assert found.ratio.estimate == pytest.approx(0.5)
    assert found.ratio.middle.deviation == pytest.approx(0, abs=1e-9)
    assert found.of_reference == pytest.approx(math.sqrt(32) * MS)


def test_a_model_beside_itself_is_called_different_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(13)
    wrong = 0
    for _ in range(600):
        drift = np.exp(np.cumsum(rng.normal(0, 0.05, 8)))
        one, two = (list(10 * drift * rng.lognormal(0, 0.02, 8)) for _ in range(2))
        interval = ratio(sessions(one), sessions(two, "reference")).ratio.interval(0.95)
        assert interval is not None
        wrong += not interval.low < 1 < interval.high
    assert wrong / 600 == pytest.approx(0.05, abs=0.027)


@given(st.integers(1, 5000), st.data())
def test_wilson_is_scipys_and_holds_the_share(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    ours, theirs = wilson(k, n, 0.95), scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=1e-9), pytest.approx(theirs.high, abs=1e-9))
    assert ours.low <= k / n + 1e-12
    assert ours.high >= k / n - 1e-12


def test_all_right_is_not_certainly_right() -> None:
    assert wilson_bound(100, 100, 0.95, "lower") == pytest.approx(100 / (100 + 1.6449**2), abs=1e-5)


def test_more_needed_is_about_what_decides() -> None:
    over = LogMean(n=8, mean=math.log(10.0), deviation=0.05)
    more = over.more_needed(10.3, 0.95)
    assert more is not None
    distance, total = math.log(1.03), 8 + more
    assert student_t(0.95, total - 1) * 0.05 / math.sqrt(total) < distance
    assert student_t(0.95, total - 2) * 0.05 / math.sqrt(total - 1) >= distance
    assert over.more_needed(10.0001, 0.95) is None


def test_old_rules_stay_runnable_and_unknown_ones_are_refused() -> None:
    assert rule_named("t-log-sessions/1") is PLAIN
    with pytest.raises(ValueError, match="no decision rule; known are t-log-sessions/1"):
        rule_named("median/9")


@given(st.integers(1, 400), st.sampled_from([50.0, 90.0, 99.0]), st.integers(0, 99))
def test_a_percentile_is_numpys_median_unbiased_one_and_lies_between_those_that_lean(
    n: int, percent: float, seed: int
) -> None:
    ordered = np.sort(np.random.default_rng(seed).integers(1, 10**6, n))
    found = percentile(ordered, percent)
    assert found == pytest.approx(np.percentile(ordered, percent, method="median_unbiased"), rel=1e-9)
    one = np.asarray(1.0)
    assert leaning(ordered, percent, one, "lower") <= found <= leaning(ordered, percent, one, "upper")


def test_samples_that_come_in_bursts_are_worth_one_each() -> None:
    rng = np.random.default_rng(3)
    alone = np.exp(rng.normal(0, 0.1, (8, 2000)))
    bursts = np.repeat(np.exp(rng.normal(0, 0.1, (8, 100))), 20, axis=1)

    def length(values: NDArray[np.float64]) -> float:
        return float(burst_length([Bursts.of(v, percentile(np.sort(v), 90)) for v in values]))

    assert length(alone) < 2
    assert 10 < length(bursts) < 30


def test_a_percentile_of_bursts_has_too_few_independent_samples() -> None:
    rng = np.random.default_rng(4)
    slow = [session(np.repeat(np.round(np.exp(rng.normal(0, 0.1, 25)) * MS), 20), index=i) for i in range(8)]
    careful, plain = (spread_of(slow, "p99", rule) for rule in (CAREFUL, PLAIN))
    assert careful is not None
    assert plain is not None
    assert plain.independent == 500
    assert careful.independent < 100


def test_where_sessions_show_a_trend_the_bound_holds_for_its_end() -> None:
    rising = sessions([10.0, 10.2, 10.4, 10.6, 10.8, 11.0, 11.2, 11.4])
    careful, plain = (spread_of(rising, "p50", rule) for rule in (CAREFUL, PLAIN))
    assert careful is not None
    assert plain is not None
    ends = careful.bound(0.95, "upper"), plain.bound(0.95, "upper")
    assert ends[0] is not None
    assert ends[1] is not None
    assert ends[0] > 11.39 * MS > ends[1]
    assert careful.bound(0.95, "lower") == pytest.approx(plain.bound(0.95, "lower"), rel=1e-6)


def test_no_bound_is_nearer_than_half_the_clocks_step() -> None:
    rng = np.random.default_rng(5)
    coarse = [session(rng.integers(70, 73, 500) * 10, index=i) for i in range(8)]
    assert clock_step_ns([s.latencies_ns for s in coarse]) == 10
    spread = spread_of(coarse, "p50", CAREFUL)
    assert spread is not None
    interval = spread.interval(0.95)
    assert interval is not None
    assert (interval.low, interval.high) == (pytest.approx(705), pytest.approx(715))
