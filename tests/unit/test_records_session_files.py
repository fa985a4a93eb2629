"""Stages, results of a pipeline and profiles as a board gives them: kept where they fit, refused where they do not."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.core.profile import Operator, OperatorOutput, Parts
from edgeloop.errors import BoardError
from edgeloop.records.job_request import JobRequest, JobStep, JobSubject
from edgeloop.records.samples import AttemptFolder
from edgeloop_agent import wire

OUTPUT = (OperatorOutput(dtype="float32", shape=(1, 3)),)
PARTS = Parts(
    path="/parts.zip",
    sha256="0" * 64,
    operators=(
        Operator(index=0, operator="PAD", outputs=OUTPUT),
        Operator(index=1, operator="CONV_2D", outputs=OUTPUT),
    ),
    parts=((0,), (1,), (0, 1)),
)
ASKED = JobRequest(
    job_id="j" * 32,
    target="pi",
    board_model="raspberry-pi-4",
    emulated=False,
    subjects=(JobSubject(label="a", engine="litert", threads=1, model_sha256="0" * 64, outputs=("y",), parts=PARTS),),
    schedule=(
        JobStep(index=0, label="a", kind="evaluate"),
        JobStep(index=1, label="a", kind="latency"),
        JobStep(index=2, label="a", kind="profile"),
    ),
    samples=2,
    pipeline="5" * 64,
    facts={},
)
MEMORY: dict[str, Any] = {
    "phases": [{"phase": "load", "rss_bytes": 5, "peak_bytes": None}],
    "polled": 1,
    "rss_min_bytes": 1,
    "rss_max_bytes": 2,
    "model_mapped_bytes": None,
    "model_resident_bytes": None,
    "activation_bytes": 7,
    "activation_note": "",
}
PROFILE: dict[str, Any] = {"runs": [[2, 1, 1, 1], [1, 1, 1, 1]], "outputs_equal": True, "memory": MEMORY}
RESULT = wire.Tensor("scores", "float64", [3], None, None)


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def record(index: int, **more: Any) -> wire.SessionRecord:
    kind = ASKED.schedule[index].kind
    plain = wire.SessionRecord(
        job_id="j" * 32,
        index=index,
        subject=0,
        kind=kind,
        outcome="ok",
        detail="",
        signal=None,
        engine_version="litert 2.3.0",
        python_version="3.11.2",
        load_ns=1,
        first_ns=2,
        peak_rss_bytes=3,
        runtime_rss_bytes=4,
        runs=2 if kind == "latency" else 0,
        warmups=1 if kind == "latency" else 0,
        inputs=[],
        outputs=[wire.Tensor("y", "float32", [1, 3], None, None)],
        energy=None,
        conditions={},
        boot_id="boot",
        started_utc="2026-01-01T00:00:00Z",
        overhead_ns=70,
        missed_periods=4 if kind == "latency" else 0,
        readings={"page_faults": 12},
        stages=list(wire.STAGES) if kind == "latency" else [],
        results=[RESULT] if kind == "evaluate" else [],
        profile=PROFILE if kind == "profile" else None,
    )
    return replace(plain, **more)


def parts(of: wire.SessionRecord, **more: bytes) -> dict[str, bytes]:
    found = {"json": wire.encode(of)}
    if of.kind == "evaluate":
        found["out.0.npy"] = npy(np.array([[1, 2, 3], [4, 5, 6]], np.float64))
    if of.kind == "latency":
        found["latency.npy"] = npy(np.array([50, 60], np.int64))
        found["warmup.npy"] = npy(np.array([9], np.int64))
        found["stages.npy"] = npy(np.arange(12, dtype=np.int64).reshape(6, 2))
    if of.kind == "profile":
        found["operators.npy"] = npy(np.arange(9, dtype=np.int64))
    return {**found, **{name.replace("__", "."): raw for name, raw in more.items()}}


@pytest.fixture
def folder(tmp_path: Path) -> AttemptFolder:
    folder = AttemptFolder(tmp_path / "attempt")
    folder.begin(ASKED)
    return folder


def test_stages_results_and_a_profile_are_read_back_as_they_came(folder: AttemptFolder) -> None:
    for index in range(3):
        folder.keep(folder.request(), index, parts(record(index)), "boot")
    folder.finish(wire.encode(wire.Done("j" * 32, "complete", "harness", "", "boot", 3)))
    attempt = AttemptFolder(folder.folder).read()
    assert list(attempt.outputs["a"]) == ["scores"]
    assert attempt.outputs["a"]["scores"].dtype == np.float32
    latency, profile = attempt.sessions[1], attempt.sessions[2].profile
    assert {name: times.tolist() for name, times in latency.stages_ns.items()} == {
        name: [2 * i, 2 * i + 1] for i, name in enumerate(wire.STAGES)
    }
    assert (latency.overhead_ns, latency.missed_periods) == (70, 4)
    assert [latency.reading(key) for key in ("missed_periods", "page_faults", "unheard_of")] == [4, 12, None]
    assert profile is not None
    assert [[times.tolist() for times in part] for part in profile.times_ns] == [
        [[0, 1], [2], [3], [4]],
        [[5], [6], [7], [8]],
    ]
    assert profile.parts == PARTS
    assert profile.memory.activation_bytes == 7


def test_a_profile_that_broke_has_none_and_is_kept(folder: AttemptFolder) -> None:
    broken = record(2, outcome="crashed", detail="SIGSEGV", signal=11, profile=None, outputs=[])
    folder.keep(folder.request(), 2, {"json": wire.encode(broken)}, "boot")
    assert (folder.folder / "sessions" / "002.json").exists()


def changed(**more: Any) -> dict[str, bytes]:
    return parts(record(2, profile={**PROFILE, **more}))


@pytest.mark.parametrize(
    ("index", "change", "said"),
    [
        (0, lambda: parts(record(0, results=[])), "0 results, or names that are none"),
        (0, lambda: parts(record(0, results=[replace(RESULT, name="../x")])), "1 results, or names that are none"),
        (0, lambda: parts(record(0, results=[RESULT, RESULT])), "2 results, or names that are none"),
        (0, lambda: parts(record(0), out__0__npy=npy(np.zeros((3, 3)))), "out.0.npy is refused"),
        (1, lambda: parts(record(1, stages=["load"])), "periods or stages are none of the protocol's"),
        (1, lambda: parts(record(1, missed_periods=-1)), "periods or stages are none of the protocol's"),
        (1, lambda: parts(record(1, readings={"page_faults": "many"})), "readings are no numbers of the protocol's"),
        (1, lambda: parts(record(1, readings={"page_faults": True})), "readings are no numbers of the protocol's"),
        (1, lambda: parts(record(1, readings={"Page faults": 1})), "readings are no numbers of the protocol's"),
        (1, lambda: parts(record(1, readings={f"r{n}": n for n in range(65)})), "readings are no numbers"),
        (1, lambda: parts(record(1), stages__npy=npy(np.zeros((6, 3), np.int64))), "stages.npy is refused"),
        (1, lambda: parts(record(1), stages__npy=npy(-np.ones((6, 2), np.int64))), "stages.npy is refused"),
        (1, lambda: parts(record(1), stages__npy=b""), "no array that was asked for"),
        (2, lambda: parts(record(2, profile=None)), "its profile is none of the protocol's"),
        (2, lambda: changed(runs=[]), "its profile is none of the protocol's"),
        (2, lambda: changed(runs=[[0, 1, 1, 1]]), "its profile is none of the protocol's"),
        (2, lambda: changed(runs=[[2, 1, 1]]), "operators.npy is refused"),
        (2, lambda: changed(runs=[[2, 1, 1, 1]]), r"operators.npy is refused: int64 \(9,\) for 5 times"),
        (2, lambda: changed(extra=1), "its profile is none of the protocol's"),
        (2, lambda: changed(memory={**MEMORY, "polled": -1}), "its profile is none of the protocol's"),
        (2, lambda: changed(memory={**MEMORY, "activation_note": "x" * 301}), "its profile is none of the protocol's"),
        (2, lambda: parts(record(2), operators__npy=npy(np.zeros(9))), "operators.npy is refused"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_kept(
    folder: AttemptFolder, index: int, change: Callable[[], dict[str, bytes]], said: str
) -> None:
    with pytest.raises(BoardError, match=said):
        folder.keep(folder.request(), index, change(), "boot")
    assert list((folder.folder / "sessions").iterdir()) == []
