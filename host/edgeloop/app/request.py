"""A request to measure ready models: as it is asked for, and as it is once it was read.

`measure` and `compare` walk the same way. Options become a `Request` here: words are parsed, models opened, data read,
and all faults are told at once. The command makes a plan of it, which says what it costs. `app.measurement_job` carries
the plan out on a board; what comes back is judged and put out. Nothing is sent to a board before the job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import ValidationError

from edgeloop.app.delegate_checks import missing_delegates
from edgeloop.config.board_files import resolve
from edgeloop.config.campaign_file import load_environment
from edgeloop.config.pipeline_file import read_pipeline
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import NO_DELEGATE, Board, Delegate
from edgeloop.core.measurement import Arrays, PipelineFile, Subject
from edgeloop.core.plan import Environment, Plan, ProfileName, Timing
from edgeloop.core.program import ProgramSpec
from edgeloop.data.files import read_measure_npz
from edgeloop.engines.registry import DEFAULT, ENGINES, EngineRow, engine_for
from edgeloop.errors import ConfigError, DataError, Fault, ModelError, UserError
from edgeloop.host_runtime.shapes import is_channels_first
from edgeloop.sentences import Argument, Sentence
from edgeloop.wiring.host_engines import HOST_ENGINES, OpenModel, ReadyModel, Shapes

_T = TypeVar("_T")
SHAPE = re.compile(r"(?P<name>.+)=(?P<sizes>[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*)\Z")
PIPELINE = re.compile(r".+\.py:[A-Za-z_]\w*\Z")
_END_TO_END = "end_to_end"


@dataclass(frozen=True, slots=True)
class PlanWords:
    """A plan as it is asked for: a profile, and single numbers where they are given."""

    profile: str = "standard"
    timing: str = "invoke"
    sessions: int | None = None
    runs_min: int | None = None
    time_s_min: float | None = None
    period_ms: float | None = None
    seed: int | None = None
    pipeline: str | None = None
    """`FILE.py:Class`, what is timed end to end."""

    def numbers(self) -> dict[str, int | float]:
        """Return the numbers that are given, by name."""
        numbers = {name: getattr(self, name) for name in ("sessions", "runs_min", "time_s_min", "period_ms", "seed")}
        return {name: number for name, number in numbers.items() if number is not None}


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """One ready model as it is asked for."""

    label: str
    """Of the subject that it becomes."""
    path: Path
    argument: str
    """Where the request names it."""
    engine: str | None
    """None: the engine that the file itself chooses."""
    threads: int
    delegate: str
    suffix: str = ""
    """Of the request's arguments for this model: `_b` for `engine_b`."""

    def path_of(self, name: str) -> str:
        """Return the path of the request's argument that is about this model."""
        return f"{name}{self.suffix}"


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """The options that every request of ready models has."""

    models: tuple[ModelOptions, ...]
    target: str
    data: Path | None
    shapes: tuple[str, ...]
    """`NAME=1,28,28,1`, for inputs that leave dimensions open."""
    plan: PlanWords
    environment: Path | None
    """A file with what is declared; None declares the defaults."""


@dataclass(frozen=True, slots=True)
class RequestSamples:
    """The arrays of the data; all empty without any. A pipeline loads the encoded samples where there are some."""

    x: Arrays = field(default_factory=dict)
    y: Arrays = field(default_factory=dict)
    encoded: tuple[bytes, ...] | None = None

    @property
    def n(self) -> int | None:
        """None without data."""
        if self.encoded is not None:
            return len(self.encoded)
        return len(next(iter(self.x.values()))) if self.x else None


@dataclass(frozen=True, slots=True)
class RequestModel:
    """One ready model of a request, opened."""

    options: ModelOptions
    engine: EngineRow
    """The default's row where the word was wrong."""
    delegate: str | None
    """By its name in the boards' files."""
    content: OpenModel | None
    """None where it can't be read."""

    @property
    def artifact(self) -> Artifact:
        assert self.content is not None, "what could not be read is a fault"
        return self.content.artifact

    def subject(self, artifact: Artifact, delegate: Delegate | None) -> Subject:
        """The model as a board measures it: as its own artifact, with its own delegate."""
        return Subject(self.options.label, artifact, self.engine.name, self.options.threads, delegate=delegate)


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was read. Where there are faults, wrong words have their defaults in it."""

    boards: tuple[Board, ...]
    models: tuple[RequestModel, ...]
    plan: Plan
    environment: Environment
    data: Path | None
    samples: RequestSamples
    pipeline: PipelineFile | None
    faults: tuple[Fault, ...]

    @property
    def board_names(self) -> tuple[str, ...]:
        return tuple(board.name for board in self.boards)

    def check_data(self) -> None:
        """Raise DataError where the data are not what the models take: before anything is pushed."""
        if self.samples.n is not None and self.pipeline is None:
            for model in self.models:
                _check_inputs(model.artifact, self.samples.x, str(self.data))


def read_request(options: RequestOptions) -> Request:
    """Parse, open and read all that a request names. Raises UserError where its target names no board."""
    boards = tuple(resolve(options.target, Path.cwd()))
    checks = RequestChecks()
    rows = [checks.engine(model) for model in options.models]
    plan = checks.plan(options.plan)
    environment = checks.environment(options.environment)
    shapes = checks.shapes(options.shapes)
    delegates = [checks.delegate(m, row, boards) for m, row in zip(options.models, rows, strict=True)]
    models = tuple(
        RequestModel(model, row, delegate, checks.open_model(model, row, shapes, for_delegate=delegate is not None))
        for model, row, delegate in zip(options.models, rows, delegates, strict=True)
    )
    for model in models:
        checks.faults += _beyond_engine(model.engine, options.plan)
        if model.content is not None and model.content.program is not None:
            checks.faults += _beyond_program(model.content.program, model, options.plan)
    samples = checks.samples(options.data)
    pipeline = checks.pipeline(options.plan, options.data)
    return Request(boards, models, plan, environment, options.data, samples, pipeline, tuple(checks.faults))


class RequestChecks:
    """Reads the parts of a request, and gathers their faults so that all are told at once."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def engine(self, model: ModelOptions) -> EngineRow:
        """The engine that is named, else the one that the file chooses."""
        name = model.engine or engine_for(model.path.suffix).name
        return ENGINES[name] if self._one_of(name, tuple(ENGINES), model.path_of("engine")) else DEFAULT

    def plan(self, words: PlanWords) -> Plan:
        """The plan; a standard one in its place where a word was wrong."""
        names_are_known = [
            self._one_of(words.profile, get_args(ProfileName), "plan.profile"),
            self._one_of(words.timing, get_args(Timing), "plan.timing"),
        ]
        conflicts = list(_pipeline_conflicts(words))
        self.faults += conflicts
        if conflicts or not all(names_are_known):
            return Plan()
        pipeline = str(Path(words.pipeline).resolve()) if words.pipeline is not None else None
        try:
            return Plan.of(
                words.profile,  # type: ignore[arg-type]  # one of the profiles: checked above
                timing=words.timing,
                pipeline=pipeline,
                **words.numbers(),
            )
        except ValidationError as error:
            for item in error.errors():
                path = f"plan.{item['loc'][0]}" if item["loc"] else "plan.profile"
                self._add(path, item["msg"].removeprefix("Value error, "))
            return Plan()

    def environment(self, path: Path | None) -> Environment:
        """The declared environment; the defaults where no file says otherwise, or where it was wrong."""
        try:
            return Environment() if path is None else load_environment(path)
        except ConfigError as error:
            self.faults += error.faults
        except UserError as error:
            self.faults += error.at(Argument("environment"))
        return Environment()

    def shapes(self, words: Sequence[str]) -> Shapes:
        """The shapes of inputs by name, batch included, out of words as `x=1,28,28,1`."""
        shapes: dict[str, tuple[int, ...]] = {}
        for word in words:
            match = SHAPE.match(word)
            if match is None:
                self._add("shapes", f"{word!r} is no NAME=1,28,28,1", "sizes are 1 and up")
            elif match["name"] in shapes:
                self._add("shapes", f"input {match['name']} is given twice")
            else:
                shapes[match["name"]] = tuple(map(int, match["sizes"].split(",")))
        return shapes

    def delegate(self, model: ModelOptions, row: EngineRow, boards: Sequence[Board]) -> str | None:
        """The delegate that is named; None for `none`."""
        name, path = model.delegate, model.path_of("delegate")
        if name == NO_DELEGATE:
            return None
        if not row.delegates:
            others = ", ".join(sorted(other.name for other in ENGINES.values() if other.delegates))
            self._add(path, f"{row.name} takes no delegate", f"engines that do: {others}")
        self.faults += missing_delegates(name, boards, Argument(path))
        return name

    def open_model(
        self, model: ModelOptions, row: EngineRow, shapes: Shapes, *, for_delegate: bool = False
    ) -> OpenModel | None:
        """The model as the engine takes it; None where it can't be read."""
        other = _engine_of_other_file(model.path.suffix, row)
        if other is not None:
            self.faults.append(_taken_by_other(model, row, other))
            return None
        file = ReadyModel(model.path, shapes, for_delegate)
        content = self._read(lambda: HOST_ENGINES[row.name].open_model(file), model.argument)
        if content is not None:
            self.faults += content.faults
        return content

    def samples(self, path: Path | None) -> RequestSamples:
        """The arrays of an .npz; none without a file."""
        if path is None:
            return RequestSamples()
        return self._read(lambda: RequestSamples(*read_measure_npz(path)), "data") or RequestSamples()

    def pipeline(self, words: PlanWords, data: Path | None) -> PipelineFile | None:
        """The code that is timed end to end, looked at but not run."""
        if words.pipeline is None or list(_pipeline_conflicts(words)):
            return None
        if data is None:
            step = Sentence("give {}", Argument("data", "FILE.npz"))
            self._add("plan.timing", f"{_END_TO_END} needs samples to load", step)
        reference = str(Path(words.pipeline).resolve())
        return self._read(lambda: read_pipeline(reference), "plan.pipeline")

    def _one_of(self, value: str, names: Sequence[str], path: str) -> bool:
        if value not in names:
            self._add(path, f"{value!r} is unknown", f"it is one of {', '.join(names)}")
        return value in names

    def _read(self, read: Callable[[], _T], path: str) -> _T | None:
        try:
            return read()
        except (ModelError, UserError) as error:
            self.faults += error.at(Argument(path))
            return None

    def _add(self, path: str, what: str, next_step: str | None = None) -> None:
        self.faults.append(Fault(Argument(path), what, next_step))


def _pipeline_conflicts(words: PlanWords) -> Iterator[Fault]:
    """Timing and pipeline go together."""
    if words.timing == _END_TO_END and words.pipeline is None:
        step = Sentence("name it with {}", Argument("plan.pipeline", "FILE.py:Class"))
        yield Fault(Argument("plan.timing"), f"{_END_TO_END} times your own pipeline", step)
    if words.timing != _END_TO_END and words.pipeline is not None:
        what = Sentence("does not run with {}", Argument("plan.timing", words.timing))
        yield Fault(Argument("plan.pipeline"), what, Sentence("say {}", Argument("plan.timing", _END_TO_END)))
    if words.pipeline is not None and not PIPELINE.match(words.pipeline):
        yield Fault(Argument("plan.pipeline"), f"{words.pipeline!r} is no FILE.py:Class")


def _engine_of_other_file(suffix: str, row: EngineRow) -> EngineRow | None:
    """The engine that a file is of, where it is none that `row` takes; of a .tflite each engine says so itself."""
    if suffix in (row.runs, DEFAULT.runs, *row.compiles):
        return None
    return next((other for other in ENGINES.values() if suffix in (other.runs, *other.claims)), None)


def _taken_by_other(model: ModelOptions, row: EngineRow, other: EngineRow) -> Fault:
    path, suffix = model.path, model.path.suffix
    step = Sentence("say {}", Argument(model.path_of("engine"), other.name))
    if suffix in other.claims:
        step = Sentence("{} for a {}, or leave it out", step, suffix)
    says = f" {other.file_phrase}," if other.file_phrase else ":"
    return Fault(Argument(model.argument), f"{path}{says} {row.name} runs a {row.runs}", step)


def _beyond_engine(row: EngineRow, plan: PlanWords) -> Iterator[Fault]:
    """A fault for a timing that an engine has not, whatever its model."""
    if plan.timing in get_args(Timing) and plan.timing not in row.timings:
        others = " and ".join(name for name, other in ENGINES.items() if plan.timing in other.timings)
        what = f"{plan.timing} is of {others}, not of {row.model_noun}"
        yield Fault(Argument("plan.timing"), what, f"it is timed as {' or '.join(row.timings)}")


def _beyond_program(program: ProgramSpec, model: RequestModel, plan: PlanWords) -> Iterator[Fault]:
    """Faults for what a request asks of a program that it does not declare."""
    path, threads = model.options.path, model.options.threads
    if plan.timing in model.engine.timings and plan.timing not in program.timings:
        can = " and ".join(program.timings)
        step = f"make it time {plan.timing}, and add that to its timings"
        yield Fault(Argument("plan.timing"), f"{path} times {can}", step)
    if plan.period_ms is not None and not program.period:
        step = "make it keep period_ns, and say period = true there"
        yield Fault(Argument("plan.period_ms"), f"{path} keeps no period", step)
    if threads > program.threads_max:
        yield Fault(
            Argument(model.options.path_of("threads")),
            f"{path} runs with {program.threads_max} at most",
            "make it heed threads, and raise threads_max",
        )


def _check_inputs(artifact: Artifact, x: Arrays, where: str) -> None:
    """Raise DataError where the data are not what a model takes."""
    if not x:
        step = Sentence("name the pipeline that loads them, with {}", Argument("plan.timing", _END_TO_END))
        raise DataError(f"{where}: encoded samples only", next_step=step)
    names = [spec.name for spec in artifact.inputs]
    arrays = {names[0]: next(iter(x.values()))} if len(names) == 1 and len(x) == 1 else dict(x)
    if set(arrays) != set(names):
        raise DataError(f"{where}: inputs are {', '.join(x)}, the model's are {', '.join(names)}")
    for spec in artifact.inputs:
        sample = tuple(arrays[spec.name].shape[1:])
        if sample not in (spec.shape[1:], spec.shape) and not is_channels_first(spec.shape, sample):
            raise DataError(
                f"{where}: x has samples of shape {sample}, the model's input {spec.name} takes "
                f"{tuple(spec.shape[1:])}",
                next_step="data are channel-last, the sample first",
            )
