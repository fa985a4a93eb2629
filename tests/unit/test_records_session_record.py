"""The host's type of a session's record and the agent's have the same fields, and the host's is as strict."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest

from edgeloop.core.conditions import SessionConditions
from edgeloop.core.frozen import Frozen
from edgeloop.records.session_record import (
    OUTCOMES,
    STAGES,
    RecordError,
    ReportedEnergy,
    ReportedSession,
    ReportedTensor,
    read_record,
)
from edgeloop_agent import wire

TENSOR = {"name": "y", "dtype": "int8", "shape": [1, 3], "scale": 0.5, "zero_point": -1}
ENERGY = {
    "idle_ns": [1, 2],
    "active_ns": [3, 4],
    "period_ms": 100.0,
    "sensor": None,
    "update_s": None,
    "readings": 0,
    "reading_cpu_s": 0,
}
RECORD: dict[str, Any] = {
    "job_id": "j",
    "index": 0,
    "subject": 0,
    "kind": "latency",
    "outcome": "ok",
    "detail": "",
    "signal": None,
    "engine_version": "litert 2.3.0",
    "python_version": "3.11.2",
    "load_ns": 1,
    "first_ns": 2,
    "peak_rss_bytes": 3,
    "runtime_rss_bytes": None,
    "runs": 2,
    "warmups": 1,
    "inputs": [],
    "outputs": [TENSOR],
    "energy": ENERGY,
    "conditions": {"before": {"monotonic_ns": 1_700_000_000_000_000_001}, "newer": {"key": [1]}},
    "boot_id": "boot",
    "started_utc": "2026-01-01T00:00:00Z",
    "overhead_ns": 70,
    "missed_periods": 4,
    "stages": [],
    "profile": {"runs": [[1]]},
    "results": [],
    "readings": {"page_faults": 12},
    "schema": 1,
}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(ReportedSession, wire.SessionRecord), (ReportedEnergy, wire.Energy), (ReportedTensor, wire.Tensor)],
)
def test_both_sides_have_the_same_fields(ours: type[Frozen], theirs: Any) -> None:
    names = {field.alias or name for name, field in ours.model_fields.items()}
    assert names == {field.name for field in fields(theirs)}


def test_both_sides_have_the_same_words() -> None:
    assert (OUTCOMES, STAGES) == (wire.SESSION_OUTCOMES, wire.STAGES)


def test_a_record_is_written_back_as_it_came() -> None:
    record = read_record(json.dumps(RECORD).encode())
    assert record.model_dump(mode="json") == RECORD
    assert wire.from_plain(wire.SessionRecord, RECORD).index == record.index


def test_a_record_of_an_agent_from_before_there_were_readings_has_none() -> None:
    earlier = {name: value for name, value in RECORD.items() if name != "readings"}
    assert read_record(json.dumps(earlier).encode()).readings == {}


def test_readings_that_are_no_object_are_refused() -> None:
    with pytest.raises(RecordError, match="readings"):
        read_record(json.dumps({**RECORD, "readings": [12]}).encode())


@pytest.mark.parametrize("key", sorted(set(RECORD) - {"readings"}))
def test_a_record_that_lacks_a_field_or_has_another_type_is_refused_by_its_name(key: str) -> None:
    lacking = {name: value for name, value in RECORD.items() if name != key}
    for plain in (lacking, {**RECORD, key: object}):
        raw = json.dumps(plain, default=lambda _: {"no": "such type", "key": 1.5}).encode()
        if plain is not lacking and key in {"conditions", "profile"}:
            continue  # these are objects
        with pytest.raises(RecordError, match=key):
            read_record(raw)
        with pytest.raises(wire.WireError):
            wire.decode(wire.SessionRecord, raw)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"[]", "an object is wanted"),
        (b"[" * 5000, "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"load_ns": NaN}', "NaN is not a number of this protocol"),
        (b'{"load_ns": 1e999}', "1e999 is not a number of this protocol"),
        (b'{"load_ns": 1234567890123456789012}', "is not a number of this protocol"),
        (b'"' + b"x" * (4 << 20) + b'"', "bytes, at most"),
        (json.dumps({**RECORD, "extra": 1}).encode(), "unknown field extra"),
        (json.dumps({**RECORD, "index": True}).encode(), "field index is not of the protocol's type"),
        (
            json.dumps({**RECORD, "conditions": {"soak": 1}}).encode(),
            r"conditions\.soak is not of the protocol's types",
        ),
        (json.dumps({**RECORD, "conditions": []}).encode(), "field conditions"),
    ],
)
def test_anything_else_is_refused_in_one_line(raw: bytes, line: str) -> None:
    with pytest.raises(RecordError, match=line) as caught:
        read_record(raw)
    assert "\n" not in str(caught.value)


def test_conditions_of_a_record_are_a_value() -> None:
    conditions = read_record(json.dumps(RECORD).encode()).conditions
    assert isinstance(conditions, SessionConditions)
    assert conditions.before.monotonic_ns == 1_700_000_000_000_000_001
