"""The spread of a latency over sessions, as decision rules see it: one number a session, its logarithm, Student's t.

A rule is a name and what it takes care of. Old rules stay runnable, so that a record is judged again as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeloop.analysis.percentiles import (
    Bursts,
    Side,
    Values,
    burst_length,
    clock_step_ns,
    leaning,
    percentile,
)
from edgeloop.analysis.statistics import PERCENT, LogMean, Statistic, estimate_in, latency_sessions, two_sided
from edgeloop.core.measurement import Interval, LatencySummary, Session
from edgeloop.errors import HarnessError


@dataclass(frozen=True, slots=True)
class Rule:
    """A decision rule. All take Student's t on the logarithms of one number a session, or a round."""

    name: str
    leans: bool
    """Bounds of a percentile are of the order statistics one independent sample further in, and out."""
    bursts: bool
    """A percentile needs so many *independent* samples; those that come in bursts count as one."""
    trend: bool
    """Where the sessions show a trend, the bound holds for its end too."""
    clock: bool
    """Bounds are never nearer than half the clock's step."""
    exact: bool
    """Bounds of shares are never nearer than the exact ones, and samples are lost whole."""


RULES = {
    rule.name: rule
    for rule in (
        Rule("t-log-sessions/1", leans=False, bursts=False, trend=False, clock=False, exact=False),
        Rule("t-log-sessions/2", leans=True, bursts=True, trend=True, clock=True, exact=True),
    )
}
DECISION_RULE = "t-log-sessions/2"
"""Version of the rule that verdicts are made by; goes into records. A changed rule gets a new name."""


def rule_named(name: str) -> Rule:
    """Raises ValueError for a rule that never was."""
    if name not in RULES:
        raise ValueError(f"{name!r} is no decision rule; known are {', '.join(RULES)}")
    return RULES[name]


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over sessions or rounds, with the bounds that a rule gives it, in the unit of the values."""

    middle: LogMean
    low: LogMean
    """Of what lower bounds are made of."""
    high: LogMean
    trend: bool
    half_step: float
    """Half the clock's step, in the unit of the values."""
    independent: int
    """Independent samples in the session that has the fewest."""
    burst: float = 1.0
    """Samples that are worth one."""

    @property
    def n(self) -> int:
        return self.middle.n

    @property
    def estimate(self) -> float:
        return self.middle.estimate

    def bound(self, confidence: float, side: Side) -> float | None:
        """Return the one-sided bound; None for a single session."""
        over = self.high if side == "upper" else self.low
        bound_of_mean = over.bound(confidence, side)
        if bound_of_mean is None:
            return None
        end = over.end_bound(confidence, side) if self.trend else None
        if side == "upper":
            return (bound_of_mean if end is None else max(bound_of_mean, end)) + self.half_step
        return max(0.0, (bound_of_mean if end is None else min(bound_of_mean, end)) - self.half_step)

    def interval(self, confidence: float) -> Interval | None:
        """Return the two-sided interval: two one-sided bounds that each miss half."""
        return two_sided(self.bound, confidence)

    def more_needed(self, limit: float, confidence: float) -> int | None:
        """About how many more sessions like these decide; None where the limit is nearer than sessions can show."""
        passes = self.estimate < limit
        bar = limit - self.half_step if passes else limit + self.half_step
        over = self.high if passes else self.low
        if bar <= 0 or passes != (over.estimate < bar):
            return None  # one sample more or less in each session decides: longer sessions would help
        return over.more_needed(bar, confidence)


@dataclass(frozen=True, slots=True)
class RatioSpread:
    """Candidate over reference, by rounds in which both were timed; `of_candidate` and `of_reference` in ns."""

    ratio: Spread
    of_candidate: float
    of_reference: float


def spread_of(sessions: Sequence[Session], statistic: Statistic, rule: Rule) -> Spread | None:
    """Return a statistic over the sessions that timed something, in ns; None where none did."""
    timings = [session for session in latency_sessions(sessions) if estimate_in(session, statistic) is not None]
    if not timings:
        return None
    percent = PERCENT.get(statistic)
    counts = [len(session.latencies_ns) for session in timings]
    half_step = clock_step_ns([s.latencies_ns for s in timings]) / 2 if rule.clock and percent is not None else 0.0
    if percent is None:
        values = np.array([estimate_in(session, statistic) for session in timings], dtype=np.float64)
        return spread_from(values, values, values, rule, half_step, min(counts))
    sorted_samples = [np.sort(session.latencies_ns) for session in timings]
    middle = np.array([percentile(values, percent) for values in sorted_samples])
    burst = 1.0
    if rule.bursts:
        raw = [Bursts.of(s.latencies_ns, np.asarray(at)) for s, at in zip(timings, middle, strict=True)]
        burst = float(burst_length(raw))
    low = high = middle
    if rule.leans:
        length = np.asarray(burst)
        low = np.array([leaning(values, percent, length, "lower") for values in sorted_samples])
        high = np.array([leaning(values, percent, length, "upper") for values in sorted_samples])
    return spread_from(low, middle, high, rule, half_step, min(counts), burst)


def spread_from(
    low: Values, middle: Values, high: Values, rule: Rule, half_step: float, samples: int, burst: float = 1.0
) -> Spread:
    """Return the spread of one number a session (sessions,), ns; `samples` are those of the shortest session."""
    of_low, of_middle, of_high = (LogMean.of(np.maximum(values, 1.0)) for values in (low, middle, high))
    # A hair's breadth of rounding does not make 299 samples too few.
    return Spread(of_middle, of_low, of_high, rule.trend, half_step, math.floor(samples / burst + 1e-9), burst)


def ratio_by_rounds(
    candidate: Sequence[Session], reference: Sequence[Session], statistic: Statistic, rule: Rule
) -> RatioSpread | None:
    """Return the ratio of a statistic, paired by round; None where no round has both.

    A round of the schedule has every subject once, so the k-th latency session of one subject belongs to the k-th of
    the other, crashed ones counted. Sessions come in the order they ran, an extension's after the first look's. What
    a rule leans by, and a drift of the board, fall on both alike and cancel.
    """
    pairs, ours, theirs = [], [], []
    for one, other in zip(
        [s for s in candidate if s.kind == "latency"], [s for s in reference if s.kind == "latency"], strict=False
    ):
        if latency_sessions([one]) and latency_sessions([other]):
            pair = estimate_in(one, statistic), estimate_in(other, statistic)
            if pair[0] is not None and pair[1] is not None:
                pairs.append((max(pair[0], 1.0), max(pair[1], 1.0)))
                ours.append(one)
                theirs.append(other)
    if not pairs:
        return None
    of_ours, of_theirs = (spread_of(sessions, statistic, rule) for sessions in (ours, theirs))
    assert of_ours is not None
    assert of_theirs is not None
    values = np.array(pairs, dtype=np.float64)
    means = np.exp(np.log(values).mean(axis=0))
    ratio = paired_spread(values[:, 0], values[:, 1], of_ours, of_theirs)
    return RatioSpread(ratio, float(means[0]), float(means[1]))


def paired_spread(ours: Values, theirs: Values, of_ours: Spread, of_theirs: Spread) -> Spread:
    """Return the spread of ours / theirs, one number a round each (rounds,), ns, whose own spreads are given."""
    ratio = LogMean.of(ours / theirs)
    relative = of_ours.half_step / of_ours.estimate + of_theirs.half_step / of_theirs.estimate
    fewest = min((of_ours, of_theirs), key=lambda spread: spread.independent)
    return Spread(
        ratio,
        ratio,
        ratio,
        trend=False,
        half_step=ratio.estimate * relative,
        independent=fewest.independent,
        burst=fewest.burst,
    )


def summarise(sessions: Sequence[Session], confidence: float, rule: str = DECISION_RULE) -> LatencySummary:
    """Return geometric means over sessions, and two-sided intervals where there are two sessions or more.

    `min` is the smallest sample of all, `samples` counts every one. Raises ValueError where no session timed
    anything, HarnessError where the sessions lack load or first inference.
    """
    timings = latency_sessions(sessions)
    if not timings:
        raise ValueError("no session timed anything")
    spreads: dict[str, Spread] = {}
    names: tuple[Statistic, ...] = ("p50", "p90", "p99", "mean", "first", "load")
    for name in names:
        spread = spread_of(timings, name, rule_named(rule))
        if spread is None:
            raise HarnessError(f"sessions of {timings[0].label!r} came without a time for {name!r}")
        spreads[name] = spread
    intervals = {name: spreads[name].interval(confidence) for name in ("p50", "p90", "p99")}
    return LatencySummary.model_validate(
        {
            **{name: spread.estimate for name, spread in spreads.items()},
            "sessions": len(timings),
            "samples": sum(len(s.latencies_ns) for s in timings),
            "min": float(min(s.latencies_ns.min() for s in timings)),
            "confidence": confidence,
            "interval": {name: interval for name, interval in intervals.items() if interval is not None},
        }
    )
