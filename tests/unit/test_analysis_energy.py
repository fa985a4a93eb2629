"""Energy: integrals against analytic waveforms, figures over sessions, and what is said where there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from factories import make_artifact, make_session
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.analysis.energy import PlainMean, energies, integral_j, session_energy, summarise_energy
from edgeloop.analysis.subject_data import subject_data, summarise_subject
from edgeloop.analysis.verdict import judge
from edgeloop.core.limits import Limit, LimitSet, parse_limits
from edgeloop.core.measurement import PowerTrace, Session, Subject
from edgeloop.core.plan import Plan
from edgeloop.core.verdict import Family, Outcome, Verdict
from edgeloop.errors import Owner

NOTHING = np.array([], np.int64)
PLAN = Plan.of("standard", period_ms=100.0)


def trace(idle_w: float = 2.0, active_w: float = 3.0, hertz: float = 50.0, **changes: Any) -> PowerTrace:
    """Idle from 10 s to 12 s, active from 13 s to 15 s, 20 periods of 100 ms; the power steps at 12.5 s."""
    seconds = np.arange(9.0, 16.0, 1 / hertz)
    plain: dict[str, Any] = {
        "seconds": seconds,
        "watts": np.where(seconds < 12.5, idle_w, active_w),
        "idle_s": (10.0, 12.0),
        "active_s": (13.0, 15.0),
        "inferences": 20,
        "period_ms": 100.0,
        "meter": "ina226@1-0040/power1",
        "accuracy_pct": 0.0,
    }
    return PowerTrace(**{**plain, **changes})


def session(index: int, power: PowerTrace | None, **changes: Any) -> Session:
    return make_session(**{"index": index, "kind": "energy", "power": power} | changes)


def sessions(*powers: PowerTrace | None) -> list[Session]:
    return [session(index, power) for index, power in enumerate(powers)]


def judged(limit: str | Limit, *powers: PowerTrace | None, plan: Plan = PLAN) -> Verdict:
    limits = LimitSet(limit=(limit,)) if isinstance(limit, Limit) else parse_limits([limit])
    artifact = make_artifact()
    timed = session(99, None, kind="latency", latencies_ns=np.full(300, 1_000_000))
    observed = subject_data(Subject("candidate", artifact), "litert 2.3.0", [*sessions(*powers), timed])
    return judge(limits, observed, None, plan, looks=1)


class TestIntegral:
    @given(
        st.floats(0.1, 10),
        st.floats(-1, 1),
        st.lists(st.floats(0, 10), min_size=2, max_size=60, unique=True),
        st.floats(0.5, 4),
        st.floats(0.5, 5),
    )
    def test_a_line_is_integrated_exactly_wherever_the_readings_are(
        self, offset: float, slope: float, times: list[float], start: float, length: float
    ) -> None:
        seconds = np.array([0.0, *sorted(times), 10.0])
        end = start + length
        exact = offset * length + slope * (end**2 - start**2) / 2
        assert integral_j(seconds, offset + slope * seconds, start, end) == pytest.approx(exact, abs=1e-9)

    @given(st.floats(0, 2 * np.pi), st.floats(0.5, 3), st.floats(1, 8))
    def test_a_sine_is_integrated_to_the_error_of_trapezoids(self, phase: float, hertz: float, end: float) -> None:
        seconds, w = np.linspace(0, 10, 2001), 2 * np.pi * hertz
        exact = 2 * end + (np.cos(phase) - np.cos(w * end + phase)) / w
        bound = end * w**2 * (seconds[1] - seconds[0]) ** 2 / 12
        found = integral_j(seconds, 2 + np.sin(w * seconds + phase), 0.0, end)
        # Interpolating at the edge adds at most one more step's error.
        assert abs(found - exact) <= 2 * bound + 1e-9

    @given(st.floats(0.2, 9.8))
    def test_two_windows_side_by_side_are_one(self, middle: float) -> None:
        rng = np.random.default_rng(0)
        seconds, watts = np.sort(rng.uniform(0, 10, 300)), rng.uniform(1, 4, 300)
        parts = integral_j(seconds, watts, 0.1, middle) + integral_j(seconds, watts, middle, 9.9)
        assert parts == pytest.approx(integral_j(seconds, watts, 0.1, 9.9))

    def test_random_times_see_a_duty_cycle_that_a_fixed_cadence_of_its_period_misses(self) -> None:
        def power(seconds: Any) -> Any:  # 3 ms of every 10 ms at 4 W, else 2 W: 2.6 W in the mean
            return np.where(seconds % 0.010 < 0.003, 4.0, 2.0)

        rng = np.random.default_rng(1)
        steps = np.arange(0, 40, 0.050)
        fixed, drawn = steps + 0.001, steps + rng.uniform(0, 0.050, len(steps))
        assert integral_j(fixed, power(fixed), 1, 39) / 38 == pytest.approx(4.0)
        assert integral_j(drawn, power(drawn), 1, 39) / 38 == pytest.approx(2.6, abs=0.1)


class TestOneSession:
    def test_a_period_has_its_share_of_the_window_idle_time_included(self) -> None:
        found = session_energy(trace(idle_w=2.0, active_w=3.0))
        assert found.per_period_j == pytest.approx(0.300)
        assert found.above_idle_j == pytest.approx(0.100)
        assert (found.idle_w, found.active_w) == pytest.approx((2.0, 3.0))
        assert found.per_period_clock_j == found.above_idle_clock_j == 0.0

    def test_clocks_that_are_a_little_off_cost_nothing_where_the_power_is_steady_around_the_windows(self) -> None:
        found = session_energy(trace(clock_uncertainty_s=0.2))
        assert found.per_period_clock_j == pytest.approx(0.0, abs=1e-12)

    def test_clocks_that_are_far_off_cost_what_the_window_may_have_missed(self) -> None:
        # Moved by 0.6 s to either side, 0.1 s of the active window may have been idle, and 0.1 s of the idle active.
        found = session_energy(trace(clock_uncertainty_s=0.6))
        assert found.per_period_clock_j == pytest.approx(0.1 / 20, rel=0.15)
        assert found.above_idle_clock_j == pytest.approx(0.1 / 20, rel=0.15)

    @pytest.mark.parametrize(
        ("power", "said"),
        [
            (trace(hertz=4.0), "9 readings in the idle window of 2 s, at least 10 are needed"),
            (trace(update_s=0.5), "5 readings in the idle window"),
            (trace(inferences=15), "the period of 100 ms was not kept: 133.3 ms on the average"),
            (trace(lost="the meter's readings are lost: nobody watched it then"), "nobody watched it then"),
            (trace(clock_uncertainty_s=0.7), "the clocks of host and board are known to 700 ms only"),
            (trace(idle_w=0.0, active_w=0.0), "the meter read 0 W on the average"),
            (None, "its power was not recorded"),
        ],
    )
    def test_what_gives_no_energy_says_why_with_its_figure(self, power: PowerTrace | None, said: str) -> None:
        found = energies(sessions(power))
        assert found.estimate("energy_per_period") is None
        assert said in found.problems[0]
        assert found.problems[0].startswith("session 0: ")

    def test_a_meter_that_was_silent_for_a_part_of_a_window_is_not_bridged(self) -> None:
        whole = trace(hertz=100.0)
        heard = (whole.seconds < 13.5) | (whole.seconds > 14.2)
        (problem,) = energies(sessions(replace(whole, seconds=whole.seconds[heard], watts=whole.watts[heard]))).problems
        assert "no reading for 0.7" in problem
        assert "of the active window of 2 s" in problem

    def test_back_to_back_there_is_no_period_to_keep(self) -> None:
        summary = summarise_energy(sessions(trace(inferences=1000, period_ms=None)), 0.95)
        assert summary is not None
        assert summary.per == "inference"
        assert summary.per_period_mj == pytest.approx(6.0)
        assert summary.problems == ()


class TestOverSessions:
    def test_the_summary_says_energies_powers_meter_and_readings(self) -> None:
        powers = [trace(active_w=w, accuracy_pct=1.0) for w in (2.9, 3.0, 3.1, 3.0)]
        summary = summarise_energy(sessions(*powers), 0.95)
        assert summary is not None
        assert summary.per_period_mj == pytest.approx(300, rel=1e-3)
        assert summary.above_idle_mj == pytest.approx(100)
        assert (summary.idle_mw, summary.active_mw) == pytest.approx((2000, 3000))
        assert (summary.meter, summary.accuracy_pct, summary.sessions) == ("ina226@1-0040/power1", 1.0, 4)
        assert summary.samples >= 4 * 200
        interval = summary.interval["per_period"]
        assert interval.low < 290 < 300 < 310 < interval.high

    def test_above_idle_may_be_near_zero_or_below_it(self) -> None:
        powers = [trace(idle_w=2.0, active_w=2.0 + noise) for noise in (-0.02, 0.01, 0.015, -0.01)]
        summary = summarise_energy(sessions(*powers), 0.95)
        assert summary is not None
        assert summary.above_idle_mj == pytest.approx(-0.125)
        interval = summary.interval["above_idle"]
        assert interval.low < 0 < interval.high

    @pytest.mark.parametrize("truth", [0.0, -0.5, 3.0])
    def test_the_bound_of_a_mean_near_zero_misses_as_often_as_it_says(self, truth: float) -> None:
        rng = np.random.default_rng(5)
        values = rng.normal(truth, 1.0, (4000, 5))
        missed = [(PlainMean.of(row).bound(0.95, "upper") or 0.0) < truth for row in values]
        assert np.mean(missed) == pytest.approx(0.05, abs=0.012)

    def test_a_session_that_crashed_or_timed_latencies_is_none_of_the_energies(self) -> None:
        assert summarise_energy([session(0, None, outcome="crashed"), session(1, None, kind="latency")], 0.95) is None


class TestVerdict:
    def test_the_accuracy_of_the_meter_is_taken_to_the_bad_side(self) -> None:
        good, coarse = [trace()] * 4, [trace(accuracy_pct=2.0)] * 4
        assert judged("energy_per_period_mj=305", *good).outcome is Outcome.PASS
        (finding,) = judged("energy_per_period_mj=305", *coarse).findings
        assert finding.outcome is Outcome.INCONCLUSIVE
        assert finding.interval == pytest.approx((294.0, 306.0))
        assert "too near to the limit for this meter" in finding.reason
        assert judged("energy_per_period_mj=293", *coarse).outcome is Outcome.FAIL

    def test_a_guard_band_is_taken_off_the_limit(self) -> None:
        limit = Limit(metric="energy_per_period", max_mj=305, guard_mj=10)
        (finding,) = judged(limit, *[trace()] * 3).findings
        assert (finding.outcome, finding.limit, finding.unit) == (Outcome.FAIL, 295, "mJ")
        assert finding.family is Family.ENERGY
        assert "305 less 10 guard" in finding.reason

    def test_an_energy_above_idle_below_zero_passes_a_positive_limit(self) -> None:
        powers = [trace(active_w=w) for w in (1.98, 2.01, 1.99, 2.0)]
        assert judged("energy_above_idle_mj=5", *powers).outcome is Outcome.PASS

    def test_more_sessions_are_named_where_they_would_decide(self) -> None:
        (finding,) = judged("energy_per_period_mj=305", *[trace(active_w=w) for w in (2.8, 3.2, 2.9, 3.1)]).findings
        assert finding.outcome is Outcome.INCONCLUSIVE
        assert finding.more_sessions is not None
        assert 10 < finding.more_sessions < 100

    def test_sessions_without_an_energy_are_counted_and_said(self) -> None:
        (finding,) = judged("energy_per_period_mj=320", trace(), trace(), trace(lost="nobody watched")).findings
        assert finding.outcome is Outcome.PASS
        assert "1 of 3 energy sessions gave none: nobody watched (session 2)" in finding.reason

    def test_one_session_judges_nothing(self) -> None:
        (finding,) = judged("energy_per_period_mj=900", trace()).findings
        assert (finding.outcome, finding.more_sessions) == (Outcome.INCONCLUSIVE, 1)

    def test_no_energy_at_all_is_an_error_of_the_lab_and_no_failure(self) -> None:
        verdict = judged("energy_per_period_mj=1", trace(hertz=2.0), trace(hertz=2.0))
        assert (verdict.outcome, verdict.owner) == (Outcome.ERROR, Owner.LAB)
        assert "raise plan.time_s_min" in verdict.reasons[0]
        (nothing,) = judged("energy_per_period_mj=1").findings
        assert "no energy session of candidate ran" in nothing.reason

    def test_the_subjects_summary_carries_the_energy(self) -> None:
        artifact = make_artifact()
        observed = subject_data(Subject("candidate", artifact), "litert", sessions(trace(), trace()))
        summary = summarise_subject(observed, 0.95)
        assert summary.energy is not None
        assert summary.energy.per_period_mj == pytest.approx(300)
        assert summary.latency is None
