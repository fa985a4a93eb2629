"""Limits: metric, statistic, bound with its unit, guard band. The same schema for `run` and `measure`.

Which bounds go with which metric is settled here; whether a plan can decide a limit is settled in
analysis.verdict.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from edgeloop.core.frozen import Frozen
from edgeloop.core.verdict import Family

LATENCY_STATISTICS = ("p50", "p90", "p99", "mean")

_BOUNDS_OF: dict[str, tuple[str, ...]] = {
    "latency": ("max_ms", "max_ratio_to_reference"),
    "first_inference": ("max_ms",),
    "load": ("max_ms",),
    "deployed_size": ("max_bytes", "max_mib", "max_ratio_to_reference"),
    "peak_rss": ("max_bytes", "max_mib"),
    "rss_above_runtime": ("max_bytes", "max_mib"),
    "agreement": ("min_fraction",),
    "energy_per_period": ("max_mj",),
    "energy_above_idle": ("max_mj",),
}
_TASK_METRIC_BOUNDS = ("min_fraction", "min_value", "max_value", "max_drop_from_reference")
_BOUNDS = ("max_ms", "max_ratio_to_reference", "max_bytes", "max_mib", "max_mj", *_TASK_METRIC_BOUNDS)
_GUARD_OF = {
    "max_ms": "guard_ms",
    "max_ratio_to_reference": "guard_ratio",
    "max_bytes": "guard_bytes",
    "max_mib": "guard_mib",
    "max_mj": "guard_mj",
    "min_fraction": "guard_fraction",
    "max_drop_from_reference": "guard_fraction",
    "min_value": "guard_value",
    "max_value": "guard_value",
}
"""Every bound has a guard in its own unit."""
_UNIT_OF = {
    "max_ms": " ms",
    "max_ratio_to_reference": " x M1",
    "max_bytes": " bytes",
    "max_mib": " MiB",
    "max_mj": " mJ",
}
_BOUNDS_OF_HARDWARE = frozenset({"max_ms", "max_mj"})
_FAMILY_OF = {
    "latency": Family.SPEED,
    "first_inference": Family.SPEED,
    "load": Family.SPEED,
    "deployed_size": Family.SIZE,
    "peak_rss": Family.MEMORY,
    "rss_above_runtime": Family.MEMORY,
    "energy_per_period": Family.ENERGY,
    "energy_above_idle": Family.ENERGY,
}


class Limit(Frozen):
    """One bound on one metric. Thresholds are strict: equal is not a pass."""

    id: str = ""
    requirement: str | None = None
    metric: str
    statistic: Literal["p50", "p90", "p99", "mean"] | None = None
    max_ms: float | None = Field(default=None, gt=0)
    max_ratio_to_reference: float | None = Field(default=None, gt=0)
    max_bytes: int | None = Field(default=None, gt=0)
    max_mib: float | None = Field(default=None, gt=0)
    max_mj: float | None = Field(default=None, gt=0)
    min_fraction: float | None = Field(default=None, ge=0, le=1)
    min_value: float | None = None
    max_value: float | None = None
    max_drop_from_reference: float | None = Field(default=None, ge=0)
    """How much worse than M1, in the metric's own unit; for an error metric a rise."""
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
        given = [name for name in _BOUNDS if getattr(self, name) is not None]
        allowed = _BOUNDS_OF.get(self.metric, _TASK_METRIC_BOUNDS)
        if len(given) != 1:
            raise ValueError(f"metric {self.metric!r} takes exactly one bound out of {', '.join(allowed)}")
        if given[0] not in allowed:
            raise ValueError(f"{given[0]} does not go with metric {self.metric!r}; it takes {', '.join(allowed)}")
        if self.metric == "latency" and self.statistic is None:
            raise ValueError(f"a latency limit names its statistic: {', '.join(LATENCY_STATISTICS)}")
        if self.metric != "latency" and self.statistic is not None:
            raise ValueError(f"statistic goes with metric 'latency', not with {self.metric!r}")
        for name in sorted(set(_GUARD_OF.values())):
            if getattr(self, name) and name != _GUARD_OF[given[0]]:
                takers = " or ".join(bound for bound, guard in _GUARD_OF.items() if guard == name)
                raise ValueError(f"{name} goes with {takers}")
        if given[0].startswith("max_") and given[0] != "max_value" and given[0] != "max_drop_from_reference":
            bound, guard = getattr(self, given[0]), getattr(self, _GUARD_OF[given[0]])
            if guard >= bound:
                raise ValueError(f"{_GUARD_OF[given[0]]} {guard:g} leaves nothing of {given[0]} {bound:g}")
        if self.about == "this_set" and self.family is not Family.ACCURACY:
            raise ValueError(f'about = "this_set" goes with a metric of results, not with {self.metric!r}')
        return self

    @property
    def bound_name(self) -> str:
        return next(name for name in _BOUNDS if getattr(self, name) is not None)

    @property
    def bound(self) -> float:
        return float(getattr(self, self.bound_name))

    @property
    def guard(self) -> float:
        """How far the bound is moved to the safe side before anything is compared, in the unit of the bound."""
        return float(getattr(self, _GUARD_OF[self.bound_name]))

    @property
    def family(self) -> Family:
        return _FAMILY_OF.get(self.metric, Family.ACCURACY)

    @property
    def is_about_hardware(self) -> bool:
        """True for a bound in units that only real hardware can meet or miss; an emulated board says nothing of it."""
        return self.bound_name in _BOUNDS_OF_HARDWARE

    @property
    def needs_reference(self) -> bool:
        return self.metric == "agreement" or self.bound_name in {
            "max_ratio_to_reference",
            "max_drop_from_reference",
        }

    @property
    def needs_labels(self) -> bool:
        return self.family is Family.ACCURACY and self.metric != "agreement"

    @property
    def needs_data(self) -> bool:
        return self.family is Family.ACCURACY

    def __str__(self) -> str:
        what = f"{self.metric} {self.statistic}" if self.statistic else self.metric
        guard = f" with {self.guard:g}{_UNIT_OF.get(self.bound_name, '')} guard" if self.guard else ""
        match self.bound_name:
            case "max_ratio_to_reference":
                told = f"{what} under {self.max_ratio_to_reference:g} x M1"
            case "max_drop_from_reference":
                told = f"{what} less than {self.max_drop_from_reference:g} worse than M1"
            case "max_bytes":
                told = f"{what} under {self.max_bytes} bytes"
            case name if name.startswith("max_"):
                told = f"{what} under {self.bound:g}{_UNIT_OF.get(name, '')}"
            case _:
                told = f"{what} over {self.bound:g}"
        return told + guard


class LimitSet(Frozen):
    """A limits file, or the inline list of a campaign."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    id: str = "inline"
    version: str = "0"
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    limit: tuple[Limit, ...] = ()

    @property
    def needs_energy(self) -> bool:
        """Whether energy sessions take part in every job."""
        return any(limit.family is Family.ENERGY for limit in self.limit)

    @property
    def interleaves_reference(self) -> bool:
        """Whether M1 takes part in every job: a ratio of latencies means something within one job only."""
        return any(limit.metric == "latency" and limit.needs_reference for limit in self.limit)

    @field_validator("limit")
    @classmethod
    def _numbered(cls, limits: tuple[Limit, ...]) -> tuple[Limit, ...]:
        named = tuple(
            limit if limit.id else limit.model_copy(update={"id": f"L{number}"})
            for number, limit in enumerate(limits, start=1)
        )
        seen: set[str] = set()
        for limit in named:
            if limit.id in seen:
                raise ValueError(f"limit id {limit.id!r} is used twice")
            seen.add(limit.id)
        return named

    @model_validator(mode="after")
    def _not_contradictory(self) -> Self:
        floors = {limit.metric: limit for limit in self.limit if limit.min_value is not None}
        for limit in self.limit:
            floor = floors.get(limit.metric)
            if limit.max_value is not None and floor is not None and (floor.min_value or 0.0) >= limit.max_value:
                raise ValueError(
                    f"{floor.id} ({floor}) and {limit.id} ({limit}) contradict each other: no value satisfies both"
                )
        order = {"p50": 0, "p90": 1, "p99": 2}
        absolute = [
            limit for limit in self.limit if limit.metric == "latency" and limit.max_ms and limit.statistic in order
        ]
        for low in absolute:
            for high in absolute:
                below = order[low.statistic or "p50"] < order[high.statistic or "p50"]
                if below and (low.max_ms or 0) > (high.max_ms or 0):
                    raise ValueError(
                        f"{low.id} ({low}) says nothing beside {high.id} ({high}): a lower percentile can't be "
                        "the slower one; raise the one or lower the other"
                    )
        return self


_SHORT = re.compile(
    r"^(?P<metric>[a-z0-9_]+?)(?:\.(?P<statistic>p50|p90|p99|mean))?(?:_(?P<unit>ms|bytes|mib|mj|ratio|drop))?$"
)
_SHORT_METRIC = {"size": "deployed_size", "rss": "peak_rss"}
_SHORT_BOUND = {
    "ms": "max_ms",
    "bytes": "max_bytes",
    "mib": "max_mib",
    "mj": "max_mj",
    "ratio": "max_ratio_to_reference",
    "drop": "max_drop_from_reference",
}


def parse_limits(words: Iterable[str], lower_is_better: frozenset[str] = frozenset()) -> LimitSet:
    """Parse words such as `latency.p90_ms=40`, `top1=0.90`, `size_bytes=900000`, `energy_per_period_mj=3400`.

    A task metric in `lower_is_better` gets an upper bound. Raises ValueError with the word that is wrong.
    """
    limits = []
    for word in words:
        name, equals, number = word.partition("=")
        found = _SHORT.match(name.strip())
        if not equals or found is None:
            raise ValueError(
                f"{word!r} is not a limit; write for instance latency.p90_ms=40, top1=0.90 or size_bytes=900000"
            )
        try:
            value = float(number)
        except ValueError:
            raise ValueError(f"{word!r}: {number!r} is not a number") from None
        metric = _SHORT_METRIC.get(found["metric"], found["metric"])
        if found["unit"]:
            bound = _SHORT_BOUND[found["unit"]]
        elif metric in lower_is_better:
            bound = "max_value"
        else:
            bound = "min_fraction" if metric == "agreement" or 0 <= value <= 1 else "min_value"
        whole = bound == "max_bytes" and value.is_integer()
        limits.append({"metric": metric, "statistic": found["statistic"], bound: int(value) if whole else value})
    return LimitSet.model_validate({"id": "command-line", "limit": limits})
