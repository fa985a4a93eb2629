"""The files of one session as a board gives them: what may be there, and whether it is what was asked for.

A board's answers are data, never trusted: what does not fit the request or the protocol is refused with BoardError.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from edgeloop.board import surroundings
from edgeloop.board.agent import Look
from edgeloop.board.job_request import AskedStep, JobRequest
from edgeloop.board.metering import BOARD_PART, check_readings, check_windows
from edgeloop.core.check import printable
from edgeloop.core.frozen import Frozen
from edgeloop.core.measurement import PowerTrace, Session
from edgeloop.core.profile import MemoryPass, ProfileSamples
from edgeloop.errors import BoardError, DataError
from edgeloop_agent import wire

SESSION_BYTES_MAX = 1 << 30
RESULTS_MAX = 16
"""Of a pipeline; the agent takes no more."""
READINGS_MAX = 64
_READING_KEY = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_RESULT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_DTYPES = {"float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool"}
_FUNCTIONS = "functions.npy"
_EMPTY: NDArray[np.int64] = np.empty(0, np.int64)


def wanted_parts(asked: JobRequest, index: int) -> tuple[str, ...]:
    """The parts that a session of this step may have; nothing else is asked of the board."""
    kind = asked.schedule[index].kind
    if kind == "evaluate":
        count = len(asked.subject_of(index).outputs) if asked.pipeline is None else RESULTS_MAX
        return ("json", "latency.npy", "warmup.npy", *(f"out.{i}.npy" for i in range(count)))
    if kind == "energy":
        return ("json", "latency.npy", "warmup.npy", BOARD_PART)
    if kind == "profile":
        return ("json", "operators.npy")
    if kind == "tune":
        return ("json", _FUNCTIONS)
    return ("json", "latency.npy", "warmup.npy", *(["stages.npy"] if asked.pipeline is not None else []))


def sizes_to_read(asked: JobRequest, look: Look, index: int) -> dict[str, int]:
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
    """Samples in an .npz, from the header of its first array, or of the offsets of encoded ones. Raises DataError."""
    try:
        with zipfile.ZipFile(data) as archive:
            encoded = "encoded_offsets.npy" in archive.namelist()
            with archive.open("encoded_offsets.npy" if encoded else archive.namelist()[0]) as member:
                return int(_npy_header(member)[0][0]) - encoded
    except (OSError, zipfile.BadZipFile, ValueError, IndexError) as error:
        raise DataError(f"{data}: no .npz with arrays: {error}") from error


def _npy_header(handle: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, type) that a .npy claims. Raises ValueError."""
    version = np.lib.format.read_magic(handle)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(handle)


def checked_record(asked: JobRequest, index: int, raw: bytes) -> wire.SessionRecord:
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
    if record.missed_periods < 0 or record.stages not in ([], list(wire.STAGES)):
        raise BoardError(f"{where} is refused: its periods or stages are none of the protocol's")
    if not _are_readings(record.readings):
        raise BoardError(f"{where} is refused: its readings are no numbers of the protocol's")
    for key in surroundings.faults(record.conditions):
        raise BoardError(f"{where} is refused: conditions.{key} is not of the protocol's types")
    check_windows(record, where)
    return record


def _are_readings(readings: Mapping[str, object]) -> bool:
    """Whether every reading is a number under a key that a table can have as its heading."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in readings.values())
    return numbers and len(readings) <= READINGS_MAX and all(_READING_KEY.match(key) for key in readings)


def written(asked: JobRequest, record: wire.SessionRecord) -> list[tuple[str, wire.Tensor]]:
    """What an `evaluate` session wrote, in the order of its files: the network's outputs, or a pipeline's results."""
    if asked.pipeline is not None:
        return [(tensor.name, tensor) for tensor in record.results]
    return list(zip(asked.subject_of(record.index).outputs, record.outputs, strict=True))


def checked_arrays(
    asked: JobRequest, record: wire.SessionRecord, parts: Mapping[str, bytes]
) -> dict[str, NDArray[Any]]:
    """The session's arrays by part, their types and shapes checked against the record and the request."""
    where = f"{asked.target}: session {record.index}"
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
        if array.dtype != np.int64 or array.ndim != 3 or (array < wire.NOT_CALLED_NS).any():
            raise BoardError(f"{where}: {_FUNCTIONS} is refused: {array.dtype} {array.shape}")
    if record.kind == "evaluate" and record.outcome == "ok":
        names = asked.subject_of(record.index).outputs
        if len(record.outputs) != len(names):
            raise BoardError(f"{where}: the model has {len(record.outputs)} outputs where {len(names)} are known")
        _check_results(asked, record, where)
        for i, (_, tensor) in enumerate(written(asked, record)):
            part = f"out.{i}.npy"
            array = load_npy(parts.get(part, b""), f"{where}: {part}")
            if array.dtype.name != tensor.dtype or array.ndim == 0 or len(array) != asked.samples:
                raise BoardError(
                    f"{where}: {part} is refused: {array.dtype} {array.shape} for {asked.samples} samples of"
                    f" {tensor.dtype} {tensor.shape}"
                )
            arrays[part] = array
    return arrays


def _stages(record: wire.SessionRecord, parts: Mapping[str, bytes], where: str) -> dict[str, NDArray[Any]]:
    """The times of a pipeline's stages, a row for each, where the record names any."""
    if not record.stages:
        return {}
    array = load_npy(parts.get("stages.npy", b""), f"{where}: stages.npy")
    if array.dtype != np.int64 or array.shape != (len(record.stages), record.runs) or (array < 0).any():
        raise BoardError(f"{where}: stages.npy is refused: {array.dtype} {array.shape} for {record.runs} runs")
    return {"stages.npy": array}


def _check_results(asked: JobRequest, record: wire.SessionRecord, where: str) -> None:
    """Raise BoardError where the names of a pipeline's results are not such as the agent lets pass."""
    names = [tensor.name for tensor in record.results]
    fine = len(set(names)) == len(names) <= RESULTS_MAX and all(_RESULT_NAME.match(name) for name in names)
    if not fine or bool(names) != (asked.pipeline is not None):
        raise BoardError(f"{where} is refused: {len(names)} results, or names that are none")


def session_of(
    step: AskedStep,
    record: wire.SessionRecord,
    arrays: Mapping[str, NDArray[Any]],
    power: PowerTrace | None,
    profile: ProfileSamples | None,
) -> Session:
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
        overhead_ns=record.overhead_ns,
        missed_periods=record.missed_periods,
        power=power,
        stages_ns=dict(zip(record.stages, arrays["stages.npy"], strict=True)) if record.stages else {},
        profile=profile,
        functions_ns=arrays.get(_FUNCTIONS),
        readings=record.readings,
    )


class _Told(Frozen):
    """SessionRecord.profile, as it must be."""

    runs: tuple[tuple[Annotated[int, Field(ge=1)], ...], ...] = Field(min_length=1, max_length=100)
    outputs_equal: bool
    memory: MemoryPass


def profile_of(asked: JobRequest, record: wire.SessionRecord, parts: Mapping[str, bytes]) -> ProfileSamples | None:
    """What a `profile` session saw; None where it is of another kind, or broke. Raises BoardError."""
    if record.kind != "profile" or record.outcome != "ok":
        return None
    where = f"{asked.target}: session {record.index}"
    subject = asked.subject_of(record.index)
    array = load_npy(parts.get("operators.npy", b""), f"{where}: operators.npy")
    try:
        told = _Told.model_validate(record.profile)
    except ValidationError as error:
        raise BoardError(f"{where} is refused: its profile is none of the protocol's") from error
    counts = [count for runs in told.runs for count in runs]
    whole = subject.parts is not None and all(len(runs) == 1 + len(subject.parts.parts) for runs in told.runs)
    if (
        subject.parts is None
        or not whole
        or array.dtype != np.int64
        or array.shape != (sum(counts),)
        or (array < 0).any()
    ):
        raise BoardError(f"{where}: operators.npy is refused: {array.dtype} {array.shape} for {sum(counts)} times")
    pieces = iter(np.split(array, np.cumsum(counts)[:-1]))
    times = tuple(tuple(next(pieces) for _ in runs) for runs in told.runs)
    note = printable(told.memory.activation_note)
    memory = told.memory.model_copy(update={"activation_note": note})
    return ProfileSamples(subject.parts, times, told.outputs_equal, memory)
