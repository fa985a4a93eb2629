"""A real TFLite delegate in the real runtimes: counted, timed, judged, refused, compiled for, and searched over."""

from __future__ import annotations

import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import campaigns
import numpy as np
import pytest
from agent_board import DATA, AgentBoard
from dense_compiler import compiled
from dense_delegate import COMPILER, board_file, build_delegate
from platformdirs import user_cache_path

from edgeloop_agent import wire

FLOAT = DATA / "tiny_float.tflite"
"""Four operators, one of them a float FULLY_CONNECTED."""
SHORT = ("--sessions", "3", "--time-s-min", "0.05", "--runs-min", "300")
QUARTER = 'name = "dense"\nops_delegated_min_pct = 25'
HALF = 'name = "greedy"\nops_delegated_min_pct = 50'


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_delegate(tmp_path_factory.mktemp("delegate"))


def delegated(board: AgentBoard, library: Path, model: Path = FLOAT, **options: str) -> wire.WireSubject:
    subject = board.subject(model.read_bytes())
    return replace(subject, delegate=wire.WireDelegate("dense", str(library), options))


def data_file(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "data.npz"
    np.savez(path, x=rng.random((60, 4, 4, 1), dtype=np.float32), y=rng.integers(0, 3, 60))
    return path


# the agent


def test_every_session_says_what_its_delegate_took_and_outputs_are_right(tmp_path: Path, library: Path) -> None:
    board = AgentBoard(tmp_path / "state")
    x = np.random.default_rng(1).random((5, 4, 4, 1), dtype=np.float32)
    subjects = [board.subject(FLOAT.read_bytes()), delegated(board, library)]
    subjects[1] = replace(subjects[1], label="with")
    steps = [(0, "evaluate"), (1, "evaluate"), (1, "latency")]
    job = board.job(subjects, steps, data_sha256=board.put_data(x=x))
    done = board.finish(job)
    assert done.outcome == "complete", done.detail
    assert board.record(job, 0).conditions["delegate"] is None
    for index in (1, 2):
        told = board.record(job, index).conditions["delegate"]
        assert told == {"name": "dense", "operators": 4, "taken": 1, "pieces": 1}
    plain, with_delegate = (board.array(job, "out.0.npy", index) for index in (0, 1))
    np.testing.assert_allclose(with_delegate, plain, atol=1e-6)
    assert np.ptp(plain) > 0


def test_a_delegate_that_takes_nothing_is_told_so_and_the_runtimes_own_is_not_counted(
    tmp_path: Path, library: Path
) -> None:
    board = AgentBoard(tmp_path / "state")
    job = board.job([delegated(board, library, most="0")], [(0, "latency")])
    assert board.finish(job).outcome == "complete"
    assert board.record(job).conditions["delegate"] == {"name": "dense", "operators": 4, "taken": 0, "pieces": 0}


def test_the_older_runtime_takes_the_same_delegate(tmp_path: Path, library: Path) -> None:
    wheels = user_cache_path("edgeloop") / "wheels"
    found = [path for name in ("tflite_runtime-*cp311*x86_64*", "numpy-1*cp311*x86_64*") for path in wheels.glob(name)]
    if len(found) < 2 or sys.version_info[:2] != (3, 11):
        pytest.skip("wheels of tflite-runtime and numpy 1 are not in the cache: provision a board with them once")
    board = AgentBoard(tmp_path / "state")
    for path in found:
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(board.state / wire.RUNTIMES_DIR / ("e" * 64))
    subject = replace(delegated(board, library), engine="tflite-runtime")
    job = board.job([subject], [(0, "latency")], python_path=["e" * 64])
    done = board.finish(job)
    assert done.outcome == "complete", done.detail
    assert board.record(job).engine_version == "tflite-runtime 2.14.0"
    assert board.record(job).conditions["delegate"]["taken"] == 1


@pytest.mark.parametrize(
    ("changes", "owner", "line"),
    [
        ({"library": "/no/such/libdense.so"}, "user", "the delegate dense: its library can't be loaded: /no/such/"),
        ({"library": "libc.so.6"}, "user", "undefined symbol: tflite_plugin_create_delegate"),
        ({"options": {"fast": "1"}}, "lab", ") does not start: the only option is most"),
    ],
)
def test_a_delegate_that_does_not_start_ends_the_job_with_one_line(
    tmp_path: Path, library: Path, changes: dict[str, Any], owner: str, line: str
) -> None:
    board = AgentBoard(tmp_path / "state")
    subject = delegated(board, library)
    assert subject.delegate is not None
    subject = replace(subject, delegate=replace(subject.delegate, **changes))
    job = board.job([subject], [(0, "latency")])
    done = board.finish(job)
    assert (done.outcome, done.owner) == ("failed", owner), done.detail
    assert line in done.detail
    assert "\n" not in done.detail


def test_a_board_says_whether_a_delegates_library_loads(tmp_path: Path, library: Path) -> None:
    board = AgentBoard(tmp_path / "state")
    told = board.call("probe", "--delegate-library", str(library), "libno.so.9")["delegate_libraries"]
    assert told[str(library)] == {"error": None}
    assert "libno.so.9" in told["libno.so.9"]["error"]


# measure, compare, doctor


def test_a_delegate_that_took_its_share_is_measured_and_as_accurate(tmp_path: Path, library: Path) -> None:
    board_file(tmp_path, library, QUARTER)
    words = ("compare", FLOAT, FLOAT, "--target", "here", "--delegate-b", "dense", "--data", data_file(tmp_path))
    found = json.loads(campaigns.run(*words, *SHORT, "--json", cwd=tmp_path).stdout)
    assert found["trust"]["valid"], found["trust"]
    assert found["a"]["delegate"] is None
    assert found["b"]["delegate"] == {
        "name": "dense",
        "operators": 4,
        "taken": 1,
        "taken_pct": 25.0,
        "pieces": 1,
    }
    assert found["a"]["accuracy"]["value"] == found["b"]["accuracy"]["value"]
    assert found["agreement"]["value"] == 1


def test_a_delegate_that_did_not_take_its_share_is_invalid(tmp_path: Path, library: Path) -> None:
    board_file(tmp_path, library, HALF)
    words = ("measure", FLOAT, "--target", "here", "--delegate", "greedy", "--limit", "latency.p90_ms=1000", *SHORT)
    found = json.loads(campaigns.run(*words, "--json", cwd=tmp_path, expect=3).stdout)
    assert found["verdict"] == "INVALID"
    reason = "candidate: the delegate greedy took 1 of 4 operators in 1 piece (25 %), at least 50 % is declared"
    assert found["trust"]["reasons"] == [reason]
    assert found["reasons"][0] == reason
    told = campaigns.run(*words, cwd=tmp_path, expect=3).stdout
    assert ", 1 thread, greedy took 1 of 4 operators in 1 piece\n" in told


def test_what_can_not_be_asked_of_a_delegate_is_said_at_once_in_one_line_each(tmp_path: Path, library: Path) -> None:
    board_file(tmp_path, library, QUARTER)
    words = ("measure", FLOAT, "--target", "here", "--delegate", "gpu", "--per-op", "--engine", "exec")
    told = campaigns.run(*words, cwd=tmp_path, expect=2).stderr
    assert "--delegate: exec takes no delegate" in told
    assert "--delegate: here declares no delegate 'gpu'; it has dense" in told
    assert "--per-op: does not go with a delegate" in told
    assert "Traceback" not in told


def test_a_library_that_is_not_there_is_one_line_and_bad_input(tmp_path: Path) -> None:
    board_file(tmp_path, Path("/no/such/libdense.so"), QUARTER)
    words = ("measure", FLOAT, "--target", "here", "--delegate", "dense", *SHORT)
    told = campaigns.run(*words, cwd=tmp_path, expect=2).stderr
    assert "here: the delegate dense: its library can't be loaded: /no/such/libdense.so: cannot open shared" in told
    doctor = campaigns.run("targets", "doctor", "here", "--json", cwd=tmp_path, expect=3).stdout
    (check,) = (c for c in json.loads(doctor)["checks"] if c["name"] == "delegate dense")
    assert check["state"] == "wrong"
    assert "cannot open shared object file" in check["found"]


def test_a_doctor_loads_the_library_and_looks_for_its_compiler(tmp_path: Path, library: Path) -> None:
    uncompiled = 'name = "npu"\nops_delegated_min_pct = 90\ncompile_command = ["no-such-npucc", "{model}"]'
    board_file(tmp_path, library, QUARTER, uncompiled)
    told = campaigns.run("targets", "doctor", "here", "--json", cwd=tmp_path, expect=3).stdout
    checks = {check["name"]: check for check in json.loads(told)["checks"]}
    assert checks["delegate dense"]["state"] == "ok"
    assert checks["delegate npu"]["found"] == "loads; no-such-npucc is not on this host"
    shown = json.loads(campaigns.run("targets", "show", "here", "--json", cwd=tmp_path).stdout)
    assert [delegate["name"] for delegate in shown["delegate"]] == ["dense", "npu"]


def test_a_compiled_file_is_measured_by_its_delegate_and_refused_without(tmp_path: Path, library: Path) -> None:
    board_file(tmp_path, library, QUARTER)
    model = tmp_path / "compiled.tflite"
    model.write_bytes(compiled(FLOAT.read_bytes()))
    words = ("measure", model, "--target", "here", "--data", data_file(tmp_path), *SHORT)
    found = json.loads(campaigns.run(*words, "--delegate", "dense", "--json", cwd=tmp_path).stdout)
    assert (found["delegate"]["taken"], found["delegate"]["operators"]) == (1, 4)
    plain = json.loads(campaigns.run("measure", FLOAT, *words[2:], "--json", cwd=tmp_path).stdout)
    assert found["accuracy"]["value"] == plain["accuracy"]["value"]
    told = campaigns.run(*words, cwd=tmp_path, expect=2).stderr
    assert "needs custom operators, which LiteRT does not have: dense-for-tests" in told


# a campaign

CAMPAIGN = (
    """
schema = 1
name = "delegates"
targets = ["here"]
limits = [
  { metric = "top1", max_drop_from_reference = 0.9 },
  { metric = "latency", statistic = "p50", max_ratio_to_reference = 1000.0 },
]

[reference]
family = "mlp"

[data]
provider = "digits"

[search]
strategy = "grid"
widths = [1.41]
lightenings = ["fp32"]
delegates = ["none", "dense", "greedy", "npu"]
pareto = true

[training]
epochs = 1

[budget]
trials = 4
wall_minutes = 10
"""
    + campaigns.BRIEF_PLAN
)


@pytest.mark.train
@pytest.mark.full
def test_a_campaign_searches_delegates_and_reports_the_same_network_on_each(tmp_path: Path, library: Path) -> None:
    command = f'compile_command = ["{sys.executable}", "{COMPILER}", "{{model}}"]'
    board_file(
        tmp_path,
        library,
        'name = "dense"\nops_delegated_min_pct = 60',
        'name = "greedy"\noptions = { most = 1 }\nops_delegated_min_pct = 60',
        f'name = "npu"\nops_delegated_min_pct = 60\n{command}',
    )
    (tmp_path / "campaign.toml").write_text(CAMPAIGN)
    found = json.loads(campaigns.run("run", "campaign.toml", "--out", "run", "--json", cwd=tmp_path).stdout)
    trials = {trial["candidate"]["delegate"]: trial for trial in found["trials"] if trial["trial"]}
    assert list(trials) == [None, "dense", "greedy", "npu"]
    assert {name: trial["outcome"] for name, trial in trials.items()} == {
        None: "PASS",
        "dense": "PASS",
        "greedy": "INVALID",
        "npu": "PASS",
    }
    first = {name: trial["measurements"][0] for name, trial in trials.items()}
    assert first["dense"]["accuracy"]["value"] == first[None]["accuracy"]["value"]
    assert first["dense"]["delegate"]["taken_pct"] >= 60
    assert first["greedy"]["delegate"]["taken"] == 1
    assert len(trials["greedy"]["measurements"]) == 1  # another take would take no more
    assert first["npu"]["model"]["sha256"] != first["dense"]["model"]["sha256"] == first[None]["model"]["sha256"]
    assert first["npu"]["accuracy"]["value"] == first[None]["accuracy"]["value"]
    assert first["npu"]["delegate"]["taken"] == first["dense"]["delegate"]["taken"]
    assert trials["npu"]["converted"] == trials["dense"]["converted"]
    assert trials["npu"]["parity"]["rule"].endswith("; before " + Path(sys.executable).name)
    rows = found["same_network"]
    assert [row["delegate"] for row in rows] == [None, "dense", "greedy", "npu"]
    assert rows[0]["ratio_to_first"] == 1
    assert rows[1]["ratio_to_first"] == pytest.approx(rows[1]["latency_p50_ns"] / rows[0]["latency_p50_ns"])
    assert rows[2]["ratio_to_first"] is None
    assert [row["outcome"] == "INVALID" for row in rows] == [False, False, True, False]
    html = (tmp_path / "run/report.html").read_text()
    assert "The same network on each engine, delegate and thread count" in html
    assert "dense (" in html
    told = campaigns.run("report", "run", cwd=tmp_path).stdout
    assert "same network, width 1.41 fp32 on here: trial 2, litert 2.3.0, delegate dense (" in told
    assert "] ms, INVALID\n" in told
    campaigns.run("run", "campaign.toml", "--out", "run", "--resume", cwd=tmp_path)


@pytest.mark.train
def test_a_campaign_that_names_a_delegate_of_no_board_ends_before_anything_is_trained(
    tmp_path: Path, library: Path
) -> None:
    board_file(tmp_path, library, QUARTER)
    (tmp_path / "campaign.toml").write_text(CAMPAIGN)
    told = campaigns.run("run", "campaign.toml", "--out", "run", cwd=tmp_path, expect=2).stderr
    assert "search.delegates: here declares no delegate 'greedy'; it has dense" in told
    assert not (tmp_path / "run").exists()
