"""Makes the tables and plots of the study's page out of its raw results: `python tests/bench/study_report.py`.

Reads docs/results/method-study.jsonl and method-study-sizes.json, writes the part of docs/results/method-study.md
between its two marks, and a plot for each data set. What is written by hand around it stays.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats
from study_arms import ARMS, SETTINGS, Sizing
from study_run import RESULTS, SIZES, exit_with, results

PAGE = RESULTS.with_suffix(".md")
BEGIN, END = "<!-- begin: study_report.py -->", "<!-- end: study_report.py -->"
CONFIDENCE = 0.95
BYTES_WITHIN = 0.02
SEEDS_MIN = 5
"""Fewer are shown as what has been run, and decide nothing."""
TRIES = {"fashion": "at equal bytes", "fashion-long": "the second try, with three times the epochs"}
"""Settings on which the goal of Fashion-MNIST is tried, in the order in which they were written down."""
M3 = tuple(arm.name for arm in ARMS if arm.name.startswith("m3-"))
BEST = "m3-best"
"""The `m3` arm of the highest mean accuracy on validation data."""
COMPARISONS = (
    (BEST, "m1-qat-m2", "the method against the honest baseline"),
    ("m3-m2", "m3-none", "does M2 as a teacher help?"),
    ("m3-m1d", "m3-none", "does a distilled M1 as a teacher help?"),
    ("m1-qat", "m1-ptq", "does quantization-aware training help?"),
    ("m3-none", "m1-qat", "does size alone help?"),
    ("wide8", "m1-float", "8 bit at the bytes of float"),
    ("m1-qat", "narrow-float", "8 bit against a narrower float network"),
    ("slow8", "m1-float", "w8a8 at the latency of float"),
    ("fast4", "m1-qat", "w4a8 at the latency of w8a8"),
)

Line = dict[str, Any]
Cells = Mapping[tuple[str, float, str], Mapping[int, Line]]
"""Results by data set, width of M1 and arm, then by seed."""


@dataclass(frozen=True)
class Difference:
    """Two arms on the same seeds, in points of accuracy on the test split."""

    data: str
    width: float
    better: str
    worse: str
    asks: str
    points: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.points))

    @property
    def half(self) -> float:
        """Half of the paired interval, Student's t."""
        n = len(self.points)
        return float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(self.points, ddof=1) / math.sqrt(n))

    @property
    def p(self) -> float:
        """Two-sided; 1 where nothing differs in any seed."""
        return 1.0 if not np.any(self.points) else float(stats.ttest_1samp(self.points, 0.0).pvalue)


def read() -> Cells:
    cells: dict[tuple[str, float, str], dict[int, Line]] = {}
    for line in results():
        cells.setdefault((line["data"], line["m1_width"], line["arm"]), {})[line["seed"]] = line
    return with_best(cells)


def with_best(cells: Cells) -> Cells:
    """The same, with BEST as one more arm; it is chosen among those within their budget, by validation data alone."""
    found = dict(cells)
    for data, width in {(data, width) for data, width, _ in cells}:
        known = [arm for arm in M3 if (data, width, arm) in cells and within(cells, data, width, arm)]
        if known:
            best = max(known, key=lambda arm: mean_of(cells[data, width, arm].values(), "validation_top1"))
            found[data, width, BEST] = cells[data, width, best]
    return found


def mean_of(lines: Iterable[Line], key: str) -> float:
    return float(np.mean([line[key] for line in lines]))


def within(cells: Cells, data: str, width: float, arm: str) -> bool:
    """Whether an arm's files keep to its budget."""
    size = next((known.size for known in ARMS if known.name == arm), None)  # the best one was chosen among these
    reference = {"b8": "m1-qat", "b32": "m1-float"}.get(size or "")
    if reference is None or (data, width, reference) not in cells:
        return True
    budget, own = (mean_of(cells[data, width, name].values(), "bytes") for name in (reference, arm))
    return abs(own / budget - 1) <= BYTES_WITHIN


def differences(cells: Cells, data: str) -> list[Difference]:
    found = []
    for width in SETTINGS[data].widths:
        for better, worse, asks in COMPARISONS:
            pair = [cells.get((data, width, arm), {}) for arm in (better, worse)]
            seeds = sorted(set(pair[0]) & set(pair[1]))
            if len(seeds) < SEEDS_MIN or not all(within(cells, data, width, arm) for arm in (better, worse)):
                continue
            points = tuple(100 * (pair[0][seed]["test_top1"] - pair[1][seed]["test_top1"]) for seed in seeds)
            found.append(Difference(data, width, _named(cells, data, width, better), worse, asks, points))
    return found


def _named(cells: Cells, data: str, width: float, arm: str) -> str:
    return f"{next(iter(cells[data, width, arm].values()))['arm']} (best)" if arm == BEST else arm


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm, 1979)."""
    adjusted, floor = [0.0] * len(p), 0.0
    for rank, index in enumerate(np.argsort(p, kind="stable")):
        floor = max(floor, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = floor
    return adjusted


@cache
def parameters(data: str, width: float) -> int:
    return _sizing(data).sizes(width).parameters


@cache
def _sizing(data: str) -> Sizing:
    return Sizing(SETTINGS[data])


def accuracy_table(cells: Cells, data: str) -> list[str]:
    rows = [
        "| M1 | arm | rung | parameters | bytes | test accuracy, % (SD) | validation, % | before lightening | seeds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for width in SETTINGS[data].widths:
        for arm in ARMS:
            lines = list(cells.get((data, width, arm.name), {}).values())
            if not lines:
                continue
            top1 = [100 * line["test_top1"] for line in lines]
            spread = f" ({np.std(top1, ddof=1):.2f})" if len(top1) > 1 else ""
            outside = "" if within(cells, data, width, arm.name) else ", **not within 2 %**"
            rows.append(
                f"| {width:g} | `{arm.name}` | {arm.lightening} | {parameters(data, lines[0]['width']):,}"
                f" | {mean_of(lines, 'bytes'):,.0f}{outside} | {np.mean(top1):.2f}{spread}"
                f" | {100 * mean_of(lines, 'validation_top1'):.2f}"
                f" | {100 * mean_of(lines, 'float_validation_top1'):.2f} | {len(lines)} |"
            )
    return rows


def difference_table(found: Sequence[Difference]) -> list[str]:
    rows = [
        "| M1 | comparison | asks | difference in points, 95 % interval | p after Holm |",
        "| --- | --- | --- | --- | --- |",
    ]
    for one, p in zip(found, holm([one.p for one in found]), strict=True):
        shown = f"{one.mean:+.2f} ± {one.half:.2f}"
        shown = f"**{shown}**" if p < 1 - CONFIDENCE else shown
        rows.append(f"| {one.width:g} | `{one.better}` - `{one.worse}` | {one.asks} | {shown} | {p:.3f} |")
    return rows


def agreements(cells: Cells) -> dict[str, list[float]]:
    """Agreement of every deployed file with its fake-quantized network, by rung."""
    found: dict[str, list[float]] = {"w8a8": [], "w4a8": []}
    for (_, _, arm), lines in sorted(cells.items()):
        for line in lines.values():
            if arm != BEST and line["lightening"] in found:
                found[line["lightening"]].append(line["agreement"])
    return {rung: shares for rung, shares in found.items() if shares}


def agreement_lines(cells: Cells) -> list[str]:
    rows = ["| rung | files | mean agreement | lowest |", "| --- | --- | --- | --- |"]
    for rung, shares in agreements(cells).items():
        rows.append(f"| {rung} | {len(shares)} | {np.mean(shares):.2%} | {min(shares):.2%} |")
    return rows


def latency_lines() -> list[str]:
    rows = [
        "| data | M1 | arm | its width | median over M1's | interval | machine |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, known in sorted(json.loads(SIZES.read_text()).items()):
        data, width = key.split("/")
        for arm, found in sorted(known.get("as_fast", {}).items()):
            low, high = found["interval"]
            shown = f"{found['ratio']:.3f} | {low:.3f} to {high:.3f}"
            wide = "none: the narrowest is slower" if found["width"] is None else f"{found['width']:g}"
            rows.append(f"| {data} | {width} | `{arm}` | {wide} | {shown} | {found.get('machine', 'not recorded')} |")
    return rows


def goals(every: Sequence[Difference], cells: Cells) -> list[str]:
    """What was set before, and what came of it."""
    lines = []
    for tries, (data, how) in enumerate(TRIES.items(), start=1):
        method = [one for one in every if one.data == data and one.worse == "m1-qat-m2"]
        reached = any(one.mean >= 1 and one.p < (1 - CONFIDENCE) / tries for one in method)
        told = ", ".join(f"{one.mean:+.2f} ± {one.half:.2f} at width {one.width:g}" for one in method) or "not run"
        verdict = "reached" if reached else "missed" if len(method) == len(SETTINGS[data].widths) else "open"
        lines.append(f"- At least +1.0 point on Fashion-MNIST over `m1-qat-m2`, {how}: **{verdict}** ({told}).")
    for rung, shares in agreements(cells).items():
        kept = "reached" if np.mean(shares) >= 0.995 else "missed"
        lines.append(f"- At least 99.5 % agreement of {rung} files: **{kept}** ({np.mean(shares):.2%}).")
    return lines


def plot(cells: Cells, found: Sequence[Difference], data: str) -> Path:
    """Accuracy of each arm for each width of M1, and the paired differences."""
    mpl.rcParams.update({"svg.hashsalt": "edgeloop", "svg.fonttype": "none", "font.size": 8})
    widths = [width for width in SETTINGS[data].widths if (data, width, "m1-qat") in cells]
    figure, axes = plt.subplots(1, len(widths) + 1, figsize=(3.6 * (len(widths) + 1), 3.8), layout="constrained")
    for axis, width in zip(axes, widths, strict=False):
        run = {
            arm.name: list(cells[data, width, arm.name].values()) for arm in ARMS if (data, width, arm.name) in cells
        }
        for place, lines in enumerate(run.values()):
            top1 = [100 * line["test_top1"] for line in lines]
            axis.plot(top1, [place] * len(top1), "o", markersize=3, color="C0", alpha=0.4)
            axis.plot(np.mean(top1), place, "|", markersize=12, color="C3")
        sizes = {name: mean_of(lines, "bytes") / 1000 for name, lines in run.items()}
        axis.set_yticks(range(len(run)), [f"{name}, {sizes[name]:.1f} kB" for name in run], fontsize=7)
        axis.set(title=f"M1 width {width:g}", xlabel="test accuracy, %: seeds, and their mean")
        axis.grid(alpha=0.3)
        axis.invert_yaxis()
    last = axes[-1]
    places = np.arange(len(found))
    last.errorbar([one.mean for one in found], places, xerr=[one.half for one in found], fmt="o", markersize=3)
    last.axvline(0, color="black", linewidth=0.8)
    last.set_yticks(places, [f"{one.better} - {one.worse}, {one.width:g}" for one in found], fontsize=5)
    last.set(xlabel="points, 95 % paired interval")
    last.invert_yaxis()
    path = RESULTS.with_name(f"method-study-{data}.svg")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def page(cells: Cells) -> list[str]:
    known = [data for data in SETTINGS if any(key[0] == data for key in cells)]
    by_data = {data: differences(cells, data) for data in known}
    lines = ["## Goals set before", "", *goals([one for found in by_data.values() for one in found], cells)]
    for data in known:
        plotted = plot(cells, by_data[data], data)
        lines += ["", f"## {data}", "", f"![accuracy of each arm, and differences]({plotted.name})", ""]
        lines += [*accuracy_table(cells, data), "", *difference_table(by_data[data])]
    lines += ["", "## Deployed against fake-quantized", "", *agreement_lines(cells)]
    lines += ["", "## Networks of equal latency", "", *latency_lines()]
    every = [line for (_, _, arm), found in cells.items() if arm != BEST for line in found.values()]
    versions = Counter(", ".join(f"{k} {v}" for k, v in sorted(line["versions"].items())) for line in every)
    hours = sum(line["seconds"] for line in every) / 3600
    lines += ["", "## What was run", "", f"{len(every)} built files in {hours:.1f} hours of one core."]
    lines += [f"Versions of {count} files: {text}." for text, count in versions.items()]
    return lines


def main() -> int:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, marked, after = rest.partition(END)
    if not marked:
        print(f"{PAGE}: the marks {BEGIN} and {END} are not in it", file=sys.stderr)
        return 2
    PAGE.write_text("\n".join([before + BEGIN, "", *page(read()), "", END]) + after)
    print(PAGE)
    return 0


if __name__ == "__main__":
    exit_with(main)
