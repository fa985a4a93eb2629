"""The loop (S701 to S706): obtain M1, measure it, then candidate after candidate until one is proven.

One controller decides and appends to the ledger. What can fail for reasons outside the network (a board, the
converter) never becomes a move: see `Controller._carry`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Campaign
from edgeloop.core.events import Asked, Built, Errored, Finished, Moved, PhaseDone, Started, Trained, Trial
from edgeloop.core.lightening import Lightening
from edgeloop.core.measurement import Attempt
from edgeloop.core.network import Candidate, NetworkSizes, NetworkSpec
from edgeloop.core.verdict import Outcome
from edgeloop.errors import BuildError, EdgeloopError, HarnessError, ModelError, ParityError, StationError, UserError
from edgeloop.method.lighten import degree
from edgeloop.method.measuring import Measuring, Proof, Reference
from edgeloop.method.memo import Memo
from edgeloop.method.moves import ranked
from edgeloop.method.phases import Phase, Source, phases
from edgeloop.ports import (
    Bench,
    Builder,
    Clock,
    Networks,
    Observer,
    Strategy,
    TrainedNetwork,
    Trainer,
    TrainingJob,
)


@dataclass(frozen=True, slots=True)
class Means:
    """What the controller works with; bootstrap chooses the adapters."""

    networks: Networks
    trainer: Trainer
    builder: Builder
    benches: Sequence[Bench]
    memo: Memo
    clock: Clock
    observer: Observer
    measuring: Measuring
    data_sha256: str
    channel_multiple: int
    has_room: Callable[[], bool]
    """Whether the disk that the run's folder is on has room for a training and a build."""
    versions: dict[str, str]
    campaign_key: str
    strategy: Callable[[NetworkSpec, NetworkSizes, int, Callable[[NetworkSpec], NetworkSizes]], Strategy]
    """(M1, its sizes, its deployed bytes, sizes of a network) -> the strategy of the campaign."""


class Controller:
    """Runs one campaign. A second controller over the same ledger goes on where the first one stopped."""

    def __init__(self, campaign: Campaign, reference: NetworkSpec, means: Means) -> None:
        self._campaign = campaign
        self._m1 = reference
        self._means = means
        self._memo = means.memo
        self._sizes: dict[NetworkSpec, NetworkSizes] = {}
        self._references: dict[str, Reference] = {}
        self._building = ThreadPoolExecutor(2, "edgeloop-build")  # one ahead never holds up one that is waited for
        self._builds: dict[str, Future[Artifact]] = {}

    def run(self) -> Finished:
        """Carry the campaign to its end. Raises UserError; BoardError and LabError leave the run resumable."""
        started = self._memo.once(Started, "", self._start)
        if started.campaign_key != self._means.campaign_key:
            raise UserError(
                "the campaign, or a file it names, is not the one this run was started with",
                next_step="start another run with --out DIR, or put the files back",
            )
        finished = self._memo.find(Finished, "")
        if finished is not None:
            return finished
        try:
            return self._memo.once(Finished, "", self._search)
        finally:
            self._building.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> Started:
        return Started(
            run_id=secrets.token_hex(8),
            campaign_name=self._campaign.name,
            campaign_key=self._means.campaign_key,
            versions=self._means.versions,
            targets=tuple(bench.board.name for bench in self._means.benches),
        )

    # S701: the reference network, as an artifact that is measured like every other

    def _obtain_reference(self) -> Strategy:
        """Make and measure M1; what will be asked first is trained meanwhile."""
        reference = self._campaign.reference
        candidate = Candidate(
            network=self._m1, lightening=reference.lightening, engine=reference.engine, threads=reference.threads
        )
        self._ask(0, candidate, "the reference network M1, measured as it would be deployed", None, None)
        artifact = self._make(0, candidate)
        sizes = self._describe(self._m1)
        strategy = self._means.strategy(self._m1, sizes, artifact.deployed_bytes, self._describe)
        for bench in self._means.benches:
            self._references[bench.board.name] = self._means.measuring.reference(
                bench, candidate, artifact, lambda bench, work: self._run_on(bench, work, strategy)
            )
        return strategy

    def _search(self) -> Finished:
        strategy = self._obtain_reference()
        number = 0
        while True:
            ended = self._budget_ended(number)
            if ended is not None and self._memo.find(Asked, str(number + 1)) is None:
                return self._none_passed(ended)
            asked = strategy.ask()
            if asked is None:
                return self._none_passed("nothing is left to ask: every network and rung of the search was tried")
            number += 1
            candidate, why = asked
            evaluation, predicted = strategy.rating(candidate)
            self._ask(number, candidate, why, evaluation, predicted)
            proof = self._carry(number, candidate, strategy)
            direction, sentence = strategy.tell(self._trial(number))
            self._memo.append(Moved(trial=number, direction=direction, sentence=sentence))
            if proof is Proof.PROVEN:
                return self._passed(number)
            if proof is Proof.REFUTED:
                return self._refuted(number)

    def _budget_ended(self, trials: int) -> str | None:
        budget = self._campaign.budget
        if trials >= budget.trials:
            return f"the budget of {budget.trials} trials is used up"
        if self._memo.wall_s >= budget.wall_minutes * 60:
            return f"the budget of {budget.wall_minutes:g} minutes is used up"
        return None

    def _ask(
        self, number: int, candidate: Candidate, why: str, evaluation: float | None, predicted: int | None
    ) -> None:
        def make() -> Asked:
            sizes = self._describe(candidate.network)
            return Asked(
                trial=number,
                role="candidate" if number else "reference",
                candidate=candidate,
                sizes=sizes,
                degree=degree(sizes, Lightening.parse(candidate.lightening)),
                evaluation=evaluation,
                predicted_bytes=predicted,
                why=why,
            )

        asked = self._memo.once(Asked, number, make)
        if asked.candidate != candidate:
            raise HarnessError(
                f"ledger: trial {number} was {asked.candidate}, this version would ask {candidate}",
                next_step="resume with the version that began the run, or start another with --out DIR",
            )

    def _carry(self, number: int, candidate: Candidate, strategy: Strategy) -> Proof:
        """Train, build, measure, judge. An error of the harness or the model closes the trial, not the run.

        What closed a trial stands: a resumed run does not try it again.
        """
        if self._memo.find(Errored, str(number)) is not None:
            return Proof.OPEN
        try:
            artifact = self._make(number, candidate)
            return self._means.measuring.candidate(
                number,
                candidate,
                artifact,
                self._references,
                self._means.benches,
                lambda bench, work: self._run_on(bench, work, strategy),
            )
        except (HarnessError, ModelError) as error:
            stage = "parity" if isinstance(error, ParityError) else "build" if isinstance(error, BuildError) else None
            self._errored(number, error, stage)
            return Proof.OPEN

    def _errored(self, number: int, error: EdgeloopError, stage: str | None) -> None:
        trial = self._trial(number)
        reached = stage or ("train" if trial.trained is None else "build" if trial.built is None else "measure")
        self._memo.append(
            Errored.model_validate(
                {"trial": number, "stage": reached, "owner": error.owner, "message": "; ".join(error.lines())}
            )
        )

    # S702 to S704: networks, trainings, artifacts

    def _describe(self, network: NetworkSpec) -> NetworkSizes:
        plain = network.model_copy(update={"weights": None, "weights_sha256": None})
        if plain not in self._sizes:
            campaign = self._campaign
            self._sizes[plain] = self._means.networks.describe(
                plain, campaign.task, campaign.data, self._means.channel_multiple
            )
        return self._sizes[plain]

    def _job(self, phase: Phase, done: Mapping[Source, TrainedNetwork]) -> TrainingJob:
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
            teacher=folder(phase.teacher),
            goes_on_from=str(beside / phase.goes_on_from) if beside and phase.goes_on_from else None,
            channel_multiple=self._means.channel_multiple,
        )

    def _phases(self, candidate: Candidate) -> list[Phase]:
        fine_tunes = self._campaign.training.schedule == "patent3"
        return phases(candidate, self._m1, self._memo.trials(), fine_tunes=fine_tunes)

    def _make(self, number: int, candidate: Candidate) -> Artifact:
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

    def _trained_and_built(self, number: int, candidate: Candidate) -> Artifact:
        trained_event = self._memo.find(Trained, str(number))
        built_event = self._memo.find(Built, str(number))
        if trained_event is not None and built_event is not None:
            return built_event.artifact
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
                self._means.builder.warm_up()
                self._means.observer.stage(number, f"training {_named(job)}: {phase}")
            trained = done[phase.gives] = future.result()
            told.append(_told(phase, trained, done))
        self._memo.append(
            Trained(
                trial=number,
                key=trained.key,
                parent=told[-1].parent,
                seconds=self._means.clock.monotonic_s() - began,
                epochs=trained.epochs,
                validation=trained.validation,
                lightened=trained.lightened,
                ahead=ahead,
                phases=tuple(told),
            )
        )
        return self._build(number, candidate, trained)

    def _build(self, number: int, candidate: Candidate, trained: TrainedNetwork) -> Artifact:
        self._means.observer.stage(number, f"building {candidate}")
        began = self._means.clock.monotonic_s()
        artifact = self._start_build(trained, candidate.lightening).result()
        self._memo.append(
            Built(
                trial=number,
                key=self._means.builder.key(trained, candidate.lightening),
                artifact=artifact,
                seconds=self._means.clock.monotonic_s() - began,
                converted=self._means.measuring.on_host(self._means.builder, artifact),
            )
        )
        return artifact

    def _start_build(self, trained: TrainedNetwork, lightening: str) -> Future[Artifact]:
        """Build, or join the build that was started ahead."""
        key = self._means.builder.key(trained, lightening)
        if key not in self._builds:
            self._builds[key] = self._building.submit(self._means.builder.build, trained, lightening)
        return self._builds[key]

    def _training_progress(self, what: str, fraction: float) -> None:
        self._means.observer.progress(what, fraction, 1.0)

    # while a remote board measures, the host trains and builds what may be asked next

    def _run_on(self, bench: Bench, work: Callable[[], Attempt], strategy: Strategy) -> Attempt:
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
        building = self._start_build(trained, candidate.lightening)
        _first_of(building, measuring)
        return building.done()

    # S706: the end

    def _trial(self, number: int) -> Trial:
        return next(trial for trial in self._memo.trials() if trial.number == number)

    def _passed(self, number: int) -> Finished:
        trial = self._trial(number)
        where = ", ".join(bench.board.name for bench in self._means.benches)
        return Finished(
            exit_code=0,
            best=number,
            sentence=f"trial {number}, {trial.candidate}, passed every limit on {where}: confirmed on validation data, "
            "and once on test data that nothing had seen",
        )

    def _refuted(self, number: int) -> Finished:
        trial = self._trial(number)
        verdict = trial.judged[-1].verdict
        failed = verdict.outcome is Outcome.FAIL
        told = "; ".join(f.reason for f in verdict.findings if f.outcome is not Outcome.PASS) or "; ".join(
            verdict.reasons
        )
        return Finished(
            exit_code=1 if failed else 3,
            best=number,
            sentence=f"trial {number}, {trial.candidate}, was confirmed on validation data and is "
            f"{verdict.outcome.value} on test data, which may be looked at once: {told}",
        )

    def _none_passed(self, why: str) -> Finished:
        """Nothing passed; exit code 3 where nothing could be measured either."""
        trials = [trial for trial in self._memo.trials() if trial.role == "candidate"]
        measured = [t for t in trials if t.outcome in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)]
        if not measured:
            reasons = [t.errored.message for t in trials if t.errored] or ["no candidate was measured"]
            return Finished(exit_code=3, best=None, sentence=f"{why}; no candidate could be judged: {reasons[-1]}")
        nearest = ranked(measured)[0]
        worst = nearest.measured.verdict.worst if nearest.measured else None
        missed = f": {worst.text}: {worst.reason}" if worst else ""
        return Finished(
            exit_code=1,
            best=nearest.number,
            sentence=f"none passed; {why}. The nearest miss is trial {nearest.number}, {nearest.candidate}{missed}",
        )


def _told(phase: Phase, trained: TrainedNetwork, done: Mapping[Source, TrainedNetwork]) -> PhaseDone:
    return PhaseDone(
        what=str(phase),
        key=trained.key,
        parent=done[phase.parent].key if phase.parent else None,
        teacher=done[phase.teacher].key if phase.teacher else None,
        goes_on_from=phase.goes_on_from,
        epochs=trained.epochs,
        validation=trained.lightened or trained.validation,
    )


def _named(job: TrainingJob) -> str:
    """`width 1.41 w8a8`; a float network that others start from is `width 1.41 fp32`."""
    return str(Candidate(network=job.network, lightening=job.lightening))


def _in_background(work: Callable[[], Attempt]) -> Future[Attempt]:
    """Run in a daemon thread: whoever interrupts the controller need not wait for a board to finish."""
    future: Future[Attempt] = Future()

    def carry_out() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 -- the thread's boundary: whoever waits gets it
            future.set_exception(error)

    Thread(target=carry_out, name="edgeloop-bench", daemon=True).start()
    return future


def _first_of(*futures: Future[Any]) -> None:
    wait(futures, return_when=FIRST_COMPLETED)
