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
from edgeloop.core.model_format import ModelFormat
from edgeloop.core.units import number
from edgeloop.core.verdict import Finding, Outcome
from edgeloop.reports.conditions import conditions_line, environment_line
from edgeloop.reports.figures import clauses, figure_lines
from edgeloop.reports.front import front_rows, front_table
from edgeloop.reports.profile import ProfileReport
from edgeloop.reports.run_view import LimitRow, RunView, TrialRow, limit_title, more_needed, size_of
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


def measure_report(judgement: Judgement, artifact: Artifact, *, limits_given: bool = True) -> RenderableType:
    """One measurement of a ready model: latency, memory, accuracy, conditions, and the limits where given."""
    return _MeasureReport(judgement, artifact, limits_given)


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
        summaries, accuracy_name = run.summaries, run.accuracy_name
        for trial in run.rows:
            figures = [] if trial.summary is None else clauses(trial.summary, summaries, accuracy_name)
            yield _trial_line(trial, figures)
        yield from (row.line for row in same_network(run))
        yield from (row.line for row in front_rows(run))
        for name, move in run.moves:
            yield f"trial {name}: {move}"


@dataclass(frozen=True, slots=True)
class _MeasureReport:
    judgement: Judgement
    artifact: Artifact
    limits_given: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        head = f"{self.artifact.origin} on {self.judgement.target}"
        if self.limits_given:
            outcome = self.judgement.verdict.outcome
            style = STYLE[outcome] if console.is_terminal else ""
            yield Text.assemble((outcome.value, style), f"  {head}")
        else:
            yield Text(head)
        if self.judgement.emulated:
            yield Text(EMULATED, style="bold magenta" if console.is_terminal else "")
        if console.is_terminal:
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
            for name, value in self._facts():
                table.add_row(Text(name, style="dim"), Text(value))
            yield table
        else:
            yield from (Text(f"{name}: {value}") for name, value in self._facts())
        summary = self.judgement.summary
        if summary is not None and summary.profile is not None:
            yield ProfileReport(summary.profile)
        elif summary is not None and summary.profile_problem:
            yield Text(f"no profile: {summary.profile_problem}")
        for finding in self.judgement.verdict.findings:
            yield finding_line(finding, in_colour=console.is_terminal)
        outcome = self.judgement.verdict.outcome
        prefix = "" if outcome is Outcome.INCONCLUSIVE and not self.limits_given else f"{outcome.value}: "
        for reason in self.judgement.verdict.reasons:
            yield Text(f"{prefix}{reason}")

    def _facts(self) -> Iterator[tuple[str, str]]:
        judgement, summary = self.judgement, self.judgement.summary
        yield "model", f"{self.artifact.deployed_bytes:,} bytes, sha256 {self.artifact.sha256[:12]}"
        yield from _origin(self.artifact)
        if summary is not None:
            yield "engine", summary.run_by
        yield from figure_lines(judgement)
        if judgement.environment is not None:
            yield "declared", environment_line(judgement.environment)
        if not judgement.conditions.is_empty:
            yield "found", conditions_line(judgement.conditions)
        if judgement.trust is not None and judgement.trust.unknown:
            yield "not known", ", ".join(judgement.trust.unknown)


def _origin(artifact: Artifact) -> Iterator[tuple[str, str]]:
    """The origin of a model that is no .tflite as it is."""
    if artifact.converted_from is None:
        return
    tools = ", ".join(f"{name} {version}" for name, version in artifact.tools.items())
    if ModelFormat.from_name(artifact.path) is ModelFormat.TVM_LIBRARY:
        yield "compiled", f"by {tools}"
    else:
        yield "converted", f"to float .tflite by {tools}, names left out"


def _limit_table(rows: Sequence[LimitRow], *, by_target: bool) -> Table:
    table = Table(title="limits", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("", "limit", *(["target"] if by_target else []), "measured", "bound", "gap", "closest of all"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        finding = row.finding
        more = more_needed(finding)
        table.add_row(
            Text(finding.outcome.value, style=STYLE[finding.outcome]),
            f"{limit_title(finding)} {finding.text}" + (f"; {more}" if more else ""),
            *([row.target] if by_target else []),
            row.observation,
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
    estimates, readings = run.estimate_columns, run.reading_columns
    headings = [column.heading for column in estimates]
    for heading in ("params", "G", *headings, "bytes", *(column.heading for column in readings)):
        table.add_column(heading, justify="right")
    table.add_column("verdict", overflow="fold")
    for row in run.rows:
        cells = ((column, column.cell(row.summary)) for column in estimates)
        table.add_row(
            row.name,
            str(row.trial.candidate),
            *([row.target] if by_target else []),
            f"{row.trial.sizes.parameters:,}",
            f"{row.trial.degree:.2f}",
            *(cell if wide or column.always_with_interval else cell.split(" [")[0] for column, cell in cells),
            f"{row.deployed_bytes:,}" if row.deployed_bytes is not None else "-",
            *(column.cell(row.summary) for column in readings),
            Text(row.verdict, style="dim" if row.name == "M1" or row.outcome is None else STYLE[row.outcome]),
        )
    return table


def _limit_line(row: LimitRow) -> str:
    finding = row.finding
    more = more_needed(finding)
    parts = [
        f"{finding.outcome.value} {limit_title(finding)} {finding.text} on {row.target}: measured {row.observation}",
        f"bound {row.bound}",
        f"gap {row.gap}",
    ]
    parts += [f"closest of all {row.closest}"] if row.closest else []
    parts += [more] if more else []
    return ", ".join(parts)


def _trial_line(row: TrialRow, figures: Sequence[str]) -> str:
    name = "M1" if row.name == "M1" else f"trial {row.name}"
    where = f" on {row.target}" if row.target else ""
    head = f"{name} ({row.trial.candidate}){where}: {row.verdict}; {size_of(row)}; G {row.trial.degree:.2f}"
    if row.trial.error is not None:
        return f"{head}; {row.trial.error.stage} failed ({row.trial.error.owner}): {row.trial.error.message}"
    return "; ".join((head, *figures))


def finding_line(finding: Finding, *, in_colour: bool) -> Text:
    more = more_needed(finding)
    text = (
        f" {limit_title(finding)} {finding.text}: measured {number(finding.observed, finding.unit)}, "
        f"bound {number(finding.limit, finding.unit)}; {finding.reason}"
    )
    if more and more not in finding.reason:
        text += f"; {more}"
    return Text.assemble((finding.outcome.value, STYLE[finding.outcome] if in_colour else ""), text)
