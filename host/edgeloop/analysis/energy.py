"""Energy: from a session's power readings to joules, and from sessions to a figure with its bounds.

A session has an idle and an active window. The energy of a period is the integral of the power over the active window
(trapezoids, clipped to the window's edges), shared between its inferences; above idle, it is less the mean idle power
of the same session times the time. Every session gives one estimate of each. Over sessions:

- per period: Student's t on logarithms, and where the sessions show a trend the bound holds for its end too, as for
  latencies: a board that warms up takes more;
- above idle: Student's t on the values themselves. It is a difference that may be near zero or below it, where a
  logarithm is undefined or blows up, and its noise is that of the readings, which does not grow with it.

Two errors are the same in all sessions, so more sessions don't lessen them, and they are added to the bound on
whichever side is asked for: what the windows may be misplaced by (the clocks of host and board), and the meter's
accuracy, taken as a gain: it moves both windows alike, so it moves their difference in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeloop.analysis.percentiles import Side
from edgeloop.analysis.statistics import SESSIONS_MAX, LogMean, more_until, student_t, two_sided
from edgeloop.core.measurement import EnergySummary, Interval, PowerTrace, Session

READINGS_MIN = 10
"""In each window: fewer are a guess about what lies between them."""
GAP_SHARE_MAX = 0.2
"""Of a window, without a reading."""
CLOCK_SHARE_MAX = 0.25
"""Of a window, that it may be misplaced by."""
PERIOD_TOLERANCE = 0.05
"""A period that is longer by more than this was not kept."""
_SHIFTS = 9


@dataclass(frozen=True, slots=True)
class SessionEnergy:
    """One session's own figures, in joules, watts and seconds."""

    per_period_j: float
    above_idle_j: float
    idle_w: float
    active_w: float
    per_period_clock_j: float
    """The most that it changes where the windows are moved as far as the clocks leave open."""
    above_idle_clock_j: float
    readings: int


@dataclass(frozen=True, slots=True)
class PlainMean:
    """A mean over sessions, of values that may have any sign."""

    n: int
    mean: float
    deviation: float | None
    """Standard deviation over sessions (n - 1); None for a single session."""

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> PlainMean:
        """Of values (n,), n at least 1."""
        return cls(len(values), float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None)

    @property
    def estimate(self) -> float:
        return self.mean

    def bound(self, confidence: float, side: Side) -> float | None:
        """Return the one-sided Student t bound; None for a single session."""
        if self.deviation is None:
            return None
        half = student_t(confidence, self.n - 1) * self.deviation / math.sqrt(self.n)
        return self.mean + (half if side == "upper" else -half)


@dataclass(frozen=True, slots=True)
class EnergyEstimate:
    """A figure over sessions, in mJ, with what more sessions do not lessen."""

    over_sessions: LogMean | PlainMean
    clock_mj: float
    accuracy: float
    """A share of the figure."""

    @property
    def n(self) -> int:
        return self.over_sessions.n

    @property
    def mj(self) -> float:
        return self.over_sessions.estimate

    def bound(self, confidence: float, side: Side) -> float | None:
        """Return the one-sided bound, meter and clocks taken at their worst; None for a single session."""
        return self._at_worst(self.over_sessions, confidence, side)

    def interval(self, confidence: float) -> Interval | None:
        return two_sided(self.bound, confidence)

    def bounds_in_words(self, confidence: float, sessions: int) -> str:
        """Say the bounds of one look, and what is in them."""
        low, high = self.bound(confidence, "lower"), self.bound(confidence, "upper")
        if low is None or high is None:
            return f"1 session of {sessions}, and an interval needs 2"
        return (
            f"{confidence:.4g} bounds {low:.4g} to {high:.4g} mJ over {self.n} sessions, the meter's "
            f"{self.accuracy:.2%} taken in"
        )

    def more_needed(self, bar: float, confidence: float) -> int | None:
        """About how many more sessions like these put `bar` outside the bounds; None if 1000 would not."""
        if self.n < 2:
            return 1

        def decides(n: int) -> bool:
            like_these = type(self.over_sessions)(n, self.over_sessions.mean, self.over_sessions.deviation)
            low, high = (self._at_worst(like_these, confidence, side) for side in ("lower", "upper"))
            return low is not None and high is not None and (high < bar or low > bar)

        return more_until(decides, self.n, SESSIONS_MAX)

    def _at_worst(self, over_sessions: LogMean | PlainMean, confidence: float, side: Side) -> float | None:
        bound = over_sessions.bound(confidence, side)
        if bound is None:
            return None
        end = over_sessions.end_bound(confidence, side) if isinstance(over_sessions, LogMean) else None
        if end is not None:
            bound = max(bound, end) if side == "upper" else min(bound, end)
        sign = 1 if side == "upper" else -1
        with_clocks = bound + sign * self.clock_mj
        return with_clocks + sign * self.accuracy * abs(with_clocks)


@dataclass(frozen=True, slots=True)
class Energies:
    """The energy sessions of one subject: those that gave an energy, and those that did not."""

    of_sessions: tuple[SessionEnergy, ...]
    losses: tuple[tuple[int, str], ...]
    """Index of each session that gave no energy, and why."""
    traces: tuple[PowerTrace, ...]
    """Of the sessions that gave one."""

    @property
    def losses_in_words(self) -> str:
        """A sentence on the sessions that gave none; empty where all did."""
        if not self.losses:
            return ""
        by_reason: dict[str, list[str]] = {}
        for index, reason in self.losses:
            by_reason.setdefault(reason, []).append(str(index))
        reasons = "; ".join(f"{reason} (session {', '.join(at)})" for reason, at in list(by_reason.items())[:3])
        return f"{len(self.losses)} of {self.count} energy sessions gave none: {reasons}"

    @property
    def problems(self) -> tuple[str, ...]:
        """A line for each session that gave none."""
        return tuple(f"session {index}: {reason}" for index, reason in self.losses)

    @property
    def count(self) -> int:
        """Energy sessions that ran."""
        return len(self.of_sessions) + len(self.losses)

    def estimate(self, metric: str) -> EnergyEstimate | None:
        """Return a figure over sessions, by the metric's name; None where no session gave an energy."""
        if not self.of_sessions:
            return None
        accuracy = max(trace.accuracy_pct for trace in self.traces) / 100
        pairs = [_FIGURES[metric](energy) for energy in self.of_sessions]
        values = np.array([value_j for value_j, _ in pairs]) * 1e3
        clock_mj = float(np.mean([clock_j for _, clock_j in pairs])) * 1e3
        return EnergyEstimate(_MEANS[metric].of(values), clock_mj, accuracy)


_FIGURES: dict[str, Callable[[SessionEnergy], tuple[float, float]]] = {
    "energy_per_period": lambda energy: (energy.per_period_j, energy.per_period_clock_j),
    "energy_above_idle": lambda energy: (energy.above_idle_j, energy.above_idle_clock_j),
}
"""By metric: a session's energy, and how far the clocks leave it open."""
_MEANS: dict[str, type[LogMean | PlainMean]] = {
    "energy_per_period": LogMean,
    "energy_above_idle": PlainMean,  # a difference that may be near zero or below it
}


def energies(sessions: Sequence[Session]) -> Energies:
    """Return the energy of each energy session that ran, or why it has none."""
    of_sessions: list[SessionEnergy] = []
    losses: list[tuple[int, str]] = []
    traces: list[PowerTrace] = []
    for session in sessions:
        if session.kind != "energy" or session.outcome != "ok":
            continue
        trace = session.power
        problem = "its power was not recorded" if trace is None else _problem(trace)
        if trace is None or problem is not None:
            losses.append((session.index, problem or ""))
            continue
        energy = session_energy(trace)
        if energy.per_period_j <= 0:
            losses.append((session.index, f"the meter read {energy.active_w:.4g} W on the average"))
            continue
        of_sessions.append(energy)
        traces.append(trace)
    return Energies(tuple(of_sessions), tuple(losses), tuple(traces))


def summarise_energy(sessions: Sequence[Session], confidence: float) -> EnergySummary | None:
    """Return the energies for people; None where there was no energy session that ran."""
    figures = energies(sessions)
    if not figures.count:
        return None
    estimates = {
        "per_period": figures.estimate("energy_per_period"),
        "above_idle": figures.estimate("energy_above_idle"),
    }
    intervals = {name: e.interval(confidence) for name, e in estimates.items() if e is not None}
    traces = [session.power for session in sessions if session.power is not None]
    per_period, above_idle = estimates["per_period"], estimates["above_idle"]
    return EnergySummary.model_validate(
        {
            "per": "inference" if traces and traces[0].period_ms is None else "period",
            "per_period_mj": None if per_period is None else per_period.mj,
            "above_idle_mj": None if above_idle is None else above_idle.mj,
            "idle_mw": _mean_mw([e.idle_w for e in figures.of_sessions]),
            "active_mw": _mean_mw([e.active_w for e in figures.of_sessions]),
            "confidence": confidence,
            "interval": {name: interval for name, interval in intervals.items() if interval is not None},
            "meter": traces[0].meter if traces else "",
            "accuracy_pct": max((trace.accuracy_pct for trace in traces), default=0.0),
            "clock_uncertainty_ms": max((trace.clock_uncertainty_s for trace in figures.traces), default=0.0) * 1e3,
            "sessions": len(figures.of_sessions),
            "samples": sum(e.readings for e in figures.of_sessions),
            "problems": figures.problems,
        }
    )


def integral_j(seconds: NDArray[np.float64], watts: NDArray[np.float64], start_s: float, end_s: float) -> float:
    """Return the energy between two times: trapezoids, the power at the edges interpolated.

    Beyond the first and the last reading the power is taken as theirs. Times must not decrease.
    """
    inside = (seconds > start_s) & (seconds < end_s)
    edges = np.interp([start_s, end_s], seconds, watts)
    times = np.concatenate([[start_s], seconds[inside], [end_s]])
    powers = np.concatenate([edges[:1], watts[inside], edges[1:]])
    return float(np.sum((powers[1:] + powers[:-1]) * np.diff(times)) / 2)


def session_energy(trace: PowerTrace) -> SessionEnergy:
    """Return one session's figures. The trace must have readings."""
    per_period_j, above_idle_j, idle_w, active_w = _at(trace, 0.0)
    shifts = np.linspace(-trace.clock_uncertainty_s, trace.clock_uncertainty_s, _SHIFTS)
    others = [_at(trace, float(shift)) for shift in shifts] if trace.clock_uncertainty_s else []
    return SessionEnergy(
        per_period_j=per_period_j,
        above_idle_j=above_idle_j,
        idle_w=idle_w,
        active_w=active_w,
        per_period_clock_j=max((abs(m[0] - per_period_j) for m in others), default=0.0),
        above_idle_clock_j=max((abs(m[1] - above_idle_j) for m in others), default=0.0),
        readings=sum(_inside(trace, window) for window in (trace.idle_s, trace.active_s)),
    )


def _at(trace: PowerTrace, shift_s: float) -> tuple[float, float, float, float]:
    """Energy of a period, above idle, idle power, active power, with both windows moved."""
    (idle_from, idle_to), (active_from, active_to) = trace.idle_s, trace.active_s
    idle_j = integral_j(trace.seconds, trace.watts, idle_from + shift_s, idle_to + shift_s)
    active_j = integral_j(trace.seconds, trace.watts, active_from + shift_s, active_to + shift_s)
    idle_w, active_s = idle_j / (idle_to - idle_from), active_to - active_from
    above_j = active_j - idle_w * active_s
    return active_j / trace.inferences, above_j / trace.inferences, idle_w, active_j / active_s


def _problem(trace: PowerTrace) -> str | None:
    """Why a trace says nothing of an energy, with the figure; None where it does."""
    if trace.lost:
        return trace.lost
    if trace.period_ms is not None:
        took_ms = (trace.active_s[1] - trace.active_s[0]) / trace.inferences * 1e3
        if took_ms > trace.period_ms * (1 + PERIOD_TOLERANCE):
            return f"the period of {trace.period_ms:g} ms was not kept: {took_ms:.4g} ms on the average"
    for name, window in (("idle", trace.idle_s), ("active", trace.active_s)):
        length_s = window[1] - window[0]
        readings = _inside(trace, window)
        if readings < READINGS_MIN:
            return (
                f"{readings} readings in the {name} window of {length_s:.3g} s, at least {READINGS_MIN} are needed: "
                "raise plan.time_s_min, or take a faster meter"
            )
        gap_s = _longest_gap_s(trace.seconds, window)
        if gap_s > length_s * GAP_SHARE_MAX:
            return f"no reading for {gap_s:.3g} s of the {name} window of {length_s:.3g} s"
        if trace.clock_uncertainty_s > length_s * CLOCK_SHARE_MAX:
            return (
                f"the clocks of host and board are known to {trace.clock_uncertainty_s * 1e3:.0f} ms only, "
                f"the {name} window is {length_s:.3g} s: raise plan.time_s_min"
            )
    return None


def _inside(trace: PowerTrace, window: tuple[float, float]) -> int:
    """Readings in a window; a value that is read again before the meter has a new one counts once."""
    count = int(((trace.seconds >= window[0]) & (trace.seconds <= window[1])).sum())
    return count if not trace.update_s else min(count, int((window[1] - window[0]) / trace.update_s) + 1)


def _longest_gap_s(seconds: NDArray[np.float64], window: tuple[float, float]) -> float:
    """The longest part of a window that lies between two readings."""
    inside = seconds[(seconds > window[0]) & (seconds < window[1])]
    return float(np.diff(np.concatenate([window[:1], inside, window[1:]])).max())


def _mean_mw(watts: Sequence[float]) -> float | None:
    return float(np.mean(watts)) * 1e3 if watts else None
