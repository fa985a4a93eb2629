"""The pass of its own on a real agent: every operator timed, outputs those of the whole, memory by phase."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agent_board import DATA, AgentBoard
from campaigns import run, write_local_board
from platformdirs import user_cache_path

from edgeloop.core.profile import Parts
from edgeloop.errors import ModelError
from edgeloop.host_runtime.tflite import read_tflite, split_tflite
from edgeloop_agent import wire

HERE = Path(__file__).parent


def profiled(
    board: AgentBoard, folder: Path, model: str, engine: str = "litert", **changes: Any
) -> tuple[Parts, wire.Job]:
    parts = split_tflite(read_tflite(DATA / model), folder / "parts.zip")
    sha256 = board.put(Path(parts.path).read_bytes(), ".zip")
    assert sha256 == parts.sha256
    names = read_tflite(DATA / model)
    subject = board.subject(
        (DATA / model).read_bytes(), tuple(s.name for s in names.inputs), outputs=tuple(s.name for s in names.outputs)
    )
    subject = replace(subject, engine=engine, parts_sha256=sha256)
    return parts, board.job([subject], [(0, "profile")], **changes)


@pytest.mark.parametrize("model", ["tiny_float.tflite", "tiny_int8.tflite", "tiny_two.tflite", "tiny_half.tflite"])
def test_every_operator_is_timed_and_chained_they_give_what_the_whole_gives(
    board: AgentBoard, tmp_path: Path, model: str
) -> None:
    parts, job = profiled(board, tmp_path, model)
    assert board.finish(job).outcome == "complete"
    record = board.record(job)
    assert record.outcome == "ok", record.detail
    assert record.profile is not None
    assert record.profile["outputs_equal"] is True
    runs, times = record.profile["runs"], board.array(job, "operators.npy")
    assert [len(counts) for counts in runs] == [1 + len(parts.parts)] * 3
    assert (times.dtype, times.shape) == (np.int64, (sum(map(sum, runs)),))
    assert times.min() > 0
    assert min(min(counts) for counts in runs) >= 10
    assert record.runs == 0


def test_memory_is_told_by_phase_and_what_a_delegate_keeps_is_not_guessed(board: AgentBoard, tmp_path: Path) -> None:
    _, job = profiled(board, tmp_path, "tiny_float.tflite")
    assert board.finish(job).outcome == "complete"
    profile = board.record(job).profile
    assert profile is not None
    memory = profile["memory"]
    assert [phase["phase"] for phase in memory["phases"]] == ["runtime", "load", "first", "runs"]
    for phase in memory["phases"]:
        assert phase["peak_bytes"] is None or phase["peak_bytes"] >= phase["rss_bytes"] - 65536
    assert memory["phases"][1]["rss_bytes"] >= memory["phases"][0]["rss_bytes"]
    assert memory["polled"] >= 1
    assert memory["rss_min_bytes"] <= memory["rss_max_bytes"]
    assert memory["model_mapped_bytes"] is None or memory["model_mapped_bytes"] >= 3000
    assert memory["activation_bytes"] is None
    assert memory["activation_note"] == "3 of 5 activations are kept by a delegate, which does not tell its memory"


def test_a_runtime_without_a_delegate_tells_its_activations(board: AgentBoard, tmp_path: Path) -> None:
    wheels = user_cache_path("edgeloop") / "wheels"
    found = [path for name in ("tflite_runtime-*cp311*x86_64*", "numpy-1*cp311*x86_64*") for path in wheels.glob(name)]
    if len(found) < 2 or sys.version_info[:2] != (3, 11):
        pytest.skip("wheels of tflite-runtime and numpy 1 are not in the cache: provision a board with them once")
    runtime = board.state / wire.RUNTIMES_DIR / ("e" * 64)
    if not runtime.exists():
        for path in found:
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(runtime)
    _, job = profiled(board, tmp_path, "tiny_int8.tflite", "tflite-runtime", python_path=["e" * 64])
    done = board.finish(job)
    assert done.outcome == "complete", done.detail
    record = board.record(job)
    assert record.outcome == "ok", record.detail
    assert record.engine_version == "tflite-runtime 2.14.0"
    assert record.profile is not None
    assert record.profile["outputs_equal"] is True
    memory = record.profile["memory"]
    assert memory["activation_note"] == ""
    assert 32 + 32 <= memory["activation_bytes"] < 100_000  # two tensors of 32 bytes are alive at once


def test_parts_that_are_no_zip_are_refused_with_one_line(board: AgentBoard, tmp_path: Path) -> None:
    _, job = profiled(board, tmp_path, "tiny_float.tflite")
    sha256 = board.put(b"this is no zip", ".zip")
    job = replace(job, subjects=[replace(job.subjects[0], parts_sha256=sha256)])
    assert board.finish(job).outcome == "complete"
    record = board.record(job)
    assert (record.outcome, record.profile) == ("refused", None)
    assert record.detail == "the model's parts can't be read: File is not a zip file"


def test_equal_models_give_equal_parts(tmp_path: Path) -> None:
    artifact = read_tflite(DATA / "tiny_int8.tflite")
    first, second = (split_tflite(artifact, tmp_path / f"{n}.zip") for n in (1, 2))
    assert first.sha256 == second.sha256
    assert [operator.operator for operator in first.operators] == [
        "DEPTHWISE_CONV_2D",
        "TRANSPOSE",
        "RESHAPE",
        "FULLY_CONNECTED",
    ]
    assert str(first.operators[0].outputs[0]) == "int8 1x4x4x2"


def test_padding_has_a_part_with_its_convolution_and_constants_go_along_with_their_users(tmp_path: Path) -> None:
    cut = split_tflite(read_tflite(DATA / "tiny_half.tflite"), tmp_path / "parts.zip")
    assert [operator.operator for operator in cut.operators] == [
        "PAD",
        "DEPTHWISE_CONV_2D",
        "MEAN",
        "DEQUANTIZE",
        "FULLY_CONNECTED",
    ]
    assert [operator.folded_into for operator in cut.operators] == [None, None, None, (4,), None]
    assert cut.parts == ((0,), (1,), (2,), (4,), (0, 1))


def test_control_flow_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    from ai_edge_litert.tools import flatbuffer_utils as fb

    model = fb.read_model_from_bytearray(bytearray((DATA / "tiny_float.tflite").read_bytes()))
    model.subgraphs.append(model.subgraphs[0])
    path = tmp_path / "two.tflite"
    path.write_bytes(fb.convert_object_to_bytearray(model))
    with pytest.raises(ModelError, match=r"has 2 subgraphs \(control flow\): its operators can't be timed one by one"):
        split_tflite(read_tflite(path), tmp_path / "parts.zip")


def test_measure_tells_operators_and_memory_in_text_and_json(tmp_path: Path) -> None:
    write_local_board(tmp_path)
    shutil.copy(DATA / "tiny_int8.tflite", tmp_path / "net.tflite")
    words = (
        "measure",
        "net.tflite",
        "--target",
        "here",
        "--profile",
        "quick",
        "--sessions",
        "2",
        "--time-s-min",
        "0.05",
    )
    plain = json.loads(run(*words, "--json", cwd=tmp_path).stdout)
    assert (plain["per_op"], plain["memory"]) == (None, None)
    found = json.loads(run(*words, "--per-op", "--json", cwd=tmp_path).stdout)
    operators = found["per_op"]["operators"]
    assert [operator["operator"] for operator in operators] == [
        "DEPTHWISE_CONV_2D",
        "TRANSPOSE",
        "RESHAPE",
        "FULLY_CONNECTED",
    ]
    assert sum(operator["share"] for operator in operators) == pytest.approx(1)
    assert sum(operator["p50_ns"] for operator in operators) == pytest.approx(found["per_op"]["sum_ns"])
    assert "operator by operator" in found["per_op"]["how"]
    assert found["sessions"] == 2
    assert found["memory"]["phases"][0]["phase"] == "runtime"
    told = run(*words, "--per-op", cwd=tmp_path).stdout
    assert "in a pass of its own:" in told
    assert "0  DEPTHWISE_CONV_2D  int8 1x4x4x2  " in told
    assert "activations: not known: 3 of 5 activations are kept by a delegate" in told
