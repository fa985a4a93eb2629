"""Limits: metric, statistic, bound with its unit, guard band. The same schema for `run` and `measure`.

Which bounds go with which metric is a matter of the metric's row (core.metrics); whether a plan can decide a limit is
settled in analysis.plans.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from edgeloop.core.frozen import Frozen
from edgeloop.core.metric import Estimator, LatencyStatistic, Metric
from edgeloop.core.metrics import METRICS, metric_named, metric_spelled
from edgeloop.core.units import MIB_BYTES
from edgeloop.core.verdict import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One kind of bound: a field of a limit, with the guard that is in its unit."""

    name: str
    guard: str
    unit: str = ""
    """As it follows the number in a sentence."""
    short: str = ""
    """The unit as the command line spells it; empty for a plain number."""
    upper: bool = True
    """True where a value under it passes."""
    relative: bool = False
    """True where it is in terms of the reference network."""
    needs_room: bool = False
    """True where the guard must leave something of it: it is a positive quantity that can't go under zero."""
    of_hardware: bool = False
    """True where it is in units that only real hardware can meet or miss."""
    factor: float = 1.0
    """Of the metric's own unit."""
    words: str = "under {bound:g}{unit}"


_ROWS = (
    Bound(name="max_ms", guard="guard_ms", unit=" ms", short="ms", needs_room=True, of_hardware=True),
    Bound(
        name="max_ratio_to_reference",
        guard="guard_ratio",
        unit=" x M1",
        short="ratio",
        relative=True,
        needs_room=True,
    ),
    Bound(
        name="max_bytes",
        guard="guard_bytes",
        unit=" bytes",
        short="bytes",
        needs_room=True,
        words="under {bound:.0f}{unit}",
    ),
    Bound(name="max_mib", guard="guard_mib", unit=" MiB", short="mib", needs_room=True, factor=MIB_BYTES),
    Bound(name="max_mj", guard="guard_mj", unit=" mJ", short="mj", needs_room=True, of_hardware=True),
    Bound(name="min_fraction", guard="guard_fraction", upper=False, words="over {bound:g}"),
    Bound(name="min_value", guard="guard_value", upper=False, words="over {bound:g}"),
    Bound(name="max_value", guard="guard_value"),
    Bound(
        name="max_drop_from_reference",
        guard="guard_fraction",
        short="drop",
        relative=True,
        words="less than {bound:g} worse than M1",
    ),
)
BOUNDS: dict[str, Bound] = {bound.name: bound for bound in _ROWS}
"""By name, in the order in which a fault names them."""
_PERCENTILES = ("p50", "p90", "p99")
"""From the lowest."""


class Limit(Frozen):
    """One bound on one metric. Thresholds are strict: equal is not a pass."""

    id: str = ""
    requirement: str | None = None
    metric: str
    statistic: LatencyStatistic | None = None
    max_ms: float | None = Field(default=None, gt=0)
    max_ratio_to_reference: float | None = Field(default=None, gt=0)
    max_bytes: int | None = Field(default=None, gt=0)
    max_mib: float | None = Field(default=None, gt=0)
    max_mj: float | None = Field(default=None, gt=0)
    min_fraction: float | None = Field(default=None, ge=0, le=1)
    min_value: float | None = None
    max_value: float | None = None
    max_drop_from_reference: float | None = Field(default=None, ge=0)
    """Worse than M1 by so much, in the metric's own unit; for an error metric a rise."""
    guard_ms: float = Field(default=0.0, ge=0)
    guard_ratio: float = Field(default=0.0, ge=0)
    guard_bytes: int = Field(default=0, ge=0)
    guard_mib: float = Field(default=0.0, ge=0)
    guard_mj: float = Field(default=0.0, ge=0)
    guard_fraction: float = Field(default=0.0, ge=0)
    guard_value: float = Field(default=0.0, ge=0)
    about: Literal["population", "this_set"] = "population"

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        names = [name for name in BOUNDS if getattr(self, name) is not None]
        metric = self.row
        takes = ", ".join(metric.bounds)
        if len(names) != 1:
            raise ValueError(f"metric {self.metric!r} takes exactly one bound out of {takes}")
        if names[0] not in metric.bounds:
            raise ValueError(f"{names[0]} does not go with metric {self.metric!r}; it takes {takes}")
        if metric.statistics and self.statistic is None:
            raise ValueError(f"a {self.metric} limit names its statistic: {', '.join(metric.statistics)}")
        if not metric.statistics and self.statistic is not None:
            takers = " or ".join(repr(name) for name, row in METRICS.items() if row.statistics)
            raise ValueError(f"statistic goes with metric {takers}, not with {self.metric!r}")
        bound = BOUNDS[names[0]]
        for name in sorted({row.guard for row in BOUNDS.values()} - {bound.guard}):
            if getattr(self, name):
                takers = " or ".join(row.name for row in BOUNDS.values() if row.guard == name)
                raise ValueError(f"{name} goes with {takers}")
        if bound.needs_room and self.guard >= self.bound:
            raise ValueError(f"{bound.guard} {self.guard:g} leaves nothing of {bound.name} {self.bound:g}")
        if self.about == "this_set" and metric.estimator is not Estimator.SCORE:
            raise ValueError(f'about = "this_set" goes with a metric of results, not with {self.metric!r}')
        return self

    @property
    def row(self) -> Metric:
        """The metric that the limit is about."""
        return metric_named(self.metric)

    @property
    def kind(self) -> Bound:
        """The kind of its bound."""
        return next(bound for name, bound in BOUNDS.items() if getattr(self, name) is not None)

    @property
    def bound_name(self) -> str:
        return self.kind.name

    @property
    def bound(self) -> float:
        return float(getattr(self, self.bound_name))

    @property
    def guard(self) -> float:
        """The distance that the bound is moved to the safe side before anything is compared, in its unit."""
        return float(getattr(self, self.kind.guard))

    @property
    def family(self) -> Family:
        family = self.row.family
        assert family is not None, "a metric that takes bounds has a family"
        return family

    @property
    def is_about_hardware(self) -> bool:
        """True for a bound in units that only real hardware can meet or miss; an emulated board says nothing of it."""
        return self.kind.of_hardware

    @property
    def needs_reference(self) -> bool:
        return self.row.against_reference or self.kind.relative

    @property
    def needs_labels(self) -> bool:
        return self.needs_data and not self.row.against_reference

    @property
    def needs_data(self) -> bool:
        return self.row.estimator is Estimator.SCORE

    def __str__(self) -> str:
        kind, metric = self.kind, self.row
        unit = kind.unit or (f" {metric.unit}" if metric.unit else "")
        guard = f" with {self.guard:g}{kind.unit} guard" if self.guard else ""
        return f"{metric.label(self.statistic)} {kind.words.format(bound=self.bound, unit=unit)}{guard}"


class LimitSet(Frozen):
    """A limits file, or the inline list of a campaign."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    id: str = "inline"
    version: str = "0"
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    limit: tuple[Limit, ...] = ()

    @property
    def needs_energy(self) -> bool:
        """True where energy sessions take part in every job."""
        return any(limit.row.estimator is Estimator.ENERGY for limit in self.limit)

    @property
    def interleaves_reference(self) -> bool:
        """True where M1 takes part in every job: a ratio of times means something within one job only."""
        return any(limit.row.estimator is Estimator.TIMING and limit.needs_reference for limit in self.limit)

    @field_validator("limit")
    @classmethod
    def _with_ids(cls, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
        limits_with_ids = tuple(
            limit if limit.id else limit.model_copy(update={"id": f"L{number}"})
            for number, limit in enumerate(limits, start=1)
        )
        ids: set[str] = set()
        for limit in limits_with_ids:
            if limit.id in ids:
                raise ValueError(f"limit id {limit.id!r} is used twice")
            ids.add(limit.id)
        return limits_with_ids

    @model_validator(mode="after")
    def _not_contradictory(self) -> Self:
        self._refuse_floor_over_ceiling()
        self._refuse_lower_percentile_over_higher()
        return self

    def _refuse_floor_over_ceiling(self) -> None:
        floors = {limit.metric: limit for limit in self.limit if limit.min_value is not None}
        for limit in self.limit:
            floor = floors.get(limit.metric)
            if limit.max_value is not None and floor is not None and (floor.min_value or 0.0) >= limit.max_value:
                raise ValueError(
                    f"{floor.id} ({floor}) and {limit.id} ({limit}) contradict each other: no value satisfies both"
                )

    def _refuse_lower_percentile_over_higher(self) -> None:
        percentiles = [limit for limit in self.limit if limit.max_ms is not None and limit.statistic in _PERCENTILES]
        for low, high in itertools.permutations(percentiles, 2):
            below = _PERCENTILES.index(low.statistic or "") < _PERCENTILES.index(high.statistic or "")
            if low.metric == high.metric and below and (low.max_ms or 0) > (high.max_ms or 0):
                raise ValueError(
                    f"{low.id} ({low}) says nothing beside {high.id} ({high}): a lower percentile can't be "
                    "the slower one; raise the one or lower the other"
                )


_UNITS = "|".join(bound.short for bound in BOUNDS.values() if bound.short)
_SPELLING = re.compile(rf"^(?P<metric>[a-z0-9_]+?)(?:\.(?P<statistic>p50|p90|p99|mean))?(?:_(?P<unit>{_UNITS}))?$")


def parse_limits(words: Iterable[str], lower_is_better: frozenset[str] = frozenset()) -> LimitSet:
    """Parse words such as `latency.p90_ms=40`, `top1=0.90`, `size_bytes=900000`, `energy_per_period_mj=3400`.

    A task metric in `lower_is_better` gets an upper bound. Raises ValueError with the word that is wrong.
    """
    limits = []
    for word in words:
        name, equals, number = word.partition("=")
        spelling = _SPELLING.match(name.strip())
        if not equals or spelling is None:
            raise ValueError(
                f"{word!r} is not a limit; write for instance latency.p90_ms=40, top1=0.90 or size_bytes=900000"
            )
        try:
            value = float(number)
        except ValueError:
            raise ValueError(f"{word!r}: {number!r} is not a number") from None
        metric = metric_spelled(spelling["metric"])
        bound = _bound_of(metric, spelling["unit"], value, lower_is_better)
        whole = bound == "max_bytes" and value.is_integer()
        limits.append(
            {"metric": metric.name, "statistic": spelling["statistic"], bound: int(value) if whole else value}
        )
    return LimitSet.model_validate({"id": "command-line", "limit": limits})


def _bound_of(metric: Metric, unit: str | None, value: float, lower_is_better: frozenset[str]) -> str:
    """Return the name of the bound that a number with this unit is; without a unit, the one that takes a number."""
    if unit:
        return next(bound.name for bound in BOUNDS.values() if bound.short == unit)
    plain = [name for name in metric.bounds if not BOUNDS[name].short]
    if len(plain) == 1:
        return plain[0]
    if metric.name in lower_is_better:
        return "max_value"
    return "min_fraction" if 0 <= value <= 1 else "min_value"
