"""`edgeloop compare` and `measure` through the real command on this machine: structure, exit codes, plans; no times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import campaigns
import numpy as np

MODELS = Path(__file__).parents[1] / "data"
FLOAT, INT8 = MODELS / "tiny_float.tflite", MODELS / "tiny_int8.tflite"
SHORT = ("--sessions", "3", "--time-s-min", "0.05", "--runs-min", "300")


def data_file(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "data.npz"
    np.savez(path, x=rng.random((60, 4, 4, 1), dtype=np.float32), y=rng.integers(0, 3, 60))
    return path


def asked(*words: str | Path, cwd: Path, expect: int = 0) -> Any:
    return json.loads(campaigns.run(*words, "--json", cwd=cwd, expect=expect).stdout)


def test_a_model_beside_itself_is_timed_in_rounds_scored_as_equal_and_has_no_verdict(tmp_path: Path) -> None:
    campaigns.write_local_board(tmp_path)
    data = data_file(tmp_path)
    found = asked("compare", FLOAT, FLOAT, "--target", "here", "--data", data, *SHORT, cwd=tmp_path)
    assert found["verdict"] is None
    assert found["trust"]["valid"]
    assert found["ratio"]["rounds"] == 3
    for statistic in ("p50", "p90", "p99", "mean"):
        low, high = found["ratio"][statistic]["interval"]
        assert low <= found["ratio"][statistic]["value"] <= high
    assert found["a"]["model"]["sha256"] == found["b"]["model"]["sha256"]
    assert found["a"]["sessions"] == found["b"]["sessions"] == 3
    assert found["difference"]["deployed_bytes"] == 0
    (metric,) = found["difference"]["metrics"]
    assert (metric["difference"], metric["gained"], metric["lost"], metric["n"]) == (0, 0, 0, 60)
    assert found["agreement"]["value"] == 1
    assert found["a"]["accuracy"]["value"] == found["b"]["accuracy"]["value"]


def test_a_minimum_effect_makes_a_verdict_of_it(tmp_path: Path) -> None:
    campaigns.write_local_board(tmp_path)
    words = ("compare", FLOAT, INT8, "--target", "here", "--worse-by-min-pct", "1e6", *SHORT)
    found = asked(*words, cwd=tmp_path)
    assert found["verdict"] == "PASS"
    assert found["findings"][0]["text"] == "latency p50 of B not worse by 1e+06 %"
    assert found["agreement"] is None


def test_at_one_hertz_ten_sessions_of_ten_seconds_are_a_hundred_samples(tmp_path: Path) -> None:
    words = ("measure", FLOAT, "--target", "local", "--profile", "qualification", "--period-ms", "1000", "--dry-run")
    cost = asked(*words, cwd=tmp_path)
    assert (cost["sessions"], cost["samples_per_session"], cost["samples"]) == (10, 10, 100)
    told = campaigns.run(*words, cwd=tmp_path).stdout
    assert "10 samples in each session, 100 in all" in told
    undecidable = campaigns.run(*words, "--limit", "latency.p99_ms=5", cwd=tmp_path, expect=2).stdout
    assert "p99 at 95% confidence needs at least 299 samples in each session; this plan gives 10" in undecidable


def test_a_comparison_tells_its_cost_before_anything_is_done(tmp_path: Path) -> None:
    cost = asked("compare", FLOAT, INT8, "--target", "local", "--seed", "7", "--dry-run", cwd=tmp_path)
    assert (cost["subjects"], cost["sessions"], cost["plan"]["seed"]) == (2, 16, 7)
    assert cost["minutes"] > 0


def test_an_extension_joins_two_looks_that_share_the_error(tmp_path: Path) -> None:
    campaigns.write_local_board(tmp_path)
    words = ("measure", FLOAT, "--target", "here", "--limit", "latency.p50_ms=1000", "--extend", *SHORT)
    found = asked(*words, cwd=tmp_path)
    assert found["verdict"] == "PASS"
    assert "0.975 bounds" in found["findings"][0]["reason"]
    assert found["sessions"] == 3  # one look decided


def test_words_that_do_not_fit_are_told_at_once_and_before_anything_is_sent(tmp_path: Path) -> None:
    numbers = ("--sessions", "1", "--period-ms", "0", "--statistic", "max", "--engine-b", "onnx")
    done = campaigns.run("compare", FLOAT, tmp_path / "b.tflite", "--target", "local", *numbers, cwd=tmp_path, expect=2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("edgeloop: ")]
    assert [line.split(": ")[1] for line in lines] == ["--engine-b", "--sessions", "--period-ms", "B", "--statistic"]
    assert "Traceback" not in done.stderr
    done = campaigns.run("measure", FLOAT, "--target", "local", "--extend", cwd=tmp_path, expect=2)
    assert "give --limit" in done.stderr
