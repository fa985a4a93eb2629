"""From a candidate to its file (S702 to S704): sizes, trainings, artifacts; and work ahead while a board is busy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Campaign
from edgeloop.core.events import ArtifactBuilt, NetworkTrained, PhaseDone
from edgeloop.core.lightening import Lightening
from edgeloop.core.measurement import Attempt
from edgeloop.core.network import Candidate, NetworkSizes, NetworkSpec
from edgeloop.errors import EdgeloopError, HarnessError, StationError
from edgeloop.loop.adapters import Adapters, RunFacts
from edgeloop.loop.replay import EventReplay
from edgeloop.loop.training_phases import Source, TrainingPhase, phases
from edgeloop.ports import Bench, Builder, Progress, Strategy, TrainedNetwork, TrainingJob
from edgeloop.search.size_model import degree
from edgeloop.sentences import Argument, Sentence

_T = TypeVar("_T")


class TrainAndBuild:
    """Trains and builds candidates for one campaign, each once."""

    def __init__(
        self,
        campaign: Campaign,
        m1: NetworkSpec,
        adapters: Adapters,
        facts: RunFacts,
        replay: EventReplay,
        on_host: Callable[[Builder, Artifact], dict[str, float]],
    ) -> None:
        """`on_host` gives the metrics of a built model on this host."""
        self._campaign = campaign
        self._m1 = m1
        self._adapters = adapters
        self._facts = facts
        self._replay = replay
        self._on_host = on_host
        self._sizes: dict[NetworkSpec, NetworkSizes] = {}
        self._building = ThreadPoolExecutor(2, "edgeloop-build")  # one ahead never holds up one that is waited for
        self._builds: dict[str, Future[Artifact]] = {}

    def close(self) -> None:
        """Let go of builds that were started ahead."""
        self._building.shutdown(wait=False, cancel_futures=True)

    def describe(self, network: NetworkSpec) -> NetworkSizes:
        """Return the sizes of a network, asked for once. Raises as `ports.Networks.describe`."""
        plain = network.model_copy(update={"weights": None, "weights_sha256": None})
        if plain not in self._sizes:
            campaign = self._campaign
            self._sizes[plain] = self._adapters.networks.describe(
                plain, campaign.task, campaign.data, self._facts.channel_multiple
            )
        return self._sizes[plain]

    def sizes(self, candidate: Candidate) -> NetworkSizes:
        """Return the sizes of what is built of a candidate: those after pruning."""
        pruned_pct = Lightening.parse(candidate.lightening).pruned_pct
        return self.describe(candidate.network.without_channels(pruned_pct) if pruned_pct else candidate.network)

    def _job(self, phase: TrainingPhase, results: Mapping[Source, TrainedNetwork]) -> TrainingJob:
        """The training of a phase, from the results of those before it."""
        campaign = self._campaign

        def folder(source: Source | None) -> str | None:
            return None if source is None else results[source].folder

        beside = Path(next(iter(results.values())).folder).parent if results else None
        return TrainingJob(
            network=phase.network,
            lightening=phase.lightening,
            task=campaign.task,
            data=campaign.data,
            data_sha256=self._facts.data_sha256,
            recipe=campaign.training,
            parent=folder(phase.parent),
            widened_from=folder(phase.widens),
            teacher=folder(phase.teacher),
            goes_on_from=str(beside / phase.goes_on_from) if beside and phase.goes_on_from else None,
            channel_multiple=self._facts.channel_multiple,
        )

    def _phases(self, candidate: Candidate) -> list[TrainingPhase]:
        fine_tunes = self._campaign.training.schedule == "patent3"
        return phases(candidate, self._m1, self._replay.trials(), fine_tunes=fine_tunes)

    def make(self, number: int, candidate: Candidate) -> ArtifactBuilt:
        """Train and build a candidate, or find both done.

        Raises StationError where the toolchain failed because this machine has no room left: that says nothing of
        the trial.
        """
        try:
            return self._train_and_build(number, candidate)
        except HarnessError as error:
            if self._adapters.has_room():
                raise
            raise StationError(
                f"no room left on this machine's disk: {error.message}",
                next_step=Sentence("make room, then go on with {}", Argument("resume", value=True)),
            ) from error

    def _train_and_build(self, number: int, candidate: Candidate) -> ArtifactBuilt:
        training_event = self._replay.find(NetworkTrained, str(number))
        build_event = self._replay.find(ArtifactBuilt, str(number))
        if training_event is not None and build_event is not None:
            return build_event
        results: dict[Source, TrainedNetwork] = {}
        phase_events: list[PhaseDone] = []
        began, ahead = self._adapters.clock.monotonic_s(), True
        for phase in self._phases(candidate):
            job = self._job(phase, results)
            key = self._adapters.trainer.key(job)
            self._adapters.trainer.abandon(keep=key)
            future = self._adapters.trainer.submit(job, self._training_progress)
            if not future.done():
                ahead = False
                self._builders(candidate)[0].warm_up()
                self._adapters.observer.stage(number, _stage(job, phase))
            network = results[phase.gives] = future.result()
            phase_events.append(_phase_event(phase, network, results))
        self._replay.append(
            NetworkTrained(
                trial=number,
                key=network.key,
                parent=phase_events[-1].parent,
                seconds=self._adapters.clock.monotonic_s() - began,
                epochs=network.epochs,
                validation=network.validation,
                lightened=network.lightened,
                ahead=ahead,
                layers=network.layers,
                degree=self._degree(candidate, network),
                phases=tuple(phase_events),
            )
        )
        return self._build(number, candidate, network)

    def _degree(self, candidate: Candidate, network: TrainedNetwork) -> float | None:
        """G of a mixed rung, now that its layers are chosen; None where it is what was asked."""
        rung = Lightening.parse(candidate.lightening)
        if not rung.is_mixed:
            return None
        low = sum(layer.weights for layer in network.layers if layer.bits < rung.kept_bits)
        return degree(self.sizes(candidate), rung, before=self.describe(candidate.network), low=low)

    def _build(self, number: int, candidate: Candidate, network: TrainedNetwork) -> ArtifactBuilt:
        self._adapters.observer.stage(number, f"building {candidate}")
        began = self._adapters.clock.monotonic_s()
        builders, targets = self._builders(candidate), [bench.board.name for bench in self._adapters.benches]
        # One after the other: a build that is tuned is measured on its board meanwhile.
        artifacts = [self._await_build(self._start_build(builder, network, candidate)) for builder in builders]
        first = artifacts[0]
        event = ArtifactBuilt(
            trial=number,
            key=builders[0].key(network, candidate.lightening),
            artifact=first,
            seconds=self._adapters.clock.monotonic_s() - began,
            converted=self._on_host(builders[0], first),
            elsewhere={t: a for t, a in zip(targets, artifacts, strict=True) if a.sha256 != first.sha256},
        )
        self._replay.append(event)
        return event

    def _builders(self, candidate: Candidate) -> list[Builder]:
        """One for each board, in their order."""
        if candidate.delegate is not None and candidate.delegate in self._adapters.compilers:
            return [self._adapters.compilers[candidate.delegate]] * len(self._adapters.benches)
        return [self._adapters.builder_for(candidate.engine, bench.board) for bench in self._adapters.benches]

    def _start_build(self, builder: Builder, network: TrainedNetwork, candidate: Candidate) -> str:
        """Build, or join the build that was started ahead; return its key."""
        key = builder.key(network, candidate.lightening)
        if key not in self._builds and candidate.engine in self._facts.tuned_engines:
            self._builds[key] = _in_background(lambda: builder.build(network, candidate.lightening))
        elif key not in self._builds:
            self._builds[key] = self._building.submit(builder.build, network, candidate.lightening)
        return key

    def _await_build(self, key: str) -> Artifact:
        """Wait for a build. One that failed is not a candidate's for good: another with the same file tries again."""
        try:
            return self._builds[key].result()
        except EdgeloopError:
            del self._builds[key]
            raise

    def _training_progress(self, what: str, fraction: float) -> None:
        self._adapters.observer.progress(Progress(what, done=fraction, total=1.0))

    # while a remote board measures, the host trains and builds what may be asked next

    def run_on(self, bench: Bench, work: Callable[[], Attempt], strategy: Strategy) -> Attempt:
        """Carry out a measurement; while a remote board is busy, make what the strategy may ask next."""
        if bench.board.shares_host:
            return work()
        measuring = _in_background(work)
        for candidate in strategy.likely():
            if not self._make_ahead(candidate, measuring):
                break
        return measuring.result()

    def _make_ahead(self, candidate: Candidate, measuring: Future[Attempt]) -> bool:
        """Train and build while the board is busy; False when it is done and the result is waiting."""
        results: dict[Source, TrainedNetwork] = {}
        for phase in self._phases(candidate):
            if measuring.done():
                return False
            training = self._adapters.trainer.submit(self._job(phase, results), lambda _label, _fraction: None)
            _first_of(training, measuring)
            if not training.done():
                return False
            if training.cancelled() or training.exception() is not None:
                return True  # said when this candidate is asked, if it ever is
            network = results[phase.gives] = training.result()
        if candidate.engine in self._facts.tuned_engines:
            return not measuring.done()
        for builder in self._builders(candidate):
            building = self._builds[self._start_build(builder, network, candidate)]
            _first_of(building, measuring)
            if not building.done():
                return False
        return True


def _phase_event(phase: TrainingPhase, network: TrainedNetwork, results: Mapping[Source, TrainedNetwork]) -> PhaseDone:
    return PhaseDone(
        what=str(phase),
        key=network.key,
        parent=results[phase.parent].key if phase.parent else None,
        teacher=results[phase.teacher].key if phase.teacher else None,
        goes_on_from=phase.goes_on_from,
        epochs=network.epochs,
        validation=network.lightened or network.validation,
        note=network.note,
    )


def _stage(job: TrainingJob, phase: TrainingPhase) -> str:
    return f"{'running' if job.network.file is not None else 'training'} {_job_name(job)}: {phase}"


def _job_name(job: TrainingJob) -> str:
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
