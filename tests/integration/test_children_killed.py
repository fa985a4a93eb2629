"""Each child of a campaign dies in each way at one of its jobs: that is an ERROR of the harness, and the run goes on.

Five candidates of one rung: of each of the first four a child dies, and the fifth passes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import campaigns
import keras_models
import pytest
from child_faults import WAYS, FaultyPython, left_behind
from processes import alive

pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("litert_torch", reason="needs the tflite extra")

pytestmark = pytest.mark.train

DEADLINE_S, BOARD_S = 75, 8
CAMPAIGN = (
    (
        campaigns.CAMPAIGN.replace("widths = [1.41]", "widths = [1.2, 1.4, 1.6, 1.8, 2.0]")
        .replace('lightenings = ["w8a8", "w4a8"]', 'lightenings = ["fp32"]\nstrategy = "grid"\nengines = ["litert"]')
        .replace("epochs = 3\nlightened_epochs = 1", "epochs = 2")
        .replace("trials = 4", "trials = 5")
        .replace("warmup_s_max = 0.1", "warmup_s_max = 0.1\ndeadline_s = 8")
    )
    + f"""
[toolchain]
training_minutes_max = {DEADLINE_S / 60}
build_deadline_s = {DEADLINE_S}
memory_max_mib = 4096
"""
)
AS_TOLD = {
    "segv": "SIGSEGV",
    "kill": "SIGKILL",
    "memory": "MemoryError",
    "loop": f"was not done after {DEADLINE_S} s and was stopped",
}
STAGES = {"training": "train", "tflite": "build", "runtime predict": "build"}
CHILDREN = (*STAGES, "session")
"""One dies of each of the first four candidates, in this order: each at its second job, M1's being its first."""


def _begun(folder: Path, faults: dict[str, dict[str, str]], **changes: str) -> FaultyPython:
    """A folder with a campaign in it, and the Python that carries it out."""
    campaigns.write_local_board(folder)
    text = CAMPAIGN.format(target="here", size_ratio=100)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "campaign.toml").write_text(text)
    return FaultyPython(folder / "python", faults)


def _carried_out(python: FaultyPython, folder: Path, *, expect: int = 0) -> list[dict[str, Any]]:
    """Run the campaign; what a run must leave behind it, however its children died, is asserted here."""
    resume = ["--resume"] if (folder / "run" / "ledger.jsonl").exists() else []
    done = python.run("run", "campaign.toml", "--out", folder / "run", *resume, cwd=folder)
    assert done.returncode == expect, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert alive(folder) == []
    assert left_behind(folder / "run") == []
    assert list(python.temporary.iterdir()) == []
    for child, modules in python.imports():
        assert "tensorflow" not in modules or not modules & {"torch", "litert_torch", "tvm"}, child
    return campaigns.events(folder / "run")


def _outcomes(events: list[dict[str, Any]]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for event in events:
        if event["kind"] == "judged" and event["trial"]:
            found.setdefault(event["trial"], []).append(event["verdict"]["outcome"])
    return found


@pytest.mark.parametrize(
    "turn", [0, *(pytest.param(turn, marks=pytest.mark.full) for turn in range(1, len(WAYS)))], ids=str
)
def test_a_child_that_dies_is_an_error_with_its_last_words_and_the_next_candidate_is_tried(
    tmp_path: Path, turn: int
) -> None:
    """Every turn has every child and every way; four turns have all pairs of them. An agent dies too, and a look at a
    network: these are taken again, and cost no candidate."""
    ways = {child: WAYS[(place + turn) % len(WAYS)] for place, child in enumerate(CHILDREN)}
    again = {"describing": {"2": "kill"}, "agent": {"3": "segv", "4": "kill"}}
    python = _begun(tmp_path, {**{child: {"2": way} for child, way in ways.items()}, **again})
    events = _carried_out(python, tmp_path)
    errors = [event for event in events if event["kind"] == "errored"]
    assert [(e["trial"], e["stage"], e["owner"]) for e in errors] == [
        (number, stage, "harness") for number, stage in enumerate(STAGES.values(), 1)
    ]
    for error, (child, way) in zip(errors, ways.items(), strict=False):
        assert AS_TOLD[way] in error["message"], child
        assert f"about to fall: {way}" in error["message"] or way == "memory"
    assert _outcomes(events) == {4: ["ERROR"], 5: ["PASS", "PASS"]}
    verdict = next(event["verdict"] for event in events if event["kind"] == "judged" and event["trial"] == 4)
    told = {**AS_TOLD, "loop": f"killed at the session's deadline of {BOARD_S} s"}[ways["session"]]
    assert told in " ".join(verdict["reasons"])
    assert {e["direction"] for e in events if e["kind"] == "moved" and 0 < e["trial"] < 5} == {"none"}
    assert events[-1]["best"] == 5
    assert python.jobs("agent") == 6  # M1; the fourth candidate; the fifth at the third attempt; test data
    assert {child for child, modules in python.imports() if "litert_torch" in modules} == {"tflite"}


@pytest.mark.full
@pytest.mark.parametrize("child", ["tvm", "tvm predict"])
def test_so_it_is_with_the_compiler_and_what_it_compiled(tmp_path: Path, child: str) -> None:
    pytest.importorskip("tvm_ffi", reason="needs the tvm extra")
    engine = {'engines = ["litert"]': 'engines = ["tvm"]'}
    python = _begun(tmp_path, {child: {str(number): way for number, way in enumerate(WAYS, 1)}}, **engine)
    events = _carried_out(python, tmp_path)
    errors = [event for event in events if event["kind"] == "errored"]
    assert [(e["trial"], e["stage"], e["owner"]) for e in errors] == [(n, "build", "harness") for n in (1, 2, 3, 4)]
    for error, way in zip(errors, WAYS, strict=True):
        assert AS_TOLD[way] in error["message"]
    assert "held to 4096 MiB" in errors[2]["message"]
    assert _outcomes(events) == {5: ["PASS", "PASS"]}
    assert python.jobs("tvm") == 5


@pytest.mark.full
@pytest.mark.tensorflow
@pytest.mark.parametrize("way", WAYS)
def test_a_converter_that_dies_on_m1_ends_the_command_in_a_line_and_the_next_one_converts(
    tmp_path: Path, way: str
) -> None:
    pytest.importorskip("keras", reason="needs the tensorflow extra")
    subprocess.run([sys.executable, keras_models.__file__, str(tmp_path)], check=True, timeout=300, capture_output=True)
    file = {'family = "ds_cnn"': 'file = "m1.keras"\nfamily = "ds_cnn"'}
    python = _begun(tmp_path, {"tensorflow": {"1": way}}, **file)
    done = python.run("run", "campaign.toml", "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    last = " ".join(done.stderr.split())
    assert "m1.keras: converting it to .tflite: the process" in last
    assert AS_TOLD[way] in last
    assert left_behind(python.cache) == []
    python.run("run", "campaign.toml", "--out", tmp_path / "run", cwd=tmp_path)
    events = campaigns.events(tmp_path / "run")
    assert events[-1]["kind"] == "finished"  # a small network beside this M1 may fail; it was measured
    assert not [event for event in events if event["kind"] == "errored"]
    assert list(python.temporary.iterdir()) == []
    assert {"tensorflow"} in [modules for child, modules in python.imports() if child == "tensorflow"]


@pytest.mark.full
def test_an_agent_that_is_always_killed_ends_the_run_in_a_line_and_it_goes_on_where_it_was(tmp_path: Path) -> None:
    python = _begun(tmp_path, {"agent": {"2": "kill", "3": "kill", "4": "kill"}})
    events = _carried_out(python, tmp_path, expect=3)
    assert events[-1]["kind"] == "job_intended"
    events = _carried_out(python, tmp_path)
    assert _outcomes(events) == {1: ["PASS", "PASS"]}


@pytest.mark.full
def test_without_m1_nothing_can_be_compared_so_the_run_ends_in_a_line_and_goes_on_with_more(tmp_path: Path) -> None:
    python = _begun(tmp_path, {"tflite": {"1": "memory"}})
    done = python.run("run", "campaign.toml", "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 3
    last = " ".join(done.stderr.split()[-60:])
    assert "held to 4096 MiB: MemoryError" in last
    assert "toolchain.memory_max_mib gives it more; then go on with --resume" in last
    text = (tmp_path / "campaign.toml").read_text()
    (tmp_path / "campaign.toml").write_text(text.replace("memory_max_mib = 4096", "memory_max_mib = 6000"))
    assert _outcomes(_carried_out(python, tmp_path)) == {1: ["PASS", "PASS"]}
