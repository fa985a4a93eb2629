"""Two models side by side, timed in the same rounds and scored on the same samples: B beside A.

Ratios are B over A, differences B less A. Rounds pair the times, samples pair the scores; see docs/explanation/
measuring.md.
"""

from __future__ import annotations

from functools import partial
from typing import get_args

from edgeloop.analysis.accuracy import Scores, difference_bound, differing
from edgeloop.analysis.decision import too_short
from edgeloop.analysis.spread import DECISION_RULE, ratio_by_rounds, rule_named
from edgeloop.analysis.statistics import two_sided
from edgeloop.analysis.subject_data import SubjectData, metric_summary
from edgeloop.core.frozen import Frozen
from edgeloop.core.limits import Limit, LimitSet
from edgeloop.core.measurement import Interval, MetricSummary
from edgeloop.core.metric import LatencyStatistic
from edgeloop.core.metrics import compared_readings
from edgeloop.core.verdict import Verdict


class Ratio(Frozen):
    """B over A of one statistic. The interval is two-sided; None where there are too few rounds or samples."""

    value: float
    interval: Interval | None
    note: str = ""
    """Why there is no interval."""


class ScoreDifference(Frozen):
    """B less A of one metric, on the same samples. `gained` samples are right only for B, `lost` only for A."""

    metric: str
    a: float
    b: float
    difference: float
    interval: Interval
    n: int
    gained: int | None
    lost: int | None
    """None where a sample is not right or wrong."""


class Comparison(Frozen):
    """B beside A."""

    confidence: float
    rounds: int
    """Rounds in which both were timed."""
    ratio: dict[LatencyStatistic, Ratio]
    readings: dict[str, int | float | None]
    """Differences of what is read, by key (`deployed_bytes`, `peak_rss_bytes`, ...); None where one was not read."""
    metrics: tuple[ScoreDifference, ...] = ()
    agreement: MetricSummary | None = None
    """Share of samples in which both agree; None without data."""


def compare(a: SubjectData, b: SubjectData, confidence: float) -> Comparison:
    """Compare two subjects of one job. `agreement` of b is that with a."""
    ratios: dict[LatencyStatistic, Ratio] = {}
    rounds = 0
    for statistic in get_args(LatencyStatistic):
        pairs = ratio_by_rounds(b.sessions, a.sessions, statistic, rule_named(DECISION_RULE))
        if pairs is not None:
            rounds = pairs.ratio.n
            short = too_short(pairs.ratio, statistic, confidence)
            interval = None if short else pairs.ratio.interval(confidence)
            note = short or ("" if interval else "an interval needs 2 rounds")
            ratios[statistic] = Ratio(value=pairs.ratio.estimate, interval=interval, note=note)
    return Comparison(
        confidence=confidence,
        rounds=rounds,
        ratio=ratios,
        readings={row.key: _difference(a.reading(row), b.reading(row)) for row in compared_readings()},
        metrics=tuple(
            _score_difference(a.scores[name], b.scores[name], confidence) for name in b.scores if name in a.scores
        ),
        agreement=None if b.agreement is None else metric_summary(b.agreement, confidence),
    )


def worse_by(percent: float, statistic: LatencyStatistic, confidence: float) -> LimitSet:
    """Return the limit whose PASS is "B is shown not to be worse than A by so much", whose FAIL "it is shown to be"."""
    limit = Limit(id="worse", metric="latency", statistic=statistic, max_ratio_to_reference=1 + percent / 100)
    return LimitSet(id="compare", confidence=confidence, limit=(limit,))


def in_words(verdict: Verdict, percent: float) -> Verdict:
    """Return the verdict of `worse_by` with its limit said as it was asked."""
    return verdict.model_copy(
        update={
            "findings": tuple(
                finding.model_copy(update={"text": f"{finding.label} of B not worse by {percent:g} %"})
                for finding in verdict.findings
            )
        }
    )


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else b - a


def _score_difference(a: Scores, b: Scores, confidence: float) -> ScoreDifference:
    interval = two_sided(partial(difference_bound, b, a), confidence)
    assert interval is not None, "paired scores have bounds"
    gained, lost = differing(b, a) if a.is_share and b.is_share else (None, None)
    return ScoreDifference(
        metric=b.metric,
        a=a.value,
        b=b.value,
        difference=b.value - a.value,
        interval=interval,
        n=b.n,
        gained=gained,
        lost=lost,
    )
