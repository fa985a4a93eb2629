"""The figures of a measurement as people read them: lines of one measurement, columns and clauses of trials.

A reading is written by its row in core.metrics. Times, energies and scores have intervals, and their form is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from edgeloop.core.events import Judgement
from edgeloop.core.measurement import EnergySummary, LatencySummary, MetricSummary, StageSummary, Summary
from edgeloop.core.metric import Metric
from edgeloop.core.metrics import METRICS, readings

EACH = {"period": "a period", "inference": "an inference"}
"""The share of time that an energy is of, in words."""
_IN_TRIALS = ("p50", "p90")
"""Statistics of a latency that tables of trials have."""


@dataclass(frozen=True, slots=True)
class FigureColumn:
    """A column in the tables of trials."""

    heading: str
    """On a terminal."""
    page_heading: str
    """In the HTML report."""
    cell: Callable[[Summary | None], str]
    below: Callable[[Summary | None], str] = lambda _: ""
    """A second line in the HTML report; empty for none."""
    always_with_interval: bool = False
    """True where a narrow terminal shows the interval too."""


def ms(nanoseconds: float) -> str:
    """Return nanoseconds as milliseconds with four digits."""
    return f"{nanoseconds / 1e6:.4g}"


def latency_with_interval(latency: LatencySummary | None, statistic: str) -> str:
    """Return `1.234 [1.21, 1.26]` in ms; `-` for none."""
    if latency is None:
        return "-"
    interval = next((span for name, span in latency.interval.items() if name == statistic), None)
    text = ms(getattr(latency, statistic))
    return f"{text} [{ms(interval.low)}, {ms(interval.high)}]" if interval else text


def stage_with_interval(stage: StageSummary) -> str:
    """Return `load 0.123 [0.121, 0.126]` in ms."""
    interval = f" [{ms(stage.interval.low)}, {ms(stage.interval.high)}]" if stage.interval else ""
    return f"{stage.stage} {ms(stage.p50)}{interval}"


def energy_with_interval(energy: EnergySummary | None, which: Literal["per_period", "above_idle"]) -> str:
    """Return `12.3 [12.1, 12.6]` in mJ; `-` for none."""
    value = None if energy is None else energy.per_period_mj if which == "per_period" else energy.above_idle_mj
    if energy is None or value is None:
        return "-"
    interval = energy.interval.get(which)
    return f"{value:.4g} [{interval.low:.4g}, {interval.high:.4g}]" if interval else f"{value:.4g}"


def metric_with_interval(metric: MetricSummary | None) -> str:
    """Return `0.9312 [0.9204, 0.9411]`; `-` for none."""
    if metric is None:
        return "-"
    text = f"{metric.value:.4f}"
    return f"{text} [{metric.interval.low:.4f}, {metric.interval.high:.4f}]" if metric.interval else text


def first_score(summary: Summary | None) -> MetricSummary | None:
    """Return the score that stands for a network: the task's first metric, else its agreement with the reference."""
    return None if summary is None else next(iter(summary.metrics), summary.agreement)


# One measurement, line by line


def figure_lines(judgement: Judgement) -> Iterator[tuple[str, str]]:
    """Yield a name and a text for each figure that was measured."""
    summary, plan = judgement.summary, judgement.plan
    if summary is None:
        return
    if summary.latency is not None:
        counts = f"{summary.latency.sessions} sessions, {summary.latency.samples:,} samples"
        yield "measured", f"{plan.timing}, plan {plan.profile}: {counts}"
        yield from _latency_lines(summary.latency)
        for stage in summary.stages_ns:
            yield f"stage {stage.stage}", f"{stage_with_interval(stage).removeprefix(stage.stage + ' ')} ms, median"
    for row in readings():
        line = row.line(summary, plan) if row.line is not None else None
        if line is not None:
            yield line
    if summary.energy is not None:
        yield from _energy_lines(summary.energy)
    for metric in (*summary.metrics, *((summary.agreement,) if summary.agreement else ())):
        yield metric.metric, f"{metric_with_interval(metric)} on {metric.n:,} samples"


def _latency_lines(latency: LatencySummary) -> Iterator[tuple[str, str]]:
    for statistic in ("p50", "p90", "p99"):
        text = f"{latency_with_interval(latency, statistic)} ms, {latency.confidence:.0%} interval"
        yield f"latency {statistic}", text
    for name in ("mean", "min", "first", "load"):
        yield f"latency {name}" if name in ("mean", "min") else name, f"{ms(getattr(latency, name))} ms"


def _energy_lines(energy: EnergySummary) -> Iterator[tuple[str, str]]:
    if energy.per_period_mj is not None and energy.idle_mw is not None and energy.active_mw is not None:
        text = f"{energy_with_interval(energy, 'per_period')} mJ, {energy.confidence:.0%} interval, idle time included"
        yield f"energy {EACH[energy.per]}", text
        yield "energy above idle", f"{energy_with_interval(energy, 'above_idle')} mJ {EACH[energy.per]}"
        yield "power", f"{energy.idle_mw:.4g} mW idle, {energy.active_mw:.4g} mW active"
    clock = f", clocks to {energy.clock_uncertainty_ms:.3g} ms" if energy.clock_uncertainty_ms else ""
    samples = f"{energy.sessions} sessions, {energy.samples:,} readings"
    yield "power meter", f"{energy.meter}, accuracy {energy.accuracy_pct:g} %{clock}: {samples}"
    for problem in energy.problems:
        yield "no energy", problem


def meter_lines(summary: Summary | None) -> list[str]:
    """Return lines on the power meter, for the conditions of a measurement; empty where energy was not measured."""
    energy = None if summary is None else summary.energy
    if energy is None:
        return []
    samples = f"{energy.sessions} sessions, {energy.samples} readings"
    return [
        f"power meter: {energy.meter}, {energy.accuracy_pct:g} %,\n{samples}",
        *(f"no energy: {problem}" for problem in energy.problems),
    ]


# Trials, in tables and in lines


def estimate_columns(summaries: Sequence[Summary], accuracy_name: str) -> list[FigureColumn]:
    """Return the columns of scores, times and energies, which have intervals."""
    per = next((summary.energy.per for summary in summaries if summary.energy is not None), None)
    return [
        FigureColumn(accuracy_name, accuracy_name, lambda summary: metric_with_interval(first_score(summary))),
        *(_latency_column(statistic) for statistic in _IN_TRIALS),
        *([] if per is None else [_energy_column(per)]),
    ]


def reading_columns(summaries: Sequence[Summary]) -> list[FigureColumn]:
    """Return the columns of readings that any trial has."""
    return [_reading_column(row) for row in _in_trials(summaries)]


def clauses(summary: Summary, summaries: Sequence[Summary], accuracy_name: str) -> list[str]:
    """Return the figures of a trial as clauses of a line; `summaries` are those of all trials."""
    energy = summary.energy
    return [
        f"{accuracy_name} {metric_with_interval(first_score(summary))}",
        *(f"{statistic} {latency_with_interval(summary.latency, statistic)} ms" for statistic in _IN_TRIALS),
        *(f"{row.title} {row.display.text(_value(row, summary))}" for row in _in_trials(summaries)),
        *([] if energy is None else [f"energy {energy_with_interval(energy, 'per_period')} mJ {EACH[energy.per]}"]),
    ]


def _in_trials(summaries: Sequence[Summary]) -> list[Metric]:
    """The readings that tables of trials have: those that always stand there, and those that a trial brought."""
    return [
        row
        for row in METRICS.values()
        if row.heading and (row.heading_always or any(_value(row, summary) is not None for summary in summaries))
    ]


def _value(row: Metric, summary: Summary | None) -> float | None:
    estimate = None if summary is None else row.of_summary(summary, None)
    return None if estimate is None else estimate.value


def _reading_column(row: Metric) -> FigureColumn:
    return FigureColumn(row.heading, row.heading, lambda summary: row.display.bare(_value(row, summary)))


def _latency_column(statistic: str) -> FigureColumn:
    return FigureColumn(
        f"{statistic} ms",
        f"{statistic}, ms",
        lambda summary: latency_with_interval(None if summary is None else summary.latency, statistic),
        always_with_interval=statistic == "p90",
    )


def _energy_column(per: str) -> FigureColumn:
    def above_idle(summary: Summary | None) -> str:
        energy = None if summary is None else summary.energy
        return "" if energy is None else f"above idle {energy_with_interval(energy, 'above_idle')}"

    return FigureColumn(
        f"mJ/{per}",
        f"mJ/{per}",
        lambda summary: energy_with_interval(None if summary is None else summary.energy, "per_period"),
        below=above_idle,
    )
