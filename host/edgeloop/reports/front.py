"""The front of a Pareto run as it is told: which networks no other one beats, by what, and whether test data agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from edgeloop.core.events import FrontAxis, Trial
from edgeloop.core.units import number
from edgeloop.core.verdict import Outcome
from edgeloop.reports.chart import Mark, scatter
from edgeloop.reports.run_view import RunView


@dataclass(frozen=True, slots=True)
class FrontRow:
    """One network of the front; values are on validation data, the outcome is that of its look at test data."""

    trial: Trial
    axes: tuple[FrontAxis, ...]
    values: tuple[float, ...]
    outcome: Outcome

    @property
    def cells(self) -> list[str]:
        return [number(value, axis.unit) for value, axis in zip(self.values, self.axes, strict=True)]

    @property
    def line(self) -> str:
        axes = ", ".join(f"{axis.name} {cell}" for axis, cell in zip(self.axes, self.cells, strict=True))
        return f"front: trial {self.trial.number} ({self.trial.candidate}): {axes}; test data {self.outcome.value}"


def front_rows(run: RunView) -> list[FrontRow]:
    """The front, from the most accurate; empty where the run asked for none, or nothing passed."""
    record = run.end.front if run.end is not None else None
    if record is None:
        return []
    trials = {trial.number: trial for trial in run.trials}
    return [FrontRow(trials[m.trial], record.axes, m.values, m.outcome) for m in record.members]


def headings(rows: list[FrontRow]) -> list[str]:
    """The names of the axes, with their units and which way is better."""
    return [f"{axis.name} ({axis.better} is better)" for axis in rows[0].axes] if rows else []


def front_table(rows: list[FrontRow]) -> Table:
    """The front on a terminal."""
    table = Table(title="front", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in ("trial", "candidate", *headings(rows), "test data"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        style = "green" if row.outcome is Outcome.PASS else "red" if row.outcome is Outcome.FAIL else "yellow"
        verdict = Text(row.outcome.value, style=style)
        table.add_row(str(row.trial.number), str(row.trial.candidate), *row.cells, verdict)
    return table


def front_charts(rows: list[FrontRow], kinds: dict[Outcome, str]) -> Iterator[tuple[str, str]]:
    """Caption and SVG of the first axis against each other one; `kinds` are the marks of outcomes."""
    if not rows:
        return
    first, *costs = rows[0].axes
    for at, axis in enumerate(costs, start=1):
        marks = [
            Mark(
                x=row.values[at],
                y=row.values[0],
                label=str(row.trial.number),
                title=row.line,
                kind=kinds.get(row.outcome, "void"),
            )
            for row in rows
        ]
        unit = f", {axis.unit}" if axis.unit else ""
        chart = scatter(marks, [], f"{axis.name}{unit}", first.name, "{:,.5g}".format)
        yield f"the front: {first.name} against {axis.name}", chart
