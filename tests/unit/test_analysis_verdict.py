"""The decision rule: strict, honest at its nominal error, monotone in the limit, and clear about what it can't say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from factories import make_artifact, make_session
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.analysis.accuracy import Scores
from edgeloop.analysis.subject_data import SubjectData, subject_data, summarise_subject
from edgeloop.analysis.verdict import judge
from edgeloop.core.limits import Limit, LimitSet, parse_limits
from edgeloop.core.measurement import Session, Subject, Trust
from edgeloop.core.plan import Plan
from edgeloop.core.verdict import Family, Outcome, Verdict
from edgeloop.errors import Owner

MS, MIB = 1_000_000, 1024 * 1024
PLAN = Plan.of("standard")
EIGHT = (9.8, 10.1, 10.0, 9.9, 10.2, 10.0, 9.9, 10.1)


def session(label: str, index: int, ms: float, samples: int = 300, **changes: Any) -> Session:
    plain: dict[str, Any] = {
        "latencies_ns": np.full(samples, round(ms * MS), dtype=np.int64),
        "load_ns": 5 * MS,
        "first_ns": round(2 * ms * MS),
        "peak_rss_bytes": (50 + index) * MIB,
        "runtime_rss_bytes": 30 * MIB,
    }
    return make_session(index=index, label=label, **plain | changes)


def crashed(label: str, index: int, **changes: Any) -> Session:
    nothing = np.array([], dtype=np.int64)
    return session(label, index, 1.0, outcome="crashed", detail="killed by SIGSEGV", latencies_ns=nothing, **changes)


def seen(
    values: Sequence[float] = EIGHT,
    label: str = "candidate",
    deployed_bytes: int = 1000,
    top1: Sequence[float] | None = None,
    agreed: Sequence[float] | None = None,
    samples: int = 300,
) -> SubjectData:
    artifact = make_artifact(deployed_bytes=deployed_bytes)
    return subject_data(
        Subject(label, artifact),
        "litert 2.3.0",
        [session(label, index, ms, samples) for index, ms in enumerate(values)],
        {} if top1 is None else {"top1": share("top1", top1)},
        None if agreed is None else share("agreement", agreed),
    )


def share(metric: str, values: Sequence[float], *, higher: bool = True) -> Scores:
    array = np.asarray(values, dtype=np.float64)
    return Scores(metric, higher, float(array.mean()), len(array), per_sample=array)


def right(k: int, n: int) -> list[float]:
    return [1.0] * k + [0.0] * (n - k)


def judged(limit: str | Limit, candidate: SubjectData, reference: SubjectData | None = None, **options: Any) -> Verdict:
    limits = LimitSet(limit=(limit,)) if isinstance(limit, Limit) else parse_limits([limit])
    return judge(limits, candidate, reference, PLAN, **options)


def outcome(
    limit: str | Limit, candidate: SubjectData, reference: SubjectData | None = None, **options: Any
) -> Outcome:
    return judged(limit, candidate, reference, **options).outcome


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("latency.p90_ms=10.5", "PASS"), ("latency.p90_ms=9.5", "FAIL"), ("latency.p90_ms=10.03", "INCONCLUSIVE")],
)
def test_latency_passes_fails_or_stays_open_by_its_bounds(limit: str, expected: str) -> None:
    verdict = judged(limit, seen())
    assert verdict.outcome == expected
    (finding,) = verdict.findings
    assert finding.outcome == expected
    assert finding.unit == "ms"
    assert finding.interval is not None
    assert finding.observed == pytest.approx(9.9992, abs=1e-3)
    assert finding.gap == pytest.approx((finding.limit or 0) - (finding.observed or 0))
    assert finding.gap_relative == pytest.approx((finding.gap or 0) / (finding.limit or 1))
    assert "p90 9.999 ms, limit" in finding.reason
    assert "8 sessions" in finding.reason


def test_what_is_open_says_how_many_more_sessions_would_decide() -> None:
    (finding,) = judged("latency.p90_ms=10.06", seen()).findings
    assert finding.outcome is Outcome.INCONCLUSIVE
    assert finding.more_sessions is not None
    assert 1 <= finding.more_sessions <= 30
    assert f"needs about {finding.more_sessions} more sessions" in finding.reason
    more = seen(EIGHT * (1 + finding.more_sessions // 8 + 1))
    assert outcome("latency.p90_ms=10.06", more, look=2) is Outcome.PASS


def test_a_latency_that_is_the_limit_to_the_last_bit_is_not_a_pass() -> None:
    assert outcome("latency.p50_ms=10", seen([10.0] * 8)) is Outcome.INCONCLUSIVE
    assert outcome("latency.p50_ms=10.0001", seen([10.0] * 8)) is Outcome.PASS


def test_equal_bytes_are_not_a_pass_and_one_less_is() -> None:
    assert outcome("size_bytes=1000", seen()) is Outcome.FAIL
    assert outcome("size_bytes=1001", seen()) is Outcome.PASS


def test_an_equal_share_of_this_set_is_not_a_pass() -> None:
    def limit(bound: float) -> Limit:
        return Limit(metric="top1", min_fraction=bound, about="this_set")

    assert outcome(limit(0.9), seen(top1=right(9, 10))) is Outcome.FAIL
    assert outcome(limit(0.899), seen(top1=right(9, 10))) is Outcome.PASS
    (finding,) = judged(limit(0.899), seen(top1=right(9, 10))).findings
    assert finding.interval is None
    assert "exactly these 10 samples" in finding.reason


def test_an_equal_drop_is_not_a_pass_whatever_the_last_digits_of_a_float_say() -> None:
    limit = Limit(metric="top1", max_drop_from_reference=0.005, about="this_set")
    reference = seen(label="reference", top1=right(900, 1000))
    assert outcome(limit, seen(top1=right(895, 1000)), reference) is Outcome.FAIL
    assert outcome(limit, seen(top1=right(896, 1000)), reference) is Outcome.PASS


def test_a_guard_band_tightens_the_limit() -> None:
    plain, guarded = (Limit(metric="latency", statistic="p50", max_ms=10.5, guard_ms=g) for g in (0.0, 1.0))
    assert outcome(plain, seen()) is Outcome.PASS
    verdict = judged(guarded, seen())
    assert verdict.outcome is Outcome.FAIL
    assert verdict.findings[0].limit == 9.5
    assert "10.5 less 1 guard" in verdict.findings[0].reason
    kept = Limit(metric="top1", min_fraction=0.9, guard_fraction=0.05)
    assert judged(kept, seen(top1=right(1000, 1000))).findings[0].limit == pytest.approx(0.95)


@given(
    st.lists(st.floats(5, 20), min_size=2, max_size=10),
    st.lists(st.floats(4, 25), min_size=2, max_size=6, unique=True),
)
def test_a_looser_limit_never_makes_a_verdict_worse(values: list[float], bounds: list[float]) -> None:
    order = [Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS]
    candidate = seen(values, samples=30)
    found = [order.index(outcome(f"latency.p50_ms={bound!r}", candidate)) for bound in sorted(bounds)]
    assert found == sorted(found)


@given(st.integers(0, 200), st.lists(st.floats(0.01, 0.99), min_size=2, max_size=6))
def test_a_higher_floor_never_makes_a_verdict_better(k: int, floors: list[float]) -> None:
    order = [Outcome.PASS, Outcome.INCONCLUSIVE, Outcome.FAIL]
    candidate = seen(top1=right(k, 200))
    limits = [Limit(metric="top1", min_fraction=floor) for floor in sorted(floors)]
    found = [order.index(outcome(limit, candidate)) for limit in limits]
    assert found == sorted(found)


def test_at_the_limit_five_of_a_hundred_pass_with_one_look_and_no_more_with_two() -> None:
    rng = np.random.default_rng(31)
    once = twice = 0
    trials = 500
    for _ in range(trials):
        values = rng.lognormal(np.log(10.0), 0.05, 16)
        once += outcome("latency.p50_ms=10", seen(values[:8], samples=10), looks=1) is Outcome.PASS
        first = outcome("latency.p50_ms=10", seen(values[:8], samples=10), look=1)
        if first is Outcome.INCONCLUSIVE:
            first = outcome("latency.p50_ms=10", seen(values, samples=10), look=2)
        twice += first is Outcome.PASS
    assert once / trials == pytest.approx(0.05, abs=0.03)
    assert twice / trials <= 0.05 + 0.03


def test_a_ratio_is_judged_by_rounds_and_told_in_milliseconds() -> None:
    drift = (1.0, 1.5, 2.0, 2.5)
    reference = seen([10 * d for d in drift], "reference")
    verdict = judged("latency.p90_ratio=0.6", seen([5 * d for d in drift]), reference)
    assert verdict.outcome is Outcome.PASS
    (finding,) = verdict.findings
    assert finding.observed == pytest.approx((finding.limit or 0) * 0.5 / 0.6)
    assert finding.gap_relative == pytest.approx(1 / 6, rel=1e-6)
    assert "0.5 x M1" in finding.reason
    assert "over 4 rounds" in finding.reason
    assert outcome("latency.p90_ratio=0.4", seen([5 * d for d in drift]), reference) is Outcome.FAIL


def test_a_drop_is_paired_and_told_in_the_metrics_own_unit() -> None:
    reference = seen(label="reference", top1=right(950, 1000))
    (finding,) = judged("top1_drop=0.02", seen(top1=right(945, 1000)), reference).findings
    assert finding.outcome is Outcome.PASS  # unpaired, two shares of 1000 could not tell 0.02 apart
    assert finding.limit == pytest.approx(0.93)
    assert finding.observed == pytest.approx(0.945)
    assert finding.interval is not None
    assert finding.interval[0] is not None
    assert 0.93 < finding.interval[0] < 0.945
    assert outcome("top1_drop=0.02", seen(top1=right(900, 1000)), reference) is Outcome.FAIL


def test_of_an_error_metric_a_drop_is_a_rise() -> None:
    rng = np.random.default_rng(32)
    hard = rng.exponential(1.0, 400)

    def with_mae(label: str, values: np.ndarray) -> SubjectData:
        observed = seen(label=label)
        scores = {"mae": share("mae", list(values), higher=False)}
        return SubjectData(label, "e", 1, 1, observed.sessions, scores)

    reference = with_mae("reference", hard)
    limit = Limit(metric="mae", max_drop_from_reference=0.05)
    assert outcome(limit, with_mae("candidate", hard + 0.01), reference) is Outcome.PASS
    assert outcome(limit, with_mae("candidate", hard + 0.2), reference) is Outcome.FAIL
    assert outcome(limit, with_mae("candidate", hard - 0.2), reference) is Outcome.PASS


@pytest.mark.parametrize(("k", "expected"), [(990, "PASS"), (905, "INCONCLUSIVE"), (800, "FAIL")])
def test_a_share_is_judged_about_the_population(k: int, expected: str) -> None:
    verdict = judged("top1=0.9", seen(top1=right(k, 1000)))
    assert verdict.outcome == expected
    assert verdict.findings[0].family is Family.ACCURACY


def test_an_open_share_says_how_many_more_samples_would_decide() -> None:
    (finding,) = judged("top1=0.9", seen(top1=right(910, 1000))).findings
    assert finding.more_samples is not None
    total = 1000 + finding.more_samples
    assert outcome("top1=0.9", seen(top1=right(round(0.91 * total), total)), look=2) is Outcome.PASS
    assert f"needs about {finding.more_samples} more samples" in finding.reason


def test_agreement_is_a_share_and_the_reference_must_have_been_compared() -> None:
    assert outcome("agreement=0.97", seen(agreed=right(995, 1000))) is Outcome.PASS
    verdict = judged("agreement=0.97", seen())
    assert verdict.outcome is Outcome.ERROR
    assert "agreement was not scored" in verdict.reasons[0]


def test_memory_is_that_of_the_worst_session() -> None:
    (finding,) = judged("rss_above_runtime_mib=28", seen()).findings
    assert finding.observed == 27 * MIB
    assert finding.outcome is Outcome.PASS
    assert "worst session" in finding.reason
    assert outcome("peak_rss_mib=57", seen()) is Outcome.FAIL
    assert outcome(Limit(metric="deployed_size", max_ratio_to_reference=0.5), seen(), seen(label="reference")) == "FAIL"


def test_memory_that_was_not_read_is_no_pass() -> None:
    blind = SubjectData("candidate", "e", 1, 1, (session("candidate", 0, 1, peak_rss_bytes=None),))
    verdict = judged("rss_mib=100", blind)
    assert (verdict.outcome, verdict.owner) == (Outcome.ERROR, Owner.HARNESS)


def test_too_few_samples_for_a_percentile_never_pass_but_may_fail() -> None:
    few = seen(samples=100)
    verdict = judged("latency.p99_ms=20", few)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "p99 needs 299 samples in each session, the shortest has 100" in verdict.findings[0].reason
    assert outcome("latency.p99_ms=5", few) is Outcome.FAIL
    assert outcome("latency.p99_ms=20", seen(samples=299)) is Outcome.PASS
    short = seen(label="reference", samples=100)
    assert outcome("latency.p99_ratio=2", seen(), short) is Outcome.INCONCLUSIVE


def test_one_session_decides_nothing() -> None:
    verdict = judged("latency.p50_ms=100", seen([10.0]))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.findings[0].more_sessions == 1


def test_first_inference_and_load_are_judged_over_sessions() -> None:
    assert outcome(Limit(metric="first_inference", max_ms=25), seen()) is Outcome.PASS
    assert outcome(Limit(metric="first_inference", max_ms=15), seen()) is Outcome.FAIL
    assert outcome(Limit(metric="load", max_ms=4), seen()) is Outcome.FAIL


def verdicts(limits: list[str], candidate: SubjectData, **options: Any) -> Verdict:
    return judge(parse_limits(limits), candidate, None, PLAN, **options)


def test_a_departure_from_the_environment_goes_before_every_finding() -> None:
    verdict = verdicts(["latency.p50_ms=5"], seen(), trust=Trust(valid=False, reasons=("the clock was set",)))
    assert (verdict.outcome, verdict.reasons) == (Outcome.INVALID, ("the clock was set",))
    assert verdict.findings[0].outcome is Outcome.FAIL


def test_a_failure_goes_before_what_is_open_and_that_before_a_pass() -> None:
    passing, open_, failing = "size_bytes=2000", "latency.p90_ms=10.03", "latency.p50_ms=5"
    assert verdicts([passing, open_, failing], seen()).outcome is Outcome.FAIL
    assert verdicts([passing, open_], seen()).outcome is Outcome.INCONCLUSIVE
    assert verdicts([passing], seen()).outcome is Outcome.PASS
    worst = verdicts([passing, open_, failing], seen()).worst
    assert worst is not None
    assert worst.limit_id == "L3"


def test_without_limits_nothing_was_judged_and_nothing_passed() -> None:
    assert judge(LimitSet(), seen(), None, PLAN).outcome is Outcome.INCONCLUSIVE


def with_sessions(sessions: Sequence[Session], scores: Mapping[str, Scores] | None = None) -> SubjectData:
    return SubjectData("candidate", "e", 1, 1000, tuple(sessions), dict(scores or {}))


def test_a_model_that_never_ran_is_an_error_of_the_model_even_where_its_bytes_fail() -> None:
    verdict = verdicts(
        ["latency.p50_ms=20", "size_bytes=10"], with_sessions([crashed("candidate", i) for i in range(8)])
    )
    assert (verdict.outcome, verdict.owner) == (Outcome.ERROR, Owner.MODEL)
    assert verdict.reasons == (
        "8 of 8 sessions of candidate broke",
        "latency session crashed: killed by SIGSEGV",
    )


def test_a_model_that_crashes_now_and_then_does_not_pass_but_may_fail() -> None:
    some = with_sessions([*seen().sessions, crashed("candidate", 8)])
    assert verdicts(["latency.p50_ms=20"], some).outcome is Outcome.ERROR
    assert verdicts(["latency.p50_ms=20"], some).findings[0].outcome is Outcome.PASS
    assert verdicts(["latency.p50_ms=5"], some).outcome is Outcome.FAIL


def test_a_crash_while_evaluating_is_no_accuracy() -> None:
    verdict = verdicts(
        ["latency.p50_ms=20", "top1=0.9"], with_sessions([crashed("candidate", 0, kind="evaluate"), *seen().sessions])
    )
    assert (verdict.outcome, verdict.owner) == (Outcome.ERROR, Owner.MODEL)
    assert "evaluate session crashed: killed by SIGSEGV" in verdict.reasons


def test_a_reference_that_crashed_leaves_a_ratio_unmeasured() -> None:
    reference = SubjectData("reference", "e", 1, 1, tuple(crashed("reference", i) for i in range(8)))
    verdict = judged("latency.p50_ratio=2", seen(), reference)
    assert verdict.outcome is Outcome.ERROR
    assert "8 of 8 sessions of reference broke" in verdict.reasons


def test_sessions_of_other_subjects_are_not_observed() -> None:
    mixed = [*seen().sessions, *seen([99.0], "reference").sessions]
    artifact = make_artifact()
    assert len(subject_data(Subject("candidate", artifact), "e", mixed).sessions) == 8


def test_a_summary_reports_two_sided_intervals_and_the_worst_memory() -> None:
    summary = summarise_subject(seen(top1=right(90, 100), agreed=right(95, 100)), 0.95)
    assert summary.latency is not None
    assert summary.latency.p50 == pytest.approx(10 * MS, rel=1e-3)
    assert (summary.peak_rss_bytes, summary.runtime_rss_bytes) == (57 * MIB, 30 * MIB)
    assert [(m.metric, m.value, m.n) for m in summary.metrics] == [("top1", 0.9, 100)]
    assert summary.metrics[0].interval is not None
    assert summary.metrics[0].interval.low == pytest.approx(0.8256, abs=1e-3)
    assert summary.agreement is not None
    assert summarise_subject(with_sessions([crashed("candidate", 0)]), 0.95).latency is None


def test_a_verdict_names_its_rule_and_an_older_rule_judges_as_it_did() -> None:
    rising = seen([9.0 + 0.1 * step for step in range(8)])
    assert judged("latency.p50_ms=9.6", rising, looks=1).rule == "t-log-sessions/2"
    old = judged("latency.p50_ms=9.6", rising, looks=1, rule="t-log-sessions/1")
    assert old.rule == "t-log-sessions/1"
    assert old.outcome is Outcome.PASS
    assert outcome("latency.p50_ms=9.6", rising, looks=1) is Outcome.INCONCLUSIVE  # it ends at 9.7 ms, and rises


@pytest.mark.parametrize(
    ("limit", "bar"),
    [
        (Limit(metric="latency", statistic="p50", max_ms=12, guard_ms=1), 11),
        (Limit(metric="latency", statistic="p50", max_ratio_to_reference=1.5, guard_ratio=0.3), 1.2 * 10),
        (Limit(metric="deployed_size", max_bytes=1100, guard_bytes=50), 1050),
        (Limit(metric="deployed_size", max_ratio_to_reference=1.5, guard_ratio=0.3), 1200),
        (Limit(metric="peak_rss", max_mib=64, guard_mib=2), 62 * MIB),
        (Limit(metric="top1", min_fraction=0.9, guard_fraction=0.02), 0.92),
        (Limit(metric="top1", max_drop_from_reference=0.1, guard_fraction=0.02), 0.92),
        (Limit(metric="top1", min_value=0.9, guard_value=0.01), 0.91),
        (Limit(metric="top1", max_value=0.9, guard_value=0.01), 0.89),
    ],
)
def test_every_bound_has_a_guard_in_its_own_unit_and_says_so(limit: Limit, bar: float) -> None:
    alike = seen([10.0] * 8, top1=[1.0] * 200), seen([10.0] * 8, "reference", top1=[1.0] * 200)
    (finding,) = judged(limit, *alike).findings
    assert finding.limit == pytest.approx(bar)
    assert f"{limit.guard:g} guard" in finding.reason
    assert f"with {limit.guard:g}" in finding.text
    assert "guard" in finding.text


def test_a_guard_of_another_unit_or_one_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="guard_ms goes with max_ms"):
        Limit(metric="top1", min_fraction=0.9, guard_ms=1)
    with pytest.raises(ValueError, match=r"guard_ratio 2 leaves nothing of max_ratio_to_reference 1\.5"):
        Limit(metric="deployed_size", max_ratio_to_reference=1.5, guard_ratio=2)
    with pytest.raises(ValueError, match="this_set"):
        Limit(metric="latency", statistic="p50", max_ms=4, about="this_set")
