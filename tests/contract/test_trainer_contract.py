"""The pool with its process, and the simulated workshop, keep the same contract."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import training_entry

from edgeloop.core.network import Candidate, NetworkSpec
from edgeloop.ports import Networks, Trainer
from edgeloop.testing.contracts.trainer import NetworksContract, TrainerContract, TrainingJobs, training_job
from edgeloop.testing.fakes.simulated_adapters import SimulatedWorkshop
from edgeloop.testing.fakes.simulated_board import Truth
from edgeloop.training.pool import TrainingPool

JOBS = TrainingJobs(
    quick=lambda seed: training_job("plain", seed),
    faulty=training_job("wrong"),
    long=lambda seed: training_job("slow", seed),
)


def needs_torch() -> None:
    pytest.importorskip("torch")  # its version is a part of every key


def workshop() -> SimulatedWorkshop:
    faulty = Candidate(network=JOBS.faulty.network.model_copy(update={"width": 9.0}), lightening="fp32")
    truth = Truth(latency_ms=1, accuracy=1, deployed_bytes=1, peak_rss_bytes=1)
    return SimulatedWorkshop(truth=lambda _candidate: truth, faults={str(faulty): "train"})


@pytest.fixture
def open_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], TrainingPool]:
    needs_torch()
    monkeypatch.setenv("PYTHONPATH", str(training_entry.FOLDER), prepend=os.pathsep)
    return lambda: TrainingPool(tmp_path, entry=training_entry.__name__, threads=1)


class TestTrainingPool(TrainerContract):
    @pytest.fixture
    def reopen(self, open_pool: Callable[[], TrainingPool]) -> Callable[[], Trainer]:
        return open_pool

    @pytest.fixture
    def jobs(self) -> TrainingJobs:
        return JOBS


class TestNetworksOfTrainingPool(NetworksContract):
    @pytest.fixture
    def networks(self, open_pool: Callable[[], TrainingPool]) -> Iterator[Networks]:
        pool = open_pool()
        yield pool
        pool.close()


class TestSimulatedTrainer(TrainerContract):
    @pytest.fixture
    def reopen(self) -> Callable[[], Trainer]:
        one = workshop()
        return lambda: one

    @pytest.fixture
    def jobs(self) -> TrainingJobs:
        network = NetworkSpec(family="ds_cnn", width=9.0)
        faulty = JOBS.faulty.model_copy(update={"network": network})
        return TrainingJobs(quick=JOBS.quick, faulty=faulty, long=JOBS.long)


class TestNetworksOfTheSimulation(NetworksContract):
    @pytest.fixture
    def networks(self) -> Networks:
        return workshop()
