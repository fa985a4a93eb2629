"""Ten `measure` runs of one network under `standard` on this machine: does each printed interval hold what all ten say?

A run agrees where the geometric mean of all ten lies inside the interval that it printed. Nine of ten must, at p50.

Usage: python tests/bench/bench_ten_runs.py [MODEL.tflite] [--target local] [--runs 10] [--out docs/results/ten-runs.md]
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import network

from edgeloop.bootstrap import measuring
from edgeloop.core.measurement import LatencySummary

STATISTICS = ("p50", "p90", "p99")
AGREE_MIN = 0.9


def runs_of(model: Path, target: str, runs: int) -> list[tuple[LatencySummary, str]]:
    """What each run printed, and how busy the machine was before it."""
    found = []
    for number in range(runs):
        busy = network.load()
        (measured,) = measuring.measure(model, target)
        summary = measured.judged.summary
        assert summary is not None
        assert summary.latency is not None
        found.append((summary.latency, busy))
        print(f"run {number + 1}: {summary.latency.p50 / 1e3:.2f} us, {busy}", file=sys.stderr)
    return found


def lines(found: Sequence[tuple[LatencySummary, str]], name: str) -> tuple[list[str], bool]:
    """The table, and whether enough runs agree at p50."""
    told = [f"{len(found)} runs of `measure` under `standard`, {name}, {network.machine()}", ""]
    told += ["| run | p50 us | p90 us | p99 us | machine before it |", "| --- | --- | --- | --- | --- |"]
    means = {s: math.exp(statistics.fmean(math.log(getattr(run, s)) for run, _ in found)) for s in STATISTICS}
    agreed = dict.fromkeys(STATISTICS, 0)
    for number, (run, busy) in enumerate(found, start=1):
        cells = []
        for statistic in STATISTICS:
            interval = next(span for key, span in run.interval.items() if key == statistic)
            holds = interval.low <= means[statistic] <= interval.high
            agreed[statistic] += holds
            shown = f"{getattr(run, statistic) / 1e3:.2f} [{interval.low / 1e3:.2f}, {interval.high / 1e3:.2f}]"
            cells.append(shown if holds else f"**{shown}**")
        told.append(f"| {number} | {' | '.join(cells)} | {busy} |")
    told.append(f"| all | {' | '.join(f'{means[s] / 1e3:.2f}' for s in STATISTICS)} | |")
    told.append("")
    shares = ", ".join(f"{s} {agreed[s]} of {len(found)}" for s in STATISTICS)
    told.append(f"The geometric mean of all lies inside the interval that a run printed: {shares}.")
    spread = statistics.stdev(math.log(run.p50) for run, _ in found)
    widths = [math.log(i.high / i.low) / 2 for run, _ in found for k, i in run.interval.items() if k == "p50"]
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
