"""Timing end to end: PNGs go to the board, a user's pipeline decodes them there, and its results are scored here."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from campaigns import events, run, write_local_board

from edgeloop.config.pipeline_file import read_pipeline
from edgeloop.data.encoded import join_encoded
from edgeloop.errors import UserError
from edgeloop.user_code.functions import load_function

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "docs" / "examples" / "pipeline"
TINY = HERE.parent / "data" / "tiny_int8.tflite"
STAGES = ["load", "preprocess", "copy_in", "invoke", "copy_out", "postprocess"]
PIPELINE = """
import numpy as np
from zlib import decompress

class Small:
    def load(self, encoded):
        return np.frombuffer(decompress(encoded), np.float32).reshape(4, 4, 1)
    def preprocess(self, decoded):
        return {"x": decoded}
    def postprocess(self, outputs):
        return outputs
"""
QUICK = ("--sessions", "2", "--time-s-min", "0.05", "--profile", "quick")


def data(folder: Path, **more: Any) -> Path:
    from zlib import compress

    rng = np.random.default_rng(3)
    samples = [compress(rng.random((4, 4, 1), np.float32).tobytes()) for _ in range(12)]
    path = folder / "data.npz"
    np.savez(path, **{**join_encoded(samples), "y": rng.integers(0, 3, 12), **more})
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_local_board(tmp_path)
    (tmp_path / "small.py").write_text(PIPELINE)
    return tmp_path


def test_measure_times_each_stage_and_scores_what_the_pipeline_returns(small: Path) -> None:
    words = ("--target", "here", "--data", data(small), "--timing", "end_to_end", "--pipeline", "small.py:Small")
    found = json.loads(run("measure", TINY, *words, *QUICK, "--json", cwd=small).stdout)
    assert list(found["stages_ns"]) == STAGES
    stages = sum(stage["p50"] for stage in found["stages_ns"].values())
    assert stages == pytest.approx(found["latency_ns"]["p50"], rel=0.3)
    for stage in found["stages_ns"].values():
        assert stage["interval"][0] <= stage["p50"] <= stage["interval"][1]
    assert found["plan"]["timing"] == "end_to_end"
    assert found["accuracy"]["n"] == 12
    assert 0 < found["overhead_ns"] < 50_000
    told = run("measure", TINY, *words, *QUICK, "--period-ms", "5", cwd=small).stdout
    assert "measured: end_to_end, plan quick" in told
    assert "stage preprocess: " in told
    assert "periods missed" in told
    assert "agent's own: at most" in told


def test_results_of_the_pipeline_are_those_of_the_network_by_itself(small: Path) -> None:
    from zlib import decompress

    encoded = data(small)
    with np.load(encoded) as arrays:
        ends, whole = arrays["encoded_offsets"], arrays["encoded"].tobytes()
        samples = [decompress(whole[start:end]) for start, end in pairwise(ends)]
        plain = small / "plain.npz"
        x = np.stack([np.frombuffer(sample, np.float32).reshape(4, 4, 1) for sample in samples])
        np.savez(plain, x=x, y=arrays["y"])
    words = ("measure", TINY, "--target", "here", *QUICK, "--json")
    through = ("--data", encoded, "--timing", "end_to_end", "--pipeline", "small.py:Small")
    ours = json.loads(run(*words, *through, cwd=small).stdout)
    bare = json.loads(run(*words, "--data", plain, cwd=small).stdout)
    assert ours["accuracy"] == bare["accuracy"]
    assert bare["stages_ns"] is None


def test_compare_takes_a_pipeline_too(small: Path) -> None:
    words = ("--target", "here", "--data", data(small), "--timing", "end_to_end", "--pipeline", "small.py:Small")
    found = json.loads(run("compare", TINY, TINY, *words, *QUICK, "--json", cwd=small).stdout)
    assert found["a"]["stages_ns"].keys() == found["b"]["stages_ns"].keys() == set(STAGES)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--timing", "end_to_end"), "--timing: end_to_end times your own pipeline; name it with --pipeline"),
        (("--pipeline", "small.py:Small"), "--pipeline: does not run with --timing invoke; say --timing end_to_end"),
        (("--timing", "end_to_end", "--pipeline", "small"), "--pipeline: 'small' is no FILE.py:Class"),
        (("--timing", "end_to_end", "--pipeline", "small.py:Other"), "there is no class 'Other' in it"),
        (("--timing", "end_to_end", "--pipeline", "none.py:Other"), "none.py: no such file"),
        ((), "encoded samples only; name the pipeline that loads them, with --timing end_to_end"),
    ],
)
def test_what_is_missing_for_end_to_end_is_one_line_before_anything_is_sent(
    small: Path, words: tuple[str, ...], line: str
) -> None:
    done = run("measure", TINY, "--target", "here", "--data", data(small), *words, cwd=small, expect=2)
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert not (small / "state").exists()


def test_end_to_end_needs_data(small: Path) -> None:
    words = ("--timing", "end_to_end", "--pipeline", "small.py:Small")
    done = run("measure", TINY, "--target", "here", *words, cwd=small, expect=2)
    assert "--timing: end_to_end needs samples to load; give --data FILE.npz" in done.stderr


def test_what_the_board_can_not_import_is_one_line_for_the_user(small: Path) -> None:
    (small / "small.py").write_text("import no_such_package\n" + PIPELINE)
    words = ("--target", "here", "--data", data(small), "--timing", "end_to_end", "--pipeline", "small.py:Small")
    done = run("measure", TINY, *words, *QUICK, cwd=small, expect=2)
    assert "small.py:Small can't be imported on the board, line 1: ModuleNotFoundError" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("class P:\n  def load(self, e): pass\n", "P has no method preprocess, postprocess"),
        ("class P\n", "p.py, line 1: not Python: expected ':'"),
        ("def P(): pass\n", "there is no class 'P' in it"),
    ],
)
def test_a_pipeline_is_looked_at_before_it_is_pushed(tmp_path: Path, code: str, line: str) -> None:
    path = tmp_path / "p.py"
    path.write_text(code)
    with pytest.raises(UserError, match=line):
        read_pipeline(f"{path}:P")


def test_a_pipeline_is_never_run_on_the_host(tmp_path: Path) -> None:
    path = tmp_path / "p.py"
    path.write_text("open('ran', 'w').close()\n" + PIPELINE)
    read_pipeline(f"{path}:Small")
    assert not list(tmp_path.glob("ran"))


def test_the_examples_png_comes_back_as_it_was() -> None:
    made = load_function(f"{EXAMPLE / 'data.py'}:png")
    pipeline = load_function(f"{EXAMPLE / 'pipeline.py'}:Pipeline")()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    np.testing.assert_array_equal(pipeline.load(made(pixels)), pixels)


@pytest.mark.train
def test_a_campaign_goes_through_the_pipeline_from_m1_to_the_test_data(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch")
    shutil.copytree(EXAMPLE, tmp_path / "example")
    folder = tmp_path / "example"
    write_local_board(folder)
    campaign = folder / "campaign.toml"
    text = campaign.read_text()
    for old, new in (
        ('["local"]', '["here"]'),
        ("epochs = 15", "epochs = 6"),
        ('"w8a8", "w4a8"', '"w8a8"'),
        ("max_drop_from_reference = 0.05", "max_drop_from_reference = 0.3"),
        ("min_fraction = 0.9", "min_fraction = 0.5"),
        ("max_ms = 5.0", "max_ms = 100.0"),
        ("max_ratio_to_reference = 0.8", "max_ratio_to_reference = 10.0"),
    ):
        assert old in text
        text = text.replace(old, new)
    campaign.write_text(text + 'profile = "standard"\nsessions = 2\ntime_s_min = 0.05\nwarmup_s_max = 0.5\n')
    run("run", campaign, "--out", folder / "out", cwd=folder)
    judged = [event for event in events(folder / "out") if event["kind"] == "judged"]
    assert [event["split"] for event in judged][-1] == "test"
    for event in judged:
        assert [stage["stage"] for stage in event["summary"]["stages_ns"]] == STAGES
        top1 = event["summary"]["metrics"][0]
        assert (top1["metric"], top1["value"] > 0.5) == ("top1", True)
    assert judged[-1]["summary"]["agreement"]["value"] > 0.5
    assert "stages, median ms" in (folder / "out" / "report.html").read_text()
    held = np.load(folder / "out" / "data" / "validation-350.npz")
    assert sorted(held.files) == ["encoded", "encoded_offsets"]
    (folder / "pipeline.py").write_text((folder / "pipeline.py").read_text() + "\n# another one\n")
    run("run", campaign, "--out", folder / "out", "--resume", cwd=folder, expect=2)
