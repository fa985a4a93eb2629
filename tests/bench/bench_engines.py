"""Network x precision x engine, as ratios to LiteRT: the interpreters, TVM as it comes, with our rule, tuned;
for float networks also with our rule out of the .pt2. All in one run.

Untrained networks as fp32 and w8a8, one thread, `invoke`; rounds are interleaved, medians over them. Every engine runs
through the agent's own classes in a process of its own, tflite-runtime out of the wheels that boards are given. Tuning
goes through the agent as a job on this machine, from an empty database.

Usage: python tests/bench/bench_engines.py [--rounds 30] [--trials 120] [--out docs/results/engines.md]
"""

from __future__ import annotations

import argparse
import contextlib
import io as io_
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from unittest import mock

import network
import numpy as np
from fit_bytes import built_file

from edgeloop.board.wheels import wheel_lock, wheels_for
from edgeloop.builders.store import ArtifactStore
from edgeloop.builders.tvm import compile_child, layout
from edgeloop.builders.tvm.builder import CHILD
from edgeloop.builders.tvm.tuning import Tuner
from edgeloop.builders.tvm.versions import TvmTarget
from edgeloop.config.board_files import resolve_all
from edgeloop.core.campaign import Tuning
from edgeloop.core.lightening import Lightening
from edgeloop.core.network import NetworkIO, NetworkSpec, TensorShape
from edgeloop.core.plan import Environment
from edgeloop.engines.registry import TVM
from edgeloop.host_runtime.shapes import NO_SHAPES
from edgeloop.host_runtime.tflite import read_tflite
from edgeloop.ports import Bench
from edgeloop.processes.limits import ProcessLimits
from edgeloop.ready_models.torch_program import TorchProgram
from edgeloop.wiring.benches import open_board
from edgeloop.wiring.board_timer import BoardTimer
from edgeloop.wiring.clock import SystemClock

NETWORKS = (
    ("ds_cnn", 1.0, (28, 28, 1)),
    ("ds_cnn", 2.0, (28, 28, 1)),
    ("ds_cnn", 4.0, (28, 28, 1)),
    ("ds_cnn", 1.41, (28, 28, 1)),
    ("resnet", 1.0, (32, 32, 3)),
    ("conv1d", 1.0, (25, 12)),
    ("mlp", 1.0, (8, 8, 1)),
)
RUNGS = ("fp32", "w8a8")
AGENT = Path(__file__).parents[2] / "device_agent"
WORKER = Path(__file__).with_name("engine_worker.py")


def tflite_of(family: str, width: float, shape: tuple[int, ...], rung: str, path: Path) -> None:
    """As the builder writes it: straightened, without names, activations calibrated."""
    io = NetworkIO(
        kind="classification",
        inputs=(TensorShape(name="x", shape=shape),),
        outputs=(TensorShape(name="y", shape=(10,)),),
    )
    folder = path.with_suffix("")
    folder.mkdir()
    with contextlib.redirect_stdout(io_.StringIO()):  # the converter reports on it
        content = built_file(NetworkSpec(family=family, width=width), io, Lightening.parse(rung), folder)
    path.write_bytes(content)


def archived(path: Path, here: TvmTarget, library: Path) -> None:
    """Compiled out of the trained network's own .pt2."""
    artifact = read_tflite(path)
    graph = layout.fold_constants(TorchProgram(path.with_suffix("") / "network.pt2", NO_SHAPES).import_graph())
    lowered = compile_child.lower(layout.channels_last(graph), here)
    compile_child.compile_module(lowered, here, library, artifact.inputs, artifact.outputs)


def tflite_runtime(board: Bench, folder: Path) -> list[Path]:
    """What goes on sys.path for it: it needs a numpy of its own."""
    found = []
    for wheel in wheels_for(board.facts(), ["tflite-runtime"], "pushed").paths:
        found.append(folder / wheel.name)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(found[-1])
    return found


def files_of(path: Path, tuner: Tuner, rung: str) -> dict[str, tuple[str, Path]]:
    """Engine and file by column."""
    artifact, here = read_tflite(path), TvmTarget(machine=platform.machine(), mcpu="native")
    ruled, plain, tuned, archive = (path.with_suffix(f".{kind}.so") for kind in ("ruled", "plain", "tuned", "archive"))
    chosen = tuner.tune(artifact, here, ArtifactStore(path.parent / "artifacts", CHILD, ProcessLimits(1800)))
    compile_child.compile_module(
        compile_child.import_functions(path, here), here, tuned, artifact.inputs, artifact.outputs, chosen
    )
    compile_child.compile_module(
        compile_child.import_functions(path, here), here, ruled, artifact.inputs, artifact.outputs
    )
    with mock.patch.object(compile_child, "schedule_module", lambda module, _machine, _tuned: module):
        compile_child.compile_module(
            compile_child.import_functions(path, here), here, plain, artifact.inputs, artifact.outputs
        )
    found = {
        "LiteRT": ("litert", path),
        "tflite-runtime": ("tflite-runtime", path),
        "TVM as it comes": ("tvm", plain),
        "TVM, our rule": ("tvm", ruled),
        "TVM, tuned": ("tvm", tuned),
    }
    if rung == "fp32":
        archived(path, here, archive)
        found["TVM, our rule, from the .pt2"] = ("tvm", archive)
    return found


def sample_for(path: Path) -> Path:
    """Random values, as the network takes them."""
    (spec,) = read_tflite(path).inputs
    values = np.random.default_rng(0).standard_normal(spec.shape).astype(np.float32)
    if spec.scale is not None:
        values = np.clip(np.rint(values / spec.scale) + (spec.zero_point or 0), -128, 127).astype(spec.dtype)
    np.save(path.with_suffix(".npy"), values)
    return path.with_suffix(".npy")


def medians_ns(
    files: Mapping[str, tuple[str, Path]], sample: Path, old: Sequence[Path], rounds: int
) -> dict[str, float]:
    seen: dict[str, list[float]] = {column: [] for column in files}
    with ExitStack() as running:
        workers = {}
        for column, (engine, file) in files.items():
            paths = [*(old if engine == "tflite-runtime" else ()), AGENT]
            worker = subprocess.Popen(
                [sys.executable, "-P", WORKER, engine, file, sample],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "TVM_NUM_THREADS": "1"},
            )
            workers[column] = running.enter_context(worker)
            running.callback(worker.stdin.close)
            if worker.stdout.readline() != "ready\n":
                raise RuntimeError(f"{column}: {file.name} does not run")
        for number in range(rounds):
            for column in random.Random(number).sample(list(workers), len(workers)):
                workers[column].stdin.write("\n")
                workers[column].stdin.flush()
                seen[column].append(float(workers[column].stdout.readline()))
    return {column: statistics.median(times) for column, times in seen.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        (board,) = resolve_all(["local"], Path(folder))
        bench = open_board(board)
        old = tflite_runtime(bench, Path(folder))
        timer = BoardTimer(bench, TVM.name, Path(folder) / "samples", Environment(), lambda *_said: None)
        tuner = Tuner(Tuning(trials=asked.trials, minutes=30), timer, Path(folder) / "tuning", SystemClock())
        for family, width, shape in NETWORKS:
            for rung in RUNGS:
                path = Path(folder) / f"{family}-{width:g}-{rung}.tflite"
                tflite_of(family, width, shape, rung, path)
                found = medians_ns(files_of(path, tuner, rung), sample_for(path), old, asked.rounds)
                rows.append((f"{family} {width:g}, {rung}", found))
                print(rows[-1], file=sys.stderr)
    columns = list(dict.fromkeys(name for _, found in rows for name in found))
    about = f"One thread, {network.machine()}, {network.load()}."
    tuned = f"At most {asked.trials} schedules were measured for a network."
    told = [f"{about} Medians as ratios to LiteRT's of the same network and run. {tuned}", ""]
    told += [f"| network | LiteRT, us | {' | '.join(columns[1:])} |", "| --- |" + " --- |" * len(columns)]
    for name, found in rows:
        ratios = [f"{found[c] / found['LiteRT']:.2f}" if c in found else "-" for c in columns[1:]]
        told.append(f"| {name} | {found['LiteRT'] / 1e3:.1f} | {' | '.join(ratios)} |")
    packages = ("ai-edge-litert", "apache-tvm", "apache-tvm-ffi", "torch", "litert-torch")
    versions = [f"{package} {metadata.version(package)}" for package in packages]
    versions.append(f"tflite-runtime {wheel_lock().version('tflite-runtime')}")
    told += ["", f"Versions: {', '.join(versions)}."]
    print("\n".join(told))
    if asked.out:
        head = "# Engines\n\nWritten by `python tests/bench/bench_engines.py --out docs/results/engines.md`.\n\n"
        asked.out.write_text(head + "\n".join(told) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
