"""Finds the networks of the study that are as fast as M1: `slow8` as M1 in fp32, `fast4` as M1 in w8a8.

Usage: python tests/bench/study_latency.py [--data NAME]... [--target local]

Latency rises in steps with the width, since kernels work on whole blocks of channels: so each is the widest network
that is at most 5 % slower than M1. It is found by bisection, untrained networks of both kinds invoked in turn in one
process, then measured as `edgeloop compare` does it, and kept with the ratio and its interval in
docs/results/method-study-sizes.json, beside the machine. Where the narrowest one is slower than that there is none, and
its ratio is kept.
Wants a machine with nothing else at work.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import network
from ai_edge_litert.interpreter import Interpreter
from study_arms import SETTINGS, Sizing
from study_run import SIZES, keep_sizes, sizes_of

from edgeloop.app import compare as comparing
from edgeloop.app.request import PlanWords

TOLERANCE = 0.05
_RUNG_OF_M1 = {"t8": "w8a8", "t32": "fp32"}
_SESSIONS = 12
_TURNS, _RUNS = 300, 40


def rough_ratio(a: Path, b: Path) -> float:
    """B's median latency over A's, both invoked in turn in this process: a slower minute slows both."""
    runners = [Interpreter(model_path=str(path), num_threads=1) for path in (a, b)]
    for runner in runners:
        runner.allocate_tensors()
    taken: list[list[int]] = [[], []]
    for turn in range(_TURNS):
        for at, runner in enumerate(runners):
            began = time.perf_counter_ns()
            for _ in range(_RUNS):
                runner.invoke()
            if turn >= _TURNS // 10:
                taken[at].append(time.perf_counter_ns() - began)
    return statistics.median(taken[1]) / statistics.median(taken[0])


def ratio_of(a: Path, b: Path, target: str) -> tuple[float, tuple[float, float]]:
    """B's median latency over A's, and its 95 % interval."""
    plan = PlanWords(profile="quick", sessions=_SESSIONS)
    (compared,) = comparing.compare_models(comparing.CompareOptions(a, b, target, plan=plan), lambda *_: None)
    found = compared.comparison.ratio["p50"]
    assert found.interval is not None, "twelve rounds have one"
    return found.value, (found.interval.low, found.interval.high)


def as_fast(sizing: Sizing, width: float, m1_rung: str, rung: str, target: str) -> dict[str, Any]:
    """The widest network at `rung` that is at most TOLERANCE slower than M1, with the ratio that was measured."""
    widths = sizing.distinct()
    with tempfile.TemporaryDirectory() as folder:
        m1, other = Path(folder) / "m1.tflite", Path(folder) / "other.tflite"
        _quiet_build(sizing, width, m1_rung, m1)

        def rough(wide: float) -> float:
            _quiet_build(sizing, wide, rung, other)
            ratio = rough_ratio(m1, other)
            print(f"  {rung} width {wide:g}: about {ratio:.3f} of M1 as {m1_rung}", file=sys.stderr, flush=True)
            return ratio

        at = bisect.bisect_right(widths, 1 + TOLERANCE, key=rough)
        best = widths[max(at - 1, 0)]
        _quiet_build(sizing, best, rung, other)
        ratio, interval = ratio_of(m1, other, target)
    return {
        "width": best if at else None,
        "ratio": round(ratio, 4),
        "interval": [round(b, 4) for b in interval],
        "machine": network.machine(),
    }


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
            for arm in (arm for arm in SETTINGS[name].arms if arm.size in _RUNG_OF_M1):
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
