"""One row a trial and target, for spreadsheets and scripts; units are in the names of the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from edgeloop.core.events import Entry
from edgeloop.core.metrics import METRICS
from edgeloop.reports.front import front_rows
from edgeloop.reports.run_view import RunView, TrialRow

_OF_TRIALS = (
    "trial",
    "role",
    "target",
    "emulated",
    "candidate",
    "width",
    "depth",
    "lightening",
    "engine",
    "threads",
    "delegate",
    "delegate_taken_pct",
    "parameters",
    "macs",
    "peak_activation_bytes",
    "degree",
    "evaluation",
    "predicted_bytes",
    "deployed_bytes",
    "metric",
    "metric_value",
    "metric_low",
    "metric_high",
)
_OF_VERDICTS = (
    "plan",
    "outcome",
    "test_outcome",
    "passed",
    "front",
    "why",
    "direction",
    "move",
    "error",
)
REQUIREMENTS = "requirements"
"""The column of the requirements that limits stand for; only where a limit names one."""


def columns() -> tuple[str, ...]:
    """Return the headings: of the trial, of every metric that has columns, and of its verdict."""
    return (*_OF_TRIALS, *(column.name for row in METRICS.values() for column in row.columns), *_OF_VERDICTS)


def text(entries: Sequence[Entry]) -> str:
    """Return the table as CSV with a header line; what was not measured is empty."""
    out = io.StringIO()
    run = RunView.of(entries)
    front = {row.trial.number: row.outcome.value for row in front_rows(run)}
    rows = [_row(row) | {"front": front.get(row.trial.number, "")} for row in run.rows]
    with_requirements = any(cells[REQUIREMENTS] for cells in rows)
    headings = (*columns(), *((REQUIREMENTS,) if with_requirements else ()))
    writer = csv.DictWriter(out, headings, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for cells in rows:
        writer.writerow({name: _plain(value) for name, value in cells.items()})
    return out.getvalue()


def write(entries: Sequence[Entry], path: Path) -> None:
    """Write the table to a file."""
    path.write_text(text(entries), encoding="utf-8")


def _plain(value: object) -> object:
    """Keep a cell that begins like a formula from being run by a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@"} else value


def _row(row: TrialRow) -> dict[str, object]:
    trial, summary, metric = row.trial, row.summary, row.accuracy
    cells: dict[str, object] = {
        "trial": trial.number,
        "role": trial.role,
        "target": row.target,
        "emulated": row.judgement.emulated if row.judgement else "",
        "candidate": str(trial.candidate),
        "width": trial.candidate.network.width,
        "depth": trial.candidate.network.depth,
        "lightening": trial.candidate.lightening,
        "engine": summary.engine if summary else trial.candidate.engine,
        "threads": trial.candidate.threads,
        "delegate": trial.candidate.delegate,
        "delegate_taken_pct": summary.delegation.taken_pct if summary and summary.delegation else None,
        "parameters": trial.sizes.parameters,
        "macs": trial.sizes.macs,
        "peak_activation_bytes": trial.peak_activation_bytes,
        "degree": trial.degree,
        "evaluation": trial.evaluation,
        "predicted_bytes": trial.predicted_bytes,
        "deployed_bytes": row.deployed_bytes,
        "plan": row.judgement.plan.profile if row.judgement else "",
        "outcome": row.outcome.value if row.outcome else "",
        "test_outcome": row.test_outcome.value if row.test_outcome else "",
        "passed": trial.passed,
        "why": trial.why,
        "direction": trial.move.direction if trial.move else "",
        "move": trial.move.sentence if trial.move else "",
        "error": trial.error.message if trial.error else "",
        REQUIREMENTS: _requirements(row),
    }
    if metric is not None:
        cells |= {"metric": metric.metric, "metric_value": metric.value}
        if metric.interval is not None:
            cells |= {"metric_low": metric.interval.low, "metric_high": metric.interval.high}
    if summary is not None:
        cells |= {column.name: column.cell(summary) for line in METRICS.values() for column in line.columns}
    return cells


def _requirements(row: TrialRow) -> str:
    """Each requirement that a limit stands for, with what was found: `REQ-7 PASS; REQ-8 FAIL`."""
    findings = row.judgement.verdict.findings if row.judgement else ()
    return "; ".join(f"{f.requirement} {f.outcome.value}" for f in findings if f.requirement)
