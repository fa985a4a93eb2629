"""Network x precision x engine, as ratios to LiteRT: the interpreters, TVM as it comes, with our rule, tuned;
for float networks also with our rule out of the .pt2. All in one run.

Untrained networks as fp32 and w8a8, one thread, `invoke`; samples are interleaved, medians over rounds. Every engine
runs in this process through the agent's own classes. tflite-runtime takes part where it is installed. Tuning goes
through the agent as a job on this machine, from an empty database.

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
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from unittest import mock

os.environ["TVM_NUM_THREADS"] = "1"  # before any library of TVM's starts its threads

import network
import numpy as np
from fit_bytes import built_file

from edgeloop.board.inventory import resolve_all
from edgeloop.bootstrap.benches import open_board
from edgeloop.bootstrap.clock import SystemClock
from edgeloop.bootstrap.tuning import BoardTimer
from edgeloop.builders.prebuilt import read_tflite
from edgeloop.builders.store import ArtifactStore
from edgeloop.builders.tvm import child, layout
from edgeloop.builders.tvm.builder import CHILD
from edgeloop.builders.tvm.program_file import TorchProgram
from edgeloop.builders.tvm.tuning import Tuner
from edgeloop.builders.tvm.versions import TvmTarget
from edgeloop.core.campaign import Tuning
from edgeloop.core.lightening import Lightening
from edgeloop.core.network import NetworkIO, NetworkSpec, TensorShape
from edgeloop.core.plan import Environment
from edgeloop_agent.engines import load_engine

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
RUNS = 50


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


def tuner_on_this_machine(folder: Path, trials: int) -> Tuner:
    (board,) = resolve_all(["local"], folder)
    timer = BoardTimer(open_board(board), folder / "samples", Environment(), lambda *_said: None)
    return Tuner(Tuning(trials=trials, minutes=30), timer, folder / "tuning", SystemClock())


def archived(path: Path, here: TvmTarget, library: Path) -> None:
    """Compiled out of the trained network's own .pt2."""
    artifact = read_tflite(path)
    graph = layout.folded(TorchProgram(path.with_suffix("") / "network.pt2", {}, {}).imported())
    lowered = child.lowered(layout.channels_last(graph), here)
    child.compile_module(lowered, here, library, artifact.inputs, artifact.outputs)


def engines_of(path: Path, tuner: Tuner, rung: str) -> dict[str, object]:
    """Loaded engines by column; None where it can't run the network."""
    artifact, here = read_tflite(path), TvmTarget(machine=platform.machine(), mcpu="native")
    ruled, plain, tuned = (path.with_suffix(suffix) for suffix in (".so", ".plain.so", ".tuned.so"))
    chosen = tuner.tuned(artifact, here, ArtifactStore(path.parent / "artifacts", CHILD, 1800))
    child._build(path, here, tuned, artifact.inputs, artifact.outputs, chosen)
    child._build(path, here, ruled, artifact.inputs, artifact.outputs)
    with mock.patch.object(child, "scheduled", lambda module, _machine, _tuned: module):
        child._build(path, here, plain, artifact.inputs, artifact.outputs)
    if rung == "fp32":
        archived(path, here, path.with_suffix(".archive.so"))
    found: dict[str, object] = {}
    for column, name, file in (
        ("LiteRT", "litert", path),
        ("tflite-runtime", "tflite-runtime", path),
        ("TVM as it comes", "tvm", plain),
        ("TVM, our rule", "tvm", ruled),
        ("TVM, tuned", "tvm", tuned),
        ("TVM, our rule, from the .pt2", "tvm", path.with_suffix(".archive.so")),
    ):
        if not file.exists():
            continue
        try:
            engine = load_engine(name)
        except ImportError:
            continue
        engine.load(str(file), 1)
        (tensor,) = engine.inputs()
        sample = np.random.default_rng(0).standard_normal(tensor.shape).astype(np.float32)
        if tensor.scale is not None:
            sample = np.clip(np.rint(sample / tensor.scale) + tensor.zero_point, -128, 127).astype(tensor.dtype)
        ((put, index),) = engine.setters()
        put(index, sample)
        found[column] = engine.invoker()
    return found


def medians_ns(invokers: dict[str, object], rounds: int) -> dict[str, float]:
    seen: dict[str, list[float]] = {name: [] for name in invokers}
    for number in range(rounds):
        for name in random.Random(number).sample(list(invokers), len(invokers)):
            invoke = invokers[name]
            times = []
            for _ in range(RUNS):
                start = time.perf_counter_ns()
                invoke()  # type: ignore[operator]
                times.append(time.perf_counter_ns() - start)
            seen[name].append(statistics.median(times))
    return {name: statistics.median(times) for name, times in seen.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--trials", type=int, default=120)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tuner = tuner_on_this_machine(Path(folder), asked.trials)
        for family, width, shape in NETWORKS:
            for rung in RUNGS:
                path = Path(folder) / f"{family}-{width:g}-{rung}.tflite"
                tflite_of(family, width, shape, rung, path)
                found = medians_ns(engines_of(path, tuner, rung), asked.rounds)
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
    told += ["", "Versions: " + ", ".join(f"{p} {metadata.version(p)}" for p in packages) + "."]
    print("\n".join(told))
    if asked.out:
        head = "# Engines\n\nWritten by `python tests/bench/bench_engines.py --out docs/results/engines.md`.\n\n"
        asked.out.write_text(head + "\n".join(told) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
