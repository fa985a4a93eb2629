"""Reports for a terminal: first what a manager needs, then every trial, then the moves as sentences.

Without a terminal (a pipe, a CI log) the same is told in plain lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgeloop.core.artifact import Artifact
from edgeloop.core.events import Entry, Judgement
from edgeloop.core.measurement import EnergySummary, Summary
from edgeloop.core.model_format import ModelFormat
from edgeloop.core.verdict import Finding, Outcome
from edgeloop.reports.conditions import declared, found
from edgeloop.reports.front import front_rows, front_table
from edgeloop.reports.profile import ProfileReport
from edgeloop.reports.run_view import (
    EACH,
    LimitRow,
    RunView,
    TrialRow,
    energy_with_interval,
    latency_with_interval,
    metric_with_interval,
    mib,
    more_needed,
    ms,
    number,
    size_of,
    stage_with_interval,
)
from edgeloop.reports.settings import same_network, settings_table

EMULATED = "EMULATED board: its times mean nothing as times"
_WIDE = 110
"""Columns of a terminal from which on every number of the trials has its interval beside it."""
STYLE = {
    Outcome.PASS: "green",
    Outcome.FAIL: "red",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.INVALID: "magenta",
    Outcome.ERROR: "magenta",
}
_WORD_STYLE = {"PASSED": "bold green", "NOT PASSED": "bold red"}


def run_report(entries: Sequence[Entry]) -> RenderableType:
    """A run: verdict and limits, trials, moves."""
    return _RunReport(RunView.of(entries))


def measure_report(judged: Judgement, artifact: Artifact, *, limits_given: bool = True) -> RenderableType:
    """One measurement of a ready model: latency, memory, accuracy, conditions, and the limits where given."""
    return _MeasureReport(judged, artifact, limits_given)


@dataclass(frozen=True, slots=True)
class _RunReport:
    run: RunView

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.is_terminal:
            yield from self._tables(wide=options.max_width >= _WIDE)
        else:
            yield from (Text(line) for line in self._lines())

    def _tables(self, *, wide: bool) -> Iterator[RenderableType]:
        run = self.run
        yield Text.assemble((run.word, _WORD_STYLE.get(run.word, "bold yellow")), f"  {run.name}: {run.sentence}")
        if run.emulated:
            yield Text(EMULATED, style="bold magenta")
        if run.limits:
            yield Padding(_limit_table(run.limits, by_target=run.several_targets), (1, 0))
        if run.rows:
            yield Padding(_trial_table(run, wide=wide), (0, 0, 1, 0))
        if alike := same_network(run):
            yield Padding(settings_table(alike), (0, 0, 1, 0))
        if front := front_rows(run):
            yield Padding(front_table(front), (0, 0, 1, 0))
        for trial, move in run.moves:
            yield Text.assemble((f"trial {trial}  ", "bold"), move)

    def _lines(self) -> Iterator[str]:
        run = self.run
        yield f"{run.word}  {run.name}: {run.sentence}"
        if run.emulated:
            yield EMULATED
        for row in run.limits:
            yield _limit_line(row)
        for trial in run.rows:
            yield _trial_line(trial, run.accuracy_name)
        yield from (row.line for row in same_network(run))
        yield from (row.line for row in front_rows(run))
        for name, move in run.moves:
            yield f"trial {name}: {move}"


@dataclass(frozen=True, slots=True)
class _MeasureReport:
    judged: Judgement
    artifact: Artifact
    limits_given: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = f"{self.artifact.origin} on {self.judged.target}"
        if self.limits_given:
            outcome = self.judged.verdict.outcome
            style = STYLE[outcome] if console.is_terminal else ""
            yield Text.assemble((outcome.value, style), f"  {head}")
        else:
            yield Text(head)
        if self.judged.emulated:
            yield Text(EMULATED, style="bold magenta" if console.is_terminal else "")
        if console.is_terminal:
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
            for name, value in self._facts():
                table.add_row(Text(name, style="dim"), Text(value))
            yield table
        else:
            yield from (Text(f"{name}: {value}") for name, value in self._facts())
        summary = self.judged.summary
        if summary is not None and summary.profile is not None:
            yield ProfileReport(summary.profile)
        elif summary is not None and summary.profile_problem:
            yield Text(f"no profile: {summary.profile_problem}")
        for finding in self.judged.verdict.findings:
            yield finding_line(finding, styled=console.is_terminal)
        outcome = self.judged.verdict.outcome
        told = "" if outcome is Outcome.INCONCLUSIVE and not self.limits_given else f"{outcome.value}: "
        for reason in self.judged.verdict.reasons:
            yield Text(f"{told}{reason}")

    def _facts(self) -> Iterator[tuple[str, str]]:
        judged, summary = self.judged, self.judged.summary
        plan = judged.plan
        yield "model", f"{self.artifact.deployed_bytes:,} bytes, sha256 {self.artifact.sha256[:12]}"
        yield from _origin(self.artifact)
        if summary is not None:
            yield "engine", summary.run_by
        latency = summary.latency if summary else None
        if summary is not None and latency is not None:
            yield (
                "measured",
                f"{plan.timing}, plan {plan.profile}: {latency.sessions} sessions, {latency.samples:,} samples",
            )
            for statistic in ("p50", "p90", "p99"):
                told = f"{latency_with_interval(latency, statistic)} ms, {latency.confidence:.0%} interval"
                yield f"latency {statistic}", told
            for name in ("mean", "min", "first", "load"):
                yield f"latency {name}" if name in ("mean", "min") else name, f"{ms(getattr(latency, name))} ms"
            for stage in summary.stages_ns:
                yield f"stage {stage.stage}", f"{stage_with_interval(stage).removeprefix(stage.stage + ' ')} ms, median"
            if plan.period_ms is not None:
                missed = f"{summary.missed_periods:,} of {latency.samples:,} periods missed"
                yield "period", f"{plan.period_ms:g} ms, {missed}"
            if summary.overhead_ns is not None:
                yield "agent's own", f"at most {summary.overhead_ns / 1000:.2g} us in each latency"
        if summary is not None:
            yield from _memory_facts(summary)
            yield from _energy_facts(summary.energy)
        for metric in (*summary.metrics, *((summary.agreement,) if summary.agreement else ())) if summary else ():
            yield metric.metric, f"{metric_with_interval(metric)} on {metric.n:,} samples"
        if judged.environment is not None:
            yield "declared", declared(judged.environment)
        if judged.conditions:
            yield "found", found(judged.conditions)
        if judged.trust is not None and judged.trust.unknown:
            yield "not known", ", ".join(judged.trust.unknown)


def _origin(artifact: Artifact) -> Iterator[tuple[str, str]]:
    """What a model was made of that is no .tflite as it is."""
    if artifact.converted_from is None:
        return
    tools = ", ".join(f"{name} {version}" for name, version in artifact.tools.items())
    if ModelFormat.from_name(artifact.path) is ModelFormat.TVM_LIBRARY:
        yield "compiled", f"by {tools}"
    else:
        yield "converted", f"to float .tflite by {tools}, names left out"


def _memory_facts(summary: Summary) -> Iterator[tuple[str, str]]:
    if summary.peak_rss_bytes is None:
        return
    above = ""
    if summary.runtime_rss_bytes is not None:
        above = f", {mib(summary.peak_rss_bytes - summary.runtime_rss_bytes)} MiB above the runtime alone"
    yield "memory", f"{mib(summary.peak_rss_bytes)} MiB at the peak{above}"


def _energy_facts(energy: EnergySummary | None) -> Iterator[tuple[str, str]]:
    if energy is None:
        return
    if energy.per_period_mj is not None and energy.idle_mw is not None and energy.active_mw is not None:
        told = f"{energy_with_interval(energy, 'per_period')} mJ, {energy.confidence:.0%} interval, idle time included"
        yield f"energy {EACH[energy.per]}", told
        yield "energy above idle", f"{energy_with_interval(energy, 'above_idle')} mJ {EACH[energy.per]}"
        yield "power", f"{energy.idle_mw:.4g} mW idle, {energy.active_mw:.4g} mW active"
    clock = f", clocks to {energy.clock_uncertainty_ms:.3g} ms" if energy.clock_uncertainty_ms else ""
    readings = f"{energy.sessions} sessions, {energy.samples:,} readings"
    yield "power meter", f"{energy.meter}, accuracy {energy.accuracy_pct:g} %{clock}: {readings}"
    for problem in energy.problems:
        yield "no energy", problem


def _energy_clause(energy: EnergySummary | None) -> str:
    told = energy_with_interval(energy, "per_period")
    return "" if energy is None else f"; energy {told} mJ {EACH[energy.per]}"


def _limit_table(rows: Sequence[LimitRow], *, by_target: bool) -> Table:
    table = Table(title="limits", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("", "limit", *(["target"] if by_target else []), "measured", "bound", "gap", "closest of all"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        finding = row.finding
        more = more_needed(finding)
        table.add_row(
            Text(finding.outcome.value, style=STYLE[finding.outcome]),
            f"{finding.limit_id} {finding.text}" + (f"; {more}" if more else ""),
            *([row.target] if by_target else []),
            row.measured,
            row.bound,
            row.gap,
            row.closest,
        )
    return table


def _trial_table(run: RunView, *, wide: bool) -> Table:
    by_target = run.several_targets
    table = Table(title="trials", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column("candidate", overflow="fold")
    if by_target:
        table.add_column("target")
    energy = [f"mJ/{run.energy_per}"] if run.energy_per else []
    for heading in ("params", "G", run.accuracy_name, "p50 ms", "p90 ms", *energy, "bytes", "MiB"):
        table.add_column(heading, justify="right")
    table.add_column("verdict", overflow="fold")
    for row in run.rows:
        peak = row.summary.peak_rss_bytes if row.summary else None
        numbers = (
            metric_with_interval(row.accuracy),
            latency_with_interval(row.latency, "p50"),
            latency_with_interval(row.latency, "p90"),
            *([energy_with_interval(row.energy, "per_period")] if energy else []),
        )
        table.add_row(
            row.name,
            str(row.trial.candidate),
            *([row.target] if by_target else []),
            f"{row.trial.sizes.parameters:,}",
            f"{row.trial.degree:.2f}",
            *(told if wide or at == 2 else told.split(" [")[0] for at, told in enumerate(numbers)),
            f"{row.deployed_bytes:,}" if row.deployed_bytes is not None else "-",
            mib(peak),
            Text(row.verdict, style="dim" if row.name == "M1" or row.outcome is None else STYLE[row.outcome]),
        )
    return table


def _limit_line(row: LimitRow) -> str:
    finding = row.finding
    more = more_needed(finding)
    parts = [
        f"{finding.outcome.value} {finding.limit_id} {finding.text} on {row.target}: measured {row.measured}",
        f"bound {row.bound}",
        f"gap {row.gap}",
    ]
    parts += [f"closest of all {row.closest}"] if row.closest else []
    parts += [more] if more else []
    return ", ".join(parts)


def _trial_line(row: TrialRow, accuracy_name: str) -> str:
    name = "M1" if row.name == "M1" else f"trial {row.name}"
    where = f" on {row.target}" if row.target else ""
    told = f"{name} ({row.trial.candidate}){where}: {row.verdict}; {size_of(row)}; G {row.trial.degree:.2f}"
    if row.trial.error is not None:
        return f"{told}; {row.trial.error.stage} failed ({row.trial.error.owner}): {row.trial.error.message}"
    if row.summary is None:
        return told
    return (
        f"{told}; {accuracy_name} {metric_with_interval(row.accuracy)}; "
        f"p50 {latency_with_interval(row.latency, 'p50')} ms; p90 {latency_with_interval(row.latency, 'p90')} ms; "
        f"memory {mib(row.summary.peak_rss_bytes)} MiB" + _energy_clause(row.energy)
    )


def finding_line(finding: Finding, *, styled: bool) -> Text:
    more = more_needed(finding)
    told = (
        f" {finding.limit_id} {finding.text}: measured {number(finding.observed, finding.unit)}, "
        f"bound {number(finding.limit, finding.unit)}; {finding.reason}"
    )
    if more and more not in finding.reason:
        told += f"; {more}"
    return Text.assemble((finding.outcome.value, STYLE[finding.outcome] if styled else ""), told)
