"""What comes back from a board is checked against what was asked, and a request always has the same job id."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.board.job import job_id_of, wire_job
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board, BoardEnvironment, BoardModel, Runtime
from edgeloop.core.measurement import MeasureRequest, ScheduleStep, Subject
from edgeloop.core.plan import Environment, Plan
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import BoardError, DataError, LabError
from edgeloop.records.job_request import job_request_of
from edgeloop.records.npy_files import count_samples, load_npy
from edgeloop.records.samples import AttemptFolder
from edgeloop.records.session_files import dequantized
from edgeloop_agent import wire

BOARD = Board(
    name="pi",
    model=BoardModel.model_validate({"schema": 1, "name": "raspberry-pi-4"}),
    runtime=Runtime(cores=(2, 3)),
    environment=BoardEnvironment(start_temperature_max_c=50),
)


def request(folder: Path, **more: Any) -> MeasureRequest:
    artifact = Artifact(
        path="/models/net.tflite",
        sha256="a" * 64,
        deployed_bytes=10,
        inputs=(TensorSpec(name="x", dtype="int8", shape=(1, 2)),),
        outputs=(TensorSpec(name="y", dtype="int8", shape=(1, 3)),),
    )
    settings: dict[str, Any] = {
        "key": "trial",
        "subjects": (Subject("reference", artifact), Subject("candidate", artifact, threads=2)),
        "schedule": (
            ScheduleStep(0, "candidate", "latency"),
            ScheduleStep(1, "candidate", "evaluate"),
            ScheduleStep(2, "reference", "latency"),
        ),
        "plan": Plan.of("quick"),
        "environment": Environment(),
        "folder": folder,
    }
    return MeasureRequest(**{**settings, **more})


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def record(index: int, kind: str, **more: Any) -> wire.SessionRecord:
    tensor = wire.Tensor("y", "int8", [1, 3], 0.5, -1)
    plain = wire.SessionRecord(
        job_id="j" * 32,
        index=index,
        subject=1 if index < 2 else 0,
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
        warmups=1,
        inputs=[],
        outputs=[tensor],
        energy=None,
        conditions={"before": {}},
        boot_id="boot",
        started_utc="2026-01-01T00:00:00Z",
    )
    return replace(plain, **more)


def parts(of: wire.SessionRecord, **more: bytes) -> dict[str, bytes]:
    found = {
        "json": wire.encode(of),
        "latency.npy": npy(np.array([5, 6][: of.runs], np.int64)),
        "warmup.npy": npy(np.array([9][: of.warmups], np.int64)),
    }
    if of.kind == "evaluate":
        found["out.0.npy"] = npy(np.array([[1, 2, 3], [-1, 0, 1]], np.int8))
    return {**found, **{name.replace("__", "."): raw for name, raw in more.items()}}


@pytest.fixture
def folder(tmp_path: Path) -> AttemptFolder:
    folder = AttemptFolder(tmp_path / "attempt")
    folder.begin(job_request_of(request(tmp_path), BOARD, "j" * 32, {"machine": "aarch64"}, 2))
    return folder


class TestJobId:
    def test_equal_requests_have_one_id_wherever_their_results_are_kept(self, tmp_path: Path) -> None:
        first = job_id_of(request(tmp_path / "1"), None)
        assert first == job_id_of(request(tmp_path / "2"), None)
        assert wire.JOB_ID.match(first)

    @pytest.mark.parametrize(
        "more",
        [
            {"key": "other"},
            {"attempt": 1},
            {"plan": Plan.of("standard")},
            {"environment": Environment(governor="performance")},
            {"schedule": (ScheduleStep(0, "candidate", "latency"),)},
        ],
    )
    def test_another_question_has_another_id(self, tmp_path: Path, more: dict[str, Any]) -> None:
        assert job_id_of(request(tmp_path, **more), None) != job_id_of(request(tmp_path), None)

    def test_other_data_have_another_id(self, tmp_path: Path) -> None:
        assert job_id_of(request(tmp_path), "d" * 64) != job_id_of(request(tmp_path), None)


def test_a_job_says_what_the_request_and_the_board_declare(tmp_path: Path) -> None:
    job = wire_job(
        request(tmp_path, environment=Environment(governor="performance")),
        BOARD,
        job_id="j" * 32,
        agent_sha256="b" * 64,
        token="token",
        owner="me@here",
        data_sha256=None,
        python_path=["c" * 64],
        deadline_s=100,
    )
    assert [(step.index, step.subject, step.kind) for step in job.schedule] == [
        (0, 1, "latency"),
        (1, 1, "evaluate"),
        (2, 0, "latency"),
    ]
    assert (job.subjects[1].threads, job.subjects[1].model_suffix) == (2, ".tflite")
    assert (job.conditions.cores, job.conditions.governor) == ([2, 3], "performance")
    assert job.conditions.start_temperature_max_c == 50
    assert wire.decode(wire.Job, wire.encode(job)) == job


class TestFolder:
    def test_sessions_are_read_back_as_they_came(self, folder: AttemptFolder) -> None:
        for index, kind in enumerate(["latency", "evaluate", "latency"]):
            folder.keep(folder.request(), index, parts(record(index, kind)), "boot")
        folder.finish(wire.encode(wire.Done("j" * 32, "complete", "harness", "", "boot", 3)))
        attempt = AttemptFolder(folder.folder).read()
        assert [session.label for session in attempt.sessions] == ["candidate", "candidate", "reference"]
        assert attempt.sessions[0].latencies_ns.tolist() == [5, 6]
        assert attempt.outputs["candidate"]["y"].tolist() == [[1.0, 1.5, 2.0], [0.0, 0.5, 1.0]]
        assert attempt.engine_versions == {"candidate": "litert 2.3.0", "reference": "litert 2.3.0"}
        assert (attempt.target, attempt.board_model, attempt.facts) == ("pi", "raspberry-pi-4", {"machine": "aarch64"})

    def test_a_folder_that_is_not_complete_is_not_read(self, folder: AttemptFolder) -> None:
        folder.keep(folder.request(), 0, parts(record(0, "latency")), "boot")
        with pytest.raises(LabError, match="no complete measurement"):
            AttemptFolder(folder.folder).read()

    def test_a_session_counts_only_when_its_row_is_unbroken(self, folder: AttemptFolder) -> None:
        assert folder.last_index() == -1
        folder.keep(folder.request(), 1, parts(record(1, "evaluate")), "boot")
        assert folder.last_index() == -1
        folder.keep(folder.request(), 0, parts(record(0, "latency")), "boot")
        assert folder.last_index() == 1

    def test_beginning_anew_forgets_what_an_earlier_attempt_left(self, folder: AttemptFolder) -> None:
        folder.keep(folder.request(), 0, parts(record(0, "latency")), "boot")
        folder.begin(folder.request())
        assert folder.last_index() == -1

    def test_a_session_that_did_not_end_well_may_lack_its_arrays(self, folder: AttemptFolder) -> None:
        crashed = record(1, "evaluate", outcome="crashed", detail="SIGSEGV", signal=11, runs=0, warmups=0, outputs=[])
        folder.keep(folder.request(), 1, {"json": wire.encode(crashed)}, "boot")

    @pytest.mark.parametrize(
        ("index", "change", "said"),
        [
            (0, lambda: parts(record(0, "latency", job_id="k" * 32)), "another job or step"),
            (0, lambda: parts(record(0, "latency", subject=0)), "another job or step"),
            (0, lambda: parts(replace(record(0, "latency"), index=2)), "another job or step"),
            (0, lambda: parts(record(0, "latency", outcome="fine")), "outcome"),
            (0, lambda: parts(record(0, "latency", runs=-1)), "counts"),
            (0, lambda: parts(record(0, "latency", runs=3)), "latency.npy is refused"),
            (0, lambda: parts(record(0, "latency"), latency__npy=npy(np.array([5.0, 6.0]))), "latency.npy is refused"),
            (0, lambda: parts(record(0, "latency"), latency__npy=npy(np.array([5, -6]))), "latency.npy is refused"),
            (0, lambda: parts(record(0, "latency"), json=b"{}"), "field job_id is missing"),
            (0, lambda: parts(record(0, "latency"), json=b"[" * 5000), "not JSON"),
            (0, lambda: parts(record(0, "latency", boot_id="other")), "another boot"),
            (1, lambda: parts(record(1, "evaluate", outputs=[])), "has 0 outputs where 1 are known"),
            (
                1,
                lambda: parts(record(1, "evaluate"), out__0__npy=npy(np.zeros((3, 3), np.int8))),
                "out.0.npy is refused",
            ),
            (1, lambda: parts(record(1, "evaluate"), out__0__npy=npy(np.zeros((2, 3)))), "out.0.npy is refused"),
            (1, lambda: parts(record(1, "evaluate"), out__0__npy=b""), "no array that was asked for"),
        ],
    )
    def test_what_does_not_fit_the_request_is_refused_and_not_kept(
        self, folder: AttemptFolder, index: int, change: Callable[[], dict[str, bytes]], said: str
    ) -> None:
        with pytest.raises(BoardError, match=said):
            folder.keep(folder.request(), index, change(), "boot")
        assert list((folder.folder / "sessions").iterdir()) == []


class TestArrays:
    def test_plain_arrays_are_read(self) -> None:
        for array in (np.arange(6, dtype=np.int8).reshape(2, 3), np.zeros((0,), np.int64), np.array(2.5)):
            np.testing.assert_array_equal(load_npy(npy(array), "x"), array)

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"\x93NUMPY",
            npy(np.arange(3))[:-1],
            npy(np.arange(3)) + b"x",
            npy(np.array([{"a": 1}], dtype=object)),
            npy(np.array(["text"])),
            npy(np.arange(3).astype(">i8")),
            npy(np.asfortranarray(np.zeros((2, 3)))),
            npy(np.arange(3)).replace(b"(3,)", b"(9,)"),
            npy(np.zeros(3, "i8,i8")),
        ],
    )
    def test_anything_else_is_refused(self, raw: bytes) -> None:
        with pytest.raises(BoardError, match="x is no array that was asked for"):
            load_npy(raw, "x")

    def test_a_header_that_claims_a_huge_array_allocates_nothing(self) -> None:
        buffer = io.BytesIO()
        header = {"shape": (10**12,), "fortran_order": False, "descr": "<i8"}
        np.lib.format.write_array_header_1_0(buffer, header)
        with pytest.raises(BoardError, match="header says int64"):
            load_npy(buffer.getvalue() + bytes(80), "x")

    def test_outputs_become_real_numbers(self) -> None:
        quantized = wire.Tensor("y", "int8", [1, 2], 0.25, 3)
        assert dequantized(np.array([3, 7], np.int8), quantized).tolist() == [0.0, 1.0]
        assert dequantized(np.array([3, 7], np.int8), quantized).dtype == np.float32
        plain = wire.Tensor("y", "int64", [1, 2], None, None)
        assert dequantized(np.array([3, 7]), plain).dtype == np.int64
        assert dequantized(np.array([0.5], np.float64), plain).dtype == np.float32

    def test_samples_are_counted_from_the_header(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", x=np.zeros((7, 2)))
        assert count_samples(tmp_path / "d.npz") == 7
        (tmp_path / "text.npz").write_text("no zip")
        with pytest.raises(DataError, match=r"text\.npz"):
            count_samples(tmp_path / "text.npz")
