"""Rules of the Trainer and Networks ports. Subclass the contracts, give them their fixtures, and run them with pytest.

class TestMyTrainer(TrainerContract):
    @pytest.fixture
    def reopen(self):
        ...  # a function: () -> Trainer that knows the trainings of the one before it, which was closed

    @pytest.fixture
    def jobs(self):
        return TrainingJobs(quick=..., faulty=..., long=...)  # jobs that this trainer can carry out
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import closing
from dataclasses import dataclass

import pytest

from edgeloop.core.campaign import Data, Task, Training
from edgeloop.core.network import NetworkSpec
from edgeloop.errors import HarnessError, ModelError, UserError
from edgeloop.ports import Networks, TrainedNetwork, Trainer, TrainingJob

WAIT_S = 60.0
"""A training of these tests that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class TrainingJobs:
    """Jobs by what becomes of them."""

    quick: Callable[[int], TrainingJob]
    """By its seed, a job that is done in seconds."""
    faulty: TrainingJob
    """A job whose user's code fails."""
    long: Callable[[int], TrainingJob]
    """By its seed, a job that takes longer than WAIT_S and reports meanwhile; a trainer without any is done at once."""


def training_job(family: str, seed: int = 0, lightening: str = "fp32") -> TrainingJob:
    """Return a job for a trainer that goes by the family."""
    return TrainingJob(
        network=NetworkSpec(family=family, seed=seed),
        lightening=lightening,
        task=Task(),
        data=Data(),
        data_sha256="d" * 64,
        recipe=Training(),
    )


class TrainerContract:
    """Rules of the Trainer port."""

    @pytest.fixture
    def trainer(self, reopen: Callable[[], Trainer]) -> Iterator[Trainer]:
        trainer = reopen()
        yield trainer
        trainer.close()

    def test_equal_jobs_have_equal_keys_and_others_have_other_keys(self, trainer: Trainer, jobs: TrainingJobs) -> None:
        job = jobs.quick(0)
        others = [
            jobs.quick(1),
            job.model_copy(update={"lightening": "w8a8"}),
            job.model_copy(update={"data_sha256": "e" * 64}),
            job.model_copy(update={"recipe": Training(epochs=7)}),
        ]
        assert trainer.key(jobs.quick(0)) == trainer.key(job)
        assert len({trainer.key(one) for one in (job, *others)}) == 5

    def test_a_key_is_the_name_of_a_folder(self, trainer: Trainer, jobs: TrainingJobs) -> None:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", trainer.key(jobs.quick(0)))

    def test_a_trained_network_has_the_key_of_its_job(self, trainer: Trainer, jobs: TrainingJobs) -> None:
        network = trainer.submit(jobs.quick(0), _silent).result(WAIT_S)
        assert network.key == trainer.key(jobs.quick(0))
        assert network.seconds >= 0

    def test_progress_is_a_label_and_a_fraction_that_does_not_fall(self, trainer: Trainer, jobs: TrainingJobs) -> None:
        reports: list[tuple[str, float]] = []
        trainer.submit(jobs.quick(0), lambda what, fraction: reports.append((what, fraction))).result(WAIT_S)
        assert all(what and 0 <= fraction <= 1 for what, fraction in reports)
        by_label = {what: [fraction for label, fraction in reports if label == what] for what, _ in reports}
        assert all(fractions == sorted(fractions) for fractions in by_label.values())

    def test_a_job_that_is_submitted_again_is_trained_once(self, trainer: Trainer, jobs: TrainingJobs) -> None:
        first, second = trainer.submit(jobs.quick(0), _silent), trainer.submit(jobs.quick(0), _silent)
        assert first.result(WAIT_S) == second.result(WAIT_S)

    def test_a_finished_training_is_found(self, trainer: Trainer, jobs: TrainingJobs) -> None:
        network = trainer.submit(jobs.quick(0), _silent).result(WAIT_S)
        again = trainer.submit(jobs.quick(0), _silent)
        assert again.done()
        assert again.result() == network

    def test_a_finished_training_is_found_by_a_later_trainer(
        self, reopen: Callable[[], Trainer], jobs: TrainingJobs
    ) -> None:
        with closing(reopen()) as trainer:
            network = trainer.submit(jobs.quick(0), _silent).result(WAIT_S)
        with closing(reopen()) as later:
            assert later.submit(jobs.quick(0), _silent).result(0) == network

    def test_a_fault_of_the_user_is_a_user_error_each_time(self, trainer: Trainer, jobs: TrainingJobs) -> None:
        for _ in range(2):
            with pytest.raises(UserError):
                trainer.submit(jobs.faulty, _silent).result(WAIT_S)

    def test_a_fault_stays_with_its_job(self, trainer: Trainer, jobs: TrainingJobs) -> None:
        faulty, sound = trainer.submit(jobs.faulty, _silent), trainer.submit(jobs.quick(0), _silent)
        assert sound.result(WAIT_S).key == trainer.key(jobs.quick(0))
        assert isinstance(faulty.exception(WAIT_S), UserError)

    def test_abandon_stops_every_training_but_one(self, trainer: Trainer, jobs: TrainingJobs) -> None:
        others = [trainer.submit(jobs.long(seed), _silent) for seed in range(2)]
        survivor = trainer.submit(jobs.quick(0), _silent)
        trainer.abandon(keep=trainer.key(jobs.quick(0)))
        assert survivor.result(WAIT_S).key == trainer.key(jobs.quick(0))
        for other in others:
            assert _is_over(other)

    def test_a_training_that_was_abandoned_can_be_submitted_again(self, trainer: Trainer, jobs: TrainingJobs) -> None:
        trainer.submit(jobs.long(0), _silent)
        trainer.submit(jobs.quick(0), _silent)
        trainer.abandon(keep="")
        assert trainer.submit(jobs.quick(0), _silent).result(WAIT_S).key == trainer.key(jobs.quick(0))

    def test_abandoning_where_nothing_runs_does_no_harm(self, trainer: Trainer, jobs: TrainingJobs) -> None:
        trainer.abandon(keep="")
        assert trainer.submit(jobs.quick(0), _silent).result(WAIT_S)

    def test_close_ends_what_runs_and_waits(self, reopen: Callable[[], Trainer], jobs: TrainingJobs) -> None:
        trainer = reopen()
        futures = [trainer.submit(jobs.long(seed), _silent) for seed in range(2)]
        trainer.close()
        for future in futures:
            assert _is_over(future)

    def test_closing_twice_does_no_harm(self, trainer: Trainer) -> None:
        trainer.close()
        trainer.close()


class NetworksContract:
    """Rules of the Networks port. Give it `networks`, and where the default is none of yours, `network`."""

    @pytest.fixture
    def network(self) -> NetworkSpec:
        return NetworkSpec(family="ds_cnn")

    @pytest.fixture
    def unusable(self) -> NetworkSpec:
        return NetworkSpec(factory="/no/such/file.py:build")

    def test_equal_networks_have_equal_sizes(self, networks: Networks, network: NetworkSpec) -> None:
        sizes = networks.describe(network, Task(), Data(), 4)
        assert sizes == networks.describe(network.model_copy(), Task(), Data(), 4)
        assert sizes.macs > 0

    def test_a_network_that_can_t_be_made_is_the_users_fault(self, networks: Networks, unusable: NetworkSpec) -> None:
        with pytest.raises((UserError, ModelError)):
            networks.describe(unusable, Task(), Data(), 4)

    def test_a_refusal_is_given_again(self, networks: Networks, network: NetworkSpec, unusable: NetworkSpec) -> None:
        for _ in range(2):
            with pytest.raises((UserError, ModelError)):
                networks.describe(unusable, Task(), Data(), 4)
        assert networks.describe(network, Task(), Data(), 4).macs > 0


def _silent(_what: str, _fraction: float) -> None:
    """Progress that nobody follows."""


def _is_over(future: Future[TrainedNetwork]) -> bool:
    """Wait for a training that should end: cancelled, failed by no fault of the user, or finished before."""
    try:
        future.result(WAIT_S)
    except (CancelledError, HarnessError):
        return True
    return future.done()
