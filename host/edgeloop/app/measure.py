"""`edgeloop measure`: one ready model on one target, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_path
from pydantic import ValidationError
from rich.console import RenderableType

from edgeloop.analysis.emulated import refused_when_emulated
from edgeloop.analysis.judge_job import judge_attempts
from edgeloop.analysis.plans import extension, undecidable
from edgeloop.analysis.scoring import Scorer, infer_task
from edgeloop.app.measurement_job import MeasurementJob, exit_code, run_job, subject_for
from edgeloop.app.request import ModelOptions, PlanWords, Request, RequestModel, RequestOptions, read_request
from edgeloop.board.retry import RetryingBench
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import NO_DELEGATE, Board
from edgeloop.core.events import Judgement
from edgeloop.core.limits import LimitSet, parse_limits
from edgeloop.core.profile import Parts
from edgeloop.core.verdict import Outcome
from edgeloop.errors import ConfigError, Fault, kept_on_disk, raise_faults
from edgeloop.host_runtime.tflite import split_tflite
from edgeloop.ports import Bench, Watch
from edgeloop.reports import document, text
from edgeloop.reports.plan_cost import PlanCost
from edgeloop.sentences import Argument, Sentence
from edgeloop.wiring.benches import open_board
from edgeloop.wiring.clock import SystemClock

_LABEL: Literal["candidate"] = "candidate"


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """A measurement as it is asked for, in words."""

    model: Path
    target: str
    data: Path | None = None
    shapes: tuple[str, ...] = ()
    """`NAME=1,28,28,1`: the shapes of inputs that leave dimensions open."""
    limits: tuple[str, ...] = ()
    engine: str | None = None
    """None: the engine that alone takes such a file, else LiteRT."""
    threads: int = 1
    delegate: str = NO_DELEGATE
    """By its name in the board's file; none: only what the engine adds by itself."""
    plan: PlanWords = field(default_factory=PlanWords)
    environment: Path | None = None
    """A file with what is declared; None declares the defaults."""
    energy: bool = False
    """Measure energy though no limit needs it."""
    per_op: bool = False
    """Say in a pass of its own where time and memory go."""
    extend: bool = False
    """Give a latency limit that the first look leaves open as many sessions again, and one more look."""
    allow_emulated: bool = False
    """Judge absolute limits on time on an emulated board too."""

    @property
    def request(self) -> RequestOptions:
        """The part that every request has."""
        model = ModelOptions(_LABEL, self.model, "model", self.engine, self.threads, self.delegate)
        return RequestOptions((model,), self.target, self.data, self.shapes, self.plan, self.environment)


@dataclass(frozen=True, slots=True)
class MeasurementResult:
    """One model, measured on one board."""

    judgement: Judgement
    artifact: Artifact
    limits_given: bool
    folders: tuple[Path, ...]
    """Of raw samples, one for each look."""

    @property
    def exit_code(self) -> int:
        return exit_code(self.judgement.verdict.outcome, limits_given=self.limits_given)

    def document(self) -> dict[str, Any]:
        """The JSON document of the measurement."""
        return document.measurement(self.judgement, self.artifact, limits_given=self.limits_given)

    def report(self) -> RenderableType:
        """The measurement as a terminal shows it."""
        return text.measure_report(self.judgement, self.artifact, limits_given=self.limits_given)


@dataclass(frozen=True, slots=True)
class MeasurementPlan:
    """A request that was checked, with all that is decided before a board is reached."""

    request: Request
    limits: LimitSet
    scorer: Scorer | None
    looks: int
    energy: bool
    undecidable: tuple[Fault, ...]
    """Of limits that no result could decide."""
    parts: Parts | None = None
    """The model cut into its operators, where they are timed one by one."""

    @property
    def model(self) -> RequestModel:
        return self.request.models[0]

    @property
    def cost(self) -> PlanCost:
        request = self.request
        return PlanCost(
            request.board_names,
            request.plan,
            1,
            request.samples.n,
            self.looks,
            self.undecidable,
            energies=int(self.energy),
        )


def measure(
    model: str | os.PathLike[str],
    target: str,
    *,
    data: str | os.PathLike[str] | None = None,
    shapes: Sequence[str] = (),
    limits: Sequence[str] = (),
    engine: str | None = None,
    threads: int = 1,
    delegate: str = NO_DELEGATE,
    plan: PlanWords | None = None,
    environment: str | os.PathLike[str] | None = None,
    per_op: bool = False,
    allow_emulated: bool = False,
    energy: bool = False,
    extend: bool = False,
    watch: Watch = lambda _progress: None,
) -> list[MeasurementResult]:
    """Measure a ready model on every board that `target` names, one result each, in the order of the inventory.

    `limits` are words as `latency.p90_ms=12`, `top1=0.9`, `size_bytes=900000`; `data` is an .npz with x (or x/<input>)
    and, for accuracy, y; `shapes` are words as `x=1,28,28,1`, for inputs that leave dimensions open; `environment` is a
    file with what is declared; the others are as in `MeasureOptions`; `watch` gets a `ports.Progress` for each piece
    of news. Raises UserError and its kind before anything is sent, ModelError for a file that is no model,
    BoardError and LabError for a board that could not be measured.
    """
    options = MeasureOptions(
        model=Path(model),
        target=target,
        data=None if data is None else Path(data),
        shapes=tuple(shapes),
        limits=tuple(limits),
        engine=engine,
        threads=threads,
        delegate=delegate,
        plan=plan or PlanWords(),
        environment=None if environment is None else Path(environment),
        per_op=per_op,
        allow_emulated=allow_emulated,
        energy=energy,
        extend=extend,
    )
    return measure_as(options, watch)


def measure_as(options: MeasureOptions, watch: Watch) -> list[MeasurementResult]:
    """Do as `measure`, by options."""
    plan = measurement_plan(options)
    raise_faults(plan.undecidable)
    if options.per_op:
        plan = replace(plan, parts=_cut(plan.model.artifact))
    return [_measure_on(board, plan, watch) for board in plan.request.boards]


def dry_run(options: MeasureOptions) -> PlanCost:
    """Return samples, minutes and undecidable limits. Reads model and data, reaches no board."""
    return measurement_plan(options).cost


def measurement_plan(options: MeasureOptions) -> MeasurementPlan:
    """Read and check a measurement. Raises ConfigError with all faults at once, DataError for data that don't fit."""
    request = read_request(options.request)
    raise_faults([*request.faults, *_own_faults(options, request.models[0])])
    request.check_data()
    samples = request.samples
    scorer = Scorer(infer_task(samples.y, request.models[0].artifact.outputs)) if samples.y else None
    limits = _limits(options.limits, scorer)
    request = replace(request, plan=request.plan.model_copy(update={"confidence": limits.confidence}))
    return MeasurementPlan(
        request=request,
        limits=limits,
        scorer=scorer,
        looks=2 if options.extend else 1,
        energy=options.energy or limits.needs_energy,
        undecidable=tuple(_undecidable(options, request, limits, scorer)),
    )


def _own_faults(options: MeasureOptions, model: RequestModel) -> Iterator[Fault]:
    """Faults of this command's own options: those that don't go together, or not with the model."""
    row, out = model.engine, "leave it out"
    if options.per_op and model.delegate is not None:
        yield Fault(
            Argument("per_op"), "does not go with a delegate", Sentence("leave it out, or {}", Argument("delegate"))
        )
    if options.per_op and model.content is not None and model.content.artifact.resized:
        yield Fault(Argument("per_op"), "a model whose inputs are resized can't be cut into its operators", out)
    if options.per_op and not row.cuts:
        yield Fault(Argument("per_op"), f"{row.model_noun} can't be cut into its operators", out)
    if options.energy and not row.energy:
        yield Fault(Argument("energy"), f"energy of {row.model_noun} is not measured", out)
    if options.extend and not options.limits:
        step = Sentence("give {}", Argument("limits"))
        yield Fault(Argument("extend"), "there is no limit that more sessions could decide", step)


def _undecidable(options: MeasureOptions, request: Request, limits: LimitSet, scorer: Scorer | None) -> Iterator[Fault]:
    """Limits and options that no result under this plan could settle."""
    row = request.models[0].engine
    meterless = [board.name for board in request.boards if board.power_meter is None]
    yield from undecidable(
        limits,
        request.plan,
        request.samples.n,
        has_reference=False,
        has_labels=bool(request.samples.y),
        metrics=tuple(scorer.metrics) if scorer else None,
        looks=2 if options.extend else 1,
        unmetered=meterless,
    )
    if options.energy and meterless:
        what = f"{', '.join(meterless)} has no power meter"
        yield Fault(Argument("energy"), what, "add [power_meter] to its board file")
    if limits.needs_energy and not row.energy:
        yield Fault(Argument("limits"), f"energy of {row.model_noun} is not measured", "leave that limit out")
    if not row.runtime_memory and any(limit.row.of_the_runtime for limit in limits.limit):
        what = "what of a program's memory is its runtime's is not known"
        yield Fault(Argument("limits"), what, "limit rss_mib instead")
    if limits.limit and not request.plan.may_pass:
        step = Sentence("leave out {}, or use standard", Argument("limits"))
        yield Fault(Argument("plan.profile"), "a quick plan passes nothing", step)
    if not options.allow_emulated:
        yield from refused_when_emulated(limits, request.boards, Argument("allow_emulated"))


def _cut(artifact: Artifact) -> Parts:
    """The parts of a model, which a board profiles. Raises ModelError where it can't be cut."""
    path = user_cache_path("edgeloop") / "parts" / f"{artifact.sha256}.zip"
    with kept_on_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return split_tflite(artifact, path)


def _limits(words: tuple[str, ...], scorer: Scorer | None) -> LimitSet:
    try:
        return parse_limits(words, scorer.lower_is_better if scorer else frozenset())
    except ValidationError as error:
        messages = [item["msg"].removeprefix("Value error, ") for item in error.errors()]
        raise ConfigError([Fault(Argument("limits"), message) for message in messages]) from error
    except ValueError as error:
        raise ConfigError([Fault(Argument("limits"), str(error))]) from error


def _measure_on(board: Board, plan: MeasurementPlan, watch: Watch) -> MeasurementResult:
    """Carry a plan out on one board: a job for each look, and a judgement over all of them."""
    clock, request = SystemClock(), plan.request
    with closing(RetryingBench(open_board(board))) as bench:
        subject = replace(subject_for(plan.model, board, bench, watch), parts=plan.parts)
        jobs = [run_job(bench, [subject], request, clock, watch, energy=plan.energy)]
        judgement = _judge(bench, jobs, plan)
        if plan.looks > 1 and judgement.verdict.outcome is Outcome.INCONCLUSIVE and _sessions_help(judgement):
            longer = replace(request, plan=extension(request.plan))
            jobs.append(run_job(bench, [subject], longer, clock, watch, energy=plan.energy, evaluates=False))
            judgement = _judge(bench, jobs, plan)
    folders = tuple(job.request.folder for job in jobs)
    return MeasurementResult(judgement, subject.artifact, bool(plan.limits.limit), folders)


def _sessions_help(judgement: Judgement) -> bool:
    """True where a timed limit is open: sessions decide those; a share is decided by more samples, of which there are
    none."""
    return any(
        finding.outcome is Outcome.INCONCLUSIVE and finding.more_samples is None
        for finding in judgement.verdict.findings
    )


def _judge(bench: Bench, jobs: Sequence[MeasurementJob], plan: MeasurementPlan) -> Judgement:
    """Judge over the sessions of all looks so far, and the outputs of the first, which evaluated."""
    first = jobs[0]
    data = first.subject_data(_LABEL, first.scores(_LABEL, plan.request.samples, plan.scorer))
    return judge_attempts(
        first.request,
        bench.board,
        [job.attempt for job in jobs],
        plan.limits,
        replace(data, sessions=tuple(session for job in jobs for session in job.attempt.sessions)),
        None,
        trial=0,
        split="validation",
        look=len(jobs),
        looks=plan.looks,
        seconds=sum(job.seconds for job in jobs),
    )
