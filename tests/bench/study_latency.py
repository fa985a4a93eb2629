"""Finds the networks of the study that are as fast as M1: `slow8` as M1 in fp32, `fast4` as M1 in w8a8.

Usage: python tests/bench/study_latency.py [--data NAME]... [--target local]

Untrained networks are compared as `edgeloop compare` does it, interleaved, until the ratio of the medians is
within 5 % of 1 or neighbours on either side were tried. What was found is kept in docs/results/method-study-sizes.json.
Wants a machine with nothing else at work.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from study_arms import ARMS, SETTINGS, Sizing
from study_run import SIZES, keep_sizes, sizes_of

from edgeloop.bootstrap import comparing
from edgeloop.bootstrap.ready import PlanWords

TOLERANCE = 0.05
_RUNG_OF_M1 = {"t8": "w8a8", "t32": "fp32"}
_SESSIONS = 5


def ratio_of(a: Path, b: Path, target: str) -> tuple[float, tuple[float, float]]:
    """B's median latency over A's, and its 95 % interval."""
    plan = PlanWords(profile="quick", sessions=_SESSIONS)
    (compared,) = comparing.compare_models(comparing.Asked(a, b, target, plan=plan), lambda *_: None)
    found = compared.comparison.ratio["p50"]
    assert found.interval is not None, "five rounds have one"
    return found.value, found.interval


def as_fast(sizing: Sizing, width: float, m1_rung: str, rung: str, target: str) -> dict[str, Any]:
    """The width at `rung` that is nearest to M1's latency, with the ratio that was measured."""
    widths = sizing.distinct()
    tried: dict[int, tuple[float, tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        m1, other = Path(folder) / "m1.tflite", Path(folder) / "other.tflite"
        _quiet_build(sizing, width, m1_rung, m1)
        low, high = 0, len(widths) - 1
        at = min(range(len(widths)), key=lambda place: abs(widths[place] - width))
        while at not in tried:
            _quiet_build(sizing, widths[at], rung, other)
            tried[at] = ratio_of(m1, other, target)
            ratio = tried[at][0]
            print(f"  {rung} width {widths[at]:g}: {ratio:.3f} of M1 as {m1_rung}", file=sys.stderr, flush=True)
            if abs(math.log(ratio)) < math.log(1 + TOLERANCE):
                break
            low, high = (at, high) if ratio < 1 else (low, at)
            at = _guess(widths, tried, low, high)
    best = min(tried, key=lambda place: abs(math.log(tried[place][0])))
    ratio, interval = tried[best]
    return {"width": widths[best], "ratio": round(ratio, 4), "interval": [round(bound, 4) for bound in interval]}


def _guess(widths: list[float], tried: dict[int, tuple[float, tuple[float, float]]], low: int, high: int) -> int:
    """Between the bounds, where latency as a power of the width would be equal; the middle, where that is no news."""
    nearest = min(tried, key=lambda place: abs(math.log(tried[place][0])))
    wanted = widths[nearest] * tried[nearest][0] ** (-1 / 1.5)
    at = min(range(low, high + 1), key=lambda place: abs(math.log(widths[place] / wanted)))
    return (low + high) // 2 if at in tried else at


def _quiet_build(sizing: Sizing, width: float, rung: str, path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):  # the converter reports on it
        path.write_bytes(sizing.file(width, rung))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", choices=list(SETTINGS))
    parser.add_argument("--target", default="local")
    asked = parser.parse_args()
    for name in asked.data or SETTINGS:
        sizing = Sizing(SETTINGS[name])
        for width in SETTINGS[name].widths:
            sizes_of(name, width)
            key = f"{name}/{width:g}"
            for arm in (arm for arm in ARMS if arm.size in _RUNG_OF_M1):
                known = json.loads(SIZES.read_text())
                if arm.name in known[key].get("as_fast", {}):
                    continue
                found = as_fast(sizing, width, _RUNG_OF_M1[arm.size], arm.lightening, asked.target)
                known[key].setdefault("as_fast", {})[arm.name] = found
                keep_sizes(known)
                print(f"{key} {arm.name}: {found}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
