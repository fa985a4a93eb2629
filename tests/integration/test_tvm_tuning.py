"""Schedules are measured by the agent, end up in the built file, and are not measured twice."""

from __future__ import annotations

import ctypes
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agent_board import DATA, AgentBoard
from numpy.typing import NDArray
from trained_folder import write_trained_folder

from edgeloop.builders.parity import Gate
from edgeloop.builders.tflite.builder import TfliteBuilder
from edgeloop.builders.tvm.builder import TvmBuilder
from edgeloop.builders.tvm.tuning import Tuner
from edgeloop.builders.tvm.versions import TvmTarget
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board, BoardModel
from edgeloop.core.campaign import Task, Tuning
from edgeloop.ports import TrainedNetwork
from edgeloop.wiring.clock import SystemClock
from edgeloop_agent import wire
from edgeloop_agent.engines import load_engine

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("litert_torch", reason="needs the tflite extra")
pytest.importorskip("tvm_ffi", reason="needs the tvm extra")
nn = torch.nn

pytestmark = pytest.mark.train
HERE = TvmTarget(machine=platform.machine(), mcpu="native")


def test_a_function_that_crashes_on_the_board_costs_itself(board: AgentBoard, tmp_path: Path) -> None:
    library = tmp_path / "functions.so"
    command = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", "-O1", "-o", library, DATA / "functions.c"]
    subprocess.run(command, check=True)
    subject = wire.WireSubject("candidates", "tvm", board.put(library.read_bytes(), ".so"), ".so", 1, [], [])
    job = board.job([subject], [(0, "tune")])
    assert board.finish(job).outcome == "complete"
    record = board.record(job)
    assert record.outcome == "ok", record.detail
    times = board.array(job, "functions.npy")
    assert (times[0] == wire.NOT_CALLED_NS).all()
    assert (times[1, :, 0] > 0).all()
    assert "function 0 was ended by SIGSEGV" in board.log(job)


def test_a_model_is_no_library_of_functions(board: AgentBoard) -> None:
    job = board.job([board.subject((DATA / "tiny_float.tflite").read_bytes())], [(0, "tune")])
    board.take()
    board.start(job)
    done = board.done(job)
    assert done.outcome == "failed"
    assert "step 0 times functions, which litert has none of" in done.detail


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.point, self.head = nn.Conv2d(1, 8, 3, 1, 1), nn.Conv2d(8, 16, 1), nn.Linear(16, 4)

    def forward(self, x: Any) -> Any:
        x = self.point(self.first(x.permute(0, 3, 1, 2)).relu()).relu()
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNetwork:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(200, 8, 8, 1)).astype(np.float32)
    folder = tmp_path_factory.mktemp("trained") / "small"
    return write_trained_folder(folder, Small(), {"x": x}, "fp32", outputs=("y",), key="small-fp32")


class LastIsFastest:
    """A `ports.FunctionTimer` where each function of a library is faster than the one before it."""

    def __init__(self) -> None:
        self.board = Board(name="here", kind="local", model=BoardModel(schema=1, name="fake"))
        self.timed: list[str] = []

    def time(self, library: Artifact) -> NDArray[np.int64]:
        self.timed.append(library.sha256)
        functions = len(_told(Path(library.path), "edgeloop_functions"))
        return np.arange(functions, 0, -1)[:, None, None] * np.full((1, 2, 3), 1000)


def _told(library: Path, symbol: str) -> Any:
    load_engine("tvm")  # a library finds its symbols in the runtime
    return json.loads(ctypes.c_char_p.in_dll(ctypes.CDLL(str(library)), symbol).value or b"null")


def builder(folder: Path, timer: LastIsFastest | None, database: Path, trials: int = 9) -> TvmBuilder:
    gate, store = Gate(Task(kind="regression")), folder / "artifacts"
    tuner = None if timer is None else Tuner(Tuning(trials=trials), timer, database, SystemClock())
    return TvmBuilder(store, gate, TfliteBuilder(store, gate), lambda: HERE, tuner=tuner)


def test_tuned_schedules_are_in_the_built_file_and_a_known_network_measures_nothing(
    trained: TrainedNetwork, tmp_path: Path
) -> None:
    timer, database = LastIsFastest(), tmp_path / "tuning"
    ruled = builder(tmp_path, None, database).build(trained, "fp32")
    assert "schedules" not in ruled.tools
    tuned = builder(tmp_path, timer, database).build(trained, "fp32")
    assert len(timer.timed) == 1
    rows = [json.loads(line) for file in database.glob("*.jsonl") for line in file.read_text().splitlines()]
    chosen = {row["function"]: row["choices"][-1] for row in rows if len(row["choices"]) > 1}
    assert len(chosen) >= 3
    found = _told(Path(tuned.path), "edgeloop_artifact")["schedules"]
    assert {name: found[name] for name in chosen} == chosen
    assert f"{len(chosen)} other than the rule's" in tuned.tools["schedules"]
    assert tuned.sha256 != ruled.sha256
    assert tuned.parity is not None
    assert tuned.parity.agreement == 1.0  # another order of the same sums

    again = builder(tmp_path / "later", timer, database).build(trained, "fp32")
    assert again.sha256 == tuned.sha256  # from the database alone, to the bit
    assert len(timer.timed) == 1


@pytest.mark.full
def test_the_same_candidates_make_the_same_library_so_that_a_killed_run_finds_its_job(
    trained: TrainedNetwork, tmp_path: Path
) -> None:
    timer = LastIsFastest()
    for name in ("killed", "resumed"):
        builder(tmp_path / name, timer, tmp_path / name / "tuning").build(trained, "fp32")
    assert len(set(timer.timed)) == 1
    assert len(timer.timed) == 2


def test_an_artifact_of_tuned_schedules_has_a_key_of_its_own(trained: TrainedNetwork, tmp_path: Path) -> None:
    timer, database = LastIsFastest(), tmp_path / "tuning"
    keys = {
        builder(tmp_path, *how).key(trained, "fp32")
        for how in ((None, database), (timer, database, 9), (timer, database, 10))
    }
    assert len(keys) == 3
