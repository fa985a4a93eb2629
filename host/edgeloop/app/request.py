"""What `measure` and `compare` share: ready models, data and a plan, checked together before anything is sent, and one
job on one board."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from platformdirs import user_cache_path, user_state_path
from pydantic import ValidationError

from edgeloop.analysis.accuracy import Scores
from edgeloop.analysis.plans import PlanPreview, job_deadline_s, preview, schedule
from edgeloop.analysis.scoring import Scorer
from edgeloop.analysis.subject_data import SubjectData, subject_data
from edgeloop.config.campaign_file import load_environment
from edgeloop.config.pipeline_file import read_pipeline
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board
from edgeloop.core.dataset import DataSplit
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays, Attempt, MeasureRequest, PipelineFile, Subject
from edgeloop.core.model_format import Compiler, ModelFormat
from edgeloop.core.network import BoardEngine
from edgeloop.core.plan import Environment, Plan, ProfileName, Timing
from edgeloop.core.program import ProgramSpec
from edgeloop.core.verdict import Outcome
from edgeloop.data.files import read_measure_npz, write_board_npz
from edgeloop.errors import ConfigError, DataError, Fault, ModelError, UserError, kept_on_disk
from edgeloop.host_runtime.shapes import InputShapes, is_channels_first
from edgeloop.host_runtime.tflite import read_library, read_tflite
from edgeloop.ports import Bench, Clock, Watch
from edgeloop.ready_models.compilation import compilation_cache, compile_model, inspect_model
from edgeloop.ready_models.conversion import ConversionOptions, conversion_cache, convert
from edgeloop.ready_models.exec_program import pack_program, read_program
from edgeloop.wiring.builders import tvm_target

_T = TypeVar("_T")
Shapes = Mapping[str, tuple[int, ...]]
SHAPE = re.compile(r"(?P<name>.+)=(?P<sizes>[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*)\Z")
PIPELINE = re.compile(r".+\.py:[A-Za-z_]\w*\Z")


@dataclass(frozen=True, slots=True)
class PlanWords:
    """A plan as the command line asks for it: a profile, and single numbers where they are given."""

    profile: str = "standard"
    timing: str = "invoke"
    sessions: int | None = None
    runs_min: int | None = None
    time_s_min: float | None = None
    period_ms: float | None = None
    seed: int | None = None
    pipeline: str | None = None
    """`FILE.py:Class`, what is timed end to end."""

    def numbers(self) -> dict[str, Any]:
        named = ("sessions", "runs_min", "time_s_min", "period_ms", "seed")
        return {name: getattr(self, name) for name in named if getattr(self, name) is not None}


@dataclass(frozen=True, slots=True)
class RequestSamples:
    """The arrays of `--data`; all empty without it. A pipeline loads the encoded samples where there are any."""

    x: Arrays = field(default_factory=dict)
    y: Arrays = field(default_factory=dict)
    encoded: tuple[bytes, ...] | None = None

    @property
    def n(self) -> int | None:
        """None without data."""
        if self.encoded is not None:
            return len(self.encoded)
        return len(next(iter(self.x.values()))) if self.x else None


class Checks:
    """Faults of the words that were given, gathered so that all are told at once."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def raise_all(self) -> None:
        """Raises ConfigError with every fault so far."""
        if self.faults:
            raise ConfigError(self.faults)

    def engine(self, value: str | None, option: str, model: Path) -> BoardEngine:
        """The engine that was said, else the one that runs this file."""
        model_format = ModelFormat.from_name(model)
        said = value or ("tvm" if model_format is not None and model_format.runs_compiled else "litert")
        self._one_of(said, get_args(BoardEngine), option)
        return cast("BoardEngine", said)

    def plan(self, words: PlanWords) -> Plan:
        """The plan; a standard one in its place where a word was wrong."""
        known = [
            self._one_of(words.profile, get_args(ProfileName), "--profile"),
            self._one_of(words.timing, get_args(Timing), "--timing"),
        ]
        together = list(self._end_to_end(words))
        self.faults += together
        if together or not all(known):
            return Plan()
        try:
            return Plan.of(
                cast("ProfileName", words.profile),
                timing=words.timing,
                pipeline=str(Path(words.pipeline).resolve()) if words.pipeline is not None else None,
                **words.numbers(),
            )
        except ValidationError as error:
            for e in error.errors():
                option = "--" + str(e["loc"][0]).replace("_", "-") if e["loc"] else "--profile"
                self.faults.append(Fault(option, e["msg"].removeprefix("Value error, ")))
            return Plan()

    def environment(self, path: Path | None) -> Environment:
        """What is declared; the defaults where no file says otherwise, or where it was wrong."""
        try:
            return Environment() if path is None else load_environment(path)
        except ConfigError as error:
            self.faults += error.faults
        except UserError as error:
            self.faults += [Fault("--environment", line) for line in error.lines()]
        return Environment()

    def _end_to_end(self, words: PlanWords) -> Iterator[Fault]:
        """Timing and pipeline go together."""
        if words.timing == "end_to_end" and words.pipeline is None:
            yield Fault("--timing", "end_to_end times your own pipeline", "name it with --pipeline FILE.py:Class")
        if words.timing != "end_to_end" and words.pipeline is not None:
            yield Fault("--pipeline", f"does not run with --timing {words.timing}", "say --timing end_to_end")
        if words.pipeline is not None and not PIPELINE.match(words.pipeline):
            yield Fault("--pipeline", f"{words.pipeline!r} is no FILE.py:Class")

    def pipeline(self, words: PlanWords, data: Path | None) -> PipelineFile | None:
        """What is timed end to end, looked at but not run."""
        if words.pipeline is None or list(self._end_to_end(words)):
            return None
        if data is None:
            self.faults.append(Fault("--timing", "end_to_end needs samples to load", "give --data FILE.npz"))
        reference = str(Path(words.pipeline).resolve())
        return self._read(lambda: read_pipeline(reference), "--pipeline")

    def shapes(self, words: Sequence[str]) -> Shapes:
        """What `--shape NAME=1,28,28,1` tells of inputs, batch included."""
        found: dict[str, tuple[int, ...]] = {}
        for word in words:
            match = SHAPE.match(word)
            if match is None:
                self.faults.append(Fault("--shape", f"{word!r} is no NAME=1,28,28,1", "sizes are 1 and up"))
            elif match["name"] in found:
                self.faults.append(Fault("--shape", f"input {match['name']} is given twice"))
            else:
                found[match["name"]] = tuple(map(int, match["sizes"].split(",")))
        return found

    def artifact(
        self,
        model: Path,
        engine: BoardEngine,
        where: str,
        *,
        words: PlanWords,
        threads: int,
        shapes: Shapes | None = None,
        delegated: bool = False,
    ) -> Artifact | None:
        """The model, converted where it is no .tflite and inspected where TVM compiles it for a board; of a program of
        the user's own, where it can do what is asked of it. `shapes` are those of inputs by name; a .tflite that is
        `delegated` need not run on this host."""
        if engine == "exec":
            program = self._read(lambda: read_program(model), where)
            if program is None:
                return None
            if shapes:
                self.faults.append(Fault("--shape", f"{model} declares the shapes of a program itself", "leave it out"))
            self.faults += _beyond(program, model, words, threads)
            return pack_program(model, program, user_cache_path("edgeloop") / "programs")
        model_format = ModelFormat.from_name(model)
        if model_format is ModelFormat.PROGRAM:
            step = "say --engine exec" if where in ("MODEL", "A") else "say --engine-b exec"
            self.faults.append(Fault(where, f"{model} declares a program, {engine} runs a .tflite", step))
            return None
        if engine == "tvm":
            return self._for_tvm(model, where, shapes or {})
        if model_format is not None and model_format.runs_compiled:
            step = f"say --engine tvm for a {model.suffix}, or leave it out"
            self.faults.append(Fault(where, f"{model}: {engine} runs a .tflite", step))
            return None
        found = self._read(lambda: _ready(model, shapes or {}, delegated=delegated), where)
        if found is not None and found.resized and delegated:
            step = "give it shapes of its own when it is converted"
            self.faults.append(Fault(where, f"{model} leaves dimensions open, which a delegate does not take", step))
        return found

    def _for_tvm(self, model: Path, where: str, shapes: Shapes) -> Artifact | None:
        """A library that was compiled before, or what is compiled once the board is known."""
        model_format = ModelFormat.from_name(model)
        if model_format is not None and model_format.row.compiler is Compiler.TVM:
            return self._read(lambda: inspect_model(model, InputShapes(inputs=dict(shapes)))[0], where)
        if model_format is not ModelFormat.TVM_LIBRARY:
            step = "give an .onnx, a .pt2 or a model.so that edgeloop built, or say another engine"
            self.faults.append(Fault(where, f"{model}: tvm compiles no such file", step))
            return None
        if shapes:
            self.faults.append(Fault("--shape", f"{model} is compiled for shapes of its own", "leave it out"))
        return self._read(lambda: read_library(model), where)

    def samples(self, path: Path | None) -> RequestSamples:
        if path is None:
            return RequestSamples()
        return self._read(lambda: RequestSamples(*read_measure_npz(path)), "--data") or RequestSamples()

    def _one_of(self, value: str, allowed: Sequence[str], option: str) -> bool:
        if value not in allowed:
            self.faults.append(Fault(option, f"{value!r} is unknown", f"it is one of {', '.join(allowed)}"))
        return value in allowed

    def _read(self, read: Callable[[], _T], where: str) -> _T | None:
        try:
            return read()
        except (ModelError, UserError) as error:
            self.faults += [Fault(where, line) for line in error.lines()]
            return None


def _ready(model: Path, shapes: Shapes, *, delegated: bool = False) -> Artifact:
    """A .tflite as it is, or what was made of another format. Raises UserError and its kind, ModelError, BuildError."""
    model_format, input_shapes = ModelFormat.of(model), InputShapes(inputs=dict(shapes))
    if model_format is not None and model_format.row.converter is not None:
        return convert(model, ConversionOptions(shapes=input_shapes), conversion_cache())
    return read_tflite(model, input_shapes, for_delegate=delegated)


def _beyond(program: ProgramSpec, path: Path, words: PlanWords, threads: int) -> Iterator[Fault]:
    """What is asked of a program that it does not say it can do."""
    if words.timing == "end_to_end":
        yield Fault("--timing", "a pipeline runs around litert and tflite-runtime, not around a program of your own")
    elif words.timing in get_args(Timing) and words.timing not in program.timings:
        can = " and ".join(program.timings)
        yield Fault("--timing", f"{path} times {can}", f"make it time {words.timing}, and add that to its timings")
    if words.period_ms is not None and not program.period:
        yield Fault("--period-ms", f"{path} keeps no period", "make it keep period_ns, and say period = true there")
    if threads > program.threads_max:
        yield Fault(
            "--threads",
            f"{path} runs with {program.threads_max} at most",
            "make it heed threads, and raise threads_max",
        )


def fits(artifact: Artifact, x: Arrays, where: str) -> None:
    """Raise DataError where the data are not what the model takes: before anything is pushed."""
    if not x:
        raise DataError(
            f"{where}: encoded samples only", next_step="name the pipeline that loads them, with --timing end_to_end"
        )
    names = [spec.name for spec in artifact.inputs]
    arrays = {names[0]: next(iter(x.values()))} if len(names) == 1 and len(x) == 1 else dict(x)
    if set(arrays) != set(names):
        raise DataError(f"{where}: inputs are {', '.join(x)}, the model's are {', '.join(names)}")
    for spec in artifact.inputs:
        values = arrays[spec.name]
        sample = tuple(values.shape[1:])
        if sample not in (spec.shape[1:], spec.shape) and not is_channels_first(spec.shape, sample):
            raise DataError(
                f"{where}: x has samples of shape {sample}, the model's input {spec.name} takes "
                f"{tuple(spec.shape[1:])}",
                next_step="data are channel-last, the sample first",
            )


@dataclass(frozen=True, slots=True)
class PlanCost:
    """What `--dry-run` tells: samples, minutes and undecidable limits. No board was reached."""

    targets: tuple[str, ...]
    plan: Plan
    subjects: int
    samples_scored: int | None
    looks: int = 1
    faults: tuple[Fault, ...] = ()
    energies: int = 0
    """Models that have energy sessions too."""

    @property
    def cost(self) -> PlanPreview:
        return preview(self.plan, self.subjects, self.samples_scored, energies=self.energies)

    def document(self) -> dict[str, Any]:
        cost = self.cost
        least = cost.samples_per_session_min
        return {
            "schema": 1,
            "targets": list(self.targets),
            "plan": self.plan.model_dump(mode="json"),
            "subjects": self.subjects,
            "looks": self.looks,
            "sessions": cost.sessions,
            "samples_per_session": cost.samples_per_session,
            "samples_per_session_min": least,
            "samples": None if cost.samples_per_session is None else cost.sessions * cost.samples_per_session,
            "samples_min": cost.sessions * least,
            "energy_sessions": self.energies * self.plan.sessions,
            "minutes": cost.minutes,
            "undecidable": [str(fault) for fault in self.faults],
        }

    def lines(self) -> list[str]:
        cost, plan = self.cost, self.plan
        least = cost.samples_per_session_min
        known = cost.samples_per_session is not None
        interleaved = f" of each of {self.subjects} models, interleaved" if self.subjects > 1 else ""
        every = f", one inference every {plan.period_ms:g} ms" if plan.period_ms is not None else ""
        at_least = "" if known else "at least "
        sessions = f"{plan.sessions} sessions of {plan.time_s_min:g} s{interleaved}"
        return [
            f"{plan.profile} on {', '.join(self.targets)}: {sessions}, timed: {plan.timing}{every}, seed {plan.seed}",
            f"  {at_least}{least} samples in each session, {at_least}{cost.sessions * least:,} in all",
            f"  about {cost.minutes:.1f} minutes a board, waiting for it not counted"
            + ("" if known else "; a model slower than the time floor takes longer"),
            *(
                [f"  {plan.sessions} energy sessions beside them, {plan.energy_window_s:g} s idle and active each"]
                if self.energies
                else []
            ),
            *(["  a second look, of as much again, where the first leaves a limit open"] if self.looks > 1 else []),
            *(f"can't be decided: {fault}" for fault in self.faults),
        ]


def for_board(subject: Subject, bench: Bench, watch: Watch) -> Subject:
    """The subject as this board runs it: compiled for its processor where TVM does that. Raises as `compile_model`."""
    artifact = subject.artifact
    path = Path(artifact.path)
    model_format = ModelFormat.from_name(path)
    if subject.engine != "tvm" or model_format is None or model_format.row.compiler is not Compiler.TVM:
        return subject
    target = tvm_target(bench, "--engine")
    watch(f"compiling {path.name} for {target}", 0, 1)
    shapes = InputShapes(inputs={spec.name: spec.shape for spec in artifact.inputs})
    return replace(subject, artifact=compile_model(path, shapes, target, compilation_cache()))


@dataclass(frozen=True, slots=True)
class MeasurementJob:
    """One job, done: what was asked, what came back, and the seconds it took."""

    request: MeasureRequest
    attempt: Attempt
    seconds: float

    def observed(self, label: str, scores: Mapping[str, Scores], agreement: Scores | None = None) -> SubjectData:
        """One subject of the job, with what its outputs scored."""
        subject = next(subject for subject in self.request.subjects if subject.label == label)
        version = self.attempt.engine_versions.get(label, subject.engine)
        return subject_data(subject, version, self.attempt.sessions, scores, agreement)

    def scores(self, label: str, samples: RequestSamples, scorer: Scorer | None) -> dict[str, Scores]:
        """What the outputs of a subject are worth; empty without labels."""
        outputs = self.attempt.outputs.get(label)
        if scorer is None or not outputs or not samples.y:
            return {}
        return scorer.scores(outputs, scorer.targets(samples.x, samples.y))


def run_job(
    bench: Bench,
    subjects: Sequence[Subject],
    plan: Plan,
    environment: Environment,
    samples: RequestSamples,
    clock: Clock,
    watch: Watch,
    *,
    pipeline: PipelineFile | None = None,
    evaluated: bool = True,
    energy: bool = False,
) -> MeasurementJob:
    """Time every subject, interleaved, and evaluate each on the samples where there are any and `evaluated` says so.
    A subject that was cut into its parts is profiled then too, after all that is timed.

    With `energy` each has energy sessions too.

    A measurement that is asked for is made: the key is new each time, so no earlier job answers for it.
    """
    labels, board = [subject.label for subject in subjects], bench.board
    shown = [subject.words for subject in subjects]
    key = key_of("measure", board.name, shown, plan, secrets.token_hex(16))
    folder = user_state_path("edgeloop") / "measure" / key[:32]
    request = MeasureRequest(
        key=key,
        subjects=tuple(subjects),
        schedule=schedule(
            labels,
            labels if samples.n and evaluated else [],
            plan,
            labels if energy else [],
            labels_profile=[s.label for s in subjects if s.parts is not None and evaluated],
        ),
        plan=plan,
        environment=environment,
        folder=folder / "samples",
        data=_written(samples, folder / "data.npz", for_pipeline=pipeline is not None),
        pipeline=pipeline,
        deadline_s=job_deadline_s(
            plan,
            len(subjects),
            samples.n,
            energies=len(subjects) if energy else 0,
            waiting_s=environment.on(board.environment).waiting_s_max,
        ),
    )
    began = clock.monotonic_s()
    attempt = bench.measure(request, watch)
    return MeasurementJob(request, attempt, clock.monotonic_s() - began)


def _written(samples: RequestSamples, path: Path, *, for_pipeline: bool) -> Path | None:
    if not samples.n:
        return None
    # A single input is the model's, whatever the two call it; a pipeline gets it by the name that the data give it.
    rename = len(samples.x) == 1 and not for_pipeline
    x = {"x": next(iter(samples.x.values()))} if rename else samples.x
    split = DataSplit(x, {}, samples.encoded)
    with kept_on_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_board_npz(split, len(split), path, for_pipeline=for_pipeline)
    return path


def exit_code(outcome: Outcome, *, asked: bool) -> int:
    """0 passed, 1 failed, 3 could not tell; 0 too where nothing was asked to be decided and all was measured."""
    match outcome:
        case Outcome.PASS:
            return 0
        case Outcome.FAIL:
            return 1
        case Outcome.INCONCLUSIVE if not asked:
            return 0
        case _:
            return 3


def board_names(boards: Sequence[Board]) -> tuple[str, ...]:
    return tuple(board.name for board in boards)
