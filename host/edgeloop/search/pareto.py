"""The front: of the candidates that were confirmed, those that no other one beats everywhere.

Accuracy is better the higher (an error metric the lower), latency, deployed bytes and energy the lower. One candidate
dominates another where it is no worse on every axis and better on one, by the estimates: a rule with noise in it would
not be transitive, and the reports show every interval. Candidates that are equal on every axis stay together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeloop.core.events import FrontAxis, Judgement, Trial
from edgeloop.core.limits import LimitSet
from edgeloop.core.metric import LatencyStatistic, Metric, OnFront
from edgeloop.core.metrics import METRICS, metric_named
from edgeloop.core.verdict import Family
from edgeloop.search.moves import decisive


@dataclass(frozen=True, slots=True)
class _AxisReader:
    """An axis, and how it is read off what was measured on one target."""

    axis: FrontAxis
    metric: Metric
    statistic: LatencyStatistic | None = None

    def value(self, judgement: Judgement) -> float | None:
        summary = judgement.summary
        estimate = None if summary is None else self.metric.of_summary(summary, self.statistic)
        return None if estimate is None else estimate.value


@dataclass(frozen=True, slots=True)
class Front:
    """Trials that nothing dominates, from the most accurate, and their places on the axes."""

    axes: tuple[FrontAxis, ...]
    places: Mapping[int, tuple[float, ...]]
    """By trial number; the worst over targets."""


def front(trials: Sequence[Trial], limits: LimitSet, lower_is_better: frozenset[str]) -> Front:
    """Return the front of confirmed candidates. An axis that one of them was not measured on is left out."""
    readers = [_accuracy(trials, limits, lower_is_better), *_costs(limits)]
    values = {trial.number: [_worst(reader, trial) for reader in readers] for trial in trials}
    everywhere = [at for at in range(len(readers)) if all(row[at] is not None for row in values.values())]
    places = {number: tuple(row[at] or 0.0 for at in everywhere) for number, row in values.items()}
    axes = tuple(readers[at].axis for at in everywhere)
    best = [
        number
        for number, place in places.items()
        if not any(dominates(other, place, axes) for rival, other in places.items() if rival != number)
    ]
    best.sort(
        key=lambda number: (
            *(-v if a.better == "higher" else v for v, a in zip(places[number], axes, strict=True)),
            number,
        )
    )
    return Front(axes, {number: places[number] for number in best})


def dominates(one: Sequence[float], other: Sequence[float], axes: Sequence[FrontAxis]) -> bool:
    """Return whether `one` is no worse than `other` on every axis, and better on one."""
    pairs = [(a, b) if axis.better == "higher" else (-a, -b) for a, b, axis in zip(one, other, axes, strict=True)]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def _accuracy(trials: Sequence[Trial], limits: LimitSet, lower_is_better: frozenset[str]) -> _AxisReader:
    """The metric that the first accuracy limit is about; without one the task's first."""
    summaries = (judgement.summary for trial in trials for judgement in decisive(trial))
    scores = (score.metric for summary in summaries if summary is not None for score in summary.metrics)
    of_limits = (limit.metric for limit in limits.limit if limit.family is Family.ACCURACY)
    name = next(of_limits, None) or next(scores, "accuracy")
    axis = FrontAxis(name=name, unit="", better="lower" if name in lower_is_better else "higher")
    return _AxisReader(axis, metric_named(name))


def _costs(limits: LimitSet) -> list[_AxisReader]:
    """The metrics that every front has, and the first of a family that is an axis where a limit is about it."""
    rows = [row for row in METRICS.values() if row.on_front is OnFront.ALWAYS]
    # Speed goes before size, whatever the order in which figures are told.
    rows.sort(key=lambda row: list(Family).index(row.family) if row.family is not None else len(Family))
    first = {limit.family: limit.row for limit in reversed(limits.limit)}
    rows += [row for row in first.values() if row.on_front is OnFront.WHERE_LIMITED]
    return [_cost(row, limits) for row in rows]


def _cost(metric: Metric, limits: LimitSet) -> _AxisReader:
    """The axis of a cost, at the statistic that the first limit on it is about."""
    statistics = (limit.statistic for limit in limits.limit if limit.metric == metric.name)
    statistic = (next(statistics, None) or "p50") if metric.statistics else None
    return _AxisReader(FrontAxis(name=metric.label(statistic), unit=metric.unit, better="lower"), metric, statistic)


def _worst(reader: _AxisReader, trial: Trial) -> float | None:
    values = [reader.value(judgement) for judgement in decisive(trial)]
    numbers = [value for value in values if value is not None]
    if not numbers or len(numbers) < len(values):
        return None
    return min(numbers) if reader.axis.better == "higher" else max(numbers)
