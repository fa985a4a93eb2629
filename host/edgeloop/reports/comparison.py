"""Two models side by side, for a terminal: A, B, and B beside A with its interval; plain lines without a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from edgeloop.analysis.comparison import Comparison, Paired
from edgeloop.core.artifact import Artifact
from edgeloop.core.events import Judgement
from edgeloop.core.measurement import Interval, Summary
from edgeloop.core.verdict import Outcome
from edgeloop.reports.conditions import declared, found
from edgeloop.reports.run_view import latency_with_interval, metric_with_interval, mib, ms
from edgeloop.reports.text import EMULATED, STYLE, finding_line


def report(judged: Judgement, found: Comparison, a: Artifact, b: Artifact, *, limits_given: bool) -> RenderableType:
    """B beside A: latency by rounds, memory, bytes, scores on the same samples, and the verdict where one was asked."""
    return _ComparedReport(judged, found, a, b, limits_given)


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    a: str
    b: str
    beside: str


@dataclass(frozen=True, slots=True)
class _ComparedReport:
    judged: Judgement
    found: Comparison
    a: Artifact
    b: Artifact
    limits_given: bool

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        judged, styled = self.judged, console.is_terminal
        outcome = judged.verdict.outcome
        head = f"B {self.b.origin} beside A {self.a.origin} on {judged.target}"
        if self.limits_given:
            yield Text.assemble((outcome.value, STYLE[outcome] if styled else ""), f"  {head}")
        else:
            yield Text(head)
        if judged.emulated:
            yield Text(EMULATED, style="bold magenta" if styled else "")
        yield Text(
            f"{judged.plan.timing}, plan {judged.plan.profile}: {self.found.rounds} rounds, interleaved; "
            f"{self.found.confidence:.0%} intervals"
        )
        if styled:
            table = Table(box=None, padding=(0, 2, 0, 0))
            for heading in ("", "A", "B", "B beside A"):
                table.add_column(heading, overflow="fold")
            for row in self._rows():
                table.add_row(Text(row.name, style="dim"), row.a, row.b, row.beside)
            yield table
        else:
            yield from (Text(f"{row.name}: A {row.a}, B {row.b}; {row.beside}") for row in self._rows())
        yield from (Text(line) for line in self._last_lines())
        for finding in judged.verdict.findings:
            yield finding_line(finding, styled=styled)
        told = "" if outcome is Outcome.INCONCLUSIVE and not self.limits_given else f"{outcome.value}: "
        if told:
            yield from (Text(f"{told}{reason}") for reason in judged.verdict.reasons)

    def _rows(self) -> Iterator[_Row]:
        a, b, found = self.judged.reference, self.judged.summary, self.found
        yield _Row("engine", _engine(a), _engine(b), "")
        for statistic, ratio in found.ratio.items():
            beside = f"x {ratio.value:.4f}"
            beside += f" {_span(ratio.interval)}" if ratio.interval else f" ({ratio.note})"
            yield _Row(f"latency {statistic}", _latency(a, statistic), _latency(b, statistic), beside)
        yield _Row(
            "deployed bytes",
            f"{self.a.deployed_bytes:,}",
            f"{self.b.deployed_bytes:,}",
            f"{found.deployed_bytes:+,} bytes",
        )
        for name, read, difference in (
            ("memory at the peak", _peak, found.peak_rss_bytes),
            ("above the runtime", _above, found.rss_above_runtime_bytes),
        ):
            yield _Row(
                name,
                f"{mib(read(a))} MiB",
                f"{mib(read(b))} MiB",
                "-" if difference is None else f"{difference / 2**20:+.1f} MiB",
            )
        for metric in found.metrics:
            yield _Row(metric.metric, f"{metric.a:.4f}", f"{metric.b:.4f}", _paired(metric))

    def _last_lines(self) -> Iterator[str]:
        if self.found.agreement is not None:
            yield f"agreement: {metric_with_interval(self.found.agreement)} on {self.found.agreement.n:,} samples"
        if self.judged.environment is not None:
            yield f"declared: {declared(self.judged.environment)}"
            yield f"found: {found(self.judged.conditions)}"
        trust = self.judged.trust
        if trust is not None and trust.unknown:
            yield f"not known: {', '.join(trust.unknown)}"


def _span(interval: Interval) -> str:
    return f"[{interval.low:.4f}, {interval.high:.4f}]"


def _paired(metric: Paired) -> str:
    told = f"{metric.difference:+.4f} [{metric.interval.low:+.4f}, {metric.interval.high:+.4f}]"
    if metric.gained is not None:
        told += f", {metric.gained} gained and {metric.lost} lost"
    return f"{told} of {metric.n:,} samples"


def _engine(summary: Summary | None) -> str:
    return summary.run_by if summary else "-"


def _latency(summary: Summary | None, statistic: str) -> str:
    if summary is None or summary.latency is None:
        return "-"
    if statistic == "mean":
        return f"{ms(summary.latency.mean)} ms"
    return f"{latency_with_interval(summary.latency, statistic)} ms"


def _peak(summary: Summary | None) -> int | None:
    return summary.peak_rss_bytes if summary else None


def _above(summary: Summary | None) -> int | None:
    if summary is None or summary.peak_rss_bytes is None or summary.runtime_rss_bytes is None:
        return None
    return summary.peak_rss_bytes - summary.runtime_rss_bytes
