"""A board on this machine, one behind a real sshd, one that is tried again, and the simulated one keep one contract."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgeloop.board.bench import BoardBench, open_bench
from edgeloop.board.local import LocalLink
from edgeloop.board.retry import RetryingBench
from edgeloop.board.wheels import WheelSet
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board, BoardModel, Runtime
from edgeloop.core.campaign import Data, Task, Training
from edgeloop.core.measurement import MeasureRequest, ScheduleStep, StepKind, Subject
from edgeloop.core.network import Candidate, NetworkSpec
from edgeloop.core.plan import Environment, Plan
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import BoardError, LabError
from edgeloop.ports import TrainingJob
from edgeloop.processes.files import sha256_of
from edgeloop.testing.contracts.bench import BenchContract, RequestIn
from edgeloop.testing.fakes.simulated_adapters import SimulatedWorkshop
from edgeloop.testing.fakes.simulated_board import Truth
from edgeloop.testing.sshd import LoopbackSshd

MODEL = Path(__file__).parents[1] / "data" / "tiny_int8.tflite"
PLAN = Plan(
    profile="quick", sessions=2, warmup_s_min=0.02, warmup_s_max=0.1, runs_min=20, time_s_min=0.05, deadline_s=60
)
KINDS: Sequence[StepKind] = ("latency", "evaluate", "latency")


def request_for(folder: Path, model: Path, data: Path) -> MeasureRequest:
    artifact = Artifact(
        path=str(model),
        sha256=sha256_of(model),
        deployed_bytes=model.stat().st_size,
        inputs=(TensorSpec(name="x", dtype="int8", shape=(1, 4, 4, 1)),),
        outputs=(TensorSpec(name="y", dtype="int8", shape=(1, 3)),),
    )
    return MeasureRequest(
        key=str(folder),
        subjects=(Subject("candidate", artifact),),
        schedule=tuple(ScheduleStep(index, "candidate", kind) for index, kind in enumerate(KINDS)),
        plan=PLAN,
        environment=Environment(),
        folder=folder,
        data=data,
        deadline_s=120.0,
    )


@pytest.fixture(scope="class")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inputs") / "data.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(9, 4, 4, 1)).astype(np.float32))
    return path


def board_here(folder: Path) -> Board:
    """This machine as a board, which has numpy and the runtime already: the interpreter of this test."""
    model = BoardModel.model_validate({"schema": 1, "name": "local"})
    return Board(
        name="here", kind="local", model=model, runtime=Runtime(python=sys.executable, state_dir=str(folder / "state"))
    )


def bench_here(folder: Path) -> BoardBench:
    return BoardBench(board_here(folder), LocalLink(), runtime_for=lambda _facts, _engines: WheelSet())


class _RealModel(BenchContract):
    @pytest.fixture(scope="class")
    @classmethod
    def request_in(cls, inputs: Path) -> RequestIn:
        return lambda folder: request_for(folder, MODEL, inputs)

    @pytest.fixture(scope="class")
    @classmethod
    def refusal_in(cls, inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> RequestIn:
        broken = tmp_path_factory.mktemp("model") / "broken.tflite"
        broken.write_bytes(b"\x20\x00\x00\x00TFL3" + bytes(200))
        return lambda folder: request_for(folder, broken, inputs)


class TestBenchOnThisMachine(_RealModel):
    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> BoardBench:
        return bench_here(tmp_path_factory.mktemp("board"))


class TestRetryingBench(_RealModel):
    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, tmp_path_factory: pytest.TempPathFactory) -> RetryingBench:
        return RetryingBench(bench_here(tmp_path_factory.mktemp("board")))


@pytest.mark.sshd
class TestBenchOverSsh(_RealModel):
    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls, _sshd_or_skip: None) -> Iterator[BoardBench]:
        model = BoardModel.model_validate({"schema": 1, "name": "generic"})
        with LoopbackSshd() as sshd:
            runtime = Runtime(python=sshd.python, state_dir=sshd.state_dir)
            bench = open_bench(Board(name="desk", model=model, ssh=sshd.ssh, runtime=runtime))
            try:
                bench.provision(["litert"])
            except (BoardError, LabError) as error:
                pytest.skip(f"the runtime can't be brought to the system's Python here: {error.message}")
            yield bench
            bench.close()


class TestSimulatedBench(BenchContract):
    """Its request names a network that the same workshop built."""

    NETWORK = NetworkSpec(family="ds_cnn")

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls) -> SimulatedWorkshop:
        candidate = Candidate(network=cls.NETWORK, lightening="w4a8")
        return SimulatedWorkshop(lambda _candidate: Truth(2.0, 0.9, 1000, 10_000_000), {str(candidate): "refused"})

    @classmethod
    def request(cls, bench: SimulatedWorkshop, folder: Path, lightening: str) -> MeasureRequest:
        job = TrainingJob(
            network=cls.NETWORK,
            lightening=lightening,
            task=Task(),
            data=Data(),
            data_sha256="0" * 64,
            recipe=Training(),
        )
        trained = bench.submit(job, lambda _label, _fraction: None).result()
        subject = Subject("candidate", bench.build(trained, lightening))
        schedule = tuple(ScheduleStep(index, "candidate", kind) for index, kind in enumerate(KINDS))
        return MeasureRequest("k" * 64, (subject,), schedule, PLAN, Environment(), folder, Path("/simulated/x-9"))

    @pytest.fixture(scope="class")
    @classmethod
    def request_in(cls, bench: SimulatedWorkshop) -> RequestIn:
        return lambda folder: cls.request(bench, folder, "w8a8")

    @pytest.fixture(scope="class")
    @classmethod
    def refusal_in(cls, bench: SimulatedWorkshop) -> RequestIn:
        return lambda folder: cls.request(bench, folder, "w4a8")
