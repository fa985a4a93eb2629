"""Wiring `edgeloop compare`: two ready models, interleaved on one board under one lease, without torch."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

from rich.console import RenderableType

from edgeloop.analysis.accuracy import Scores
from edgeloop.analysis.comparison import Comparison, RatioStatistic, compare, in_words, worse_by
from edgeloop.analysis.judge_job import judge_attempts
from edgeloop.analysis.plans import undecidable
from edgeloop.analysis.scoring import Scorer, infer_task
from edgeloop.analysis.subject_data import SubjectData
from edgeloop.app.delegate_checks import asked_delegate
from edgeloop.app.request import (
    Checks,
    MeasurementJob,
    PlanCost,
    PlanWords,
    RequestSamples,
    board_names,
    exit_code,
    fits,
    for_board,
    run_job,
)
from edgeloop.board.retry import RetryingBench
from edgeloop.config.board_files import resolve
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import NO_DELEGATE, Board
from edgeloop.core.campaign import Task
from edgeloop.core.events import Judgement
from edgeloop.core.limits import LimitSet
from edgeloop.core.measurement import PipelineFile, Subject
from edgeloop.core.plan import Environment, Plan
from edgeloop.errors import ConfigError, DataError, Fault
from edgeloop.ports import Bench, Watch
from edgeloop.reports import comparison, document
from edgeloop.wiring.benches import open_board
from edgeloop.wiring.clock import SystemClock

_A, _B = "a", "b"


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What the command line asked for, as words."""

    a: Path
    b: Path
    target: str
    data: Path | None = None
    shapes: tuple[str, ...] = ()
    """`NAME=1,28,28,1`: the shapes of inputs that leave dimensions open, of A and B alike."""
    engine: str | None = None
    """None: tvm for a file that only it runs, else litert."""
    engine_b: str | None = None
    """None: what was said of A, and what runs B where nothing was."""
    threads: int = 1
    threads_b: int | None = None
    delegate: str = NO_DELEGATE
    delegate_b: str | None = None
    plan: PlanWords = field(default_factory=PlanWords)
    environment: Path | None = None
    """A file with what is declared; None declares the defaults."""
    worse_by_min_pct: float | None = None
    statistic: str = "p50"
    """What `worse_by_min_pct` is about."""


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """Two models, compared on one board."""

    judged: Judgement
    """Of B, with A as the reference."""
    comparison: Comparison
    a: Artifact
    b: Artifact
    asked: bool
    """Whether a verdict was asked for."""
    folders: tuple[Path, ...]
    """Of raw samples."""

    @property
    def exit_code(self) -> int:
        return exit_code(self.judged.verdict.outcome, asked=self.asked)

    def document(self) -> dict[str, Any]:
        return document.comparison(self.judged, self.comparison, self.a, self.b, limits_given=self.asked)

    def rendered(self) -> RenderableType:
        return comparison.report(self.judged, self.comparison, self.a, self.b, limits_given=self.asked)


@dataclass(frozen=True, slots=True)
class _CheckedComparison:
    boards: tuple[Board, ...]
    subjects: tuple[Subject, Subject]
    delegates: tuple[str | None, str | None]
    plan: Plan
    environment: Environment
    limits: LimitSet
    worse_by_min_pct: float
    samples: RequestSamples
    pipeline: PipelineFile | None
    scorer: Scorer
    undecidable: tuple[Fault, ...]


def compare_models(asked: CompareOptions, watch: Watch) -> list[ComparisonResult]:
    """Compare on every board that the target names. Raises UserError and its kind before anything is sent."""
    checked = _checked(asked)
    if checked.undecidable:
        raise ConfigError(checked.undecidable)
    return [_on(board, checked, watch) for board in checked.boards]


def dry_run(asked: CompareOptions) -> PlanCost:
    """Samples, minutes and undecidable limits. Reads models and data, reaches no board."""
    checked = _checked(asked)
    return PlanCost(board_names(checked.boards), checked.plan, 2, checked.samples.n, 1, checked.undecidable)


def _checked(asked: CompareOptions) -> _CheckedComparison:
    boards = resolve(asked.target, Path.cwd())
    checks = Checks()
    engines = (
        checks.engine(asked.engine, "--engine", asked.a),
        checks.engine(asked.engine_b or asked.engine, "--engine-b", asked.b),
    )
    plan = checks.plan(asked.plan)
    environment = checks.environment(asked.environment)
    threads, shapes = (asked.threads, asked.threads_b or asked.threads), checks.shapes(asked.shapes)
    word_b = asked.delegate if asked.delegate_b is None else asked.delegate_b
    delegates = (
        asked_delegate(asked.delegate, boards, engines[0], "--delegate", checks.faults),
        asked_delegate(word_b, boards, engines[1], "--delegate-b", checks.faults),
    )
    models = tuple(
        checks.artifact(
            model,
            engines[i],
            "AB"[i],
            words=asked.plan,
            threads=threads[i],
            shapes=shapes,
            delegated=delegates[i] is not None,
        )
        for i, model in enumerate((asked.a, asked.b))
    )
    samples = checks.samples(asked.data)
    pipeline = checks.pipeline(asked.plan, asked.data)
    if asked.statistic not in get_args(RatioStatistic):
        known = ", ".join(get_args(RatioStatistic))
        checks.faults.append(Fault("--statistic", f"{asked.statistic!r} is unknown", f"it is one of {known}"))
    checks.raise_all()
    a, b = models
    assert a is not None, "what could not be read is a fault"
    assert b is not None, "what could not be read is a fault"
    bare = samples.n is not None and pipeline is None
    for artifact in (a, b) if bare else ():
        fits(artifact, samples.x, str(asked.data))
    if bare and _sample_shapes(a) != _sample_shapes(b):
        shown = " and ".join(", ".join(map(str, _sample_shapes(artifact))) for artifact in (a, b))
        raise DataError(f"A and B give outputs of different shapes, {shown}", next_step="compare them without --data")
    limits, undecided = LimitSet(confidence=plan.confidence), []
    if asked.worse_by_min_pct is not None:
        limits = worse_by(asked.worse_by_min_pct, cast("RatioStatistic", asked.statistic), plan.confidence)
        undecided = undecidable(limits, plan, samples.n, has_reference=True, has_labels=bool(samples.y), looks=1)
        if not plan.may_pass:
            step = "leave out --worse-by-min-pct, or use standard"
            undecided.append(Fault("--profile", "a quick plan passes nothing", step))
    return _CheckedComparison(
        boards=tuple(boards),
        subjects=(Subject(_A, a, engines[0], threads[0]), Subject(_B, b, engines[1], threads[1])),
        delegates=delegates,
        plan=plan,
        environment=environment,
        limits=limits,
        worse_by_min_pct=asked.worse_by_min_pct or 0.0,
        samples=samples,
        pipeline=pipeline,
        scorer=Scorer(_task(samples, a, b)),
        undecidable=tuple(undecided),
    )


def _task(samples: RequestSamples, a: Artifact, b: Artifact) -> Task:
    """What both models are for. Without labels nothing is scored, and they agree where their outputs are near."""
    if not samples.y:
        return Task(kind="regression")
    of_a, of_b = (infer_task(samples.y, artifact.outputs) for artifact in (a, b))
    if of_a != of_b:
        raise DataError(f"A's outputs make this {of_a.kind}, B's make it {of_b.kind}: they can't be compared")
    return of_a


def _sample_shapes(artifact: Artifact) -> list[tuple[int, ...]]:
    return [tuple(spec.shape[1:]) for spec in artifact.outputs]


def _on(board: Board, checked: _CheckedComparison, watch: Watch) -> ComparisonResult:
    subjects = [
        replace(subject, delegate=board.delegate_named(name))
        for subject, name in zip(checked.subjects, checked.delegates, strict=True)
    ]
    with closing(RetryingBench(open_board(board))) as bench:
        a, b = (for_board(subject, bench, watch) for subject in subjects)
        job = run_job(
            bench,
            (a, b),
            checked.plan,
            checked.environment,
            checked.samples,
            SystemClock(),
            watch,
            pipeline=checked.pipeline,
        )
        of_a, of_b = (_observed(job, label, checked) for label in (_A, _B))
        judged = _judged(bench, job, checked, of_a, of_b)
    comparison = compare(of_a, of_b, checked.plan.confidence)
    return ComparisonResult(
        judged, comparison, a.artifact, b.artifact, bool(checked.limits.limit), (job.request.folder,)
    )


def _observed(job: MeasurementJob, label: str, checked: _CheckedComparison) -> SubjectData:
    outputs, beside = job.attempt.outputs.get(label), job.attempt.outputs.get(_A)
    agreement: Scores | None = None
    if label == _B and outputs and beside:
        agreement = checked.scorer.agreement_scores(outputs, beside)
    return job.observed(label, job.scores(label, checked.samples, checked.scorer), agreement)


def _judged(
    bench: Bench, job: MeasurementJob, checked: _CheckedComparison, a: SubjectData, b: SubjectData
) -> Judgement:
    judged = judge_attempts(
        job.request,
        bench.board,
        [job.attempt],
        checked.limits,
        b,
        a,
        trial=0,
        split="validation",
        look=1,
        looks=1,
        seconds=job.seconds,
    )
    return judged.model_copy(update={"verdict": in_words(judged.verdict, checked.worse_by_min_pct)})
