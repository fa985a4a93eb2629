"""The front: of the candidates that were confirmed, those that no other one beats everywhere.

Accuracy is better the higher (an error metric the lower), latency, deployed bytes and energy the lower. One candidate
dominates another where it is no worse on every axis and better on one, by the estimates: a rule with noise in it would
not be transitive, and the reports show every interval. Candidates that are equal on every axis stay together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgeloop.core.events import FrontAxis, Judgement, Trial
from edgeloop.core.limits import LimitSet
from edgeloop.core.measurement import Summary
from edgeloop.core.verdict import Family
from edgeloop.search.moves import decisive


@dataclass(frozen=True, slots=True)
class _Reading:
    """An axis, and how it is read off what was measured on one target."""

    axis: FrontAxis
    of: Callable[[Judgement], float | None]


@dataclass(frozen=True, slots=True)
class Front:
    """Trials that nothing dominates, from the most accurate, and their places on the axes."""

    axes: tuple[FrontAxis, ...]
    places: Mapping[int, tuple[float, ...]]
    """By trial number; the worst over targets."""


def front(trials: Sequence[Trial], limits: LimitSet, lower_is_better: frozenset[str]) -> Front:
    """Return the front of confirmed candidates. An axis that one of them was not measured on is left out."""
    readings = [_accuracy(trials, limits, lower_is_better), *_costs(limits)]
    values = {trial.number: [_worst(reading, trial) for reading in readings] for trial in trials}
    kept = [at for at in range(len(readings)) if all(found[at] is not None for found in values.values())]
    places = {number: tuple(found[at] or 0.0 for at in kept) for number, found in values.items()}
    axes = tuple(readings[at].axis for at in kept)
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
    signed = [(a, b) if axis.better == "higher" else (-a, -b) for a, b, axis in zip(one, other, axes, strict=True)]
    return all(a >= b for a, b in signed) and any(a > b for a, b in signed)


def _accuracy(trials: Sequence[Trial], limits: LimitSet, lower_is_better: frozenset[str]) -> _Reading:
    """The metric that the first accuracy limit is about; without one the task's first."""
    summaries = (judged.summary for trial in trials for judged in decisive(trial))
    measured = (metric.metric for summary in summaries if summary is not None for metric in summary.metrics)
    limited = (limit.metric for limit in limits.limit if limit.family is Family.ACCURACY)
    name = next(limited, None) or next(measured, "accuracy")

    def value(summary: Summary) -> float | None:
        if name == "agreement":
            return None if summary.agreement is None else summary.agreement.value
        return next((metric.value for metric in summary.metrics if metric.metric == name), None)

    axis = FrontAxis(name=name, unit="", better="lower" if name in lower_is_better else "higher")
    return _Reading(axis, lambda judged: None if judged.summary is None else value(judged.summary))


def _costs(limits: LimitSet) -> list[_Reading]:
    statistic = next((limit.statistic for limit in limits.limit if limit.metric == "latency"), None) or "p50"

    def latency_ms(judged: Judgement) -> float | None:
        latency = judged.summary.latency if judged.summary is not None else None
        return None if latency is None else float(getattr(latency, statistic)) / 1e6

    def deployed_bytes(judged: Judgement) -> float | None:
        return None if judged.summary is None else float(judged.summary.deployed_bytes)

    return [
        _Reading(FrontAxis(name=f"latency {statistic}", unit="ms", better="lower"), latency_ms),
        _Reading(FrontAxis(name="deployed_size", unit="bytes", better="lower"), deployed_bytes),
        *_energy(limits),
    ]


def _energy(limits: LimitSet) -> list[_Reading]:
    """What the first limit on energy is about; without one, energy is not measured."""
    metric = next((limit.metric for limit in limits.limit if limit.family is Family.ENERGY), None)

    def millijoules(judged: Judgement) -> float | None:
        energy = judged.summary.energy if judged.summary is not None else None
        if energy is None:
            return None
        return energy.per_period_mj if metric == "energy_per_period" else energy.above_idle_mj

    return [] if metric is None else [_Reading(FrontAxis(name=metric, unit="mJ", better="lower"), millijoules)]


def _worst(reading: _Reading, trial: Trial) -> float | None:
    found = [reading.of(judged) for judged in decisive(trial)]
    numbers = [value for value in found if value is not None]
    if not numbers or len(numbers) < len(found):
        return None
    return min(numbers) if reading.axis.better == "higher" else max(numbers)
