"""Statistics of latencies and proportions. The unit is the session, never the pooled sample.

A percentile is estimated once for each session; Student's t on the logarithms of these estimates gives the
interval; how a decision rule makes bounds of it is in `spread`. Scores of other kinds (bootstrap, paired differences)
are in `accuracy`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeloop.analysis.percentiles import Side, percentile
from edgeloop.core.measurement import Interval, Session, StageSummary

Statistic = Literal["p50", "p90", "p99", "mean", "min", "first", "load"]

PERCENT: dict[str, float] = {"p50": 50.0, "p90": 90.0, "p99": 99.0}
SESSIONS_MAX = 1000  # what a Plan can ask for
_TREND_MIN = 4
_TREND_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class LogMean:
    """A geometric mean over sessions with its spread: `mean` and `deviation` are of natural logarithms."""

    n: int
    mean: float
    deviation: float | None
    """Standard deviation over sessions (n - 1); None for a single session."""
    slope: float = 0.0
    """From one value to the next, by least squares over the order they came in."""
    residual: float | None = None
    """Standard deviation around that line (n - 2); None with fewer than four values."""

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> LogMean:
        """Of positive values (n,) in the order they were taken, n at least 1."""
        logs = np.log(np.maximum(values, 1e-300))
        n, mean = len(logs), float(logs.mean())
        deviation = float(logs.std(ddof=1)) if n > 1 else None
        if n < _TREND_MIN:
            return cls(n, mean, deviation)
        times = np.arange(n) - (n - 1) / 2
        slope = float((logs * times).sum() / (times**2).sum())
        rest = logs - mean - slope * times
        return cls(n, mean, deviation, slope, math.sqrt(float((rest**2).sum()) / (n - 2)))

    @property
    def estimate(self) -> float:
        return math.exp(self.mean)

    def bound(self, confidence: float, side: Side) -> float | None:
        """Return the one-sided Student t bound in the unit of the values; None for a single session."""
        if self.deviation is None:
            return None
        half = student_t(confidence, self.n - 1) * self.deviation / math.sqrt(self.n)
        return math.exp(self.mean + (half if side == "upper" else -half))

    def interval(self, confidence: float) -> Interval | None:
        """Return the two-sided interval: two one-sided bounds that each miss half."""
        return two_sided(self.bound, confidence)

    def end_bound(self, confidence: float, side: Side) -> float | None:
        """Return the one-sided bound of the trend line at the last value; None where there is no trend to see.

        A trend is seen where Student's t of the slope is beyond its 5 % and 95 % points: in one of ten cases by
        chance, and then the bound is only wider.
        """
        if self.residual is None:
            return None
        n = self.n
        squares = n * (n * n - 1) / 12  # of the times, 0 in the middle
        if abs(self.slope) <= student_t(_TREND_CONFIDENCE, n - 2) * self.residual / math.sqrt(squares):
            return None
        last = (n - 1) / 2
        half = student_t(confidence, n - 2) * self.residual * math.sqrt(1 / n + last * last / squares)
        return math.exp(self.mean + self.slope * last + (half if side == "upper" else -half))

    def more_needed(self, limit: float, confidence: float) -> int | None:
        """About how many more values like these put the bound on one side of `limit`; None if 1000 would not."""
        if self.deviation is None or limit <= 0:
            return None
        distance = abs(math.log(limit) - self.mean)

        def decides(n: int) -> bool:
            return student_t(confidence, n - 1) * (self.deviation or 0.0) / math.sqrt(n) < distance

        return more_until(decides, self.n, SESSIONS_MAX)


def two_sided(bound: Callable[[float, Side], float | None], confidence: float) -> Interval | None:
    """Return the two-sided interval: two one-sided bounds that each miss half; None where there are none."""
    one_sided = (1 + confidence) / 2
    low, high = bound(one_sided, "lower"), bound(one_sided, "upper")
    return None if low is None or high is None else Interval(low=low, high=high)


def more_until(decides: Callable[[int], bool], n: int, most: int) -> int | None:
    """Return how many more than n, at least 1, are the fewest that decide; None where `most` in all would not.

    What decides at one number decides at every larger one.
    """
    if not decides(most):
        return None
    few, many = n, most
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if decides(middle) else (middle, many)
    return max(1, many - n)


def student_t(confidence: float, degrees: int) -> float:
    """Return the one-sided quantile of Student's t distribution."""
    from scipy.special import stdtrit  # a fifth of a second; scipy.stats takes more than one

    return float(stdtrit(degrees, confidence))


def normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(confidence)


def split_confidence(confidence: float, look: int, looks: int = 2) -> float:
    """Return the confidence of one look, where `looks` of them are allowed, so that all together keep `confidence`.

    The error is split evenly; by the union bound the chance of a false pass over all looks is then at most
    1 - confidence, whatever the later look is joined from. Raises ValueError for a look that was not planned.
    """
    if not 1 <= look <= looks:
        raise ValueError(f"look {look} of {looks}: the number of looks is fixed before the first")
    return 1 - (1 - confidence) / looks


def latency_sessions(sessions: Sequence[Session]) -> list[Session]:
    """Those that timed something."""
    return [s for s in sessions if s.kind == "latency" and s.outcome == "ok" and len(s.latencies_ns)]


def estimate_in(session: Session, statistic: Statistic) -> float | None:
    """Return one session's own number, in ns; None where the session did not take it."""
    if statistic == "first":
        return None if session.first_ns is None else float(session.first_ns)
    if statistic == "load":
        return None if session.load_ns is None else float(session.load_ns)
    if statistic == "mean":
        return float(session.latencies_ns.mean())
    if statistic == "min":
        return float(session.latencies_ns.min())
    return float(percentile(np.sort(session.latencies_ns), PERCENT[statistic]))


def stage_summaries(sessions: Sequence[Session], confidence: float) -> tuple[StageSummary, ...]:
    """Return the median of each stage over sessions that were timed end to end; empty where none was.

    One median for each session, the geometric mean over sessions, Student's t on the logarithms: as for a latency.
    """
    timings = [session for session in latency_sessions(sessions) if session.stages_ns]
    summaries = []
    for stage in timings[0].stages_ns if timings else ():
        medians = [float(np.median(session.stages_ns[stage])) for session in timings]
        mean = LogMean.of(np.maximum(np.array(medians), 1.0))
        summaries.append(StageSummary(stage=stage, p50=mean.estimate, interval=mean.interval(confidence)))
    return tuple(summaries)


def wilson_bound(k: float, n: int, confidence: float, side: Side) -> float:
    """Return the one-sided Wilson score bound of a proportion k of n (Wilson, 1927); n at least 1."""
    z = normal_quantile(confidence)
    p = k / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    value = (centre + (half if side == "upper" else -half)) / (1 + z * z / n)
    return min(1.0, max(0.0, value))


def share_bound(k: float, n: int, confidence: float, side: Side, *, exact: bool) -> float:
    """Return the one-sided bound of a proportion k of n that a verdict goes by.

    `exact`: the wider of Wilson's and the exact one (Clopper and Pearson, 1934). Wilson's holds its error on average
    over proportions; near 1, where limits on accuracy are, it failed up to 8 % of models that lay on the limit (`make
    honesty` under the first rule).
    """
    wilsons = wilson_bound(k, n, confidence, side)
    if not exact:
        return wilsons
    from scipy.special import betaincinv  # as above

    if side == "lower":
        return min(wilsons, float(betaincinv(k, n - k + 1, 1 - confidence)) if k > 0 else 0.0)
    return max(wilsons, float(betaincinv(k + 1, n - k, confidence)) if k < n else 1.0)


def wilson(k: float, n: int, confidence: float) -> Interval:
    """Return the two-sided Wilson score interval of a proportion k of n."""
    interval = two_sided(partial(wilson_bound, k, n), confidence)
    assert interval is not None, "a proportion has bounds"
    return interval
