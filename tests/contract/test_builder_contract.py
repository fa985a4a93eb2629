"""Every builder, the simulated one included, passes the contract that ships with edgeloop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense_delegate import COMPILER

from edgeloop.builders.delegate import DelegateBuilder
from edgeloop.builders.parity import Gate
from edgeloop.builders.tflite.builder import TfliteBuilder
from edgeloop.builders.tvm.builder import TvmBuilder
from edgeloop.builders.tvm.versions import host_target
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Data, Task, Training
from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.core.measurement import Arrays
from edgeloop.core.network import NetworkSpec
from edgeloop.host_runtime.tflite import predict_tflite, read_tflite
from edgeloop.ports import TrainedNetwork, TrainingJob
from edgeloop.processes.limits import DEFAULT_LIMITS
from edgeloop.ready_models.reference_file import ReferenceFileBuilder
from edgeloop.testing.contracts.builder import BuilderCase, BuilderContract, ChildBuilderCase, ChildBuilderContract
from edgeloop.testing.fakes.simulated_adapters import SimulatedWorkshop
from edgeloop.testing.fakes.simulated_board import Truth
from edgeloop.training.summary import write_trained

MODEL = Path(__file__).parents[1] / "data/tiny_float.tflite"
GATE = Gate(Task(kind="regression"))
TARGET = host_target()
NETWORK = TrainedNetwork(key="one", folder="/nowhere", seconds=1, epochs=1, validation={})
OTHER = NETWORK.model_copy(update={"key": "other"})
INPUTS = {"x": np.random.default_rng(0).random((3, 4, 4, 1), dtype=np.float32)}


class ReadyTflite:
    """A builder that gives a ready .tflite."""

    def key(self, network: TrainedNetwork, lightening: str) -> str:
        return f"{network.key}/{lightening}"

    def build(self, _network: TrainedNetwork, _lightening: str) -> Artifact:
        artifact = read_tflite(MODEL)
        (only,) = artifact.inputs
        return artifact.model_copy(update={"inputs": (only.model_copy(update={"name": "x"}),)})

    def warm_up(self) -> None: ...

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, Any]:
        return predict_tflite(artifact, inputs)

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedNetwork:
    """A folder as a training leaves it, of two layers."""
    torch = pytest.importorskip("torch", reason="needs the train extra")
    from trained_folder import write_trained_folder

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    x = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    return write_trained_folder(tmp_path_factory.mktemp("trained") / "one", module, {"x": x}, "fp32", key="one")


def case_of(trained: TrainedNetwork, make: Any) -> BuilderCase:
    x = np.random.default_rng(1).normal(size=(3, 12)).astype(np.float32)
    return BuilderCase(make, trained, "fp32", trained.model_copy(update={"key": "other"}), {"x": x})


@pytest.mark.train
class TestTfliteBuilder(ChildBuilderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, trained: TrainedNetwork) -> BuilderCase:
        pytest.importorskip("litert_torch", reason="needs the tflite extra")
        return case_of(trained, lambda folder: TfliteBuilder(folder, GATE))

    @pytest.fixture
    def child_case(self, trained: TrainedNetwork) -> ChildBuilderCase:
        return ChildBuilderCase(
            lambda folder, code, limits: TfliteBuilder(
                folder, GATE, limits=limits, command=(sys.executable, "-c", code)
            ),
            trained,
            "fp32",
        )


@pytest.mark.train
class TestTvmBuilder(ChildBuilderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, trained: TrainedNetwork, tmp_path_factory: pytest.TempPathFactory) -> BuilderCase:
        pytest.importorskip("litert_torch", reason="needs the tflite extra")
        pytest.importorskip("tvm", reason="needs the tvm extra")
        tflite = TfliteBuilder(tmp_path_factory.mktemp("tflite"), GATE)
        return case_of(trained, lambda folder: TvmBuilder(folder, GATE, tflite, lambda: TARGET))

    @pytest.fixture
    def child_case(self) -> ChildBuilderCase:
        def make(folder: Path, code: str, limits: Any) -> TvmBuilder:
            command = (sys.executable, "-c", code)
            return TvmBuilder(folder, GATE, ReadyTflite(), lambda: TARGET, limits=limits, command=command)

        return ChildBuilderCase(make, NETWORK, "fp32")


class TestDelegateBuilder(ChildBuilderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls) -> BuilderCase:
        command = (sys.executable, str(COMPILER), "{model}")
        return BuilderCase(
            lambda folder: DelegateBuilder(folder, ReadyTflite(), "dense", command), NETWORK, "fp32", OTHER, INPUTS
        )

    @pytest.fixture
    def child_case(self) -> ChildBuilderCase:
        def make(folder: Path, code: str, limits: Any) -> DelegateBuilder:
            command = (sys.executable, "-c", code, "{model}")
            return DelegateBuilder(folder, ReadyTflite(), "dense", command, limits=limits)

        return ChildBuilderCase(make, NETWORK, "fp32")


class TestReferenceFileBuilder(BuilderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls, tmp_path_factory: pytest.TempPathFactory) -> BuilderCase:
        pytest.importorskip("torch", reason="needs the train extra")
        split = DataSplit({"x": INPUTS["x"]}, {"y": np.arange(3)})
        data = DataSet(train=split, validation=split, calibration=split, test=split, sha256="0" * 64)
        job = TrainingJob(
            network=NetworkSpec(file=str(MODEL)),
            lightening="fp32",
            task=Task(),
            data=Data(),
            data_sha256=data.sha256,
            recipe=Training(),
        )
        networks = [
            one.model_copy(update={"folder": str(tmp_path_factory.mktemp(one.key))}) for one in (NETWORK, OTHER)
        ]
        for network in networks:
            write_trained(Path(network.folder), network, job, [])

        def make(folder: Path) -> ReferenceFileBuilder:
            return ReferenceFileBuilder(ReadyTflite(), data, folder, DEFAULT_LIMITS, lambda: TARGET)

        return BuilderCase(make, networks[0], "fp32", networks[1], INPUTS)


class TestSimulatedBuilder(BuilderContract):
    @pytest.fixture(scope="class")
    @classmethod
    def case(cls) -> BuilderCase:
        job = TrainingJob(
            network=NetworkSpec(family="ds_cnn"),
            lightening="w8a8",
            task=Task(),
            data=Data(),
            data_sha256="0" * 64,
            recipe=Training(),
        )
        other = job.model_copy(update={"network": NetworkSpec(family="ds_cnn", width=2.0)})

        def make(_folder: Path) -> SimulatedWorkshop:
            workshop = SimulatedWorkshop(
                lambda _candidate: Truth(latency_ms=1.0, accuracy=0.9, deployed_bytes=1000, peak_rss_bytes=1)
            )
            workshop.submit(job, lambda _what, _fraction: None)
            return workshop

        workshop = SimulatedWorkshop(lambda _candidate: Truth(1.0, 0.9, 1000, 1))
        network, another = (workshop.submit(one, lambda _what, _part: None).result() for one in (job, other))
        x = np.arange(5, dtype=np.float32).reshape(-1, 1)
        return BuilderCase(make, network, "w8a8", another, {"x": x}, has_file=False)
