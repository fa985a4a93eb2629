"""Schedules are blocked and repeatable, previews add up, and what can't be decided is refused with a way out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.analysis.plans import PROCESS_START_S, preview, schedule, undecidable
from edgeloop.analysis.statistics import share_bound, split_confidence
from edgeloop.core.limits import Limit, LimitSet, parse_limits
from edgeloop.core.plan import Plan
from edgeloop.errors import Fault

LABELS = st.lists(st.sampled_from(["candidate", "reference", "a", "b", "control"]), min_size=1, unique=True)


@given(LABELS, LABELS, st.integers(2, 12), st.integers(0, 99))
def test_every_round_has_every_subject_once_and_evaluations_come_first(
    timed: list[str], evaluated: list[str], sessions: int, seed: int
) -> None:
    steps = schedule(timed, evaluated, Plan(sessions=sessions, seed=seed))
    assert [s.index for s in steps] == list(range(len(steps)))
    first, rest = steps[: len(evaluated)], steps[len(evaluated) :]
    assert [(s.kind, s.label) for s in first] == [("evaluate", label) for label in evaluated]
    assert {s.kind for s in rest} == {"latency"}
    rounds = [rest[i : i + len(timed)] for i in range(0, len(rest), len(timed))]
    assert len(rounds) == sessions
    assert all(sorted(s.label for s in block) == sorted(timed) for block in rounds)


def test_one_seed_gives_one_order_on_every_machine() -> None:
    order = "".join(s.label for s in schedule(["a", "b"], [], Plan(sessions=8, seed=7)))
    assert order == "".join(s.label for s in schedule(["a", "b"], [], Plan(sessions=8, seed=7)))
    assert order == "bababaababababab"


def test_who_goes_first_is_drawn_anew_each_round() -> None:
    firsts = [s.label for s in schedule(["a", "b"], [], Plan(sessions=400, seed=3))][::2]
    assert 150 < firsts.count("a") < 250


def test_a_label_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="unique"):
        schedule(["a", "a"], [], Plan())


def test_a_preview_counts_warm_up_and_process_starts() -> None:
    plan = Plan.of("standard")
    seen = preview(plan, 2, 1000, 4e6)
    assert (seen.sessions, seen.samples_per_session) == (16, 500)
    assert seen.minutes * 60 == pytest.approx(16 * (PROCESS_START_S + 0.5 + 2.0) + 2 * (PROCESS_START_S + 4.0))


def test_a_slow_model_is_timed_until_the_run_floor_is_met() -> None:
    seen = preview(Plan(sessions=2, runs_min=50, time_s_min=2, deadline_s=1000), 1, None, 1e9)
    assert seen.samples_per_session == 50
    assert seen.minutes * 60 == pytest.approx(2 * (PROCESS_START_S + 1.0 + 50))


def test_at_one_hertz_ten_seconds_are_ten_samples() -> None:
    plan = Plan.of("qualification", period_ms=1000, runs_min=1)
    seen = preview(plan, 1, None, None)
    assert seen.samples_per_session == seen.samples_per_session_min == 10


def faults(
    words: list[str], plan: Plan | None = None, n: int | None = 1000, reference: bool = True, **options: object
) -> list[Fault]:
    return undecidable(parse_limits(words), plan or Plan(), n, reference, n is not None, **options)  # type: ignore[arg-type]


def test_a_p99_that_too_few_samples_show_is_refused_with_the_number() -> None:
    (fault,) = faults(["latency.p99_ms=40"])
    assert "p99 at 95% confidence needs at least 299 samples in each session; this plan gives 50 at 40 ms each" in str(
        fault
    )
    assert fault.next_step is not None
    assert "runs_min = 299" in fault.next_step
    assert faults(["latency.p99_ms=40"], Plan(runs_min=299)) == []
    assert faults(["latency.p99_ms=5"]) == []  # what passes is faster than 5 ms: at least 400 samples in 2 s


def test_a_duty_cycle_sets_the_number_of_samples() -> None:
    plan = Plan(period_ms=10, time_s_min=2.0, runs_min=1)
    assert "this plan gives 200 at a period of 10 ms" in str(faults(["latency.p99_ms=5"], plan)[0])
    assert faults(["latency.p90_ms=5"], plan) == []
    assert len(faults(["latency.p99_ratio=1"], plan)) == 1


def test_a_ratio_back_to_back_is_not_refused_for_a_latency_nobody_knows() -> None:
    assert faults(["latency.p99_ratio=1.1"]) == []
    assert len(faults(["latency.p99_ratio=1.1"], latency_hint_ns=100e6)) == 1


def test_limits_without_what_they_compare_with_are_refused_all_at_once() -> None:
    found = faults(["latency.p50_ratio=1", "top1=0.9", "agreement=0.9", "size_bytes=9"], n=None, reference=False)
    assert [fault.where.split()[1] for fault in found] == ["L1", "L2", "L3"]
    assert "there is none" in found[0].what
    (unlabelled,) = undecidable(parse_limits(["top1=0.9"]), Plan(), 100, has_reference=True, has_labels=False)
    assert "the data have none" in unlabelled.what


def test_a_metric_that_the_task_does_not_score_is_refused_with_the_nearest_name() -> None:
    (fault,) = faults(["topl=0.9"], metrics=["top1"])
    assert fault.next_step == "did you mean 'top1'?"


@settings(deadline=None)  # the first call imports scipy
@given(st.integers(1, 3000), st.floats(0.5, 0.9999))
def test_a_share_is_refused_exactly_where_all_right_would_not_pass(n: int, share: float) -> None:
    limits = LimitSet(limit=(Limit(metric="top1", min_fraction=share),))
    lower = share_bound(n, n, split_confidence(0.95, 1), "lower", exact=True)
    if abs(lower - share) > 1e-9:
        assert bool(undecidable(limits, Plan(), n, has_reference=False, has_labels=True)) == (lower <= share)


def test_a_share_about_this_set_needs_no_interval_and_one_of_everything_is_refused() -> None:
    small = Limit(metric="top1", min_fraction=0.999, about="this_set")
    assert undecidable(LimitSet(limit=(small,)), Plan(), 10, has_reference=False, has_labels=True) == []
    all_right = Limit(metric="top1", min_fraction=0.99, guard_fraction=0.01, about="this_set")
    (fault,) = undecidable(LimitSet(limit=(all_right,)), Plan(), 10**6, has_reference=False, has_labels=True)
    assert "nothing is over 1" in fault.what


def refused(limit: Limit, n: int, proportions: tuple[str, ...] = ("top1",)) -> str:
    found = undecidable(
        LimitSet(limit=(limit,)), Plan(), n, has_reference=True, has_labels=True, proportions=proportions, looks=1
    )
    return str(found[0]) if found else ""


def test_a_drop_that_not_losing_a_single_sample_would_not_show_is_refused_with_how_many_would() -> None:
    limit = Limit(metric="top1", max_drop_from_reference=0.005)
    told = refused(limit, 200)
    assert "no sample lost, and then up to" in told
    needed = int(told.split("score at least ")[1].split()[0])
    assert refused(limit, needed - 1)
    assert refused(limit, needed) == ""
    assert refused(Limit(metric="top1", max_drop_from_reference=0.005, about="this_set"), 20) == ""


def test_the_bootstrap_is_not_asked_about_a_population_by_a_handful() -> None:
    limit = Limit(metric="mae", max_value=0.2)
    assert "the bootstrap needs 30" in refused(limit, 29)
    assert refused(limit, 30) == ""
    assert refused(Limit(metric="mae", max_value=0.2, about="this_set"), 3) == ""


def test_what_nothing_can_pass_is_refused() -> None:
    assert "nothing is over 1" in refused(Limit(metric="top1", min_value=1.0), 1000)
    assert "no share is under 0" in refused(Limit(metric="wrong", max_value=0.1, guard_value=0.1), 1000, ("wrong",))


def test_energy_sessions_take_part_in_every_round_and_leave_the_order_without_them_as_it_was() -> None:
    plan = Plan(sessions=6, seed=5)
    steps = schedule(["candidate", "reference"], ["candidate"], plan, ["candidate"])
    rounds = [steps[1 + 3 * k : 4 + 3 * k] for k in range(6)]
    wanted = {("candidate", "latency"), ("reference", "latency"), ("candidate", "energy")}
    assert [{(s.label, s.kind) for s in one} for one in rounds] == [wanted] * 6
    assert len({tuple(s.kind for s in one) for one in rounds}) > 1
    assert [s.index for s in steps] == list(range(19))
    assert schedule(["a", "b"], [], plan, []) == schedule(["a", "b"], [], plan)


def test_the_windows_of_an_energy_session_are_whole_periods_and_many() -> None:
    assert Plan(time_s_min=2.0).energy_window_s == 2.0
    assert Plan(time_s_min=2.0, period_ms=300).energy_window_s == pytest.approx(6.0)
    assert Plan(time_s_min=2.0, period_ms=30).energy_window_s == pytest.approx(2.01)


def test_energy_sessions_are_counted_in_the_minutes() -> None:
    plan = Plan(sessions=10, warmup_s_min=0.5, time_s_min=2.0)
    more = preview(plan, 2, energies=1).minutes - preview(plan, 2).minutes
    assert more * 60 == pytest.approx(10 * (0.8 + 0.5 + 2 * 2.0 + 1.4))


def test_an_energy_limit_needs_a_meter_and_one_of_a_period_needs_that() -> None:
    words = ["energy_per_period_mj=3400", "energy_above_idle_mj=10"]
    (without,) = faults(words)
    assert "is about a period, and the plan has none" in str(without)
    assert "limit energy_above_idle" in str(without)
    assert faults(words, Plan(period_ms=1000)) == []
    unmetered = faults(words, Plan(period_ms=1000), unmetered=["pi4-07"])
    assert [fault.where.split()[1] for fault in unmetered] == ["L1", "L2"]
    assert "needs a power meter, and pi4-07 has none" in str(unmetered[0])
    (long,) = faults(words[1:], Plan(period_ms=60_000))
    assert "two windows of 20 periods or more" in str(long)
    assert "deadline is 600 s" in str(long)
