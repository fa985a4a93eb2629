"""Make a search table of a run that measured every candidate of its space, for bench_search_cost.py.

Usage: python tests/bench/record_table.py RUN_DIR OUT.json [--name NAME]

The run: search.strategy = "grid", a budget that covers the space, one target, and limits that no candidate meets, as in
tests/bench/data/search-mnist5k.toml; or limits that all meet, with search.pareto = true. Each candidate is recorded as
it was measured last on validation data.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from search_replay import Key, SearchTable

from edgeloop.core.events import RunStarted, Trial, fold
from edgeloop.core.lightening import Lightening
from edgeloop.records.ledger import read_ledger
from edgeloop.testing.fakes.simulated_board import Truth


def table_of(folder: Path, name: str | None) -> SearchTable:
    """Read a run. Raises ValueError where a candidate has no latency, accuracy or memory."""
    entries = read_ledger(folder)
    started = next(entry.event for entry in entries if isinstance(entry.event, RunStarted))
    if len(started.targets) != 1:
        raise ValueError(f"{folder}: measured on {', '.join(started.targets)}; a table is of one target")
    m1, *candidates = fold(entry.event for entry in entries)
    if m1.build is None:
        raise ValueError(f"{folder}: M1 was not built")
    judged = [last for trial in candidates if (last := trial.last_validation) is not None]
    plans = sorted({last.plan.profile for last in judged})
    engines = sorted({last.summary.engine for last in judged if last.summary is not None})
    rows = dict(map(_row, candidates))
    return SearchTable(
        name=name or started.campaign_name,
        simulated=False,
        recorded=f"{started.targets[0]}, {' and '.join(engines)}, {' and '.join(plans)} plan, {entries[0].utc[:10]}",
        m1=m1.candidate.network,
        m1_sizes=m1.sizes,
        m1_lightening=m1.candidate.lightening,
        m1_bytes=m1.build.artifact.deployed_bytes,
        sizes={_size_key(trial): trial.sizes for trial in candidates},
        rows=rows,
    )


def _size_key(trial: Trial) -> tuple[float, int, int]:
    network, rung = trial.candidate.network, Lightening.parse(trial.candidate.lightening)
    return network.width, network.depth, rung.pruned_pct


def _row(trial: Trial) -> tuple[Key, Truth]:
    network, summary = (
        trial.candidate.network,
        trial.last_validation.summary if trial.last_validation is not None else None,
    )
    if summary is None or summary.latency is None or not summary.metrics or summary.peak_rss_bytes is None:
        raise ValueError(f"trial {trial.number} ({trial.candidate}) was not measured whole: {trial.outcome.value}")
    key = (network.width, network.depth, trial.candidate.lightening, trial.candidate.engine, trial.candidate.threads)
    return key, Truth(
        latency_ms=summary.latency.p50 / 1e6,
        accuracy=summary.metrics[0].value,
        deployed_bytes=summary.deployed_bytes,
        peak_rss_bytes=summary.peak_rss_bytes,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--name")
    asked = parser.parse_args()
    plain = table_of(asked.run, asked.name).plain()
    SearchTable.of(plain, str(asked.out))  # refuses a space that was not swept
    asked.out.write_text(json.dumps(plain, indent=1) + "\n")
    print(f"{asked.out}: {len(plain['rows'])} candidates, {plain['recorded']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
