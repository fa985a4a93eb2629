"""A whole job over a real sshd as a user who is not root: provisioning, outputs, and a network that goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeloop.board.bench import BoardBench, open_bench
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board, BoardModel, Runtime
from edgeloop.core.measurement import MeasureRequest, ScheduleStep, StepKind, Subject
from edgeloop.core.plan import Environment, Plan
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import BoardError, LabError
from edgeloop.ports import Progress
from edgeloop.processes.files import sha256_of
from edgeloop.testing.sshd import LoopbackSshd

pytestmark = pytest.mark.sshd
MODEL = Path(__file__).parents[1] / "data" / "tiny_int8.tflite"
PLAN = Plan(
    profile="quick", sessions=2, warmup_s_min=0.02, warmup_s_max=0.1, runs_min=20, time_s_min=0.4, deadline_s=60
)
INPUTS = np.random.default_rng(0).normal(size=(25, 4, 4, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def served(_sshd_or_skip: None) -> Iterator[LoopbackSshd]:
    """One board for this module, so that it is provisioned once; every test leaves it reachable."""
    with LoopbackSshd() as sshd:
        yield sshd


@pytest.fixture(scope="module")
def board(served: LoopbackSshd) -> Board:
    """The board as its file would declare it, with runtime and numpy pushed to it."""
    model = BoardModel.model_validate({"schema": 1, "name": "generic"})
    board = Board(
        name="desk", model=model, ssh=served.ssh, runtime=Runtime(python=served.python, state_dir=served.state_dir)
    )
    bench = open_bench(board)
    try:
        bench.provision(["litert"])
    except LabError as error:
        pytest.skip(f"the wheels for the board can't be had here: {error.message}")
    except BoardError as error:
        pytest.skip(f"the system's Python can't have a runtime: {error.message}")
    finally:
        bench.close()
    return board


@pytest.fixture
def bench(board: Board) -> Iterator[BoardBench]:
    bench = open_bench(board)
    yield bench
    bench.close()


def request_for(folder: Path, key: str, kinds: list[StepKind]) -> MeasureRequest:
    folder.mkdir(exist_ok=True)
    data = folder / "data.npz"
    if not data.exists():
        np.savez(data, x=INPUTS)
    artifact = Artifact(
        path=str(MODEL),
        sha256=sha256_of(MODEL),
        deployed_bytes=MODEL.stat().st_size,
        inputs=(TensorSpec(name="x", dtype="int8", shape=(1, 4, 4, 1)),),
        outputs=(TensorSpec(name="y", dtype="int8", shape=(1, 3)),),
    )
    return MeasureRequest(
        key=key,
        subjects=(Subject("candidate", artifact),),
        schedule=tuple(ScheduleStep(index, "candidate", kind) for index, kind in enumerate(kinds)),
        plan=PLAN,
        environment=Environment(),
        folder=folder / "attempt",
        data=data,
        deadline_s=120,
    )


def silent(progress: Progress) -> None:
    pass


def outputs_here(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """The model's outputs, worked out by this test alone."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(MODEL), num_threads=1)
    interpreter.allocate_tensors()
    (into,), (out,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = into["quantization"]
    results = []
    for sample in inputs:
        stored = np.clip(np.rint(sample / np.float32(scale)) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(into["index"], stored[None])
        interpreter.invoke()
        raw = interpreter.get_tensor(out["index"])[0]
        results.append((raw.astype(np.float32) - out["quantization"][1]) * np.float32(out["quantization"][0]))
    return np.stack(results)


def test_outputs_from_the_board_equal_an_evaluation_of_our_own_sample_by_sample(
    bench: BoardBench, tmp_path: Path
) -> None:
    attempt = bench.measure(request_for(tmp_path, "outputs", ["evaluate", "latency"]), silent)
    assert [session.outcome for session in attempt.sessions] == ["ok", "ok"]
    np.testing.assert_allclose(attempt.outputs["candidate"]["y"], outputs_here(INPUTS), rtol=1e-6, atol=1e-6)
    assert attempt.facts["executable"] == bench.board.runtime.python


def test_a_second_bench_of_the_same_board_sends_no_bytes(board: Board, bench: BoardBench, tmp_path: Path) -> None:
    bench.measure(request_for(tmp_path / "1", "first", ["latency"]), silent)
    second = open_bench(board)
    try:
        second.measure(request_for(tmp_path / "2", "second", ["latency"]), silent)
        assert second.bytes_pushed == 0
    finally:
        second.close()


def test_a_connection_cut_again_and_again_loses_nothing(
    served: LoopbackSshd, bench: BoardBench, tmp_path: Path
) -> None:
    running = threading.Event()
    stop = threading.Event()

    def cut_often() -> None:
        running.wait(60)
        while not stop.wait(0.7):
            served.cut()

    cutter = threading.Thread(target=cut_often)
    cutter.start()
    said: list[str] = []

    def watch(progress: Progress) -> None:
        said.append(progress.text)
        if progress.text == "starting":
            running.set()
        if progress.done >= 2:
            stop.set()

    try:
        attempt = bench.measure(request_for(tmp_path, "cut", ["latency"] * 3), watch)
    finally:
        running.set()
        stop.set()
        cutter.join()
    assert [session.outcome for session in attempt.sessions] == ["ok"] * 3
    assert any("no connection to desk" in line for line in said)


def test_a_board_that_is_unreachable_for_a_while_is_waited_for(
    served: LoopbackSshd, bench: BoardBench, tmp_path: Path
) -> None:
    def away(progress: Progress) -> None:
        if progress.done == 1 and not gone:
            gone.append(time.monotonic())
            served.stop()
            back.start()

    gone: list[float] = []
    back = threading.Timer(1.5, served.start)
    attempt = bench.measure(request_for(tmp_path, "away", ["latency"] * 4), away)
    back.join()
    assert len(attempt.sessions) == 4
    assert time.monotonic() - gone[0] > 1.5


def test_a_second_bench_adopts_the_job_of_one_that_died(board: Board, bench: BoardBench, tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def die(progress: Progress) -> None:
        if progress.done == 1:
            raise Killed

    request = request_for(tmp_path, "adopted", ["latency"] * 3)
    with pytest.raises(Killed):
        bench.measure(request, die)
    first = (request.folder / "sessions" / "000.json").read_bytes()
    other = open_bench(board)
    try:
        attempt = other.measure(request, silent)
    finally:
        other.close()
    assert len(attempt.sessions) == 3
    assert (request.folder / "sessions" / "000.json").read_bytes() == first
