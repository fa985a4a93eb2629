"""The spread of a latency over sessions on this machine, pinned to a core and not. Prints ratios.

Jobs of both kinds take turns, so that a busy minute falls on both. Usage: python tests/bench/bench_spread.py
[MODEL.tflite] [--rounds 4] [--out docs/results/spread.md]
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import network
import numpy as np

from edgeloop.analysis.plans import schedule
from edgeloop.analysis.statistics import Statistic, estimate_in, latency_sessions
from edgeloop.board.bench import open_bench
from edgeloop.config.board_files import local_board
from edgeloop.core.board import Board
from edgeloop.core.measurement import MeasureRequest, Session, Subject
from edgeloop.core.plan import Environment, Plan
from edgeloop.host_runtime.tflite import read_tflite

STATISTICS: tuple[Statistic, ...] = ("p50", "p90", "p99")


def job(board: Board, model: Path, folder: Path) -> list[Session]:
    plan = Plan.of("standard", time_s_min=1.0)
    request = MeasureRequest(
        key=f"{time.monotonic_ns():064x}",
        subjects=(Subject("candidate", read_tflite(model)),),
        schedule=schedule(["candidate"], [], plan),
        plan=plan,
        environment=Environment(),
        folder=folder,
    )
    bench = open_bench(board)
    try:
        return latency_sessions(bench.measure(request, lambda *_: None).sessions)
    finally:
        bench.close()


def cv(values: Sequence[float]) -> float:
    """Coefficient of variation, as the standard deviation of logarithms."""
    return statistics.stdev(math.log(value) for value in values)


def row(name: str, jobs: Sequence[Sequence[Session]]) -> str:
    cells = []
    for statistic in STATISTICS:
        by_job = [[estimate_in(session, statistic) or 1.0 for session in sessions] for sessions in jobs]
        within = math.sqrt(statistics.fmean(cv(values) ** 2 for values in by_job))
        between = cv([math.exp(statistics.fmean(map(math.log, values))) for values in by_job])
        cells.append(f"{within:.2%} / {between:.2%}")
    inside = statistics.median(
        float(np.subtract(*np.log(np.percentile(s.latencies_ns, [75, 25])))) for sessions in jobs for s in sessions
    )
    return f"| {name} | {' | '.join(cells)} | {inside:.2%} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    free = local_board()
    last = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    pinned = free.model_copy(update={"runtime": free.runtime.model_copy(update={"cores": (last,)})})
    boards = {"not pinned": free, f"pinned to core {last}": pinned}
    jobs: dict[str, list[list[Session]]] = {name: [] for name in boards}
    busy = network.load()
    with tempfile.TemporaryDirectory() as name:
        model = asked.model or network.write_network(Path(name))
        for number in range(asked.rounds):
            for kind, board in boards.items():
                jobs[kind].append(job(board, model, Path(name) / f"{number}-{kind.split()[0]}"))
    shown = model.name if asked.model else f"{network.SPEC.family} {network.SPEC.width:g}, fp32"
    told = [
        f"{asked.rounds} jobs of 8 sessions of 1 s each, in turns; {shown}; {network.machine()}; {busy}.",
        "",
        "Standard deviation of the logarithm, **over sessions of a job / over jobs**, and the interquartile range",
        "inside a session (median). With nothing but sessions at work, the second is the first over the root of 8.",
        "",
        "| | p50 | p90 | p99 | inside a session |",
        "| --- | --- | --- | --- | --- |",
        *(row(kind, found) for kind, found in jobs.items()),
    ]
    print("\n".join(told))
    if asked.out:
        written = "Written by `python tests/bench/bench_spread.py --out docs/results/spread.md`."
        asked.out.write_text(f"# Spread over sessions\n\n{written}\n\n" + "\n".join(told) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
