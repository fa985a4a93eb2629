"""Ten `measure` runs of one network under `standard` on this machine: does each printed interval hold what all ten say?

A run agrees where the geometric mean of all ten lies inside the interval that it printed. Nine of ten must, at p50.
A run can only speak of the minute that it measured: where the machine itself changes its speed for seconds or minutes,
as a virtual one does with its neighbours, intervals of calm minutes miss the mean of all. So each row says how many of
its sessions ran beside a calibration loop that was slowed down.

Usage: python tests/bench/bench_ten_runs.py [MODEL.tflite] [--target local] [--runs 10] [--out docs/results/ten-runs.md]
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import network

from edgeloop.board.job import read_attempt
from edgeloop.bootstrap import measuring
from edgeloop.core.measurement import LatencySummary
from edgeloop.measure.conditions import SLOWED

STATISTICS = ("p50", "p90", "p99")
AGREE_MIN = 0.9


@dataclass(frozen=True, slots=True)
class Run:
    """What one run printed, how busy the machine was before it, and the slower calibration loop of each session."""

    summary: LatencySummary
    busy: str
    loops_ns: tuple[int, ...]


def runs_of(model: Path, target: str, runs: int) -> list[Run]:
    found = []
    for number in range(runs):
        busy = network.load()
        (measured,) = measuring.measure(model, target)
        summary = measured.judged.summary
        assert summary is not None
        assert summary.latency is not None
        sessions = read_attempt(max(measured.folders[-1].glob("attempt-*"))).sessions
        loops = tuple(max(s.conditions["calibration_ns"]) for s in sessions if s.kind == "latency")
        found.append(Run(summary.latency, busy, loops))
        print(f"run {number + 1}: {summary.latency.p50 / 1e3:.2f} us, {busy}", file=sys.stderr)
    return found


def lines(found: Sequence[Run], name: str) -> tuple[list[str], bool]:
    """The table, and whether enough runs agree at p50."""
    told = [f"{len(found)} runs of `measure` under `standard`, {name}, {network.machine()}", ""]
    told += ["| run | p50 us | p90 us | p99 us | slowed | machine before it |", "| --- | --- | --- | --- | --- | --- |"]
    means = {s: math.exp(statistics.fmean(math.log(getattr(run.summary, s)) for run in found)) for s in STATISTICS}
    fastest = min(loop for run in found for loop in run.loops_ns)
    slowed = [sum(loop > SLOWED * fastest for loop in run.loops_ns) for run in found]
    agreed = dict.fromkeys(STATISTICS, 0)
    for number, run in enumerate(found, start=1):
        summary, cells = run.summary, []
        for statistic in STATISTICS:
            interval = next(span for key, span in summary.interval.items() if key == statistic)
            holds = interval.low <= means[statistic] <= interval.high
            agreed[statistic] += holds
            shown = f"{getattr(summary, statistic) / 1e3:.2f} [{interval.low / 1e3:.2f}, {interval.high / 1e3:.2f}]"
            cells.append(shown if holds else f"**{shown}**")
        told.append(f"| {number} | {' | '.join(cells)} | {slowed[number - 1]} of {len(run.loops_ns)} | {run.busy} |")
    told.append(f"| all | {' | '.join(f'{means[s] / 1e3:.2f}' for s in STATISTICS)} | {sum(slowed)} | |")
    told.append("")
    shares = ", ".join(f"{s} {agreed[s]} of {len(found)}" for s in STATISTICS)
    told.append(f"The geometric mean of all lies inside the interval that a run printed: {shares}.")
    spread = statistics.stdev(math.log(run.summary.p50) for run in found)
    widths = [math.log(i.high / i.low) / 2 for run in found for k, i in run.summary.interval.items() if k == "p50"]
    told.append(f"Slowed: sessions beside a calibration loop of more than {SLOWED:g} times the fastest.")
    told.append(
        f"Standard deviation of p50 over runs {spread:.2%}; half a printed interval {statistics.median(widths):.2%}."
    )
    return told, agreed["p50"] >= AGREE_MIN * len(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--target", default="local")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = asked.model or network.write_network(Path(folder))
        name = model.name if asked.model else f"{network.SPEC.family} {network.SPEC.width:g}, fp32"
        told, enough = lines(runs_of(model, asked.target, asked.runs), name)
    told.append("")
    told.append(f"At least {AGREE_MIN:.0%} must agree at p50: {'kept' if enough else 'missed'}.")
    print("\n".join(told))
    if asked.out:
        head = "# Ten runs\n\nWritten by `python tests/bench/bench_ten_runs.py --out docs/results/ten-runs.md`.\n\n"
        asked.out.write_text(head + "\n".join(told) + "\n", encoding="utf-8")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
