"""The user's pipeline on a real agent: each stage timed, results by name, and every way to get it wrong in one line."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agent_board import DATA, AgentBoard, reference

from edgeloop_agent import wire

GOOD = """
import zlib
import numpy as np

class Pipeline:
    def load(self, encoded):
        return np.frombuffer(zlib.decompress(encoded), np.uint8).reshape(4, 4, 1)
    def preprocess(self, decoded):
        return decoded.astype(np.float32) / 255
    def postprocess(self, outputs):
        (logits,) = outputs.values()
        return {"logits": logits, "class": logits.argmax()}
"""


def images(n: int) -> Any:
    return np.random.default_rng(5).integers(0, 256, (n, 4, 4, 1), np.uint8)


def encoded(samples: list[bytes]) -> dict[str, Any]:
    offsets = np.cumsum([0, *map(len, samples)]).astype(np.int64)
    return {"encoded": np.frombuffer(b"".join(samples), np.uint8), "encoded_offsets": offsets}


def through(board: AgentBoard, code: str, model: str, data: dict[str, Any], **changes: Any) -> wire.Job:
    sha256 = board.put(code.encode(), ".py")
    return board.job(
        [board.subject((DATA / model).read_bytes())],
        changes.pop("steps", [(0, "evaluate"), (0, "latency")]),
        timing="end_to_end",
        data_sha256=board.put_data(**data),
        pipeline=wire.WirePipeline(sha256, "Pipeline", "mine.py:Pipeline"),
        **changes,
    )


@pytest.mark.parametrize("model", ["tiny_float.tflite", "tiny_int8.tflite"])
def test_encoded_samples_give_what_decoded_ones_give_without_a_pipeline(board: AgentBoard, model: str) -> None:
    pixels = images(20)
    job = through(board, GOOD, model, encoded([zlib.compress(image.tobytes()) for image in pixels]))
    assert board.finish(job).outcome == "complete", board.done(job)
    record = board.record(job)
    expected = reference(model, pixels.astype(np.float32) / 255)[0]
    scale, zero = record.outputs[0].scale, record.outputs[0].zero_point or 0
    if scale is not None:
        expected = ((expected.astype(np.float64) - zero) * scale).astype(np.float32)
    assert [tensor.name for tensor in record.results] == ["logits", "class"]
    np.testing.assert_array_equal(board.array(job, "out.0.npy"), expected)
    np.testing.assert_array_equal(board.array(job, "out.1.npy"), expected.argmax(1))


def test_every_stage_is_timed_and_together_they_are_the_latency(board: AgentBoard) -> None:
    slow = GOOD.replace("return decoded.astype", "import time; time.sleep(0.002); return decoded.astype")
    samples = [zlib.compress(image.tobytes()) for image in images(8)]
    job = through(board, slow, "tiny_int8.tflite", encoded(samples), steps=[(0, "latency")], runs_min=30)
    assert board.finish(job).outcome == "complete"
    record, stages, latencies = board.record(job), board.array(job, "stages.npy"), board.array(job, "latency.npy")
    assert record.stages == list(wire.STAGES)
    assert stages.dtype == np.int64
    assert stages.shape == (6, record.runs)
    np.testing.assert_array_equal(stages.sum(axis=0), latencies)
    medians = dict(zip(record.stages, np.median(stages, axis=1), strict=True))
    assert medians["preprocess"] > 2e6
    assert all(0 < medians[name] < 1e6 for name in record.stages if name != "preprocess")
    assert record.overhead_ns is not None
    assert 0 < record.overhead_ns < 20_000
    assert record.conditions["samples_cycled"] == 8


def test_without_encoded_samples_load_gets_the_arrays_by_name(board: AgentBoard) -> None:
    code = GOOD.replace("np.frombuffer(zlib.decompress(encoded), np.uint8).reshape(4, 4, 1)", 'encoded["x"][0]')
    pixels = images(6)
    job = through(board, code, "tiny_float.tflite", {"x": pixels[:, None]}, steps=[(0, "evaluate")])
    assert board.finish(job).outcome == "complete", board.done(job)
    np.testing.assert_array_equal(
        board.array(job, "out.0.npy"), reference("tiny_float.tflite", pixels.astype(np.float32) / 255)[0]
    )


def test_periods_that_a_run_outlasts_are_counted(board: AgentBoard) -> None:
    slow = GOOD.replace("return decoded.astype", "import time; time.sleep(0.015); return decoded.astype")
    samples = [zlib.compress(image.tobytes()) for image in images(2)]
    job = through(
        board, slow, "tiny_float.tflite", encoded(samples), steps=[(0, "latency")], period_ms=10.0, runs_min=10
    )
    assert board.finish(job).outcome == "complete"
    record = board.record(job)
    assert record.missed_periods >= record.runs - 1


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("import zlib", "import no_such_module", "mine.py:Pipeline can't be imported on the board, line 2: ModuleNot"),
        ("import zlib", "def broken(", "mine.py:Pipeline can't be imported on the board, line 2: SyntaxError"),
        ("class Pipeline", "class Other", "mine.py:Pipeline can't be made on the board: AttributeError"),
        ("load(self, encoded)", "load(self)", "mine.py:Pipeline: load takes one argument"),
        ("zlib.decompress(encoded)", "encoded", "mine.py:Pipeline.load, line 7: ValueError"),
        (
            "return decoded.astype",
            "raise SystemExit(decoded.size) #",
            "mine.py:Pipeline.preprocess, line 9: SystemExit",
        ),
        ("/ 255", "[None, None]", "mine.py:Pipeline.preprocess gave the shape (1, 1, 4, 4, 1) for input x"),
        ("np.float32) / 255", "np.int64)", "mine.py:Pipeline.preprocess: x: the data are int64"),
        (
            "return decoded",
            'return {"y": 1, "z": 1}; decoded',
            "mine.py:Pipeline.preprocess gave y, z; the inputs",
        ),
        ("return decoded", "return [1]; decoded", "mine.py:Pipeline.preprocess gave a list for input x"),
        ('return {"logits"', 'return [1]; {"logits"', "mine.py:Pipeline.postprocess gave list for y"),
        ('"logits": logits,', '"no name": logits,', "mine.py:Pipeline.postprocess named a result 'no name'"),
        ('"logits": logits,', '"o": np.array([None]),', "mine.py:Pipeline.postprocess gave object for o"),
        (
            "logits.argmax()",
            "np.zeros(int(100 * logits[0]) % 7)",
            "mine.py:Pipeline.postprocess gave class of shape (1,)",
        ),
        ("logits.argmax()", "np.zeros(200_000_000)", "mine.py:Pipeline.postprocess gave 32000000240 bytes"),
    ],
)
def test_what_a_pipeline_does_wrong_is_one_line_for_the_user(
    board: AgentBoard,
    old: str,
    new: str,
    line: str,
) -> None:
    assert old in GOOD
    samples = [zlib.compress(image.tobytes()) for image in images(20)]
    job = through(board, GOOD.replace(old, new), "tiny_int8.tflite", encoded(samples))
    done = board.finish(job)
    assert (done.outcome, done.owner, done.sessions) == ("failed", "user", 0)
    assert done.detail.startswith(line)
    assert "\n" not in done.detail
    assert "Traceback" not in done.detail + board.log(job)


def test_a_pipeline_that_never_returns_is_named_with_its_line(board: AgentBoard) -> None:
    endless = GOOD.replace("return decoded.astype", "\n        while True: pass\n        return decoded.astype")
    samples = [zlib.compress(images(1)[0].tobytes())]
    job = through(board, endless, "tiny_float.tflite", encoded(samples), plan={"deadline_s": 2.0})
    done = board.finish(job)
    assert (done.outcome, done.owner) == ("failed", "user")
    assert done.detail == (
        "killed at the session's deadline of 2 s: mine.py:Pipeline.preprocess had not returned, line 10"
    )


def test_what_a_pipeline_prints_stays_in_the_log(board: AgentBoard) -> None:
    loud = GOOD.replace("return decoded.astype", "print('x' * 5000); return decoded.astype")
    samples = [zlib.compress(image.tobytes()) for image in images(20)]
    job = through(board, loud, "tiny_float.tflite", encoded(samples))
    assert board.finish(job).outcome == "complete"
    assert len(board.log(job)) < 60_000


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"encoded_offsets": np.array([0, 5], np.int64)}, "encoded: uint8 of shape (bytes,), divided by"),
        ({"encoded_offsets": np.array([0, 5], np.int32)}, "encoded_offsets: int64 of shape (samples + 1,) are wanted"),
        ({"encoded_offsets": np.array([0], np.int64), "encoded": np.zeros(0, np.uint8)}, "the data hold no samples"),
    ],
)
def test_encoded_data_that_do_not_fit_are_refused(board: AgentBoard, change: dict[str, Any], line: str) -> None:
    data = {**encoded([zlib.compress(images(1)[0].tobytes())]), **change}
    job = through(board, GOOD, "tiny_float.tflite", data, steps=[(0, "evaluate")])
    assert board.finish(job).outcome == "complete"
    assert board.record(job).outcome == "refused"
    assert board.record(job).detail.startswith(line)


def test_the_pipelines_file_is_kept_by_its_hash_and_nothing_else_is(board: AgentBoard) -> None:
    samples = [zlib.compress(images(1)[0].tobytes())]
    job = through(board, GOOD, "tiny_float.tflite", encoded(samples))
    assert board.finish(job).outcome == "complete"
    name = hashlib.sha256(GOOD.encode()).hexdigest() + ".py"
    assert (board.state / wire.CACHE_DIR / name).read_text() == GOOD
    assert not list(Path(board.state / wire.CACHE_DIR).glob("__pycache__"))
