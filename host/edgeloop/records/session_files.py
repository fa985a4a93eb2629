"""The files of one session as a board gives them, checked against the job that they were asked for.

A board's answers are data, never trusted: what does not fit the request or the protocol is refused with BoardError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from edgeloop.core.check import printable
from edgeloop.core.frozen import Frozen
from edgeloop.core.measurement import PowerTrace, Session
from edgeloop.core.profile import MemoryPass, ProfileSamples
from edgeloop.errors import BoardError
from edgeloop.records.job_request import JobRequest, JobStep
from edgeloop.records.npy_files import load_npy
from edgeloop.records.power_files import BOARD_PART, check_readings, check_windows
from edgeloop.records.session_record import OUTCOMES, STAGES, RecordError, ReportedSession, ReportedTensor, read_record

RESULTS_MAX = 16
"""Of a pipeline; the agent takes no more."""
READINGS_MAX = 64
_READING_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_RESULT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
NOT_CALLED_NS = -1
"""In functions.npy: a call that was not made."""
_FUNCTIONS = "functions.npy"
_EMPTY: NDArray[np.int64] = np.empty(0, np.int64)


def parts_of_step(request: JobRequest, index: int) -> tuple[str, ...]:
    """The parts of the files that a session of this step may have; no other one is asked of the board."""
    kind = request.schedule[index].kind
    if kind == "evaluate":
        count = len(request.subject_of(index).outputs) if request.pipeline is None else RESULTS_MAX
        return ("json", "latency.npy", "warmup.npy", *(f"out.{i}.npy" for i in range(count)))
    if kind == "energy":
        return ("json", "latency.npy", "warmup.npy", BOARD_PART)
    if kind == "profile":
        return ("json", "operators.npy")
    if kind == "tune":
        return ("json", _FUNCTIONS)
    return ("json", "latency.npy", "warmup.npy", *(["stages.npy"] if request.pipeline is not None else []))


def dequantized(raw: NDArray[Any], tensor: ReportedTensor) -> NDArray[Any]:
    """Real values of a stored output, float32; integers without a scale stay as they are."""
    if raw.dtype.kind == "f":
        return raw.astype(np.float32, copy=False)
    if tensor.scale is None:
        return raw
    return ((raw.astype(np.float64) - (tensor.zero_point or 0)) * tensor.scale).astype(np.float32)


def read_session_record(request: JobRequest, index: int, raw: bytes) -> ReportedSession:
    """Return the record of one step. Raises BoardError where it is not of the protocol, or of another step."""
    where = f"{request.target}: session {index}"
    try:
        record = read_record(raw)
    except RecordError as error:
        raise BoardError(f"{where} is refused: {error}") from error
    step = request.schedule[index]
    place = (request.job_id, index, request.subjects.index(request.subject_of(index)), step.kind)
    if (record.job_id, record.index, record.subject, record.kind) != place:
        raise BoardError(f"{where} is refused: it belongs to another job or step")
    if record.outcome not in OUTCOMES or min(record.runs, record.warmups) < 0:
        raise BoardError(f"{where} is refused: its outcome or counts are none of the protocol's")
    if record.missed_periods < 0 or record.stages not in ((), STAGES):
        raise BoardError(f"{where} is refused: its periods or stages are none of the protocol's")
    if not _are_readings(record.readings):
        raise BoardError(f"{where} is refused: its readings are no numbers of the protocol's")
    check_windows(record, where)
    return record


def _are_readings(readings: Mapping[str, object]) -> bool:
    """True where every reading is a number under a key that a table can have as its heading."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in readings.values())
    return numbers and len(readings) <= READINGS_MAX and all(_READING_KEY.match(key) for key in readings)


def output_tensors(request: JobRequest, record: ReportedSession) -> list[tuple[str, ReportedTensor]]:
    """The tensors of an `evaluate` session in the order of its files: outputs of the network, or of a pipeline."""
    if request.pipeline is not None:
        return [(tensor.name, tensor) for tensor in record.results]
    return list(zip(request.subject_of(record.index).outputs, record.outputs, strict=True))


def read_arrays(request: JobRequest, record: ReportedSession, parts: Mapping[str, bytes]) -> dict[str, NDArray[Any]]:
    """The session's arrays by part, their types and shapes checked against the record and the request."""
    where = f"{request.target}: session {record.index}"
    arrays: dict[str, NDArray[Any]] = {}
    for part, length in (("latency.npy", record.runs), ("warmup.npy", record.warmups)):
        array = load_npy(parts[part], f"{where}: {part}") if part in parts else _EMPTY
        if array.dtype != np.int64 or array.shape != (length,) or (array < 0).any():
            raise BoardError(f"{where}: {part} is refused: {array.dtype} {array.shape} where {length} times were told")
        arrays[part] = array
    arrays |= _stages(record, parts, where)
    if record.energy is not None and record.energy.sensor is not None:
        arrays[BOARD_PART] = load_npy(parts.get(BOARD_PART, b""), f"{where}: {BOARD_PART}")
        check_readings(arrays[BOARD_PART], record, where)
    if record.kind == "tune" and record.outcome == "ok":
        arrays[_FUNCTIONS] = array = load_npy(parts.get(_FUNCTIONS, b""), f"{where}: {_FUNCTIONS}")
        if array.dtype != np.int64 or array.ndim != 3 or (array < NOT_CALLED_NS).any():
            raise BoardError(f"{where}: {_FUNCTIONS} is refused: {array.dtype} {array.shape}")
    if record.kind == "evaluate" and record.outcome == "ok":
        names = request.subject_of(record.index).outputs
        if len(record.outputs) != len(names):
            raise BoardError(f"{where}: the model has {len(record.outputs)} outputs where {len(names)} are known")
        _check_results(request, record, where)
        for i, (_, tensor) in enumerate(output_tensors(request, record)):
            part = f"out.{i}.npy"
            array = load_npy(parts.get(part, b""), f"{where}: {part}")
            if array.dtype.name != tensor.dtype or array.ndim == 0 or len(array) != request.samples:
                raise BoardError(
                    f"{where}: {part} is refused: {array.dtype} {array.shape} for {request.samples} samples of"
                    f" {tensor.dtype} {tensor.shape}"
                )
            arrays[part] = array
    return arrays


def _stages(record: ReportedSession, parts: Mapping[str, bytes], where: str) -> dict[str, NDArray[Any]]:
    """The times of a pipeline's stages, a row for each, where the record names any."""
    if not record.stages:
        return {}
    array = load_npy(parts.get("stages.npy", b""), f"{where}: stages.npy")
    if array.dtype != np.int64 or array.shape != (len(record.stages), record.runs) or (array < 0).any():
        raise BoardError(f"{where}: stages.npy is refused: {array.dtype} {array.shape} for {record.runs} runs")
    return {"stages.npy": array}


def _check_results(request: JobRequest, record: ReportedSession, where: str) -> None:
    """Raise BoardError where the names of a pipeline's results are not such as the agent lets pass."""
    names = [tensor.name for tensor in record.results]
    fine = len(set(names)) == len(names) <= RESULTS_MAX and all(_RESULT_NAME.match(name) for name in names)
    if not fine or bool(names) != (request.pipeline is not None):
        raise BoardError(f"{where} is refused: {len(names)} results, or names that are none")


def session_of(
    step: JobStep,
    record: ReportedSession,
    arrays: Mapping[str, NDArray[Any]],
    power: PowerTrace | None,
    profile: ProfileSamples | None,
) -> Session:
    """Return a session as rules read it."""
    outcome: Any = record.outcome  # one of OUTCOMES
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
        overhead_ns=record.overhead_ns,
        missed_periods=record.missed_periods,
        power=power,
        stages_ns=dict(zip(record.stages, arrays["stages.npy"], strict=True)) if record.stages else {},
        profile=profile,
        functions_ns=arrays.get(_FUNCTIONS),
        readings=record.readings,
    )


class _ProfileRecord(Frozen):
    """SessionRecord.profile, as it must be."""

    runs: tuple[tuple[Annotated[int, Field(ge=1)], ...], ...] = Field(min_length=1, max_length=100)
    outputs_equal: bool
    memory: MemoryPass


def profile_of(request: JobRequest, record: ReportedSession, parts: Mapping[str, bytes]) -> ProfileSamples | None:
    """The samples of a `profile` session; None where it is of another kind, or broke. Raises BoardError."""
    if record.kind != "profile" or record.outcome != "ok":
        return None
    where = f"{request.target}: session {record.index}"
    subject = request.subject_of(record.index)
    array = load_npy(parts.get("operators.npy", b""), f"{where}: operators.npy")
    try:
        content = _ProfileRecord.model_validate(record.profile)
    except ValidationError as error:
        raise BoardError(f"{where} is refused: its profile is none of the protocol's") from error
    counts = [count for runs in content.runs for count in runs]
    whole = subject.parts is not None and all(len(runs) == 1 + len(subject.parts.parts) for runs in content.runs)
    if (
        subject.parts is None
        or not whole
        or array.dtype != np.int64
        or array.shape != (sum(counts),)
        or (array < 0).any()
    ):
        raise BoardError(f"{where}: operators.npy is refused: {array.dtype} {array.shape} for {sum(counts)} times")
    pieces = iter(np.split(array, np.cumsum(counts)[:-1]))
    times = tuple(tuple(next(pieces) for _ in runs) for runs in content.runs)
    note = printable(content.memory.activation_note)
    memory = content.memory.model_copy(update={"activation_note": note})
    return ProfileSamples(subject.parts, times, content.outputs_equal, memory)
