"""Wiring `edgeloop measure`: one ready model on one target, without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_path
from pydantic import ValidationError
from rich.console import RenderableType

from edgeloop.analysis.emulated import refused_when_emulated
from edgeloop.analysis.judge_job import judge_attempts
from edgeloop.analysis.plans import extension, undecidable
from edgeloop.analysis.scoring import Scorer, infer_task
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
from edgeloop.core.events import Judgement
from edgeloop.core.limits import LimitSet, parse_limits
from edgeloop.core.measurement import PipelineFile, Subject
from edgeloop.core.plan import Environment, Plan
from edgeloop.core.verdict import Finding, Outcome
from edgeloop.errors import ConfigError, Fault, kept_on_disk
from edgeloop.host_runtime.tflite import split_tflite
from edgeloop.ports import Bench, Watch
from edgeloop.reports import document, text
from edgeloop.wiring.benches import open_board
from edgeloop.wiring.clock import SystemClock

_LABEL: Literal["candidate"] = "candidate"


@dataclass(frozen=True, slots=True)
class MeasureOptions:
    """What the command line asked for, as words."""

    model: Path
    target: str
    data: Path | None = None
    shapes: tuple[str, ...] = ()
    """`NAME=1,28,28,1`: the shapes of inputs that leave dimensions open."""
    limits: tuple[str, ...] = ()
    engine: str | None = None
    """None: tvm for a file that only it runs, else litert."""
    threads: int = 1
    delegate: str = NO_DELEGATE
    """By its name in the board's file; none: only what the engine adds by itself."""
    plan: PlanWords = field(default_factory=PlanWords)
    environment: Path | None = None
    """A file with what is declared; None declares the defaults."""
    energy: bool = False
    """Whether energy is measured though no limit needs it."""
    per_op: bool = False
    """Whether a pass of its own says where time and memory go."""
    extend: bool = False
    """Whether a latency limit that the first look leaves open gets as many sessions again, and one more look."""
    allow_emulated: bool = False
    """Whether absolute limits on time may be judged on an emulated board."""


@dataclass(frozen=True, slots=True)
class MeasurementResult:
    """One model, measured on one board."""

    judged: Judgement
    artifact: Artifact
    limits_given: bool
    folders: tuple[Path, ...]
    """Of raw samples, one for each look."""

    @property
    def exit_code(self) -> int:
        return exit_code(self.judged.verdict.outcome, asked=self.limits_given)

    def document(self) -> dict[str, Any]:
        return document.measurement(self.judged, self.artifact, limits_given=self.limits_given)

    def rendered(self) -> RenderableType:
        return text.measure_report(self.judged, self.artifact, limits_given=self.limits_given)


@dataclass(frozen=True, slots=True)
class _CheckedMeasurement:
    """The same, checked and typed."""

    boards: tuple[Board, ...]
    subject: Subject
    delegate: str | None
    plan: Plan
    environment: Environment
    limits: LimitSet
    samples: RequestSamples
    pipeline: PipelineFile | None
    scorer: Scorer | None
    looks: int
    energy: bool
    undecidable: tuple[Fault, ...]


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
    watch: Watch = lambda _what, _done, _total: None,
) -> list[MeasurementResult]:
    """Measure a ready model on every board that `target` names, one result each, in the order of the inventory.

    `limits` are words as `latency.p90_ms=12`, `top1=0.9`, `size_bytes=900000`; `data` is an .npz with x (or x/<input>)
    and, for accuracy, y; `shapes` are words as `x=1,28,28,1`, for inputs that leave dimensions open; `environment` is a
    file with what is declared; the others are as in `Asked`; `watch` is told what is being done, sessions done and
    sessions in all. Raises UserError and its kind before anything is sent,
    ModelError for a file that is no model, BoardError and LabError for a board that could not be measured.
    """
    asked = MeasureOptions(
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
    return carry_out(asked, watch)


def carry_out(asked: MeasureOptions, watch: Watch) -> list[MeasurementResult]:
    """As `measure`, of what the command line asked for."""
    checked = _checked(asked)
    if checked.undecidable:
        raise ConfigError(checked.undecidable)
    if asked.per_op:
        checked = replace(checked, subject=_cut(checked.subject))
    return [_on(board, checked, watch) for board in checked.boards]


def dry_run(asked: MeasureOptions) -> PlanCost:
    """Samples, minutes and undecidable limits. Reads model and data, reaches no board."""
    checked = _checked(asked)
    return PlanCost(
        board_names(checked.boards),
        checked.plan,
        1,
        checked.samples.n,
        checked.looks,
        checked.undecidable,
        energies=int(checked.energy),
    )


def _checked(asked: MeasureOptions) -> _CheckedMeasurement:
    boards = resolve(asked.target, Path.cwd())
    checks = Checks()
    engine = checks.engine(asked.engine, "--engine", asked.model)
    plan = checks.plan(asked.plan)
    environment = checks.environment(asked.environment)
    shapes = checks.shapes(asked.shapes)
    delegate = asked_delegate(
        asked.delegate, boards, engine, "--delegate", checks.faults, beside={"--per-op": asked.per_op}
    )
    artifact = checks.artifact(
        asked.model,
        engine,
        "MODEL",
        words=asked.plan,
        threads=asked.threads,
        shapes=shapes,
        delegated=delegate is not None,
    )
    if artifact is not None and artifact.resized and asked.per_op:
        checks.faults.append(
            Fault("--per-op", "a model whose inputs are resized can't be cut into its operators", "leave it out")
        )
    samples = checks.samples(asked.data)
    pipeline = checks.pipeline(asked.plan, asked.data)
    if asked.extend and not asked.limits:
        checks.faults.append(Fault("--extend", "there is no limit that more sessions could decide", "give --limit"))
    if engine == "exec":
        checks.faults += _beyond_exec(asked)
    if engine == "tvm" and asked.per_op:
        checks.faults.append(Fault("--per-op", "a compiled network can't be cut into its operators", "leave it out"))
    checks.raise_all()
    assert artifact is not None, "what could not be read is a fault"
    if samples.n is not None and pipeline is None:
        fits(artifact, samples.x, str(asked.data))
    scorer = Scorer(infer_task(samples.y, artifact.outputs)) if samples.y else None
    limits = _limits(asked.limits, scorer)
    looks = 2 if asked.extend else 1
    plan = plan.model_copy(update={"confidence": limits.confidence})
    unmetered = [board.name for board in boards if board.power_meter is None]
    undecided = undecidable(
        limits,
        plan,
        samples.n,
        has_reference=False,
        has_labels=bool(samples.y),
        metrics=tuple(scorer.metrics) if scorer else None,
        looks=looks,
        unmetered=unmetered,
    )
    if asked.energy and unmetered:
        step = "add [power_meter] to its board file"
        undecided.append(Fault("--energy", f"{', '.join(unmetered)} has no power meter", step))
    if engine == "exec":
        undecided += _undecidable_of_exec(limits)
    if limits.limit and not plan.may_pass:
        undecided.append(Fault("--profile", "a quick plan passes nothing", "leave out --limit, or use standard"))
    if not asked.allow_emulated:
        undecided += refused_when_emulated(limits, boards, "--allow-emulated")
    return _CheckedMeasurement(
        boards=tuple(boards),
        subject=Subject(_LABEL, artifact, engine, asked.threads),
        delegate=delegate,
        plan=plan,
        environment=environment,
        limits=limits,
        samples=samples,
        pipeline=pipeline,
        scorer=scorer,
        looks=looks,
        energy=asked.energy or limits.needs_energy,
        undecidable=tuple(undecided),
    )


def _beyond_exec(asked: MeasureOptions) -> Iterator[Fault]:
    """What can't be asked of any program of the user's own."""
    if asked.per_op:
        yield Fault("--per-op", "a program of your own can't be cut into its operators", "leave it out")
    if asked.energy:
        yield Fault("--energy", "energy of a program of your own is not measured", "leave it out")


def _undecidable_of_exec(limits: LimitSet) -> Iterator[Fault]:
    """Limits on what is not known of any program of the user's own."""
    if limits.needs_energy:
        yield Fault("--limit", "energy of a program of your own is not measured", "leave that limit out")
    if any(limit.metric == "rss_above_runtime" for limit in limits.limit):
        yield Fault("--limit", "what of a program's memory is its runtime's is not known", "limit rss_mib instead")


def _cut(subject: Subject) -> Subject:
    """The subject with its parts, which a board profiles. Raises ModelError where it can't be cut."""
    artifact = subject.artifact
    path = user_cache_path("edgeloop") / "parts" / f"{artifact.sha256}.zip"
    with kept_on_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return replace(subject, parts=split_tflite(artifact, path))


def _limits(words: tuple[str, ...], scorer: Scorer | None) -> LimitSet:
    try:
        return parse_limits(words, scorer.lower_is_better if scorer else frozenset())
    except ValidationError as error:
        raise ConfigError([Fault("--limit", e["msg"].removeprefix("Value error, ")) for e in error.errors()]) from error
    except ValueError as error:
        raise ConfigError([Fault("--limit", str(error))]) from error


def _on(board: Board, checked: _CheckedMeasurement, watch: Watch) -> MeasurementResult:
    clock = SystemClock()
    subject = replace(checked.subject, delegate=board.delegate_named(checked.delegate))
    with closing(RetryingBench(open_board(board))) as bench:
        subject = for_board(subject, bench, watch)
        look = partial(
            run_job,
            bench,
            [subject],
            environment=checked.environment,
            samples=checked.samples,
            clock=clock,
            watch=watch,
            pipeline=checked.pipeline,
            energy=checked.energy,
        )
        jobs = [look(plan=checked.plan)]
        judged = _judged(bench, jobs, checked)
        if checked.looks > 1 and judged.verdict.outcome is Outcome.INCONCLUSIVE and _sessions_help(judged):
            longer = extension(checked.plan)
            jobs.append(look(plan=longer, evaluated=False))
            judged = _judged(bench, jobs, checked)
    folders = tuple(job.request.folder for job in jobs)
    return MeasurementResult(judged, subject.artifact, bool(checked.limits.limit), folders)


def _sessions_help(judged: Judgement) -> bool:
    """Sessions decide what is timed; a share is decided by more samples, and there are none."""
    return any(_open(finding) and finding.more_samples is None for finding in judged.verdict.findings)


def _open(finding: Finding) -> bool:
    return finding.outcome is Outcome.INCONCLUSIVE


def _judged(bench: Bench, jobs: list[MeasurementJob], checked: _CheckedMeasurement) -> Judgement:
    """Judge over the sessions of all looks so far, and the outputs of the first, which evaluated."""
    first = jobs[0]
    observed = first.observed(_LABEL, first.scores(_LABEL, checked.samples, checked.scorer))
    timed = tuple(session for job in jobs for session in job.attempt.sessions)
    return judge_attempts(
        first.request,
        bench.board,
        [job.attempt for job in jobs],
        checked.limits,
        replace(observed, sessions=timed),
        None,
        trial=0,
        split="validation",
        look=len(jobs),
        looks=checked.looks,
        seconds=sum(job.seconds for job in jobs),
    )
