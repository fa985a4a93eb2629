"""Statistics of latencies and proportions. The unit is the session, never the pooled sample.

A percentile is estimated once for each session; Student's t on the logarithms of these estimates gives the
interval. Scores of other kinds (bootstrap, paired differences) are in `accuracy`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.measurement import Interval, LatencySummary, Session, StageSummary
from edgeloop.errors import HarnessError

DECISION_RULE = "t-log-sessions/1"
"""Version of the rule that verdicts are made by; goes into records. A changed rule gets a new name."""

Side = Literal["lower", "upper"]
Statistic = Literal["p50", "p90", "p99", "mean", "min", "first", "load"]

_PERCENT: dict[str, float] = {"p50": 50.0, "p90": 90.0, "p99": 99.0}
_SESSIONS_MAX = 1000  # what a Plan can ask for


@dataclass(frozen=True, slots=True)
class LogMean:
    """A geometric mean over sessions with its spread: `mean` and `deviation` are of natural logarithms."""

    n: int
    mean: float
    deviation: float | None
    """Standard deviation over sessions (n - 1); None for a single session."""

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> LogMean:
        """Of positive values (n,), n at least 1; a clock that ticked 0 ns counts as 1."""
        logs = np.log(np.maximum(values, 1e-300))
        return cls(len(logs), float(logs.mean()), float(logs.std(ddof=1)) if len(logs) > 1 else None)

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
        one_sided = (1 + confidence) / 2
        low, high = self.bound(one_sided, "lower"), self.bound(one_sided, "upper")
        return None if low is None or high is None else Interval(low=low, high=high)

    def more_needed(self, limit: float, confidence: float) -> int | None:
        """About how many more values like these put the bound on one side of `limit`; None if 1000 would not."""
        if self.deviation is None or limit <= 0:
            return None
        distance = abs(math.log(limit) - self.mean)

        def decides(n: int) -> bool:
            return student_t(confidence, n - 1) * (self.deviation or 0.0) / math.sqrt(n) < distance

        low, high = self.n, _SESSIONS_MAX
        if not decides(high):
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if decides(middle) else (middle, high)
        return max(1, high - self.n)


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


def samples_needed(statistic: str, confidence: float) -> int:
    """Return the fewest samples in a session that show a percentile at all: n >= log(1 - c) / log(q).

    It is the number from which the slowest sample lies beyond the percentile with probability c (Wilks, 1941):
    5 for p50, 29 for p90, 299 for p99 at 95 %. Means and the like need 1.
    """
    percent = _PERCENT.get(statistic)
    return 1 if percent is None else math.ceil(math.log(1 - confidence) / math.log(percent / 100))


def latency_sessions(sessions: Sequence[Session]) -> list[Session]:
    """Those that timed something."""
    return [s for s in sessions if s.kind == "latency" and s.outcome == "ok" and len(s.latencies_ns)]


def estimate_in(session: Session, statistic: Statistic) -> float | None:
    """Return one session's own number, in ns; None where the session did not take it.

    Percentiles are median-unbiased (Hyndman and Fan, 1996, type 8): with the default of numpy the p99 of a few
    hundred heavy-tailed samples comes out low, and a limit would be passed too easily.
    """
    if statistic == "first":
        return None if session.first_ns is None else float(session.first_ns)
    if statistic == "load":
        return None if session.load_ns is None else float(session.load_ns)
    if statistic == "mean":
        return float(session.latencies_ns.mean())
    if statistic == "min":
        return float(session.latencies_ns.min())
    return float(np.percentile(session.latencies_ns, _PERCENT[statistic], method="median_unbiased"))


def log_mean(sessions: Sequence[Session], statistic: Statistic) -> LogMean | None:
    """Return the statistic over the sessions that timed something; None where none did."""
    found = [estimate_in(session, statistic) for session in latency_sessions(sessions)]
    values = np.array([value for value in found if value is not None], dtype=np.float64)
    return LogMean.of(np.maximum(values, 1.0)) if len(values) else None


def bound(sessions: Sequence[Session], statistic: Statistic, confidence: float, side: Side) -> float | None:
    """Return the one-sided bound of a latency statistic in ns; None with fewer than two sessions."""
    over_sessions = log_mean(sessions, statistic)
    return None if over_sessions is None else over_sessions.bound(confidence, side)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Candidate over reference, by rounds in which both were timed; `of_candidate` and `of_reference` in ns."""

    ratio: LogMean
    of_candidate: float
    of_reference: float


def ratio_by_rounds(candidate: Sequence[Session], reference: Sequence[Session], statistic: Statistic) -> Ratio | None:
    """Return the ratio of a statistic, paired by round; None where no round has both.

    A round of the schedule has every subject once, so the k-th latency session of one subject belongs to the k-th of
    the other, crashed ones counted. Sessions come in the order they ran, an extension's after the first look's.
    """
    pairs = []
    for ours, theirs in zip(
        [s for s in candidate if s.kind == "latency"], [s for s in reference if s.kind == "latency"], strict=False
    ):
        if latency_sessions([ours]) and latency_sessions([theirs]):
            pair = estimate_in(ours, statistic), estimate_in(theirs, statistic)
            if pair[0] is not None and pair[1] is not None:
                pairs.append((max(pair[0], 1.0), max(pair[1], 1.0)))
    if not pairs:
        return None
    values = np.array(pairs, dtype=np.float64)
    means = np.exp(np.log(values).mean(axis=0))
    return Ratio(LogMean.of(values[:, 0] / values[:, 1]), float(means[0]), float(means[1]))


def summarise(sessions: Sequence[Session], confidence: float) -> LatencySummary:
    """Return geometric means over sessions, and two-sided intervals where there are two sessions or more.

    `min` is the smallest sample of all, `samples` counts every one. Raises ValueError where no session timed
    anything, HarnessError where the sessions lack load or first inference.
    """
    timed = latency_sessions(sessions)
    if not timed:
        raise ValueError("no session timed anything")
    means: dict[str, LogMean] = {}
    names: tuple[Statistic, ...] = ("p50", "p90", "p99", "mean", "first", "load")
    for name in names:
        found = log_mean(timed, name)
        if found is None:
            raise HarnessError(f"sessions of {timed[0].label!r} came without a time for {name!r}")
        means[name] = found
    intervals = {name: means[name].interval(confidence) for name in ("p50", "p90", "p99")}
    return LatencySummary.model_validate(
        {
            **{name: mean.estimate for name, mean in means.items()},
            "sessions": len(timed),
            "samples": sum(len(s.latencies_ns) for s in timed),
            "min": float(min(s.latencies_ns.min() for s in timed)),
            "confidence": confidence,
            "interval": {name: interval for name, interval in intervals.items() if interval is not None},
        }
    )


def stage_summaries(sessions: Sequence[Session], confidence: float) -> tuple[StageSummary, ...]:
    """Return the median of each stage over sessions that were timed end to end; empty where none was.

    One median for each session, the geometric mean over sessions, Student's t on the logarithms: as for a latency.
    """
    timed = [session for session in latency_sessions(sessions) if session.stages_ns]
    found = []
    for stage in timed[0].stages_ns if timed else ():
        medians = [float(np.median(session.stages_ns[stage])) for session in timed]
        mean = LogMean.of(np.maximum(np.array(medians), 1.0))
        found.append(StageSummary(stage=stage, p50=mean.estimate, interval=mean.interval(confidence)))
    return tuple(found)


def wilson_bound(k: float, n: int, confidence: float, side: Side) -> float:
    """Return the one-sided Wilson score bound of a proportion k of n (Wilson, 1927); n at least 1."""
    z = normal_quantile(confidence)
    p = k / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    value = (centre + (half if side == "upper" else -half)) / (1 + z * z / n)
    return min(1.0, max(0.0, value))


def wilson(k: float, n: int, confidence: float) -> Interval:
    """Return the two-sided Wilson score interval of a proportion k of n."""
    one_sided = (1 + confidence) / 2
    return Interval(low=wilson_bound(k, n, one_sided, "lower"), high=wilson_bound(k, n, one_sided, "upper"))
