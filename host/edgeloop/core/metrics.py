"""Metrics: one row for each figure that a limit may bound, or that a measurement is reported by.

A row says what a figure is, which bounds it takes, how it is judged, where it comes from and how it is written.
Limits, verdicts, the search, the reports and the command line read the row. A figure that a session brings and that is
only read (bytes, a count) needs a row here and the agent's probe: docs/decisions/0031-one-row-for-each-metric.md.

What a task scores has no row of its own: every task brings its metrics, and all of them are alike (`metric_named`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from edgeloop.core.measurement import EnergySummary, Interval, Session, Summary
from edgeloop.core.metric import (
    Column,
    CostComparison,
    Estimate,
    Estimator,
    LatencyStatistic,
    Metric,
    OnFront,
    Reader,
    from_summary,
)
from edgeloop.core.plan import Plan
from edgeloop.core.units import MIB, DisplayUnit
from edgeloop.core.verdict import Family

# Times: kept in ns, limited and told in ms


def _time_ms(summary: Summary, name: str | None) -> Estimate | None:
    if summary.latency is None:
        return None
    statistic = name or "p50"
    interval = next((span for key, span in summary.latency.interval.items() if key == statistic), None)
    return Estimate(
        float(getattr(summary.latency, statistic)) / 1e6,
        None if interval is None else Interval(low=interval.low / 1e6, high=interval.high / 1e6),
    )


def _latency_columns() -> tuple[Column, ...]:
    def value(statistic: str) -> Callable[[Summary], object]:
        return lambda summary: None if summary.latency is None else getattr(summary.latency, statistic)

    def end(statistic: LatencyStatistic, side: str) -> Callable[[Summary], object]:
        def cell(summary: Summary) -> object:
            spans = {} if summary.latency is None else dict(summary.latency.interval.items())
            return getattr(spans[statistic], side) if statistic in spans else None

        return cell

    statistics: tuple[LatencyStatistic, ...] = ("p50", "p90")
    return tuple(
        column
        for statistic in statistics
        for column in (
            Column(f"latency_{statistic}_ns", value(statistic)),
            Column(f"latency_{statistic}_low_ns", end(statistic, "low")),
            Column(f"latency_{statistic}_high_ns", end(statistic, "high")),
        )
    )


# Memory: the worst latency session's; sessions that evaluate hold the whole data set, so they don't count


def _above_runtime(session: Session) -> float | None:
    peak, runtime = session.peak_rss_bytes, session.runtime_rss_bytes
    return None if peak is None or runtime is None else peak - runtime


def _above_runtime_of(summary: Summary, _: LatencyStatistic | None) -> Estimate | None:
    peak, runtime = summary.peak_rss_bytes, summary.runtime_rss_bytes
    return None if peak is None or runtime is None else Estimate(peak - runtime)


def _memory_line(summary: Summary, _: Plan) -> tuple[str, str] | None:
    if summary.peak_rss_bytes is None:
        return None
    above = _above_runtime_of(summary, None)
    beside = "" if above is None else f", {MIB.text(above.value)} above the runtime alone"
    return "memory", f"{MIB.text(summary.peak_rss_bytes)} at the peak{beside}"


# How the timed sessions went


def _period_line(summary: Summary, plan: Plan) -> tuple[str, str] | None:
    if plan.period_ms is None or summary.latency is None:
        return None
    share = f"{summary.missed_periods:,} of {summary.latency.samples:,} periods missed"
    return "period", f"{plan.period_ms:g} ms, {share}"


def _overhead_line(summary: Summary, _: Plan) -> tuple[str, str] | None:
    if summary.overhead_ns is None or summary.latency is None:
        return None
    return "agent's own", f"at most {summary.overhead_ns / 1000:.2g} us in each latency"


# Energy is kept and told in mJ


_EnergyOf = Literal["per_period", "above_idle"]


def _energy_mj(which: _EnergyOf) -> Reader:
    def of_summary(summary: Summary, _: LatencyStatistic | None) -> Estimate | None:
        energy = summary.energy
        if energy is None:
            return None
        value = energy.per_period_mj if which == "per_period" else energy.above_idle_mj
        return None if value is None else Estimate(value, energy.interval.get(which))

    return of_summary


def _energy_columns(which: _EnergyOf) -> tuple[Column, ...]:
    of_summary = _energy_mj(which)

    def end(side: str) -> Callable[[Summary], object]:
        def cell(summary: Summary) -> object:
            estimate = of_summary(summary, None)
            return None if estimate is None or estimate.interval is None else getattr(estimate.interval, side)

        return cell

    def value(summary: Summary) -> object:
        estimate = of_summary(summary, None)
        return None if estimate is None else estimate.value

    return (
        Column(f"energy_{which}_mj", value),
        Column(f"energy_{which}_low_mj", end("low")),
        Column(f"energy_{which}_high_mj", end("high")),
    )


def _of_energy(name: str, read: Callable[[EnergySummary], object]) -> Column:
    return Column(name, lambda summary: None if summary.energy is None else read(summary.energy))


# Scores


def _agreement(summary: Summary, _: LatencyStatistic | None) -> Estimate | None:
    score = summary.agreement
    return None if score is None else Estimate(score.value, score.interval)


def _score(name: str) -> Metric:
    """Return the row of a metric that a task scores."""

    def of_summary(summary: Summary, _: LatencyStatistic | None) -> Estimate | None:
        score = next((score for score in summary.metrics if score.metric == name), None)
        return None if score is None else Estimate(score.value, score.interval)

    return Metric(
        name=name,
        title=name,
        unit="",
        family=Family.ACCURACY,
        estimator=Estimator.SCORE,
        bounds=("min_fraction", "min_value", "max_value", "max_drop_from_reference"),
        of_summary=of_summary,
        display=DisplayUnit("", spec=".4f"),
    )


_ROWS: tuple[Metric, ...] = (
    Metric(
        name="deployed_size",
        title="deployed size",
        unit="bytes",
        family=Family.SIZE,
        estimator=Estimator.READING,
        bounds=("max_bytes", "max_mib", "max_ratio_to_reference"),
        short="size",
        key="deployed_bytes",
        of_summary=lambda summary, _: Estimate(summary.deployed_bytes),
        display=DisplayUnit("bytes", spec=",.0f"),
        compared_as="deployed bytes",
        on_front=OnFront.ALWAYS,
    ),
    Metric(
        name="agreement",
        title="agreement with the reference",
        unit="",
        family=Family.ACCURACY,
        estimator=Estimator.SCORE,
        bounds=("min_fraction",),
        against_reference=True,
        of_summary=_agreement,
        display=DisplayUnit("", spec=".4f"),
        columns=(Column("agreement", lambda summary: summary.agreement.value if summary.agreement else None),),
    ),
    Metric(
        name="latency",
        title="latency",
        unit="ms",
        family=Family.SPEED,
        estimator=Estimator.TIMING,
        bounds=("max_ms", "max_ratio_to_reference"),
        statistics=("p50", "p90", "p99", "mean"),
        of_summary=_time_ms,
        display=DisplayUnit("ms"),
        columns=_latency_columns(),
        on_front=OnFront.ALWAYS,
        cost=CostComparison(
            verb="measured",
            less="faster",
            more="slower",
            no_less="not faster",
            to_be_less="faster",
            is_less="is faster",
        ),
    ),
    Metric(
        name="first_inference",
        title="first inference",
        unit="ms",
        family=Family.SPEED,
        estimator=Estimator.TIMING,
        bounds=("max_ms",),
        session_value="first",
        of_summary=lambda summary, _: _time_ms(summary, "first"),
        display=DisplayUnit("ms"),
    ),
    Metric(
        name="load",
        title="load",
        unit="ms",
        family=Family.SPEED,
        estimator=Estimator.TIMING,
        bounds=("max_ms",),
        session_value="load",
        of_summary=lambda summary, _: _time_ms(summary, "load"),
        display=DisplayUnit("ms"),
    ),
    Metric(
        name="missed_periods",
        title="missed periods",
        unit="",
        family=None,
        estimator=Estimator.READING,
        key="missed_periods",
        of_session=lambda session: session.missed_periods,
        over_sessions=sum,
        in_summary=True,
        of_summary=from_summary("missed_periods"),
        line=_period_line,
    ),
    Metric(
        name="overhead",
        title="the agent's own",
        unit="ns",
        family=None,
        estimator=Estimator.READING,
        key="overhead_ns",
        of_session=lambda session: session.overhead_ns,
        in_summary=True,
        of_summary=from_summary("overhead_ns"),
        line=_overhead_line,
    ),
    Metric(
        name="peak_rss",
        title="memory",
        unit="bytes",
        family=Family.MEMORY,
        estimator=Estimator.READING,
        bounds=("max_bytes", "max_mib"),
        short="rss",
        key="peak_rss_bytes",
        of_session=lambda session: session.peak_rss_bytes,
        over_sessions_in_words=" in the worst session",
        in_summary=True,
        of_summary=from_summary("peak_rss_bytes"),
        display=MIB,
        columns=(Column("peak_rss_bytes", lambda summary: summary.peak_rss_bytes),),
        heading="MiB",
        heading_always=True,
        line=_memory_line,
        compared_as="memory at the peak",
        cost=CostComparison(
            noise=0.01,  # of two fresh processes
            less="less memory",
            more="more memory",
            no_less="no less memory",
            to_be_less="to take less memory",
            is_less="takes less memory",
        ),
    ),
    Metric(
        name="runtime_rss",
        title="memory of the runtime alone",
        unit="bytes",
        family=Family.MEMORY,
        estimator=Estimator.READING,
        key="runtime_rss_bytes",
        of_session=lambda session: session.runtime_rss_bytes,
        of_the_runtime=True,
        in_summary=True,
        of_summary=from_summary("runtime_rss_bytes"),
        display=MIB,
        columns=(Column("runtime_rss_bytes", lambda summary: summary.runtime_rss_bytes),),
    ),
    Metric(
        name="rss_above_runtime",
        title="memory above the runtime",
        unit="bytes",
        family=Family.MEMORY,
        estimator=Estimator.READING,
        bounds=("max_bytes", "max_mib"),
        key="rss_above_runtime_bytes",
        of_session=_above_runtime,
        of_the_runtime=True,
        over_sessions_in_words=" in the worst session",
        of_summary=_above_runtime_of,
        display=MIB,
        compared_as="above the runtime",
    ),
    Metric(
        name="energy_per_period",
        title="energy of a period",
        unit="mJ",
        family=Family.ENERGY,
        estimator=Estimator.ENERGY,
        bounds=("max_mj",),
        of_a_period=True,
        of_summary=_energy_mj("per_period"),
        display=DisplayUnit("mJ"),
        columns=(_of_energy("energy_per", lambda energy: energy.per), *_energy_columns("per_period")),
        on_front=OnFront.WHERE_LIMITED,
        # Above idle may be near zero, where a ratio says nothing: rungs are compared by whole periods.
        cost=CostComparison(
            less="less energy",
            more="more energy",
            no_less="no less energy",
            to_be_less="to take less energy",
            is_less="takes less energy",
        ),
    ),
    Metric(
        name="energy_above_idle",
        title="energy above idle",
        unit="mJ",
        family=Family.ENERGY,
        estimator=Estimator.ENERGY,
        bounds=("max_mj",),
        of_summary=_energy_mj("above_idle"),
        display=DisplayUnit("mJ"),
        columns=(
            *_energy_columns("above_idle"),
            _of_energy("power_idle_mw", lambda energy: energy.idle_mw),
            _of_energy("power_active_mw", lambda energy: energy.active_mw),
        ),
        on_front=OnFront.WHERE_LIMITED,
    ),
)

METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
"""By name, in the order in which figures are told."""


def metric_named(name: str) -> Metric:
    """Return the row that a limit of this name is about; a name without one is a metric that the task scores."""
    row = METRICS.get(name)
    return row if row is not None and row.bounds else _score(name)


def metric_spelled(word: str) -> Metric:
    """Return the row that the command line spells so: its name, or its short one."""
    return next((row for row in METRICS.values() if row.short == word), None) or metric_named(word)


def limitable() -> list[str]:
    """Return the names that a limit may have, beside those that the task scores."""
    return [row.name for row in METRICS.values() if row.bounds]


def readings(*, in_summary: bool = False) -> list[Metric]:
    """Return the rows that are read off sessions, in their order; only those that a Summary keeps where asked."""
    rows = (row for row in METRICS.values() if row.estimator is Estimator.READING and row.of_session is not None)
    return [row for row in rows if row.in_summary or not in_summary]


def compared_readings() -> list[Metric]:
    """Return the rows that are read, and stand where two models are side by side."""
    return [row for row in METRICS.values() if row.estimator is Estimator.READING and row.compared_as]


def costs() -> dict[Family, Metric]:
    """Return the row by which rungs are compared, by family."""
    return {row.family: row for row in METRICS.values() if row.cost is not None and row.family is not None}
