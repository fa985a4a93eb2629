"""Wiring `edgeloop measure`: one ready model on one target, without torch."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from platformdirs import user_state_path
from pydantic import ValidationError
from rich.console import RenderableType

from edgeloop.board.inventory import resolve
from edgeloop.board.retry import RetryingBench
from edgeloop.bootstrap.benches import open_board
from edgeloop.bootstrap.clock import SystemClock
from edgeloop.builders.prebuilt import read_tflite
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board
from edgeloop.core.dataset import DataSplit
from edgeloop.core.events import Judged
from edgeloop.core.frozen import key_of
from edgeloop.core.limits import LimitSet, parse_limits
from edgeloop.core.measurement import Arrays, Attempt, MeasureRequest, Subject
from edgeloop.core.network import Engine
from edgeloop.core.plan import Environment, Plan, ProfileName, Timing
from edgeloop.core.verdict import Outcome
from edgeloop.data.files import read_measure_npz, write_board_npz
from edgeloop.errors import ConfigError, DataError, Fault, ModelError, UserError
from edgeloop.measure.judging import judge_attempts
from edgeloop.measure.plans import schedule, undecidable
from edgeloop.measure.scoring import Scorer, infer_task
from edgeloop.measure.verdict import observe
from edgeloop.ports import Watch
from edgeloop.reports import document, text

_LABEL: Literal["candidate"] = "candidate"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asked for, as words."""

    model: Path
    target: str
    data: Path | None
    limits: tuple[str, ...]
    engine: str
    threads: int
    profile: str
    timing: str


@dataclass(frozen=True, slots=True)
class Measured:
    """One model, measured on one board."""

    judged: Judged
    artifact: Artifact
    limits_given: bool
    samples: Path

    @property
    def exit_code(self) -> int:
        match self.judged.verdict.outcome:
            case Outcome.PASS:
                return 0
            case Outcome.FAIL:
                return 1
            case Outcome.INCONCLUSIVE if not self.limits_given:
                return 0  # nothing was asked to be decided
            case _:
                return 3

    def document(self) -> dict[str, Any]:
        return document.measurement(self.judged, self.artifact, limits_given=self.limits_given)

    def rendered(self) -> RenderableType:
        return text.measure_report(self.judged, self.artifact, limits_given=self.limits_given)


@dataclass(frozen=True, slots=True)
class _Checked:
    """The same, checked and typed."""

    engine: Engine
    plan: Plan
    limits: LimitSet
    artifact: Artifact
    x: Arrays
    y: Arrays
    scorer: Scorer | None


def measure(asked: Asked, watch: Watch) -> list[Measured]:
    """Measure on every board that the target names. Raises UserError and its kind before anything is sent."""
    boards = resolve(asked.target, Path.cwd())
    checked = _checked(asked)
    return [_on(board, asked.threads, checked, watch) for board in boards]


def _checked(asked: Asked) -> _Checked:
    faults = []
    for value, allowed, option in (
        (asked.engine, get_args(Engine), "--engine"),
        (asked.profile, get_args(ProfileName), "--profile"),
        (asked.timing, get_args(Timing), "--timing"),
    ):
        if value not in allowed:
            faults.append(Fault(option, f"{value!r} is unknown", f"it is one of {', '.join(allowed)}"))
    x: Mapping[str, Any] = {}
    y: Mapping[str, Any] = {}
    for part in ("artifact", "data"):
        try:
            if part == "artifact":
                artifact = read_tflite(asked.model)
            elif asked.data is not None:
                x, y = read_measure_npz(asked.data)
        except (ModelError, UserError) as error:
            faults += [Fault("--data" if part == "data" else "MODEL", line) for line in error.lines()]
    if faults:
        raise ConfigError(faults)
    if x:
        _fits(artifact, x, str(asked.data))
    scorer = Scorer(infer_task(y, artifact.outputs)) if y else None
    try:
        limits = parse_limits(asked.limits, scorer.lower_is_better if scorer else frozenset())
    except ValidationError as error:
        raise ConfigError([Fault("--limit", e["msg"].removeprefix("Value error, ")) for e in error.errors()]) from error
    except ValueError as error:
        raise ConfigError([Fault("--limit", str(error))]) from error
    plan = Plan.of(cast("ProfileName", asked.profile), timing=asked.timing, confidence=limits.confidence)
    undecided = undecidable(
        limits,
        plan,
        len(next(iter(x.values()))) if x else None,
        has_reference=False,
        has_labels=bool(y),
        metrics=tuple(scorer.metrics) if scorer else None,
        looks=1,
    )
    if limits.limit and not plan.may_pass:
        undecided.append(Fault("--profile", "a quick plan passes nothing", "leave out --limit, or use standard"))
    if undecided:
        raise ConfigError(undecided)
    return _Checked(cast("Engine", asked.engine), plan, limits, artifact, x, y, scorer)


def _fits(artifact: Artifact, x: Arrays, where: str) -> None:
    """Raise DataError where the data are not what the model takes: before anything is pushed."""
    names = [spec.name for spec in artifact.inputs]
    arrays = {names[0]: next(iter(x.values()))} if len(names) == 1 and len(x) == 1 else dict(x)
    if set(arrays) != set(names):
        raise DataError(f"{where}: inputs are {', '.join(x)}, the model's are {', '.join(names)}")
    for spec in artifact.inputs:
        values = arrays[spec.name]
        if tuple(values.shape[1:]) != tuple(spec.shape[1:]) and tuple(values.shape[1:]) != tuple(spec.shape):
            raise DataError(
                f"{where}: x has samples of shape {tuple(values.shape[1:])}, the model's input {spec.name} takes "
                f"{tuple(spec.shape[1:])}",
                next_step="data are channel-last, the sample first",
            )


def _on(board: Board, threads: int, checked: _Checked, watch: Watch) -> Measured:
    # A measurement that is asked for is made: the key is new each time, so no earlier job answers for it.
    key = key_of("measure", board.name, checked.artifact.sha256, checked.plan, threads, secrets.token_hex(16))
    folder = user_state_path("edgeloop") / "measure" / key[:32]
    data = None
    if checked.x:
        folder.mkdir(parents=True, exist_ok=True)
        split = DataSplit(checked.x, {})
        data = folder / "data.npz"
        write_board_npz(split, len(split), data)
    subject = Subject(_LABEL, checked.artifact, checked.engine, threads)
    request = MeasureRequest(
        key=key,
        subjects=(subject,),
        schedule=schedule([_LABEL], [_LABEL] if data else [], checked.plan),
        plan=checked.plan,
        environment=Environment(),
        folder=folder / "samples",
        data=data,
    )
    clock = SystemClock()
    began = clock.monotonic_s()
    bench = RetryingBench(open_board(board))
    try:
        attempt = bench.measure(request, watch)
    finally:
        bench.close()
    judged = _judged(board, request, subject, attempt, checked, clock.monotonic_s() - began)
    return Measured(judged, checked.artifact, bool(checked.limits.limit), request.folder)


def _judged(
    board: Board, request: MeasureRequest, subject: Subject, attempt: Attempt, checked: _Checked, seconds: float
) -> Judged:
    outputs = attempt.outputs.get(_LABEL)
    scores = (
        checked.scorer.scores(outputs, checked.scorer.targets(checked.x, checked.y))
        if checked.scorer and outputs
        else {}
    )
    observed = observe(subject, attempt.engine_versions.get(_LABEL, subject.engine), attempt.sessions, scores)
    return judge_attempts(
        request,
        board,
        [attempt],
        checked.limits,
        observed,
        None,
        trial=0,
        split="validation",
        look=1,
        looks=1,
        seconds=seconds,
    )
