"""One row a trial and target, for spreadsheets and scripts; units are in the names of the columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from edgeloop.core.events import Entry
from edgeloop.core.measurement import EnergySummary
from edgeloop.reports.front import front_rows
from edgeloop.reports.run_view import RunView, TrialRow

COLUMNS = (
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
    "agreement",
    "latency_p50_ns",
    "latency_p50_low_ns",
    "latency_p50_high_ns",
    "latency_p90_ns",
    "latency_p90_low_ns",
    "latency_p90_high_ns",
    "peak_rss_bytes",
    "runtime_rss_bytes",
    "energy_per",
    "energy_per_period_mj",
    "energy_per_period_low_mj",
    "energy_per_period_high_mj",
    "energy_above_idle_mj",
    "energy_above_idle_low_mj",
    "energy_above_idle_high_mj",
    "power_idle_mw",
    "power_active_mw",
    "plan",
    "outcome",
    "passed",
    "front",
    "why",
    "direction",
    "move",
    "error",
)


def text(entries: Sequence[Entry]) -> str:
    """The table as CSV with a header line; what was not measured is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    run = RunView.of(entries)
    front = {row.trial.number: row.outcome.value for row in front_rows(run)}
    for row in run.rows:
        cells = _row(row) | {"front": front.get(row.trial.number, "")}
        writer.writerow({name: _plain(value) for name, value in cells.items()})
    return out.getvalue()


def write(entries: Sequence[Entry], path: Path) -> None:
    """Write the table to a file."""
    path.write_text(text(entries), encoding="utf-8")


def _plain(value: object) -> object:
    """Keep a cell that begins like a formula from being run by a spreadsheet."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@"} else value


def _row(row: TrialRow) -> dict[str, object]:
    trial, summary, latency, metric = row.trial, row.summary, row.latency, row.accuracy
    cells: dict[str, object] = {
        "trial": trial.number,
        "role": trial.role,
        "target": row.target,
        "emulated": row.judged.emulated if row.judged else "",
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
        "plan": row.judged.plan.profile if row.judged else "",
        "outcome": row.outcome.value if row.outcome else "",
        "passed": trial.passed,
        "why": trial.why,
        "direction": trial.move.direction if trial.move else "",
        "move": trial.move.sentence if trial.move else "",
        "error": trial.error.message if trial.error else "",
    }
    if metric is not None:
        cells |= {"metric": metric.metric, "metric_value": metric.value}
        if metric.interval is not None:
            cells |= {"metric_low": metric.interval.low, "metric_high": metric.interval.high}
    if summary is not None:
        cells |= {"peak_rss_bytes": summary.peak_rss_bytes, "runtime_rss_bytes": summary.runtime_rss_bytes}
        cells["agreement"] = summary.agreement.value if summary.agreement else None
    if latency is not None:
        cells |= {"latency_p50_ns": latency.p50, "latency_p90_ns": latency.p90}
        for name, interval in latency.interval.items():
            if name != "p99":
                cells |= {f"latency_{name}_low_ns": interval.low, f"latency_{name}_high_ns": interval.high}
    if summary is not None and summary.energy is not None:
        cells |= _energy(summary.energy)
    return cells


def _energy(energy: EnergySummary) -> dict[str, object]:
    cells: dict[str, object] = {
        "energy_per": energy.per,
        "energy_per_period_mj": energy.per_period_mj,
        "energy_above_idle_mj": energy.above_idle_mj,
        "power_idle_mw": energy.idle_mw,
        "power_active_mw": energy.active_mw,
    }
    for name, interval in energy.interval.items():
        cells |= {f"energy_{name}_low_mj": interval.low, f"energy_{name}_high_mj": interval.high}
    return cells
