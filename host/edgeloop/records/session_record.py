"""The record of one session, sessions/NNN.json, as a board's agent writes it: read strictly, refused in one line.

It is a board's answer, so it is data and never trusted. The agent has the same record in `edgeloop_agent.wire`; a test
holds that both have the same fields.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, NoReturn

from pydantic import Field, StrictFloat, StrictInt, StrictStr, ValidationError, field_validator

from edgeloop.core.conditions import ConditionsError, SessionConditions, read_conditions
from edgeloop.core.frozen import Frozen

RECORD_BYTES_MAX = 4 * 1024 * 1024
OUTCOMES = ("ok", "crashed", "timeout", "refused")
STAGES = ("load", "preprocess", "copy_in", "invoke", "copy_out", "postprocess")
"""Of an inference that is timed end to end, in this order."""
_DIGITS_MAX = 20  # as 64 bits and a sign need: larger ones would overflow where they are used
_Number = StrictInt | StrictFloat


class RecordError(ValueError):
    """A record that is not of the protocol: one line, naming the field."""


class ReportedTensor(Frozen):
    """One input or output as the runtime reports it. scale and zero_point are None where not quantized."""

    name: StrictStr
    dtype: StrictStr
    shape: tuple[StrictInt, ...]
    scale: _Number | None
    zero_point: StrictInt | None


class ReportedEnergy(Frozen):
    """The windows of an `energy` session, and the board's sensor meanwhile. Times are CLOCK_MONOTONIC."""

    idle_ns: tuple[StrictInt, ...]
    """[start, end] of the window in which the process slept."""
    active_ns: tuple[StrictInt, ...]
    """[start, end] of the window in which it inferred."""
    period_ms: _Number | None
    sensor: StrictStr | None
    """None: a meter on the host saw it, or nobody."""
    update_s: _Number | None
    """From one value of the sensor to its next, where it says so."""
    readings: StrictInt
    """Columns of NNN.power.npy; 0 without a sensor."""
    reading_cpu_s: _Number


class ReportedSession(Frozen):
    """sessions/NNN.json."""

    job_id: StrictStr
    index: StrictInt
    subject: StrictInt
    kind: StrictStr
    outcome: StrictStr
    detail: StrictStr
    signal: StrictInt | None
    engine_version: StrictStr
    python_version: StrictStr
    load_ns: StrictInt | None
    first_ns: StrictInt | None
    peak_rss_bytes: StrictInt | None
    runtime_rss_bytes: StrictInt | None
    runs: StrictInt
    """Length of NNN.latency.npy (int64, ns)."""
    warmups: StrictInt
    """Length of NNN.warmup.npy (int64, ns)."""
    inputs: tuple[ReportedTensor, ...]
    outputs: tuple[ReportedTensor, ...]
    energy: ReportedEnergy | None
    conditions: SessionConditions
    boot_id: StrictStr
    started_utc: StrictStr
    overhead_ns: StrictInt | None
    missed_periods: StrictInt
    stages: tuple[StrictStr, ...]
    """Rows of NNN.stages.npy (int64, ns, a column for each run); empty but for `end_to_end`."""
    readings: dict[StrictStr, Any] = Field(default_factory=dict)
    """Numbers that a session reads beside its times, by key; empty in records of agents before it was there."""
    profile: dict[StrictStr, Any] | None
    results: tuple[ReportedTensor, ...]
    """Of an `evaluate` session through a pipeline, instead of the outputs; shapes of one sample."""
    schema_: Annotated[Literal[1], Field(alias="schema")]

    @field_validator("conditions", mode="before")
    @classmethod
    def _read_conditions(cls, plain: Any) -> SessionConditions:
        if not isinstance(plain, dict):
            raise ValueError("an object is wanted")  # noqa: TRY004  # what pydantic reports
        return read_conditions(plain)


def read_record(raw: bytes) -> ReportedSession:
    """Return a session's record. Raises RecordError where it is not of the protocol."""
    plain = _bounded_json(raw)
    if not isinstance(plain, dict):
        raise RecordError("SessionRecord: an object is wanted")
    try:
        return ReportedSession.model_validate(plain)
    except ValidationError as error:
        raise RecordError(_first_fault(error)) from error


def _first_fault(error: ValidationError) -> str:
    item = error.errors(include_url=False, include_input=False)[0]
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, ConditionsError):
        return f"conditions.{cause.keys[0]} is not of the protocol's types"
    field = ".".join(str(part)[:40] for part in item["loc"])
    match item["type"]:
        case "missing":
            return f"SessionRecord: field {field} is missing"
        case "extra_forbidden":
            return f"SessionRecord: unknown field {field}"
        case _:
            return f"SessionRecord: field {field} is not of the protocol's type"


def _bounded_json(raw: bytes) -> Any:
    """Parse bounded JSON without NaN. Raises RecordError for anything else, deep nesting included."""
    if len(raw) > RECORD_BYTES_MAX:
        raise RecordError(f"{len(raw)} bytes, at most {RECORD_BYTES_MAX}")

    def refuse(word: str) -> NoReturn:
        raise RecordError(f"{word[:40]} is not a number of this protocol")

    def finite(word: str) -> float:
        number = float(word)
        return refuse(word) if math.isinf(number) else number

    def whole(word: str) -> int:
        return refuse(word) if len(word) > _DIGITS_MAX else int(word)

    try:
        return json.loads(raw.decode("utf-8"), parse_constant=refuse, parse_float=finite, parse_int=whole)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RecordError(f"not JSON: {type(error).__name__}") from error
