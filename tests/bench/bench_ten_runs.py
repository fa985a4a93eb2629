"""Ten `measure` runs of one network under `standard` on this machine: does each printed interval hold what all ten say?

What all say is the mean of the logarithms weighted by the intervals, 1 / width^2, the reference value of a key
comparison (Cox, Metrologia 39, 2002, procedure A): a run that met two speeds prints a wide interval, and counts for as
little as it claims. A run agrees where that lies inside the interval that it printed. Nine of ten must, at p50.
The mean without weights and the median are told beside it. A run can only speak of the minutes that it measured: where
the machine itself changes its speed for minutes, as a virtual one does with its neighbours, calm runs agree with each
other and miss the mean without weights. Each row says how many of its sessions ran beside a slowed calibration loop.

Usage: python tests/bench/bench_ten_runs.py [MODEL.tflite] [--target local] [--runs 10] [--out docs/results/ten-runs.md]
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import network

from edgeloop.analysis.conditions import SLOWED
from edgeloop.app import measure as measuring
from edgeloop.core.measurement import LatencySummary
from edgeloop.records.samples import AttemptFolder

STATISTICS = ("p50", "p90", "p99")
AGREE_MIN = 0.9


def weighted(runs: Sequence[tuple[float, float, float]]) -> float:
    """The geometric mean of estimates, each weighted by the width of its interval: (estimate, low, high)."""
    weights = [1 / math.log(high / low) ** 2 for _, low, high in runs]
    return math.exp(sum(w * math.log(value) for w, (value, _, _) in zip(weights, runs, strict=True)) / sum(weights))


CONSENSUS: dict[str, Callable[[Sequence[tuple[float, float, float]]], float]] = {
    "weighted mean": weighted,
    "median": lambda runs: statistics.median(value for value, _, _ in runs),
    "mean": lambda runs: statistics.geometric_mean(value for value, _, _ in runs),
}


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
        summary = measured.judgement.summary
        assert summary is not None
        assert summary.latency is not None
        sessions = AttemptFolder(max(measured.folders[-1].glob("attempt-*"))).read().sessions
        loops = tuple(max(s.conditions.calibration_ns or ()) for s in sessions if s.kind == "latency")
        found.append(Run(summary.latency, busy, loops))
        print(f"run {number + 1}: {summary.latency.p50 / 1e3:.2f} us, {busy}", file=sys.stderr)
    return found


def lines(found: Sequence[Run], name: str) -> tuple[list[str], bool]:
    """The table, and whether enough runs agree at p50."""
    told = [f"{len(found)} runs of `measure` under `standard`, {name}, {network.machine()}", ""]
    told += ["| run | p50 us | p90 us | p99 us | slowed | machine before it |", "| --- | --- | --- | --- | --- | --- |"]
    fastest = min(loop for run in found for loop in run.loops_ns)
    slowed = [sum(loop > SLOWED * fastest for loop in run.loops_ns) for run in found]
    printed = {s: [_printed(run.summary, s) for run in found] for s in STATISTICS}
    all_say = {s: weighted(printed[s]) for s in STATISTICS}
    for row, run in enumerate(found):
        cells = []
        for statistic in STATISTICS:
            value, low, high = printed[statistic][row]
            shown = f"{value / 1e3:.2f} [{low / 1e3:.2f}, {high / 1e3:.2f}]"
            cells.append(shown if low <= all_say[statistic] <= high else f"**{shown}**")
        told.append(f"| {row + 1} | {' | '.join(cells)} | {slowed[row]} of {len(run.loops_ns)} | {run.busy} |")
    told.append(f"| all | {' | '.join(f'{all_say[s] / 1e3:.2f}' for s in STATISTICS)} | {sum(slowed)} | |")
    told += ["", f"How many of {len(found)} printed intervals hold what all runs say, by what that is:", ""]
    told += [f"| | {' | '.join(STATISTICS)} |", "| --- | --- | --- | --- |"]
    agreed: dict[str, int] = {}
    for consensus, of_all in CONSENSUS.items():
        held = {s: sum(low <= of_all(printed[s]) <= high for _, low, high in printed[s]) for s in STATISTICS}
        told.append(f"| {consensus} | {' | '.join(str(held[s]) for s in STATISTICS)} |")
        agreed[consensus] = held["p50"]
    told.append("")
    spread = statistics.stdev(math.log(run.summary.p50) for run in found)
    widths = [math.log(i.high / i.low) / 2 for run in found for k, i in run.summary.interval.items() if k == "p50"]
    told.append(f"Slowed: sessions beside a calibration loop of more than {SLOWED:g} times the fastest.")
    told.append(
        f"Standard deviation of p50 over runs {spread:.2%}; half a printed interval {statistics.median(widths):.2%}."
    )
    return told, agreed["weighted mean"] >= AGREE_MIN * len(found)


def _printed(summary: LatencySummary, statistic: str) -> tuple[float, float, float]:
    interval = next(span for key, span in summary.interval.items() if key == statistic)
    return getattr(summary, statistic), interval.low, interval.high


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
    told.append(f"At least {AGREE_MIN:.0%} must agree with the weighted mean at p50: {'kept' if enough else 'missed'}.")
    print("\n".join(told))
    if asked.out:
        head = "# Ten runs\n\nWritten by `python tests/bench/bench_ten_runs.py --out docs/results/ten-runs.md`.\n\n"
        asked.out.write_text(head + "\n".join(told) + "\n", encoding="utf-8")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
