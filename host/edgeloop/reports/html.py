"""The self-contained HTML report: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edgeloop.core.events import Entry
from edgeloop.core.verdict import Family, Finding, Outcome
from edgeloop.processes.files import write_whole
from edgeloop.reports.chart import Line, Mark, scatter, shape
from edgeloop.reports.conditions import declared, flat
from edgeloop.reports.front import front_charts, front_rows, headings
from edgeloop.reports.run_view import (
    RunView,
    TrialRow,
    chain,
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
from edgeloop.reports.settings import HEADINGS, same_network

KINDS = {
    Outcome.PASS: "pass",
    Outcome.FAIL: "fail",
    Outcome.INCONCLUSIVE: "open",
    Outcome.INVALID: "void",
    Outcome.ERROR: "void",
}
LEGEND = (
    ("reference", "M1, the reference"),
    ("pass", "inside every limit"),
    ("fail", "outside a limit"),
    ("open", "inconclusive"),
    ("void", "invalid: says nothing of the network"),
)
_STATISTIC = re.compile(r"^latency (p50|p90|p99|mean)\b")


def text(entries: Sequence[Entry]) -> str:
    """Return the report as an HTML document."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def under(told: str) -> Markup:
        """An interval under its number instead of beside it."""
        value, bracket, interval = told.partition(" [")
        if not bracket:
            return Markup("{}").format(value)
        return Markup("{}<small>{}</small>").format(value, bracket.strip() + interval)

    environment = Environment(
        loader=PackageLoader("edgeloop.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "metric": metric_with_interval,
        "mib": mib,
        "ms": ms,
        "number": number,
        "more": more_needed,
        "size": size_of,
        "latency": latency_with_interval,
        "stage": stage_with_interval,
        "energy": energy_with_interval,
        "flat": flat,
        "declared": declared,
        "under": under,
    }
    run = RunView.of(entries)
    statistic, latency_chart = _against_latency(run)
    front = front_rows(run)
    return environment.get_template("report.html.j2").render(
        run=run,
        statistic=statistic,
        latency_chart=latency_chart,
        bytes_chart=_against_bytes(run),
        front=front,
        front_headings=headings(front),
        same_network=same_network(run),
        settings_headings=HEADINGS,
        front_charts=list(front_charts(front, KINDS)),
        legend=[(kind, words, _legend_shape(kind)) for kind, words in LEGEND],
        chain=chain(run),
        tools=_tools(run),
        kind_of={outcome.value: kind for outcome, kind in KINDS.items()},
    )


def write(entries: Sequence[Entry], path: Path) -> None:
    """Write the report; an earlier one is replaced only when the new one is complete."""
    write_whole(path, text(entries))


def _against_latency(run: RunView) -> tuple[str, str]:
    """The statistic that the latency limit is about (p50 without one), and accuracy against it."""
    findings = [f for row in run.rows if row.judged for f in row.judged.verdict.findings]
    named = next((found for f in findings if (found := _STATISTIC.match(f.text))), None)
    statistic = named[1] if named else "p50"
    marks = []
    for row in _drawable(run):
        if row.latency is not None:
            interval = next((i for name, i in row.latency.interval.items() if name == statistic), None)
            x = getattr(row.latency, statistic) / 1e6
            ends = (interval.low / 1e6, interval.high / 1e6) if interval else None
            marks.append(_mark(run, row, x, f"{statistic} {x:.4g} ms", ends))
    lines = [
        Line("x", finding.limit, _line_label(finding))
        for finding in _limits(run, Family.SPEED)
        if finding.limit is not None and finding.text.startswith(f"latency {statistic}")
    ]
    title = f"measured latency {statistic}, ms"
    return statistic, scatter(marks, [*lines, *_accuracy_lines(run)], title, run.accuracy_name, "{:.4g}".format)


def _against_bytes(run: RunView) -> str:
    marks = [
        _mark(run, row, row.deployed_bytes, f"{row.deployed_bytes:,} bytes", None)
        for row in _drawable(run)
        if row.deployed_bytes is not None
    ]
    lines = [Line("x", f.limit, _line_label(f)) for f in _limits(run, Family.SIZE) if f.limit is not None]
    return scatter(
        marks, [*lines, *_accuracy_lines(run)], "deployed size, kB", run.accuracy_name, lambda v: f"{v / 1000:.4g}"
    )


def _drawable(run: RunView) -> list[TrialRow]:
    return [row for row in run.rows if row.accuracy is not None and row.accuracy.metric == run.accuracy_name]


def _mark(run: RunView, row: TrialRow, x: float, told: str, ends: tuple[float, float] | None) -> Mark:
    metric = row.accuracy
    assert metric is not None, "only rows with the metric are drawn"
    name = "M1" if row.name == "M1" else f"trial {row.name}"
    title = f"{name}: {row.trial.candidate}, {metric.metric} {metric.value:.4f}, {told}, {row.verdict}"
    return Mark(
        x=x,
        y=metric.value,
        label=row.name,
        title=f"{title}, on {row.target}" if run.several_targets else title,
        kind="reference" if row.name == "M1" else KINDS.get(row.outcome or Outcome.ERROR, "void"),
        x_interval=ends,
        y_interval=(metric.interval.low, metric.interval.high) if metric.interval else None,
    )


def _limits(run: RunView, family: Family) -> list[Finding]:
    """The findings whose bounds are drawn: the chosen network's, one for each limit."""
    return list({row.finding.limit_id: row.finding for row in run.limits if row.finding.family is family}.values())


def _accuracy_lines(run: RunView) -> list[Line]:
    return [
        Line("y", finding.limit, _line_label(finding))
        for finding in _limits(run, Family.ACCURACY)
        if finding.limit is not None and finding.text.split(" ", 1)[0] == run.accuracy_name
    ]


def _line_label(finding: Finding) -> str:
    return f"{finding.limit_id}: {number(finding.limit, finding.unit)}"


def _legend_shape(kind: str) -> str:
    return (
        f'<svg class="key" viewBox="0 0 18 18" aria-hidden="true"><g class="mark {kind}">{shape(kind, 9, 9)}</g></svg>'
    )


def _tools(run: RunView) -> dict[str, str]:
    """Versions of what ran on the host, and of what built the files; a file's own schedules are no tool of the run."""
    tools = dict(run.started.versions) if run.started else {}
    for trial in run.trials:
        if trial.build is not None:
            told = [artifact.tools for artifact in trial.build.artifacts]
            names = dict.fromkeys(name for one in told for name in one if name != "schedules")
            tools |= {name: ", ".join(dict.fromkeys(one[name] for one in told if name in one)) for name in names}
    return dict(sorted(tools.items()))
