"""Making what is measured (S702 to S704): sizes, trainings, artifacts, and what is made ahead while a board is busy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign
from edgeloop.core.events import ArtifactBuilt, NetworkTrained, PhaseDone, Split
from edgeloop.core.lightening import Lightening
from edgeloop.core.limits import LimitSet
from edgeloop.core.measurement import Attempt
from edgeloop.core.network import Candidate, Engine, NetworkSizes, NetworkSpec
from edgeloop.errors import EdgeloopError, HarnessError, StationError
from edgeloop.loop.external_measurements import ExternalMeasurement
from edgeloop.loop.measure_and_judge import MeasurementPolicy
from edgeloop.loop.replay import EventReplay
from edgeloop.loop.training_phases import Source, TrainingPhase, phases
from edgeloop.ports import (
    Bench,
    Builder,
    Clock,
    Networks,
    Observer,
    Progress,
    Strategy,
    TrainedNetwork,
    Trainer,
    TrainingJob,
)
from edgeloop.search.size_model import degree

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Adapters:
    """What the controller works with; bootstrap chooses the adapters."""

    networks: Networks
    trainer: Trainer
    builder_for: Callable[[Engine, Board], Builder]
    """What makes a network's file for an engine on a board; where two boards take the same file, the keys are equal."""
    benches: Sequence[Bench]
    memo: EventReplay
    clock: Clock
    observer: Observer
    measuring: MeasurementPolicy
    data_sha256: str
    channel_multiple: int
    has_room: Callable[[], bool]
    """Whether the disk that the run's folder is on has room for a training and a build."""
    versions: dict[str, str]
    campaign_key: str
    compared_by: tuple[LimitSet, frozenset[str]]
    """What a front is compared by: the limits, and the metrics where small is good."""
    strategy: Callable[[NetworkSpec, NetworkSizes, int, Callable[[NetworkSpec], NetworkSizes]], Strategy]
    """(M1, its sizes, its deployed bytes, sizes of a network) -> the strategy of the campaign."""
    first_larger: NetworkSpec | None = None
    """An M2 that is looked at before anything is trained, so that what is wrong with it is said early."""
    compilers: Mapping[str, Builder] = field(default_factory=dict)
    """What makes the file for each delegate that has a compiler of its own, by its name."""
    tuned: frozenset[Engine] = frozenset()
    """Engines whose builds measure on a board, and so are not made ahead while one measures."""
    own_m1: Mapping[Split, ExternalMeasurement] = field(default_factory=dict)
    """What an earlier walk was told of M1 by the caller, as `keep_own_m1` kept it."""
    keep_own_m1: Callable[[Mapping[Split, ExternalMeasurement]], None] = lambda _given: None


class TrainAndBuild:
    """Makes candidates for one campaign, each once."""

    def __init__(self, campaign: Campaign, m1: NetworkSpec, means: Adapters) -> None:
        self._campaign = campaign
        self._m1 = m1
        self._means = means
        self._memo = means.memo
        self._sizes: dict[NetworkSpec, NetworkSizes] = {}
        self._building = ThreadPoolExecutor(2, "edgeloop-build")  # one ahead never holds up one that is waited for
        self._builds: dict[str, Future[Artifact]] = {}

    def close(self) -> None:
        """Let go of builds that were started ahead."""
        self._building.shutdown(wait=False, cancel_futures=True)

    def describe(self, network: NetworkSpec) -> NetworkSizes:
        plain = network.model_copy(update={"weights": None, "weights_sha256": None})
        if plain not in self._sizes:
            campaign = self._campaign
            self._sizes[plain] = self._means.networks.describe(
                plain, campaign.task, campaign.data, self._means.channel_multiple
            )
        return self._sizes[plain]

    def sizes(self, candidate: Candidate) -> NetworkSizes:
        """What is built of a candidate: the network's sizes after pruning."""
        pruned_pct = Lightening.parse(candidate.lightening).pruned_pct
        return self.describe(candidate.network.pruned(pruned_pct) if pruned_pct else candidate.network)

    def _job(self, phase: TrainingPhase, done: Mapping[Source, TrainedNetwork]) -> TrainingJob:
        """The training of a phase, from the results of those before it."""
        campaign = self._campaign

        def folder(source: Source | None) -> str | None:
            return None if source is None else done[source].folder

        beside = Path(next(iter(done.values())).folder).parent if done else None
        return TrainingJob(
            network=phase.network,
            lightening=phase.lightening,
            task=campaign.task,
            data=campaign.data,
            data_sha256=self._means.data_sha256,
            recipe=campaign.training,
            parent=folder(phase.parent),
            widened_from=folder(phase.widens),
            teacher=folder(phase.teacher),
            goes_on_from=str(beside / phase.goes_on_from) if beside and phase.goes_on_from else None,
            channel_multiple=self._means.channel_multiple,
        )

    def _phases(self, candidate: Candidate) -> list[TrainingPhase]:
        fine_tunes = self._campaign.training.schedule == "patent3"
        return phases(candidate, self._m1, self._memo.trials(), fine_tunes=fine_tunes)

    def make(self, number: int, candidate: Candidate) -> ArtifactBuilt:
        """Train and build a candidate, or find both done.

        Raises StationError where the toolchain failed because this machine has no room left: that says nothing of
        the trial.
        """
        try:
            return self._trained_and_built(number, candidate)
        except HarnessError as error:
            if self._means.has_room():
                raise
            raise StationError(
                f"no room left on this machine's disk: {error.message}", next_step="make room, then go on with --resume"
            ) from error

    def _trained_and_built(self, number: int, candidate: Candidate) -> ArtifactBuilt:
        trained_event = self._memo.find(NetworkTrained, str(number))
        built_event = self._memo.find(ArtifactBuilt, str(number))
        if trained_event is not None and built_event is not None:
            return built_event
        done: dict[Source, TrainedNetwork] = {}
        told: list[PhaseDone] = []
        began, ahead = self._means.clock.monotonic_s(), True
        for phase in self._phases(candidate):
            job = self._job(phase, done)
            key = self._means.trainer.key(job)
            self._means.trainer.abandon(keep=key)
            future = self._means.trainer.submit(job, self._training_progress)
            if not future.done():
                ahead = False
                self._builders(candidate)[0].warm_up()
                self._means.observer.stage(number, _stage(job, phase))
            trained = done[phase.gives] = future.result()
            told.append(_told(phase, trained, done))
        self._memo.append(
            NetworkTrained(
                trial=number,
                key=trained.key,
                parent=told[-1].parent,
                seconds=self._means.clock.monotonic_s() - began,
                epochs=trained.epochs,
                validation=trained.validation,
                lightened=trained.lightened,
                ahead=ahead,
                layers=trained.layers,
                degree=self._degree(candidate, trained),
                phases=tuple(told),
            )
        )
        return self._build(number, candidate, trained)

    def _degree(self, candidate: Candidate, trained: TrainedNetwork) -> float | None:
        """G of a mixed rung, now that its layers are chosen; None where it is what was asked."""
        rung = Lightening.parse(candidate.lightening)
        if not rung.is_mixed:
            return None
        low = sum(layer.weights for layer in trained.layers if layer.bits < 8)
        return degree(self.sizes(candidate), rung, before=self.describe(candidate.network), low=low)

    def _build(self, number: int, candidate: Candidate, trained: TrainedNetwork) -> ArtifactBuilt:
        self._means.observer.stage(number, f"building {candidate}")
        began = self._means.clock.monotonic_s()
        builders, targets = self._builders(candidate), [bench.board.name for bench in self._means.benches]
        # One after the other: a build that is tuned is measured on its board meanwhile.
        artifacts = [self._finished_build(self._start_build(builder, trained, candidate)) for builder in builders]
        first = artifacts[0]
        built = ArtifactBuilt(
            trial=number,
            key=builders[0].key(trained, candidate.lightening),
            artifact=first,
            seconds=self._means.clock.monotonic_s() - began,
            converted=self._means.measuring.on_host(builders[0], first),
            elsewhere={t: a for t, a in zip(targets, artifacts, strict=True) if a.sha256 != first.sha256},
        )
        self._memo.append(built)
        return built

    def _builders(self, candidate: Candidate) -> list[Builder]:
        """One for each board, in their order."""
        if candidate.delegate is not None and candidate.delegate in self._means.compilers:
            return [self._means.compilers[candidate.delegate]] * len(self._means.benches)
        return [self._means.builder_for(candidate.engine, bench.board) for bench in self._means.benches]

    def _start_build(self, builder: Builder, trained: TrainedNetwork, candidate: Candidate) -> str:
        """Build, or join the build that was started ahead; return its key."""
        key = builder.key(trained, candidate.lightening)
        if key not in self._builds and candidate.engine in self._means.tuned:
            self._builds[key] = _in_background(lambda: builder.build(trained, candidate.lightening))
        elif key not in self._builds:
            self._builds[key] = self._building.submit(builder.build, trained, candidate.lightening)
        return key

    def _finished_build(self, key: str) -> Artifact:
        """Wait for a build. One that failed is not a candidate's for good: another with the same file tries again."""
        try:
            return self._builds[key].result()
        except EdgeloopError:
            del self._builds[key]
            raise

    def _training_progress(self, what: str, fraction: float) -> None:
        self._means.observer.progress(Progress(what, done=fraction, total=1.0))

    # while a remote board measures, the host trains and builds what may be asked next

    def run_on(self, bench: Bench, work: Callable[[], Attempt], strategy: Strategy) -> Attempt:
        if bench.board.shares_host:
            return work()
        measuring = _in_background(work)
        for candidate in strategy.likely():
            if not self._make_ahead(candidate, measuring):
                break
        return measuring.result()

    def _make_ahead(self, candidate: Candidate, measuring: Future[Attempt]) -> bool:
        """Train and build while the board is busy; False when it is done and the result is waiting."""
        done: dict[Source, TrainedNetwork] = {}
        for phase in self._phases(candidate):
            if measuring.done():
                return False
            training = self._means.trainer.submit(self._job(phase, done), lambda _what, _fraction: None)
            _first_of(training, measuring)
            if not training.done():
                return False
            if training.cancelled() or training.exception() is not None:
                return True  # said when this candidate is asked, if it ever is
            trained = done[phase.gives] = training.result()
        if candidate.engine in self._means.tuned:
            return not measuring.done()
        for builder in self._builders(candidate):
            building = self._builds[self._start_build(builder, trained, candidate)]
            _first_of(building, measuring)
            if not building.done():
                return False
        return True


def _told(phase: TrainingPhase, trained: TrainedNetwork, done: Mapping[Source, TrainedNetwork]) -> PhaseDone:
    return PhaseDone(
        what=str(phase),
        key=trained.key,
        parent=done[phase.parent].key if phase.parent else None,
        teacher=done[phase.teacher].key if phase.teacher else None,
        goes_on_from=phase.goes_on_from,
        epochs=trained.epochs,
        validation=trained.lightened or trained.validation,
        note=trained.note,
    )


def _stage(job: TrainingJob, phase: TrainingPhase) -> str:
    return f"{'running' if job.network.file is not None else 'training'} {_named(job)}: {phase}"


def _named(job: TrainingJob) -> str:
    """`width 1.41 w8a8`; a float network that others start from is `width 1.41 fp32`; M1's file goes by its name."""
    if job.network.file is not None:
        return job.network.label
    return str(Candidate(network=job.network, lightening=job.lightening))


def _in_background(work: Callable[[], _T]) -> Future[_T]:
    """Run in a daemon thread: whoever interrupts the controller need not wait for a board to finish."""
    future: Future[_T] = Future()

    def carry_out() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 -- the thread's boundary: whoever waits gets it
            future.set_exception(error)

    Thread(target=carry_out, name="edgeloop-bench", daemon=True).start()
    return future


def _first_of(*futures: Future[Any]) -> None:
    wait(futures, return_when=FIRST_COMPLETED)
