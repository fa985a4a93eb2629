"""The protocol's messages: what is encoded comes back, and what is hostile is refused with one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_agent import wire

KINDS: list[type[Any]] = [
    wire.Job,
    wire.State,
    wire.Done,
    wire.SessionRecord,
    wire.WireSubject,
    wire.WirePipeline,
    wire.SessionPlan,
    wire.Tensor,
]
TEXT = st.text(max_size=20)
NUMBER = st.floats(allow_nan=False, allow_infinity=False)
INTEGER = st.integers(-(2**63), 2**63 - 1)

subjects = st.builds(
    wire.WireSubject,
    TEXT,
    TEXT,
    TEXT,
    TEXT,
    INTEGER,
    st.lists(TEXT, max_size=3),
    st.lists(TEXT, max_size=3),
    st.none() | TEXT,
)
steps = st.builds(wire.WireStep, INTEGER, INTEGER, TEXT)
plans = st.builds(wire.SessionPlan, INTEGER, NUMBER, NUMBER, INTEGER, NUMBER, TEXT, st.none() | NUMBER, NUMBER, NUMBER)
surroundings = st.builds(
    wire.Conditions,
    st.lists(INTEGER, max_size=3),
    TEXT,
    st.booleans(),
    st.none() | NUMBER,
    NUMBER,
    st.none() | NUMBER,
    st.none() | NUMBER,
    NUMBER,
    NUMBER,
)
jobs = st.builds(
    wire.Job,
    id=TEXT,
    agent_sha256=TEXT,
    lease_token=TEXT,
    lease_owner=TEXT,
    subjects=st.lists(subjects, max_size=3),
    schedule=st.lists(steps, max_size=3),
    session_plan=plans,
    conditions=surroundings,
    data_sha256=st.none() | TEXT,
    python_path=st.lists(TEXT, max_size=2),
    power_sensor=st.none() | TEXT,
    seed=INTEGER,
    deadline_s=NUMBER,
    pipeline=st.none() | st.builds(wire.WirePipeline, TEXT, TEXT, TEXT),
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(jobs)
def test_a_job_comes_back_as_it_was_sent(job: wire.Job) -> None:
    assert wire.decode(wire.Job, wire.encode(job)) == job


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_bytes_that_are_no_message_are_refused(kind: type[Any], raw: bytes) -> None:
    with pytest.raises(wire.WireError):
        wire.decode(kind, raw)


@given(st.sampled_from(KINDS), plain)
def test_values_that_are_no_message_are_refused(kind: type[Any], value: Any) -> None:
    with pytest.raises(wire.WireError) as raised:
        wire.from_plain(kind, value)
    assert len(str(raised.value)) < 200


@given(jobs, st.data())
def test_one_wrong_field_is_refused_by_its_name(job: wire.Job, data: st.DataObject) -> None:
    value = json.loads(wire.encode(job))
    key = data.draw(st.sampled_from(sorted(set(value) - {"schema"})))
    value[key] = data.draw(st.sampled_from([{"strange": 1}, [[[]]], True, {}]))
    with pytest.raises(wire.WireError, match=f"{key}|unknown field strange|is wanted|is missing"):
        wire.from_plain(wire.Job, value)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (b"[" * 100_000, "not JSON"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": -Infinity}', "-Infinity is not a number"),
        (b'{"a": 1e999}', "1e999 is not a number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "9999 is not a number"),
        (b"\xff\xfe{}", "not JSON"),
        (b"{}" + b" " * wire.MESSAGE_BYTES_MAX, "at most 4194304"),
    ],
)
def test_hostile_json_is_refused_and_bounded(raw: bytes, line: str) -> None:
    with pytest.raises(wire.WireError, match=line) as raised:
        wire.load_json(raw)
    assert len(str(raised.value)) < 200


def test_a_record_from_before_there_were_readings_is_read_and_has_none() -> None:
    plain = wire.SessionRecord(
        *(
            "a" * 32,
            0,
            0,
            "latency",
            "ok",
            "",
            None,
            "litert 2.3.0",
            "3.11",
            1,
            2,
            3,
            4,
            0,
            0,
            [],
            [],
            None,
            {},
            "b",
            "t",
        )
    )
    old = json.loads(wire.encode(plain))
    del old["readings"]
    assert wire.from_plain(wire.SessionRecord, old) == plain
    assert plain.readings == {}
    del old["stages"]
    with pytest.raises(wire.WireError, match="stages is missing"):
        wire.from_plain(wire.SessionRecord, old)


def test_another_schema_is_refused() -> None:
    value = json.loads(wire.encode(wire.Done("j", "complete", "harness", "", "boot", 3)))
    with pytest.raises(wire.WireError, match="schema 2, this side speaks 1"):
        wire.from_plain(wire.Done, {**value, "schema": 2})


def test_a_message_that_is_too_large_or_infinite_is_not_sent() -> None:
    with pytest.raises(wire.WireError, match="at most"):
        wire.encode(wire.Done("j", "failed", "board", "x" * wire.MESSAGE_BYTES_MAX, "boot", 0))
    with pytest.raises(wire.WireError, match="SessionPlan"):
        wire.encode(wire.SessionPlan(1, float("inf"), 1.0, 1, 1.0, "invoke", None, 0.0, 1.0))


@pytest.mark.parametrize("durable", [True, False])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, durable: bool) -> None:
    target = tmp_path / "state.json"
    wire.write_atomically(target, b"one", durable=durable)
    wire.write_atomically(target, b"two", durable=durable)
    assert target.read_bytes() == b"two"
    blocked = tmp_path / "folder"
    blocked.mkdir()
    with pytest.raises(OSError, match="folder"):
        wire.write_atomically(blocked, b"three", durable=durable)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "state.json"]
