"""A request as the board reads it, and what came back as the host keeps it: one folder for each attempt.

    request.json            what was asked, of which board, by which job id
    sessions/NNN.*          the agent's files as they came, NNN.json last
    done.json               last of all: with it the folder is complete

Reading is strict: a file that does not fit what was asked is refused with BoardError, wherever it came from.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeloop.board.agent import Look
from edgeloop.core.board import Board
from edgeloop.core.frozen import Frozen, key_of
from edgeloop.core.measurement import Arrays, Attempt, MeasureRequest, Session, StepKind
from edgeloop.core.plan import SOAK_SLOPE_MAX_C_PER_MIN, SOAK_WINDOW_S
from edgeloop.errors import BoardError, DataError, LabError, kept_on_disk
from edgeloop_agent import wire

REQUEST_FILE = "request.json"
SESSION_BYTES_MAX = 1 << 30
_DTYPES = {"float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool"}
_EMPTY: NDArray[np.int64] = np.empty(0, np.int64)


class AskedSubject(Frozen):
    """What a folder remembers of a subject: enough to read its sessions without the artifact."""

    label: str
    engine: str
    threads: int
    model_sha256: str
    outputs: tuple[str, ...]
    """Names, in the model's order."""


class AskedStep(Frozen):
    index: int
    label: str
    kind: StepKind


class Asked(Frozen):
    """request.json."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    job_id: str
    target: str
    board_model: str
    emulated: bool
    subjects: tuple[AskedSubject, ...]
    schedule: tuple[AskedStep, ...]
    samples: int | None
    """Samples in the data; None without data."""
    facts: dict[str, Any]

    def subject_of(self, index: int) -> AskedSubject:
        step = self.schedule[index]
        return next(subject for subject in self.subjects if subject.label == step.label)


def job_id_of(request: MeasureRequest, data_sha256: str | None) -> str:
    """The job's name on the board: the same request always has the same, so a restarted controller finds it."""
    subjects = [[s.label, s.artifact.sha256, s.engine, s.threads] for s in request.subjects]
    steps = [[step.index, step.label, step.kind] for step in request.schedule]
    parts = (request.key, request.plan, request.environment, subjects, steps, data_sha256, request.attempt)
    return key_of("job", *parts)[:32]


def wire_job(
    request: MeasureRequest,
    board: Board,
    *,
    job_id: str,
    agent_sha256: str,
    token: str,
    owner: str,
    data_sha256: str | None,
    python_path: Sequence[str],
    deadline_s: float,
) -> wire.Job:
    """Return job.json for a request. Steps must be numbered from 0 in order."""
    labels = [subject.label for subject in request.subjects]
    plan, environment = request.plan, request.environment.on(board.environment)
    soaked = environment.throttling == "soak"
    return wire.Job(
        id=job_id,
        agent_sha256=agent_sha256,
        lease_token=token,
        lease_owner=owner,
        subjects=[
            wire.Subject(
                label=subject.label,
                engine=subject.engine,
                model_sha256=subject.artifact.sha256,
                model_suffix=Path(subject.artifact.path).suffix,
                threads=subject.threads,
                inputs=[spec.name for spec in subject.artifact.inputs],
                outputs=[spec.name for spec in subject.artifact.outputs],
            )
            for subject in request.subjects
        ],
        schedule=[wire.Step(step.index, labels.index(step.label), step.kind) for step in request.schedule],
        session_plan=wire.SessionPlan(
            warmup_runs_min=plan.warmup_runs_min,
            warmup_s_min=plan.warmup_s_min,
            warmup_s_max=plan.warmup_s_max,
            runs_min=plan.runs_min,
            time_s_min=plan.time_s_min,
            timing=plan.timing,
            period_ms=plan.period_ms,
            deadline_s=plan.deadline_s,
        ),
        conditions=wire.Conditions(
            cores=list(board.runtime.cores),
            governor=environment.governor,
            idle_gate=plan.idle_gate,
            start_temperature_max_c=environment.start_temperature_max_c,
            cool_down_max_s=environment.cool_down_max_s or 0.0,
            foreign_load_max_pct=environment.foreign_load_max_pct,
            soak_max_s=environment.soak_max_s if soaked else None,
            soak_window_s=SOAK_WINDOW_S,
            soak_slope_max_c_per_min=SOAK_SLOPE_MAX_C_PER_MIN,
        ),
        data_sha256=data_sha256,
        python_path=list(python_path),
        seed=plan.seed,
        deadline_s=deadline_s,
    )


def asked_of(
    request: MeasureRequest, board: Board, job_id: str, facts: Mapping[str, Any], samples: int | None
) -> Asked:
    return Asked(
        job_id=job_id,
        target=board.name,
        board_model=board.model.name,
        emulated=board.emulated,
        subjects=tuple(
            AskedSubject(
                label=s.label,
                engine=s.engine,
                threads=s.threads,
                model_sha256=s.artifact.sha256,
                outputs=tuple(spec.name for spec in s.artifact.outputs),
            )
            for s in request.subjects
        ),
        schedule=tuple(AskedStep(index=s.index, label=s.label, kind=s.kind) for s in request.schedule),
        samples=samples,
        facts=dict(facts),
    )


class AttemptFolder:
    """The files of one attempt on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def holds(self, job_id: str) -> bool:
        """True where the folder was begun for just this job."""
        asked = self._asked_or_none()
        return asked is not None and asked.job_id == job_id

    def is_complete(self) -> bool:
        return (self.folder / wire.DONE_FILE).is_file() and (self.folder / REQUEST_FILE).is_file()

    def asked(self) -> Asked:
        """What the folder was begun for. Raises LabError where it was not."""
        asked = self._asked_or_none()
        if asked is None:
            raise LabError(f"{self.folder} holds no complete measurement", next_step="measure again")
        return asked

    def begin(self, asked: Asked) -> None:
        """Start the folder anew for this job; what an earlier attempt left in it goes."""
        with kept_on_disk(self.folder):
            (self.folder / wire.SESSIONS_DIR).mkdir(parents=True, exist_ok=True)
            (self.folder / wire.DONE_FILE).unlink(missing_ok=True)
            for old in (self.folder / wire.SESSIONS_DIR).iterdir():
                old.unlink()
        self._write(REQUEST_FILE, json.dumps(asked.model_dump(mode="json"), sort_keys=True).encode())

    def fetched(self) -> int:
        """Index of the last session of an unbroken row from 0 that is here; -1 where there is none."""
        index = -1
        while (self.folder / wire.session_file(index + 1, "json")).is_file():
            index += 1
        return index

    def keep(self, asked: Asked, index: int, parts: Mapping[str, bytes], boot_id: str) -> wire.SessionRecord:
        """Check one session's files and write them. Raises BoardError for what does not fit what was asked."""
        record = _checked_record(asked, index, parts.get("json", b""))
        if record.boot_id != boot_id:
            raise BoardError(f"{asked.target}: session {index} comes from another boot of the board")
        _arrays(asked, record, parts)
        for part in sorted(parts, key=lambda name: name == "json"):
            self._write(wire.session_file(index, part), parts[part])
        return record

    def finish(self, done: wire.Done) -> None:
        self._write(wire.DONE_FILE, wire.encode(done))

    def read(self) -> Attempt:
        """Load a complete folder. Raises LabError where it is not whole, BoardError where its files do not fit."""
        asked = self.asked()
        if not self.is_complete():
            raise LabError(f"{self.folder} holds no complete measurement", next_step="measure again")
        sessions: list[Session] = []
        outputs: dict[str, Arrays] = {}
        versions: dict[str, str] = {}
        for step in asked.schedule:
            parts = self._parts(asked, step.index)
            record = _checked_record(asked, step.index, parts["json"])
            arrays = _arrays(asked, record, parts)
            sessions.append(_session(step, record, arrays))
            if record.engine_version:
                engine = asked.subject_of(step.index).engine
                versions[step.label] = f"{engine} {record.engine_version.removeprefix(engine).strip()}"
            if step.kind == "evaluate" and record.outcome == "ok":
                outputs[step.label] = {
                    name: dequantized(arrays[f"out.{i}.npy"], record.outputs[i])
                    for i, name in enumerate(asked.subject_of(step.index).outputs)
                }
        return Attempt(
            job_id=asked.job_id,
            target=asked.target,
            board_model=asked.board_model,
            emulated=asked.emulated,
            engine_versions=versions,
            sessions=tuple(sessions),
            outputs=outputs,
            facts=asked.facts,
        )

    def _asked_or_none(self) -> Asked | None:
        try:
            return Asked.model_validate_json((self.folder / REQUEST_FILE).read_bytes())
        except (OSError, ValueError):
            return None

    def _parts(self, asked: Asked, index: int) -> dict[str, bytes]:
        found = {}
        for part in wanted_parts(asked, index):
            path = self.folder / wire.session_file(index, part)
            if path.is_file():
                found[part] = path.read_bytes()
        if "json" not in found:
            raise LabError(f"{self.folder}: session {index} is missing", next_step="measure again")
        return found

    def _write(self, name: str, raw: bytes) -> None:
        path = self.folder / name
        with kept_on_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            wire.write_atomically(path, raw)


def read_attempt(folder: Path) -> Attempt:
    """Load what `measure` kept in a folder: sessions with raw samples, outputs dequantized to float32.

    Raises LabError where the folder is not complete, BoardError where its files are not what was asked for.
    """
    return AttemptFolder(folder).read()


def wanted_parts(asked: Asked, index: int) -> tuple[str, ...]:
    """The parts that a session of this step may have; nothing else is asked of the board."""
    outputs: tuple[str, ...] = ()
    if asked.schedule[index].kind == "evaluate":
        outputs = tuple(f"out.{i}.npy" for i in range(len(asked.subject_of(index).outputs)))
    return ("json", "latency.npy", "warmup.npy", *outputs)


def sizes_to_read(asked: Asked, look: Look, index: int) -> dict[str, int]:
    """Sizes of a finished session's wanted files by name. Raises BoardError beyond the bound."""
    listed = look.sessions[index]
    sizes = {part: listed[part] for part in wanted_parts(asked, index) if part in listed}
    if sum(sizes.values()) > SESSION_BYTES_MAX or sizes.get("json", 0) > wire.MESSAGE_BYTES_MAX:
        raise BoardError(f"{asked.target}: session {index} has {sum(sizes.values())} bytes; that is refused")
    return sizes


def dequantized(raw: NDArray[Any], tensor: wire.Tensor) -> NDArray[Any]:
    """Real values of a stored output, float32; integers without a scale stay as they are."""
    if raw.dtype.kind == "f":
        return raw.astype(np.float32, copy=False)
    if tensor.scale is None:
        return raw
    return ((raw.astype(np.float64) - (tensor.zero_point or 0)) * tensor.scale).astype(np.float32)


def load_npy(raw: bytes, what: str) -> NDArray[Any]:
    """Parse a .npy without pickle whose header says just what follows it. Raises BoardError."""
    handle = io.BytesIO(raw)
    try:
        shape, fortran, dtype = _npy_header(handle)
        plain = dtype.name in _DTYPES and dtype.isnative and not fortran and all(n >= 0 for n in shape)
        if not plain or math.prod(shape) * dtype.itemsize != len(raw) - handle.tell():
            raise ValueError(f"header says {dtype} {shape} for {len(raw)} bytes")
    except (ValueError, EOFError, OverflowError) as error:
        raise BoardError(f"{what} is no array that was asked for: {str(error)[:120]}") from error
    return np.frombuffer(raw, dtype, offset=handle.tell()).reshape(shape)


def samples_in(data: Path) -> int:
    """Length of the first array of an .npz, from its header. Raises DataError."""
    try:
        with zipfile.ZipFile(data) as archive, archive.open(archive.namelist()[0]) as member:
            return int(_npy_header(member)[0][0])
    except (OSError, zipfile.BadZipFile, ValueError, IndexError) as error:
        raise DataError(f"{data}: no .npz with arrays: {error}") from error


def _npy_header(handle: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, type) that a .npy claims. Raises ValueError."""
    version = np.lib.format.read_magic(handle)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(handle)


def _checked_record(asked: Asked, index: int, raw: bytes) -> wire.SessionRecord:
    where = f"{asked.target}: session {index}"
    try:
        record = wire.decode(wire.SessionRecord, raw)
    except wire.WireError as error:
        raise BoardError(f"{where} is refused: {error}") from error
    step = asked.schedule[index]
    asked_for = (asked.job_id, index, asked.subjects.index(asked.subject_of(index)), step.kind)
    if (record.job_id, record.index, record.subject, record.kind) != asked_for:
        raise BoardError(f"{where} is refused: it belongs to another job or step")
    if record.outcome not in wire.SESSION_OUTCOMES or min(record.runs, record.warmups) < 0:
        raise BoardError(f"{where} is refused: its outcome or counts are none of the protocol's")
    return record


def _arrays(asked: Asked, record: wire.SessionRecord, parts: Mapping[str, bytes]) -> dict[str, NDArray[Any]]:
    """The session's arrays by part, their types and shapes checked against the record and the request."""
    where = f"{asked.target}: session {record.index}"
    arrays: dict[str, NDArray[Any]] = {}
    for part, length in (("latency.npy", record.runs), ("warmup.npy", record.warmups)):
        array = load_npy(parts[part], f"{where}: {part}") if part in parts else _EMPTY
        if array.dtype != np.int64 or array.shape != (length,) or (array < 0).any():
            raise BoardError(f"{where}: {part} is refused: {array.dtype} {array.shape} where {length} times were told")
        arrays[part] = array
    if record.kind == "evaluate" and record.outcome == "ok":
        names = asked.subject_of(record.index).outputs
        if len(record.outputs) != len(names):
            raise BoardError(f"{where}: the model has {len(record.outputs)} outputs where {len(names)} are known")
        for i, tensor in enumerate(record.outputs):
            part = f"out.{i}.npy"
            array = load_npy(parts.get(part, b""), f"{where}: {part}")
            if array.dtype.name != tensor.dtype or array.ndim == 0 or len(array) != asked.samples:
                raise BoardError(
                    f"{where}: {part} is refused: {array.dtype} {array.shape} for {asked.samples} samples of"
                    f" {tensor.dtype} {tensor.shape}"
                )
            arrays[part] = array
    return arrays


def _session(step: AskedStep, record: wire.SessionRecord, arrays: Mapping[str, NDArray[Any]]) -> Session:
    outcome: Any = record.outcome
    return Session(
        index=step.index,
        label=step.label,
        kind=step.kind,
        outcome=outcome,
        detail=record.detail,
        latencies_ns=arrays["latency.npy"],
        warmups_ns=arrays["warmup.npy"],
        load_ns=record.load_ns,
        first_ns=record.first_ns,
        peak_rss_bytes=record.peak_rss_bytes,
        runtime_rss_bytes=record.runtime_rss_bytes,
        conditions=record.conditions,
        boot_id=record.boot_id,
    )
