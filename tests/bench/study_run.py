"""Runs the study: trains, builds and scores every arm, one line a result in docs/results/method-study.jsonl.

Usage: python tests/bench/study_run.py [--data NAME]... [--widths W]... [--arms NAME]... [--seeds N] [--processes N]

What is in the file already is not done again, so it can be stopped at any time and run in pieces. Networks are kept in
runs/study/. The protocol is in docs/results/method-study-protocol.md; study_report.py makes the page.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from edgeloop.errors import DataError, EdgeloopError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results/method-study.jsonl"
SIZES = ROOT / "docs/results/method-study-sizes.json"
WORK = ROOT / "runs/study"


@dataclass(frozen=True, slots=True)
class Cell:
    """One width of M1 and one seed on one data set."""

    data: str
    width: float
    seed: int

    def __str__(self) -> str:
        return f"{self.data} width {self.width:g} seed {self.seed}"


def main() -> int:
    from study_arms import ARMS, SETTINGS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", choices=list(SETTINGS))
    parser.add_argument("--widths", action="append", type=float)
    parser.add_argument("--arms", action="append", choices=[arm.name for arm in ARMS])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the pool's processes end too
    cells = [
        Cell(name, width, seed)
        for name in asked.data or SETTINGS
        for width in SETTINGS[name].widths
        if not asked.widths or width in asked.widths
        for seed in range(1, asked.seeds + 1)
    ]
    for name in dict.fromkeys(cell.data for cell in cells):
        for width in dict.fromkeys(cell.width for cell in cells if cell.data == name):
            sizes_of(name, width)
    with multiprocessing.get_context("spawn").Pool(asked.processes, maxtasksperchild=1) as pool:
        for told in pool.imap_unordered(functools.partial(carry_out, asked.arms), cells, chunksize=1):
            print(told, flush=True)
    return 0


def sizes_of(name: str, width: float) -> dict[str, float]:
    """Width of each arm's network, by the bytes of built files; kept, since all seeds share them.

    Those of the arms at equal latency are there once study_latency.py has measured them, where there is one.
    """
    from study_arms import SETTINGS, Sizing

    known: dict[str, Any] = json.loads(SIZES.read_text()) if SIZES.exists() else {}
    key = f"{name}/{width:g}"
    if key not in known:
        sizing = Sizing(SETTINGS[name])
        budgets = {"b8": sizing.bytes_of(width, "w8a8"), "b32": sizing.bytes_of(width, "fp32")}
        found = {
            arm.name: width if arm.size == "m1" else sizing.nearest(budgets[arm.size], arm.lightening)
            for arm in SETTINGS[name].arms
            if arm.size == "m1" or arm.size in budgets
        }
        known[key] = {"budgets": budgets, "widths": found}
        keep_sizes(known)
        print(f"{key}: {known[key]}", flush=True)
    measured = known[key].get("as_fast", {})
    as_fast = {arm: found["width"] for arm, found in measured.items() if found["width"] is not None}
    return {str(arm): float(wide) for arm, wide in {**known[key]["widths"], **as_fast}.items()}


def keep_sizes(known: dict[str, Any]) -> None:
    """Write the sizes whole: cells that run meanwhile read them."""
    temporary = SIZES.with_suffix(".new")
    temporary.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    temporary.replace(SIZES)


def results() -> list[dict[str, Any]]:
    """Every result that is in the file. Raises DataError where a line is torn, as a full disk leaves it."""
    found = []
    for number, line in enumerate(RESULTS.read_text().splitlines() if RESULTS.exists() else [], start=1):
        try:
            found += [json.loads(line)] if line else []
        except ValueError as error:
            raise DataError(
                f"{RESULTS}:{number}: not a whole result", next_step="delete this line: what it was is run again"
            ) from error
    return found


def done() -> set[tuple[str, float, int, str]]:
    return {(line["data"], line["m1_width"], line["seed"], line["arm"]) for line in results()}


def carry_out(asked: list[str] | None, cell: Cell) -> str:
    """Do what is missing of a cell, of all its arms or of those that were asked for."""
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    from study_arms import SETTINGS

    known = done()
    sized = sizes_of(cell.data, cell.width)
    wanted = [arm for arm in SETTINGS[cell.data].arms if arm.name in sized and (not asked or arm.name in asked)]
    missing = [arm for arm in wanted if (cell.data, cell.width, cell.seed, arm.name) not in known]
    if not missing:
        return f"{cell}: known"
    began = time.monotonic()
    bench = _Cell(cell)
    try:
        for arm in missing:
            _append(bench.result(arm))
    finally:
        bench.builder.close()
    return f"{cell}: {len(missing)} arms in {time.monotonic() - began:.0f} s"


def _append(line: dict[str, Any]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.write(json.dumps(line, sort_keys=True) + "\n")


class _Cell:
    """The trainings of one cell, each made once, through the training process's own entry."""

    def __init__(self, cell: Cell) -> None:
        from study_arms import SETTINGS

        from edgeloop.analysis.scoring import Scorer
        from edgeloop.builders.parity import Gate
        from edgeloop.builders.tflite.builder import TfliteBuilder
        from edgeloop.core.campaign import Task
        from edgeloop.data import load
        from edgeloop.wiring import training_worker

        training_worker.prepare(1)
        self.cell = cell
        self.setting = SETTINGS[cell.data]
        self.data = load(self.setting.data)
        self.task = Task()
        self.scorer = Scorer(self.task)
        self.builder = TfliteBuilder(WORK / "artifacts", Gate(self.task))
        self.widths = sizes_of(cell.data, cell.width)

    def result(self, arm: Any) -> dict[str, Any]:
        began = time.monotonic()
        trained = self._trained(arm)
        artifact = self.builder.build(trained, arm.lightening)
        test = self.data.test
        outputs = self.builder.predict(artifact, test.x)
        validation = self.builder.predict(artifact, self.data.validation.x)
        parity = artifact.parity
        assert parity is not None, "built here, so it went through the parity gate"
        return {
            "data": self.cell.data,
            "m1_width": self.cell.width,
            "seed": self.cell.seed,
            "arm": arm.name,
            "width": self.widths[arm.name],
            "lightening": arm.lightening,
            "teacher": arm.teacher,
            "bytes": artifact.deployed_bytes,
            "test_top1": self.scorer.values(outputs, self.scorer.targets(test.x, test.y))["top1"],
            "validation_top1": self.scorer.values(
                validation, self.scorer.targets(self.data.validation.x, self.data.validation.y)
            )["top1"],
            "float_validation_top1": trained.validation["top1"],
            "agreement": parity.agreement,
            "seconds": round(time.monotonic() - began, 1),
            "versions": {
                name: metadata.version(name)
                for name in ("torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert")
            },
        }

    def _trained(self, arm: Any) -> Any:
        recipe = self.setting.recipe.model_copy(update={"seed": self.cell.seed, "teacher": arm.teacher})
        if arm.calibrated_only:
            recipe = recipe.model_copy(update={"lightened_epochs": 0})
        own = self._float(self.widths[arm.name])
        if arm.lightening == "fp32":
            return own
        return self._run(self.widths[arm.name], arm.lightening, recipe, parent=own.folder, teacher=self._teacher(arm))

    def _teacher(self, arm: Any) -> str | None:
        """Folder of the network that teaches; M2 is the network of the `m3` arms."""
        if arm.teacher == "none":
            return None
        m1, m2 = self._float(self.cell.width), self._float(self.widths["m3-m2"])
        if arm.teacher == "m1-distilled":
            return str(self._run(self.cell.width, "fp32", self._recipe(), parent=m1.folder, teacher=m2.folder).folder)
        return str((m1 if arm.teacher == "m1" else m2).folder)

    def _recipe(self) -> Any:
        return self.setting.recipe.model_copy(update={"seed": self.cell.seed})

    def _float(self, width: float) -> Any:
        return self._run(width, "fp32", self._recipe())

    def _run(self, width: float, rung: str, recipe: Any, parent: str | None = None, teacher: str | None = None) -> Any:
        from study_arms import CHANNEL_MULTIPLE

        from edgeloop.core.network import NetworkSpec
        from edgeloop.ports import TrainingJob
        from edgeloop.wiring import training_worker

        job = TrainingJob(
            network=NetworkSpec(family=self.setting.family, width=width, seed=self.cell.seed),
            lightening=rung,
            task=self.task,
            data=self.setting.data,
            data_sha256=self.data.sha256,
            recipe=recipe,
            parent=parent,
            teacher=teacher,
            channel_multiple=CHANNEL_MULTIPLE,
        )
        return training_worker.train(job, WORK / "networks", lambda _what, _fraction: None)


def exit_with(command: Callable[[], int]) -> NoReturn:
    """Run a command and end with its exit code; what edgeloop refuses is one line."""
    try:
        sys.exit(command())
    except EdgeloopError as error:
        print("\n".join(error.lines()), file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    exit_with(main)
