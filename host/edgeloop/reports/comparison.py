"""Two models side by side, for a terminal: A, B, and B beside A with its interval; plain lines without a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from edgeloop.analysis.comparison import Comparison, ScoreDifference
from edgeloop.core.artifact import Artifact
from edgeloop.core.events import Judgement
from edgeloop.core.measurement import Interval, Summary
from edgeloop.core.metric import Metric
from edgeloop.core.metrics import compared_readings
from edgeloop.core.verdict import Outcome
from edgeloop.reports.conditions import conditions_line, environment_line
from edgeloop.reports.figures import latency_with_interval, metric_with_interval, ms
from edgeloop.reports.text import EMULATED, STYLE, finding_line


def report(
    judgement: Judgement, comparison: Comparison, a: Artifact, b: Artifact, *, limits_given: bool
) -> RenderableType:
    """B beside A: latency by rounds, memory, bytes, scores on the same samples, and the verdict where one was asked."""
    return _ComparedReport(judgement, comparison, a, b, limits_given)


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    a: str
    b: str
    beside: str


@dataclass(frozen=True, slots=True)
class _ComparedReport:
    judgement: Judgement
    comparison: Comparison
    a: Artifact
    b: Artifact
    limits_given: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        judgement, in_colour = self.judgement, console.is_terminal
        outcome = judgement.verdict.outcome
        head = f"B {self.b.origin} beside A {self.a.origin} on {judgement.target}"
        if self.limits_given:
            yield Text.assemble((outcome.value, STYLE[outcome] if in_colour else ""), f"  {head}")
        else:
            yield Text(head)
        if judgement.emulated:
            yield Text(EMULATED, style="bold magenta" if in_colour else "")
        yield Text(
            f"{judgement.plan.timing}, plan {judgement.plan.profile}: {self.comparison.rounds} rounds, interleaved; "
            f"{self.comparison.confidence:.0%} intervals"
        )
        if in_colour:
            table = Table(box=None, padding=(0, 2, 0, 0))
            for heading in ("", "A", "B", "B beside A"):
                table.add_column(heading, overflow="fold")
            for row in self._rows():
                table.add_row(Text(row.name, style="dim"), row.a, row.b, row.beside)
            yield table
        else:
            yield from (Text(f"{row.name}: A {row.a}, B {row.b}; {row.beside}") for row in self._rows())
        yield from (Text(line) for line in self._last_lines())
        for finding in judgement.verdict.findings:
            yield finding_line(finding, in_colour=in_colour)
        prefix = "" if outcome is Outcome.INCONCLUSIVE and not self.limits_given else f"{outcome.value}: "
        if prefix:
            yield from (Text(f"{prefix}{reason}") for reason in judgement.verdict.reasons)

    def _rows(self) -> Iterator[_Row]:
        a, b, comparison = self.judgement.reference, self.judgement.summary, self.comparison
        yield _Row("engine", _engine(a), _engine(b), "")
        for statistic, ratio in comparison.ratio.items():
            beside = f"x {ratio.value:.4f}"
            beside += f" {_span(ratio.interval)}" if ratio.interval else f" ({ratio.note})"
            yield _Row(f"latency {statistic}", _latency(a, statistic), _latency(b, statistic), beside)
        for row in compared_readings():
            difference = row.display.difference(comparison.readings.get(row.key))
            if row.of_session is None:  # of the file, which both have though nothing was measured
                yield _Row(row.compared_as, f"{self.a.deployed_bytes:,}", f"{self.b.deployed_bytes:,}", difference)
            else:
                yield _Row(row.compared_as, _reading(row, a), _reading(row, b), difference)
        for metric in comparison.metrics:
            yield _Row(metric.metric, f"{metric.a:.4f}", f"{metric.b:.4f}", _score_difference(metric))

    def _last_lines(self) -> Iterator[str]:
        agreement = self.comparison.agreement
        if agreement is not None:
            yield f"agreement: {metric_with_interval(agreement)} on {agreement.n:,} samples"
        if self.judgement.environment is not None:
            yield f"declared: {environment_line(self.judgement.environment)}"
            yield f"found: {conditions_line(self.judgement.conditions)}"
        trust = self.judgement.trust
        if trust is not None and trust.unknown:
            yield f"not known: {', '.join(trust.unknown)}"


def _span(interval: Interval) -> str:
    return f"[{interval.low:.4f}, {interval.high:.4f}]"


def _score_difference(metric: ScoreDifference) -> str:
    text = f"{metric.difference:+.4f} [{metric.interval.low:+.4f}, {metric.interval.high:+.4f}]"
    if metric.gained is not None:
        text += f", {metric.gained} gained and {metric.lost} lost"
    return f"{text} of {metric.n:,} samples"


def _engine(summary: Summary | None) -> str:
    return summary.run_by if summary else "-"


def _latency(summary: Summary | None, statistic: str) -> str:
    if summary is None or summary.latency is None:
        return "-"
    if statistic == "mean":
        return f"{ms(summary.latency.mean)} ms"
    return f"{latency_with_interval(summary.latency, statistic)} ms"


def _reading(row: Metric, summary: Summary | None) -> str:
    estimate = None if summary is None else row.of_summary(summary, None)
    return row.display.text(None if estimate is None else estimate.value)
