"""The judge's half of a trial (S705): which measurements a candidate gets, in which order, and when it is proven.

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
from edgeloop.loop.external_measurements import BASELINE, ExternalMeasurement, judged_figures
from edgeloop.loop.replay import EventReplay
from edgeloop.ports import Bench, Builder, Clock, Observer
from edgeloop.sentences import Argument, Sentence

TRIES = 2
"""How often a measurement is taken before INVALID stands, or an ERROR of the lab."""


@dataclass(frozen=True, slots=True)
class MeasurementStage:
    """One measurement that is asked for."""

    plan: Plan
    split: Split
    look: int = 1
    looks: int = 1
    """How many looks the error is split between."""

    @property
    def may_be_extended(self) -> bool:
        """Whether an inconclusive answer asks for more sessions and samples. Test data are looked at once."""
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
    built: ArtifactBuilt


@dataclass(frozen=True, slots=True)
class TrialOnBoard:
    """The trial that a measurement belongs to: what is measured, where, beside what."""

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
        memo: EventReplay,
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
        self._memo = memo
        self._clock = clock
        self._observer = observer

    def reference(self, bench: Bench, candidate: Candidate, artifact: Artifact, run_on: RunOn) -> ReferenceOnBoard:
        """Measure M1 alone: its outputs on validation data, and whether the limits that need no reference hold.

        Raises BoardError where no measurement stayed inside the declared environment, LabError where a power meter
        gave nothing, ModelError where M1 does not run: nothing can be compared with it then.
        """
        trial = TrialOnBoard(0, candidate, artifact, bench, None)
        question = MeasurementStage(self._campaign.plan, "validation")
        judged, attempt = self._taken(lambda take: self._once(trial, question, take, (), run_on))
        if judged.verdict.outcome is Outcome.INVALID:
            delegated = judged.trust is not None and judged.trust.lasting
            change = (
                "reference.delegate, or the share in the board's file" if delegated else "the board or [environment]"
            )
            raise BoardError(
                f"{bench.board.name}: M1 was measured outside what is declared: {judged.verdict.reasons[0]}",
                next_step=Sentence("change {}, and start again with another {}", change, Argument("out")),
            )
        if judged.verdict.outcome is Outcome.ERROR and judged.verdict.owner is Owner.LAB:
            raise LabError(
                f"{bench.board.name}: M1 was not measured: {'; '.join(judged.verdict.reasons)}",
                next_step=Sentence("look at the lab's side of it, and start again with another {}", Argument("out")),
            )
        if judged.verdict.outcome is Outcome.ERROR:
            raise ModelError(f"{bench.board.name}: M1 does not run: {'; '.join(judged.verdict.reasons)}")
        return ReferenceOnBoard(
            candidate, artifact, (attempt or self._again(trial, question, run_on)).outputs["candidate"]
        )

    def confirm(
        self,
        contender: Contender,
        references: Mapping[str, ReferenceOnBoard],
        benches: Sequence[Bench],
        run_on: RunOn,
    ) -> Outcome:
        """Measure a built candidate on validation data, every question on every board before the next one.

        PASS: confirmed on every board under a plan that may pass. Else the outcome that closed it.
        """

        def ask(question: MeasurementStage) -> Outcome:
            return self._on_all(contender, references, benches, question, run_on)

        plan = self._campaign.plan
        if not plan.may_pass and (steered := ask(MeasurementStage(plan, "validation"))) is not Outcome.PASS:
            return steered
        return ask(MeasurementStage(self._campaign.confirmation, "validation", looks=2))

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
        question = MeasurementStage(self._campaign.confirmation, "test", looks=among)
        return self._on_all(contender, references, benches, question, run_on)

    def _on_all(
        self,
        contender: Contender,
        references: Mapping[str, ReferenceOnBoard],
        benches: Sequence[Bench],
        question: MeasurementStage,
        run_on: RunOn,
    ) -> Outcome:
        """The first outcome that is no pass; a plan that only steers lets what it can't decide go on."""
        for bench in benches:
            name = bench.board.name
            trial = TrialOnBoard(
                contender.number, contender.candidate, contender.built.on(name), bench, references[name]
            )
            outcome = self._ask(trial, question, run_on)
            steered = outcome is Outcome.INCONCLUSIVE and not question.plan.may_pass
            if outcome is not Outcome.PASS and not steered:
                return outcome
        return Outcome.PASS

    def judged_own(self, trial: Trial, figures: ExternalMeasurement, split: Split) -> Judgement:
        """Judge figures that the caller measured. Raises UserError where they can't be judged."""
        started = self._memo.find(RunStarted, "")
        assert started is not None, "a run measures after it has started"
        return judged_figures(
            figures,
            run_id=started.run_id,
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

    def _ask(self, trial: TrialOnBoard, question: MeasurementStage, run_on: RunOn) -> Outcome:
        """Measure and judge; an inconclusive confirmation is extended once, and judged over both looks."""
        judged, attempt = self._taken(lambda take: self._once(trial, question, take, (), run_on))
        if judged.verdict.outcome is Outcome.INCONCLUSIVE and question.may_be_extended:
            first = attempt or self._again(trial, question, run_on)
            extended = replace(question, look=2)
            judged, _ = self._taken(lambda take: self._once(trial, extended, take, (first,), run_on))
        return judged.verdict.outcome

    def _taken(self, measure: Callable[[int], tuple[Judgement, Attempt | None]]) -> tuple[Judgement, Attempt | None]:
        """Take a measurement; one that the board's or the lab's conditions spoilt is taken again before that stands."""
        judged, attempt = measure(0)
        for take in range(1, TRIES):
            if not _spoilt(judged):
                break
            judged, attempt = measure(take)
        return judged, attempt

    def _again(self, trial: TrialOnBoard, question: MeasurementStage, run_on: RunOn) -> Attempt:
        """The attempt behind a judgement of an earlier walk: its samples are on disk, nothing is measured."""
        for take in range(TRIES):
            request = self._request(trial, question, take)
            judged = self._memo.judged(trial.number, request.key)
            if judged is not None and not _spoilt(judged):
                return self._measure(trial, question, request, run_on)
        raise HarnessError(f"ledger: trial {trial.number} was judged, and its samples are not in {self._samples}")

    def _once(
        self, trial: TrialOnBoard, question: MeasurementStage, take: int, before: tuple[Attempt, ...], run_on: RunOn
    ) -> tuple[Judgement, Attempt | None]:
        """One measurement and its judgement; where the ledger has it, the judgement alone."""
        request = self._request(trial, question, take)
        found = self._memo.judged(trial.number, request.key)
        if found is not None:
            return found, None
        began = self._clock.monotonic_s()
        attempt = self._measure(trial, question, request, run_on)
        judged = self._judged(trial, question, request, (*before, attempt), self._clock.monotonic_s() - began)
        self._memo.append(judged)
        return judged, attempt

    def _split(self, split: Split, look: int) -> DataSplit:
        """First looks and test data use the first samples; an extension uses all there are."""
        whole = self._data.validation if split == "validation" else self._data.test
        return whole if look > 1 else whole.head(self._campaign.data.board_samples_max)

    def _request(self, trial: TrialOnBoard, question: MeasurementStage, take: int) -> MeasureRequest:
        candidate, board = trial.candidate, trial.bench.board
        subjects = [_subject("candidate", trial.artifact, candidate, board)]
        timed, evaluated = ["candidate"], ["candidate"]
        if (m1 := trial.reference) is not None:
            if self._campaign.limits.interleaves_reference:
                timed.append("reference")
            if question.split == "test" or question.look > 1:
                evaluated.append("reference")
            if len(timed) > 1 or len(evaluated) > 1:
                subjects.append(_subject("reference", m1.artifact, m1.candidate, board))
        split = self._split(question.split, question.look)
        plan = question.plan.model_copy(
            update={"seed": question.plan.seed + EXTENSION_SEED * (question.look - 1) + take}
        )
        started = self._memo.find(RunStarted, "")
        assert started is not None, "a run measures after it has started"
        key = key_of(
            "measurement",
            started.run_id,
            [board.name, board.model.name],
            [subject.words for subject in subjects],
            plan,
            self._campaign.environment,
            [question.split, question.look, take, self._data.sha256, len(split)],
            *([] if self._pipeline is None else [self._pipeline.sha256]),
        )
        metered = ["candidate"] if self._campaign.limits.needs_energy else []
        return MeasureRequest(
            key=key,
            subjects=tuple(subjects),
            schedule=schedule(timed, evaluated, plan, metered),
            plan=plan,
            environment=self._campaign.environment,
            folder=self._samples / key[:32],
            data=self._board_data(split, f"{question.split}-{len(split)}"),
            pipeline=self._pipeline,
            deadline_s=job_deadline_s(
                plan,
                len(timed),
                len(split),
                energies=len(metered),
                waiting_s=self._campaign.environment.on(board.environment).waiting_s_max,
            ),
        )

    def _measure(
        self, trial: TrialOnBoard, question: MeasurementStage, request: MeasureRequest, run_on: RunOn
    ) -> Attempt:
        board = trial.bench.board
        self._observer.stage(
            trial.number, f"measuring {trial.candidate} on {board.name} ({request.plan.profile}, {question.split})"
        )
        self._memo.append(
            JobIntended(
                trial=trial.number,
                job_key=request.key,
                target=board.name,
                plan=request.plan,
                split=question.split,
                look=question.look,
            )
        )
        attempt = run_on(trial.bench, lambda: trial.bench.measure(request, self._observer.progress))
        for session in attempt.sessions:
            self._memo.append(
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

    def _judged(
        self,
        trial: TrialOnBoard,
        question: MeasurementStage,
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
        split = self._split(question.split, question.look)
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
        found = judge_attempts(
            request,
            board,
            attempts,
            limits,
            candidate,
            reference,
            trial=trial.number,
            split=question.split,
            look=question.look,
            looks=question.looks,
            seconds=seconds,
        )
        if limits.limit or found.verdict.outcome is Outcome.INVALID:
            return found
        return found.model_copy(update={"verdict": BASELINE})

    def _scores(self, split: DataSplit, outputs: Arrays | None) -> dict[str, Scores]:
        return self._scorer.scores(outputs, self._scorer.targets(split.x, split.y)) if outputs else {}


def _subject(label: str, artifact: Artifact, candidate: Candidate, board: Board) -> Subject:
    """What runs on a board: the delegate is the board's own of that name. Raises UserError where it has none."""
    delegate = board.delegate_named(candidate.delegate)
    return Subject(label, artifact, candidate.engine, candidate.threads, delegate=delegate)


def _spoilt(judged: Judgement) -> bool:
    """Whether it says nothing of the network, and another take may: outside the environment, or nobody could see.

    A delegate that did not take its share takes no more of the same network next time.
    """
    verdict = judged.verdict
    if judged.trust is not None and judged.trust.lasting:
        return False
    return verdict.outcome is Outcome.INVALID or (verdict.outcome is Outcome.ERROR and verdict.owner is Owner.LAB)
