"""The agent keeps to Python 3.9, and all but its sessions to the standard library."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import edgeloop_agent
from edgeloop.board.bundle import agent_bundle
from edgeloop_agent import probe, wire

PACKAGE = Path(edgeloop_agent.__file__).parent


def python39() -> str:
    """An interpreter of that version, on PATH or among pyenv's."""
    places = sorted((Path.home() / ".pyenv/versions").glob("3.9.*/bin/python"))
    for place in [shutil.which("python3.9"), *map(str, places)]:
        if place is not None and subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode == 0:
            return place
    pytest.skip("no Python 3.9 is on PATH or among pyenv's versions")


def test_language_and_library_are_those_of_python_3_9() -> None:
    vermin = Path(sys.executable).parent / "vermin"
    if not vermin.exists():
        pytest.skip("vermin is not installed beside this interpreter")
    done = subprocess.run(
        [str(vermin), "-t=3.9-", "--no-tips", "--violations", str(PACKAGE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Board:
    def __init__(self, python: str, state: Path) -> None:
        bundle = agent_bundle()
        (state / "cache").mkdir(parents=True)
        self.python, self.state = python, state
        self.agent = state / "cache" / f"{bundle.sha256}.pyz"
        self.agent.write_bytes(bundle.data)

    def call(self, *words: str, stdin: bytes = b"", status: int = 0) -> dict[str, Any]:
        done = subprocess.run(
            [self.python, "-E", str(self.agent), *words, "--state-dir", str(self.state)],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, (done.stdout, done.stderr)
        assert done.stdout.count(b"\n") == 1
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer


def test_on_3_9_without_numpy_everything_but_a_session_works(tmp_path: Path) -> None:
    board = Board(python39(), tmp_path / "state")
    facts = board.call("probe", "--engine", "litert")
    assert facts["python"].startswith("3.9.")
    assert (facts["python_tag"], facts["abi_tag"]) == ("cp39", "cp39")
    assert facts["numpy"] is None or facts["numpy_error"] is None
    assert facts["state_dir"]["problem"] is None
    raw = (PACKAGE.parent.parent / "tests/data/tiny_float.tflite").read_bytes()
    sha256 = hashlib.sha256(raw).hexdigest()
    board.call("receive", "--name", sha256 + ".tflite", "--sha256", sha256, "--bytes", str(len(raw)), stdin=raw)
    assert board.call("has", sha256 + ".tflite")["missing"] == []
    assert board.call("lease", "acquire", "--owner", "me", "--seconds", "60", "--token", "token-of-me")["acquired"]
    job = wire.Job(
        id="1" * 32,
        agent_sha256=agent_bundle().sha256,
        lease_token="token-of-me",
        lease_owner="me",
        subjects=[wire.WireSubject("a", "litert", sha256, ".tflite", 1, ["x"], ["y"])],
        schedule=[wire.WireStep(0, 0, "latency")],
        session_plan=wire.SessionPlan(1, 0.0, 0.1, 1, 0.1, "invoke", None, 0.0, 20.0),
        conditions=wire.Conditions(
            cores=[],
            governor="as-found",
            idle_gate=False,
            start_temperature_max_c=None,
            cool_down_max_s=0.0,
            foreign_load_max_pct=None,
            soak_max_s=None,
            soak_window_s=120.0,
            soak_slope_max_c_per_min=0.2,
        ),
        data_sha256=None,
        python_path=[],
        power_sensor=None,
        seed=0,
        deadline_s=30.0,
    )
    message = wire.encode(job)
    assert board.call("start", "--job", job.id, "--job-bytes", str(len(message)), stdin=message)["started"] is True
    done = board.call("look", "--job", job.id, "--after", "9", "--wait-s", "30")["done"]
    if facts["numpy"] is None:
        assert (done["outcome"], done["owner"]) == ("failed", "board")
        assert "can't be imported" in done["detail"]
    else:
        assert done["outcome"] in {"complete", "failed"}
    assert board.call("clean", "--all")["freed_bytes"] > 0
    assert board.agent.exists()


def test_every_answer_is_one_json_object_also_where_it_is_an_error(tmp_path: Path) -> None:
    board = Board(sys.executable, tmp_path / "state")
    assert board.call("dance", status=1)["owner"] == "harness"
    assert board.call("look", "--job", "1" * 32, status=1)["error"] == f"the board has no job {'1' * 32}"
    assert board.call("lease", "renew", "--token", "not-mine", "--seconds", "9", status=1)["owner"] == "lab"


def test_the_sources_run_as_a_module_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgeloop_agent", "lease", "show", "--state-dir", str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["held"] is False


def test_a_32_bit_interpreter_under_a_64_bit_kernel_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe.platform, "machine", lambda: "aarch64")
    assert probe.interpreter()["machine"] == "aarch64"
    monkeypatch.setattr(probe.struct, "calcsize", lambda _format: 4)
    found = probe.interpreter()
    assert (found["machine"], found["kernel_machine"], found["pointer_bits"]) == ("armv7l", "aarch64", 32)


def test_a_board_is_known_by_what_its_firmware_says(tmp_path: Path) -> None:
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    (tree / "serial-number").write_bytes(b"10000000a1b2c3d4\0")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nHOME_URL="x"\n')
    facts = probe.probe(str(tmp_path / "none"), [], [], root=tmp_path)
    assert facts["model"] == "Raspberry Pi 4 Model B Rev 1.4"
    assert facts["serial"] == "10000000a1b2c3d4"
    assert facts["os"] == {"ID": "debian", "VERSION_ID": "12"}
    assert facts["state_dir"]["exists"] is False
    (tree / "serial-number").unlink()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nSerial\t\t: 00000000deadbeef\n")
    assert probe.probe(str(tmp_path / "none"), [], [], root=tmp_path)["serial"] == "00000000deadbeef"
