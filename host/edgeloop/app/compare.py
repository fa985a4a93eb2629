"""`edgeloop compare`: two ready models, interleaved on one board under one lease, without torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from rich.console import RenderableType

from edgeloop.analysis.accuracy import Scores
from edgeloop.analysis.comparison import Comparison, compare, in_words, worse_by
from edgeloop.analysis.judge_job import judge_attempts
from edgeloop.analysis.plans import undecidable
from edgeloop.analysis.scoring import Scorer, infer_task
from edgeloop.analysis.subject_data import SubjectData
from edgeloop.app.measurement_job import MeasurementJob, exit_code, run_job, subject_for
from edgeloop.app.request import ModelOptions, PlanWords, Request, RequestOptions, RequestSamples, read_request
from edgeloop.board.retry import RetryingBench
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import NO_DELEGATE, Board
from edgeloop.core.campaign import Task
from edgeloop.core.events import Judgement
from edgeloop.core.limits import LimitSet
from edgeloop.core.metric import LatencyStatistic
from edgeloop.errors import DataError, Fault, raise_faults
from edgeloop.ports import Bench, Watch
from edgeloop.reports import comparison, document
from edgeloop.reports.plan_cost import PlanCost
from edgeloop.sentences import Argument, Sentence
from edgeloop.wiring.benches import open_board
from edgeloop.wiring.clock import SystemClock

_A, _B = "a", "b"


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """A comparison as it is asked for, in words."""

    a: Path
    b: Path
    target: str
    data: Path | None = None
    shapes: tuple[str, ...] = ()
    """`NAME=1,28,28,1`: the shapes of inputs that leave dimensions open, of A and B alike."""
    engine: str | None = None
    """None: the engine that alone takes such a file, else LiteRT."""
    engine_b: str | None = None
    """None: that of A where one is named, else the one that B's file chooses."""
    threads: int = 1
    threads_b: int | None = None
    delegate: str = NO_DELEGATE
    delegate_b: str | None = None
    plan: PlanWords = field(default_factory=PlanWords)
    environment: Path | None = None
    """A file with what is declared; None declares the defaults."""
    worse_by_min_pct: float | None = None
    statistic: str = "p50"
    """The one that `worse_by_min_pct` is about."""

    @property
    def request(self) -> RequestOptions:
        """The part that every request has."""
        a = ModelOptions(_A, self.a, "a", self.engine, self.threads, self.delegate)
        b = ModelOptions(
            _B,
            self.b,
            "b",
            self.engine_b or self.engine,
            self.threads_b or self.threads,
            self.delegate if self.delegate_b is None else self.delegate_b,
            suffix="_b",
        )
        return RequestOptions((a, b), self.target, self.data, self.shapes, self.plan, self.environment)


@dataclass(frozen=True, slots=True)
class ComparisonResult:
    """Two models, compared on one board."""

    judgement: Judgement
    """Of B, with A as the reference."""
    comparison: Comparison
    a: Artifact
    b: Artifact
    limits_given: bool
    """A verdict was asked for."""
    folders: tuple[Path, ...]
    """Of raw samples."""

    @property
    def exit_code(self) -> int:
        return exit_code(self.judgement.verdict.outcome, limits_given=self.limits_given)

    def document(self) -> dict[str, Any]:
        """The JSON document of the comparison."""
        return document.comparison(self.judgement, self.comparison, self.a, self.b, limits_given=self.limits_given)

    def report(self) -> RenderableType:
        """The comparison as a terminal shows it."""
        return comparison.report(self.judgement, self.comparison, self.a, self.b, limits_given=self.limits_given)


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """A request of two models that was checked, with all that is decided before a board is reached."""

    request: Request
    limits: LimitSet
    worse_by_min_pct: float
    scorer: Scorer
    undecidable: tuple[Fault, ...]
    """Of limits that no result could decide."""

    @property
    def cost(self) -> PlanCost:
        request = self.request
        return PlanCost(request.board_names, request.plan, 2, request.samples.n, 1, self.undecidable)


def compare_models(options: CompareOptions, watch: Watch) -> list[ComparisonResult]:
    """Compare on every board that the target names. Raises UserError and its kind before anything is sent."""
    plan = comparison_plan(options)
    raise_faults(plan.undecidable)
    return [_compare_on(board, plan, watch) for board in plan.request.boards]


def dry_run(options: CompareOptions) -> PlanCost:
    """Return samples, minutes and undecidable limits. Reads models and data, reaches no board."""
    return comparison_plan(options).cost


def comparison_plan(options: CompareOptions) -> ComparisonPlan:
    """Read and check a comparison. Raises ConfigError with all faults at once, DataError for data that don't fit."""
    request = read_request(options.request)
    raise_faults([*request.faults, *_own_faults(options)])
    request.check_data()
    a, b = (model.artifact for model in request.models)
    samples, plan = request.samples, request.plan
    if samples.n is not None and request.pipeline is None and _sample_shapes(a) != _sample_shapes(b):
        shapes = " and ".join(", ".join(map(str, _sample_shapes(artifact))) for artifact in (a, b))
        step = Sentence("compare them without {}", Argument("data"))
        raise DataError(f"A and B give outputs of different shapes, {shapes}", next_step=step)
    limits = LimitSet(confidence=plan.confidence)
    if options.worse_by_min_pct is not None:
        limits = worse_by(options.worse_by_min_pct, cast("LatencyStatistic", options.statistic), plan.confidence)
    return ComparisonPlan(
        request=request,
        limits=limits,
        worse_by_min_pct=options.worse_by_min_pct or 0.0,
        scorer=Scorer(_task(samples, a, b)),
        undecidable=tuple(_undecidable(request, limits)),
    )


def _own_faults(options: CompareOptions) -> Iterator[Fault]:
    """Faults of this command's own options."""
    statistics = get_args(LatencyStatistic)
    if options.statistic not in statistics:
        step = f"it is one of {', '.join(statistics)}"
        yield Fault(Argument("statistic"), f"{options.statistic!r} is unknown", step)


def _undecidable(request: Request, limits: LimitSet) -> Iterator[Fault]:
    """The limit, where no result under this plan could settle it."""
    if not limits.limit:
        return
    samples, plan = request.samples, request.plan
    yield from undecidable(limits, plan, samples.n, has_reference=True, has_labels=bool(samples.y), looks=1)
    if not plan.may_pass:
        step = Sentence("leave out {}, or use standard", Argument("worse_by_min_pct"))
        yield Fault(Argument("plan.profile"), "a quick plan passes nothing", step)


def _task(samples: RequestSamples, a: Artifact, b: Artifact) -> Task:
    """The task of both models. Without labels nothing is scored, and they agree where their outputs are near."""
    if not samples.y:
        return Task(kind="regression")
    of_a, of_b = (infer_task(samples.y, artifact.outputs) for artifact in (a, b))
    if of_a != of_b:
        raise DataError(f"A's outputs make this {of_a.kind}, B's make it {of_b.kind}: they can't be compared")
    return of_a


def _sample_shapes(artifact: Artifact) -> list[tuple[int, ...]]:
    return [tuple(spec.shape[1:]) for spec in artifact.outputs]


def _compare_on(board: Board, plan: ComparisonPlan, watch: Watch) -> ComparisonResult:
    """Carry a plan out on one board: one job of both models, and a judgement of B beside A."""
    request = plan.request
    with closing(RetryingBench(open_board(board))) as bench:
        a, b = (subject_for(model, board, bench, watch) for model in request.models)
        job = run_job(bench, (a, b), request, SystemClock(), watch)
        of_a, of_b = (_subject_data(job, label, plan) for label in (_A, _B))
        judgement = _judge(bench, job, plan, of_a, of_b)
    return ComparisonResult(
        judgement,
        compare(of_a, of_b, request.plan.confidence),
        a.artifact,
        b.artifact,
        bool(plan.limits.limit),
        (job.request.folder,),
    )


def _subject_data(job: MeasurementJob, label: str, plan: ComparisonPlan) -> SubjectData:
    outputs, beside = job.attempt.outputs.get(label), job.attempt.outputs.get(_A)
    agreement: Scores | None = None
    if label == _B and outputs and beside:
        agreement = plan.scorer.agreement_scores(outputs, beside)
    return job.subject_data(label, job.scores(label, plan.request.samples, plan.scorer), agreement)


def _judge(bench: Bench, job: MeasurementJob, plan: ComparisonPlan, a: SubjectData, b: SubjectData) -> Judgement:
    judgement = judge_attempts(
        job.request,
        bench.board,
        [job.attempt],
        plan.limits,
        b,
        a,
        trial=0,
        split="validation",
        look=1,
        looks=1,
        seconds=job.seconds,
    )
    return judgement.model_copy(update={"verdict": in_words(judgement.verdict, plan.worse_by_min_pct)})
