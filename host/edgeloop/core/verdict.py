"""Findings and verdicts: a limit beside what was observed."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Literal

from pydantic import model_validator

from edgeloop.core.frozen import Frozen
from edgeloop.errors import Owner


class Outcome(StrEnum):
    PASS = "PASS"  # noqa: S105 -- a verdict, no password
    """Measured, and the bound on the bad side is inside the limit."""
    FAIL = "FAIL"
    """Measured, and the bound on the good side is outside the limit."""
    INCONCLUSIVE = "INCONCLUSIVE"
    """Measured, and the interval straddles the limit."""
    INVALID = "INVALID"
    """Measured outside the declared environment."""
    ERROR = "ERROR"
    """Not measured."""


ABOUT_THE_NETWORK = frozenset({Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE})
"""Outcomes that say something of a network; the others say that it was not measured as declared."""


class Family(StrEnum):
    """A group of metrics, as the moves see it: accuracy lowers the degree, everything else raises it."""

    ACCURACY = "accuracy"
    SPEED = "speed"
    SIZE = "size"
    MEMORY = "memory"
    ENERGY = "energy"


_OLD_TEXT = re.compile(
    r"(?P<metric>\S+)(?: (?P<statistic>p50|p90|p99|mean))? (?:under|over|less than|at most|at least) "
)
"""How findings said which metric they are about, before they had fields for it."""


class Finding(Frozen):
    """One limit, judged. Numbers are in `unit`; `gap` is signed, positive is room left inside the limit."""

    limit_id: str
    family: Family
    text: str
    """The limit in words: `latency p90 at most 40 ms`."""
    unit: str
    outcome: Outcome
    limit: float | None
    """The bound after guard band and reference are taken in; None where it could not be formed."""
    observed: float | None
    interval: tuple[float | None, float | None] | None = None
    gap: float | None = None
    gap_relative: float | None = None
    """gap / |limit|: comparable between limits."""
    reason: str
    """Numbers in a sentence."""
    more_sessions: int | None = None
    """For INCONCLUSIVE latency: about so many more would decide."""
    more_samples: int | None = None
    """For INCONCLUSIVE accuracy: about so many more would decide."""
    metric: str | None = None
    """As the limit names it."""
    statistic: str | None = None
    bound: str | None = None
    """Name of the limit's bound, such as `max_ms`; None in ledgers from before it was kept."""
    requirement: str | None = None
    """The requirement that the limit stands for, as the limits file says."""

    @model_validator(mode="before")
    @classmethod
    def _of_old_ledgers(cls, fields: object) -> object:
        """Fill in the metric of a finding from before it had a field of its own."""
        if not isinstance(fields, dict) or "metric" in fields or not isinstance(fields.get("text"), str):
            return fields
        old = _OLD_TEXT.match(fields["text"])
        return fields if old is None else {**fields, **old.groupdict()}

    @property
    def label(self) -> str:
        """The metric with its statistic, `latency p90`; the whole limit where it is not known."""
        return " ".join(filter(None, (self.metric, self.statistic))) or self.text


class Verdict(Frozen):
    """The findings of one measurement and what they come to."""

    outcome: Outcome
    findings: tuple[Finding, ...] = ()
    reasons: tuple[str, ...] = ()
    """Why INVALID or ERROR."""
    owner: Owner | None = None
    """Of an ERROR."""
    rule: str = "t-log-sessions/1"
    """Name of the decision rule; absent in ledgers from before there was another one."""

    @property
    def worst(self) -> Finding | None:
        """The finding furthest outside its limit, relative to the limit; None where nothing was judged."""
        with_gap = [f for f in self.findings if f.gap_relative is not None]
        return min(with_gap, key=lambda f: f.gap_relative or 0.0) if with_gap else None


Direction = Literal["lower_degree", "raise_degree", "larger", "smaller", "other_engine", "confirm", "repeat", "none"]
