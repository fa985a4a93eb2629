"""The judge's half of a trial (S705): the measurements that a candidate gets, in their order, and when it is proven.

A candidate is steered by the campaign's own plan. A quick plan passes nothing: what it does not fail is measured
again under the confirming plan, extended once where that is inconclusive (more sessions, and the validation samples
not used before), and what is confirmed has one look at test data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeloop.analysis.accuracy import Scores
from edgeloop.analysis.judge_job import judge_attempts
from edgeloop.analysis.plans import EXTENSION_SEED, job_deadline_s, schedule
from edgeloop.analysis.scoring import Scorer
from edgeloop.analysis.subject_data import subject_data
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign
from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.core.events import ArtifactBuilt, JobIntended, Judgement, RunStarted, SessionSeen, Split, Trial
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays, Attempt, MeasureRequest, PipelineFile, Subject
from edgeloop.core.network import Candidate
from edgeloop.core.plan import Plan
from edgeloop.core.verdict import Outcome
from edgeloop.errors import BoardError, HarnessError, LabError, ModelError, Owner
from edgeloop.loop.external_measurements import BASELINE, ExternalMeasurement, judge_external
from edgeloop.loop.replay import EventReplay
from edgeloop.ports import Bench, Builder, Clock, Observer
from edgeloop.sentences import Argument, Sentence

TRIES = 2
"""A measurement is tried so often before INVALID stands, or an ERROR of the lab."""


@dataclass(frozen=True, slots=True)
class MeasurementStage:
    """One step on a candidate's way: a plan on a split of the data, and which look at them it is."""

    plan: Plan
    split: Split
    look: int = 1
    looks: int = 1
    """The number of looks that the error is split between."""

    @property
    def may_be_extended(self) -> bool:
        """True where an inconclusive answer asks for more sessions and samples. Test data are looked at once."""
        return self.split == "validation" and self.looks > self.look


@dataclass(frozen=True, slots=True)
class ReferenceOnBoard:
    """M1 as it was measured on one board."""

    candidate: Candidate
    artifact: Artifact
    outputs: Arrays
    """On the validation samples that every first look uses."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A candidate that was built."""

    number: int
    candidate: Candidate
    build: ArtifactBuilt


@dataclass(frozen=True, slots=True)
class TrialOnBoard:
    """A trial on the board that a measurement is made on, beside the reference network there."""

    number: int
    candidate: Candidate
    artifact: Artifact
    bench: Bench
    reference: ReferenceOnBoard | None
    """None while M1 itself is measured."""


RunOn = Callable[[Bench, Callable[[], Attempt]], Attempt]
"""Carries out a measurement on a bench; the controller may use the time for something else."""


class MeasurementPolicy:
    """Measures and judges candidates for one campaign."""

    def __init__(
        self,
        *,
        campaign: Campaign,
        data: DataSet,
        scorer: Scorer,
        pipeline: PipelineFile | None,
        samples: Path,
        board_data: Callable[[DataSplit, str], Path],
        replay: EventReplay,
        clock: Clock,
        observer: Observer,
    ) -> None:
        """`board_data(split, name)` writes a split as the .npz that is pushed; `pipeline` is what the plan times."""
        self._campaign = campaign
        self._data = data
        self._scorer = scorer
        self._pipeline = pipeline
        self._samples = samples
        self._board_data = board_data
        self._replay = replay
        self._clock = clock
        self._observer = observer

    def measure_reference(
        self, bench: Bench, candidate: Candidate, artifact: Artifact, run_on: RunOn
    ) -> ReferenceOnBoard:
        """Measure M1 alone: its outputs on validation data, and whether the limits that need no reference hold.

        Raises BoardError where no measurement stayed inside the declared environment, LabError where a power meter
        gave nothing, ModelError where M1 does not run: nothing can be compared with it then.
        """
        trial = TrialOnBoard(0, candidate, artifact, bench, None)
        stage = MeasurementStage(self._campaign.plan, "validation")
        judgement, attempt = self._with_retry(lambda retry: self._once(trial, stage, retry, (), run_on))
        verdict, name = judgement.verdict, bench.board.name
        if verdict.outcome is Outcome.INVALID:
            by_share = judgement.trust is not None and judgement.trust.lasting
            change = (
                "reference.delegate, or the share in the board's file" if by_share else "the board or [environment]"
            )
            raise BoardError(
                f"{name}: M1 was measured outside what is declared: {verdict.reasons[0]}",
                next_step=Sentence("change {}, and start again with another {}", change, Argument("out")),
            )
        if verdict.outcome is Outcome.ERROR and verdict.owner is Owner.LAB:
            raise LabError(
                f"{name}: M1 was not measured: {'; '.join(verdict.reasons)}",
                next_step=Sentence("look at the lab's side of it, and start again with another {}", Argument("out")),
            )
        if verdict.outcome is Outcome.ERROR:
            raise ModelError(f"{name}: M1 does not run: {'; '.join(verdict.reasons)}")
        measurement = attempt or self._attempt_behind(trial, stage, run_on)
        return ReferenceOnBoard(candidate, artifact, measurement.outputs["candidate"])

    def confirm(
        self,
        contender: Contender,
        references: Mapping[str, ReferenceOnBoard],
        benches: Sequence[Bench],
        run_on: RunOn,
    ) -> Outcome:
        """Measure a built candidate on validation data, each stage on every board before the next one.

        PASS: confirmed on every board under a plan that may pass. Else the outcome that closed it.
        """

        def measure(stage: MeasurementStage) -> Outcome:
            return self._on_all(contender, references, benches, stage, run_on)

        plan = self._campaign.plan
        if not plan.may_pass and (outcome := measure(MeasurementStage(plan, "validation"))) is not Outcome.PASS:
            return outcome
        return measure(MeasurementStage(self._campaign.confirmation, "validation", looks=2))

    def prove(
        self,
        contender: Contender,
        references: Mapping[str, ReferenceOnBoard],
        benches: Sequence[Bench],
        run_on: RunOn,
        *,
        among: int = 1,
    ) -> Outcome:
        """Look once at test data. Where several networks are output together, they share the error `among` them."""
        stage = MeasurementStage(self._campaign.confirmation, "test", looks=among)
        return self._on_all(contender, references, benches, stage, run_on)

    def _on_all(
        self,
        contender: Contender,
        references: Mapping[str, ReferenceOnBoard],
        benches: Sequence[Bench],
        stage: MeasurementStage,
        run_on: RunOn,
    ) -> Outcome:
        """The first outcome that is no pass; a plan that only steers lets what it can't decide go on."""
        for bench in benches:
            name = bench.board.name
            trial = TrialOnBoard(
                contender.number, contender.candidate, contender.build.on(name), bench, references[name]
            )
            outcome = self._measure_and_extend(trial, stage, run_on)
            goes_on = outcome is Outcome.INCONCLUSIVE and not stage.plan.may_pass
            if outcome is not Outcome.PASS and not goes_on:
                return outcome
        return Outcome.PASS

    def judge_external(self, trial: Trial, figures: ExternalMeasurement, split: Split) -> Judgement:
        """Judge figures that the caller measured. Raises UserError where they can't be judged."""
        return judge_external(
            figures,
            run_id=self._run_id,
            trial=trial.number,
            candidate=trial.candidate,
            split=split,
            limits=self._campaign.limits,
            plan=self._campaign.confirmation,
            scorer=self._scorer,
        )

    def on_host(self, builder: Builder, artifact: Artifact) -> dict[str, float]:
        """Metrics of the built model on the host, over the validation samples that the board will see."""
        split = self._split("validation", 1)
        outputs = builder.predict(artifact, split.x)
        return self._scorer.values(outputs, self._scorer.targets(split.x, split.y))

    def _measure_and_extend(self, trial: TrialOnBoard, stage: MeasurementStage, run_on: RunOn) -> Outcome:
        """Measure and judge; an inconclusive confirmation is extended once, and judged over both looks."""
        judgement, attempt = self._with_retry(lambda retry: self._once(trial, stage, retry, (), run_on))
        if judgement.verdict.outcome is Outcome.INCONCLUSIVE and stage.may_be_extended:
            first = attempt or self._attempt_behind(trial, stage, run_on)
            second = replace(stage, look=2)
            judgement, _ = self._with_retry(lambda retry: self._once(trial, second, retry, (first,), run_on))
        return judgement.verdict.outcome

    def _with_retry(
        self, measure: Callable[[int], tuple[Judgement, Attempt | None]]
    ) -> tuple[Judgement, Attempt | None]:
        """Measure; what the board's or the lab's conditions spoilt is measured again before that stands."""
        judgement, attempt = measure(0)
        for retry in range(1, TRIES):
            if not _is_spoilt(judgement):
                break
            judgement, attempt = measure(retry)
        return judgement, attempt

    def _attempt_behind(self, trial: TrialOnBoard, stage: MeasurementStage, run_on: RunOn) -> Attempt:
        """The attempt behind a judgement of an earlier walk: its samples are on disk, nothing is measured."""
        for retry in range(TRIES):
            request = self._request(trial, stage, retry)
            judgement = self._replay.judgement_of(trial.number, request.key)
            if judgement is not None and not _is_spoilt(judgement):
                return self._measure(trial, stage, request, run_on)
        raise HarnessError(f"ledger: trial {trial.number} was judged, and its samples are not in {self._samples}")

    def _once(
        self, trial: TrialOnBoard, stage: MeasurementStage, retry: int, before: tuple[Attempt, ...], run_on: RunOn
    ) -> tuple[Judgement, Attempt | None]:
        """One measurement and its judgement; where the ledger has it, the judgement alone."""
        request = self._request(trial, stage, retry)
        earlier = self._replay.judgement_of(trial.number, request.key)
        if earlier is not None:
            return earlier, None
        began = self._clock.monotonic_s()
        attempt = self._measure(trial, stage, request, run_on)
        judgement = self._judge(trial, stage, request, (*before, attempt), self._clock.monotonic_s() - began)
        self._replay.append(judgement)
        return judgement, attempt

    @property
    def _run_id(self) -> str:
        start = self._replay.find(RunStarted, "")
        assert start is not None, "a run measures after it has started"
        return start.run_id

    def _split(self, split: Split, look: int) -> DataSplit:
        """First looks and test data use the first samples; an extension uses all there are."""
        whole = self._data.validation if split == "validation" else self._data.test
        return whole if look > 1 else whole.head(self._campaign.data.board_samples_max)

    def _request(self, trial: TrialOnBoard, stage: MeasurementStage, retry: int) -> MeasureRequest:
        candidate, board = trial.candidate, trial.bench.board
        subjects = [_subject("candidate", trial.artifact, candidate, board)]
        latency_labels, evaluate_labels = ["candidate"], ["candidate"]
        if (m1 := trial.reference) is not None:
            if self._campaign.limits.interleaves_reference:
                latency_labels.append("reference")
            if stage.split == "test" or stage.look > 1:
                evaluate_labels.append("reference")
            if len(latency_labels) > 1 or len(evaluate_labels) > 1:
                subjects.append(_subject("reference", m1.artifact, m1.candidate, board))
        split = self._split(stage.split, stage.look)
        plan = stage.plan.model_copy(update={"seed": stage.plan.seed + EXTENSION_SEED * (stage.look - 1) + retry})
        key = key_of(
            "measurement",
            self._run_id,
            [board.name, board.model.name],
            [subject.words for subject in subjects],
            plan,
            self._campaign.environment,
            [stage.split, stage.look, retry, self._data.sha256, len(split)],
            *([] if self._pipeline is None else [self._pipeline.sha256]),
        )
        energy_labels = ["candidate"] if self._campaign.limits.needs_energy else []
        return MeasureRequest(
            key=key,
            subjects=tuple(subjects),
            schedule=schedule(latency_labels, evaluate_labels, plan, energy_labels),
            plan=plan,
            environment=self._campaign.environment,
            folder=self._samples / key[:32],
            data=self._board_data(split, f"{stage.split}-{len(split)}"),
            pipeline=self._pipeline,
            deadline_s=job_deadline_s(
                plan,
                len(latency_labels),
                len(split),
                energies=len(energy_labels),
                waiting_s=self._campaign.environment.on(board.environment).waiting_s_max,
            ),
        )

    def _measure(self, trial: TrialOnBoard, stage: MeasurementStage, request: MeasureRequest, run_on: RunOn) -> Attempt:
        board = trial.bench.board
        self._observer.stage(
            trial.number, f"measuring {trial.candidate} on {board.name} ({request.plan.profile}, {stage.split})"
        )
        self._replay.append(
            JobIntended(
                trial=trial.number,
                job_key=request.key,
                target=board.name,
                plan=request.plan,
                split=stage.split,
                look=stage.look,
            )
        )
        attempt = run_on(trial.bench, lambda: trial.bench.measure(request, self._observer.progress))
        for session in attempt.sessions:
            self._replay.append(
                SessionSeen(
                    trial=trial.number,
                    job_key=request.key,
                    index=session.index,
                    label=session.label,
                    outcome=session.outcome,
                    detail=session.detail,
                )
            )
        return attempt

    def _judge(
        self,
        trial: TrialOnBoard,
        stage: MeasurementStage,
        request: MeasureRequest,
        attempts: tuple[Attempt, ...],
        seconds: float,
    ) -> Judgement:
        """Judge over the sessions of every look, and the outputs of the last one, which saw the most samples."""
        board, limits, last = trial.bench.board, self._campaign.limits, attempts[-1]
        sessions = tuple(session for attempt in attempts for session in attempt.sessions)
        outputs = last.outputs.get("candidate")
        beside = last.outputs.get("reference")
        if trial.reference is None:
            absolute = tuple(limit for limit in limits.limit if not limit.needs_reference)
            limits = limits.model_copy(update={"limit": absolute})
        elif beside is None:
            beside = trial.reference.outputs
        split = self._split(stage.split, stage.look)
        subjects = {subject.label: subject for subject in request.subjects}
        candidate = subject_data(
            subjects["candidate"],
            last.engine_versions.get("candidate", trial.candidate.engine),
            sessions,
            self._scores(split, outputs),
            self._scorer.agreement_scores(outputs, beside) if outputs and beside else None,
        )
        reference = None
        if (m1 := trial.reference) is not None:
            subject = _subject("reference", m1.artifact, m1.candidate, board)
            version = last.engine_versions.get("reference", m1.candidate.engine)
            reference = subject_data(subject, version, sessions, self._scores(split, beside))
        judgement = judge_attempts(
            request,
            board,
            attempts,
            limits,
            candidate,
            reference,
            trial=trial.number,
            split=stage.split,
            look=stage.look,
            looks=stage.looks,
            seconds=seconds,
        )
        if limits.limit or judgement.verdict.outcome is Outcome.INVALID:
            return judgement
        return judgement.model_copy(update={"verdict": BASELINE})

    def _scores(self, split: DataSplit, outputs: Arrays | None) -> dict[str, Scores]:
        return self._scorer.scores(outputs, self._scorer.targets(split.x, split.y)) if outputs else {}


def _subject(label: str, artifact: Artifact, candidate: Candidate, board: Board) -> Subject:
    """Return what runs on a board: the delegate is the board's own of that name. Raises UserError where it has none."""
    delegate = board.delegate_named(candidate.delegate)
    return Subject(label, artifact, candidate.engine, candidate.threads, delegate=delegate)


def _is_spoilt(judgement: Judgement) -> bool:
    """True where it says nothing of the network, and a retry may: outside the environment, or nobody could see.

    A delegate that did not take its share takes no more of the same network next time.
    """
    verdict = judgement.verdict
    if judgement.trust is not None and judgement.trust.lasting:
        return False
    return verdict.outcome is Outcome.INVALID or (verdict.outcome is Outcome.ERROR and verdict.owner is Owner.LAB)
