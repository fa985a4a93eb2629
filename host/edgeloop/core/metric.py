"""A metric's row: what a figure is, how it is judged, where it comes from and how it is written.

The table of rows is in `core.metrics`; `reading` makes the row of a figure that is only read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from edgeloop.core.measurement import Interval, Session, Summary
from edgeloop.core.plan import Plan
from edgeloop.core.units import PLAIN, DisplayUnit
from edgeloop.core.verdict import Family

LatencyStatistic = Literal["p50", "p90", "p99", "mean"]
"""Of the samples of a session; a metric that has them is one number for each."""


class Estimator(StrEnum):
    """The way in which a limit on a metric is judged: `analysis.findings` has one for each."""

    TIMING = "timing"
    """Student's t on the logarithms of one number a session."""
    READING = "reading"
    """Read, not estimated: there is no interval."""
    ENERGY = "energy"
    """Student's t over sessions, then the meter and the clocks at their worst."""
    SCORE = "score"
    """An interval about the population, or the number on exactly these samples."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric of one subject, in the metric's unit."""

    value: float
    interval: Interval | None = None


Reader = Callable[[Summary, LatencyStatistic | None], Estimate | None]
"""Reads a metric off a Summary, at a statistic where it has several; None where it was not measured."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the CSV table, and what it holds of a measured subject."""

    name: str
    cell: Callable[[Summary], object]


class OnFront(StrEnum):
    """The place of a metric on a front of networks."""

    ALWAYS = "always"
    WHERE_LIMITED = "where limited"
    """Where it is the first of its family that a limit is about."""
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostComparison:
    """The comparison of two rungs by a metric that stands for its family, and the words for it."""

    statistic: LatencyStatistic = "p50"
    noise: float = 0.0
    """Two values that differ by less than this share are alike, where there is no interval to tell."""
    verb: str = "took"
    less: str
    """`faster`, as in `41 % faster`."""
    more: str
    no_less: str
    to_be_less: str
    """After `measured`."""
    is_less: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One row of the table."""

    name: str
    """As limits name it."""
    title: str
    """For people."""
    unit: str
    """Of limits, findings and estimates; empty for a share or a plain number."""
    family: Family | None
    """None for a figure that is only reported: no limit may be about it."""
    estimator: Estimator
    of_summary: Reader
    """Reads it as reports and the search do, off what a measurement came to."""
    bounds: tuple[str, ...] = ()
    """Names of the bounds that a limit on it may take, as in `core.limits.BOUNDS`."""
    statistics: tuple[LatencyStatistic, ...] = ()
    """A limit on it names one of these; empty where it is one number."""
    session_value: str = ""
    """Of a timing without statistics: the number of a session that is judged."""
    short: str = ""
    """Another spelling on the command line."""
    against_reference: bool = False
    """True where it compares with the reference's own results, and so needs no labels."""
    of_a_period: bool = False
    """True where it means something only where the plan has a period."""
    of_the_runtime: bool = False
    """True where it needs the memory of the runtime alone, which a program of the user's own does not tell."""

    # Where a reading comes from; a reading without `of_session` is of the deployed file.
    key: str = ""
    """Its name in a Summary, in JSON and in CSV, with the unit."""
    of_session: Callable[[Session], float | None] | None = None
    over_sessions: Callable[[Iterable[float]], float] = max
    """Makes one number of those of the latency sessions."""
    in_summary: bool = False
    """True where it is kept in a Summary under its key, and told in the JSON of a measurement."""
    over_sessions_in_words: str = ""
    """` in the worst session`, in findings."""

    # How it is written
    display: DisplayUnit = PLAIN
    columns: tuple[Column, ...] = ()
    heading: str = ""
    """Of its column in the tables of trials; empty for none."""
    heading_always: bool = False
    """True where the column is there though no trial was measured."""
    line: Callable[[Summary, Plan], tuple[str, str] | None] | None = None
    """A name and a text, of one measurement as it is printed."""
    compared_as: str = ""
    """Its name where two models stand side by side; empty where it does not stand there."""

    # What the search does with it
    on_front: OnFront = OnFront.NEVER
    cost: CostComparison | None = None

    def label(self, statistic: str | None) -> str:
        """Return the name with the statistic: `latency p90`."""
        return f"{self.name} {statistic}" if statistic else self.name

    def exact(self, value: float) -> str:
        """Return a number without its unit, as findings write what is read: bytes to the last one."""
        return f"{value:.0f}" if self.unit == "bytes" else f"{value:.6g}"


def reading(
    name: str,
    title: str,
    *,
    key: str,
    family: Family | None,
    of_session: Callable[[Session], float | None] | None = None,
    over_sessions: Callable[[Iterable[float]], float] = max,
    unit: str = "",
    bounds: tuple[str, ...] = ("max_value",),
    short: str = "",
    display: DisplayUnit | None = None,
    over_sessions_in_words: str | None = None,
) -> Metric:
    """Return the row of a figure that sessions bring under `key`, reported wherever figures are.

    `of_session` is for one that is made of several; `over_sessions` makes one number of those of the sessions, and
    `over_sessions_in_words` says so in findings where that is not the largest one.
    """
    display_unit = display or DisplayUnit(unit, spec=",.6g")
    heading = f"{title}, {display_unit.symbol}" if display_unit.symbol else title
    words = over_sessions_in_words
    if words is None:
        words = " in the worst session" if over_sessions is max else ""

    def line(summary: Summary, _: Plan) -> tuple[str, str] | None:
        value = summary.reading(key)
        return None if value is None else (title, display_unit.text(value))

    return Metric(
        name=name,
        title=title,
        unit=unit,
        family=family,
        estimator=Estimator.READING,
        bounds=bounds if family is not None else (),
        short=short,
        key=key,
        of_session=of_session or (lambda session: session.reading(key)),
        over_sessions=over_sessions,
        over_sessions_in_words=words,
        in_summary=True,
        of_summary=from_summary(key),
        display=display_unit,
        columns=(Column(key, lambda summary: summary.reading(key)),),
        heading=heading,
        line=line,
        compared_as=title,
    )


def from_summary(key: str) -> Reader:
    """Read a figure that a Summary keeps under a key."""

    def of_summary(summary: Summary, _: LatencyStatistic | None) -> Estimate | None:
        value = summary.reading(key)
        return None if value is None else Estimate(value)

    return of_summary
