"""The same network on each engine, delegate and thread count that it was measured with, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from edgeloop.core.board import NO_DELEGATE
from edgeloop.core.network import Setting
from edgeloop.core.verdict import Outcome
from edgeloop.reports.figures import latency_with_interval
from edgeloop.reports.run_view import RunView, TrialRow

# From the fifth on they are numbers, which the page sets to the right.
HEADINGS = ("network", "trial", "engine", "delegate", "threads", "p50 ms", "times the first")


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One candidate beside the others of its network on its target."""

    row: TrialRow
    network: str
    """With its lightening."""
    ratio: float | None
    """Median latency over that of the first of its group. From jobs of their own, so it has no interval: `edgeloop
    compare` measures two in turn. None where the first, or this one, was measured outside the declared environment or
    not at all."""

    @property
    def delegate(self) -> str:
        summary = self.row.summary
        name = self.row.trial.candidate.delegate
        if name is None or summary is None or summary.delegation is None:
            return name or NO_DELEGATE
        return f"{name} ({summary.delegation.taken_pct:.0f} % of the operators)"

    @property
    def _void(self) -> str:
        return ", INVALID" if self.row.outcome is Outcome.INVALID else ""

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of HEADINGS."""
        summary, candidate = self.row.summary, self.row.trial.candidate
        where = f" on {self.row.target}" if self.row.target else ""
        return (
            self.network + where,
            self.row.name,
            summary.engine if summary is not None else candidate.engine,
            self.delegate,
            str(candidate.threads),
            latency_with_interval(self.row.latency, "p50") + self._void,
            "-" if self.ratio is None else f"{self.ratio:.2f}",
        )

    @property
    def line(self) -> str:
        """For a pipe or a log."""
        network, trial, engine, delegate, threads, _, ratio = self.cells
        return (
            f"same network, {network}: trial {trial}, {engine}, delegate {delegate}, threads {threads}: "
            f"p50 {latency_with_interval(self.row.latency, 'p50')} ms{self._void}"
            + ("" if self.ratio is None else f", {ratio} times the first")
        )

    def document(self) -> dict[str, Any]:
        """For JSON. Latency in ns."""
        candidate, latency = self.row.trial.candidate, self.row.latency
        return {
            "network": self.network,
            "target": self.row.target,
            "trial": self.row.trial.number,
            "engine": candidate.engine,
            "delegate": candidate.delegate,
            "threads": candidate.threads,
            "outcome": self.row.outcome.value if self.row.outcome else None,
            "latency_p50_ns": latency.p50 if latency else None,
            "ratio_to_first": self.ratio,
        }


def same_network(run: RunView) -> list[SettingRow]:
    """Candidates of which the same lightened network was measured with more than one setting, group by group."""
    groups: dict[tuple[str, str], list[TrialRow]] = {}
    for row in run.rows:
        if row.trial.role == "candidate" and row.latency is not None:
            candidate = row.trial.candidate
            alike = candidate.model_copy(update=Setting().model_dump())
            groups.setdefault((alike.key, row.target), []).append(row)
    return [
        SettingRow(row, f"{row.trial.candidate.network.label} {row.trial.candidate.lightening}", _ratio(row, rows[0]))
        for rows in groups.values()
        if len(rows) > 1
        for row in rows
    ]


def settings_table(rows: Sequence[SettingRow]) -> Table:
    """For a terminal."""
    table = Table(title="the same network on each setting", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row.cells)
    return table


def _ratio(row: TrialRow, first: TrialRow) -> float | None:
    if row.latency is None or first.latency is None or Outcome.INVALID in (row.outcome, first.outcome):
        return None
    return row.latency.p50 / first.latency.p50
