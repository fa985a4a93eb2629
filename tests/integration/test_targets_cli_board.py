"""`edgeloop targets` and `edgeloop doctor` as a user meets them, against a real sshd with a non-root user."""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgeloop.board import wheels
from edgeloop.board.wheels import LockedWheel, WheelLock, interpreter_of, wheel_lock
from edgeloop.cli import app
from edgeloop.config import board_files
from edgeloop.config.board_files import resolve
from edgeloop.errors import BoardError, EdgeloopError, HostKeyError, LabError, UnreachableError, UserError
from edgeloop.testing.sshd import LoopbackSshd
from edgeloop.wiring.benches import open_board

CACHE_HOME = str(Path.home())
Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of boards, empty; known_hosts and ssh's configuration are the test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    return board_files.user_folder()


@pytest.fixture
def run() -> Run:
    def call(*words: str) -> Result:
        return CliRunner().invoke(app, list(words))

    return call


def expect(result: Result, kind: type[EdgeloopError], exit_code: int) -> str:
    """The error that the top handler would print; nothing of a traceback is in it."""
    assert isinstance(result.exception, kind)
    assert result.exception.exit_code == exit_code
    lines = "\n".join(result.exception.lines())
    assert "Traceback" not in lines
    return lines


def added(run: Run, sshd: LoopbackSshd, folder: Path, name: str = "bench") -> Path:
    """A board that was added by the command, with this sshd's own state folder."""
    address = f"{sshd.user}@{sshd.host}:{sshd.port}"
    result = run(
        *("targets", "add", name, "--ssh", address),
        *("--identity-file", str(sshd.identity_file), "--fingerprint", sshd.fingerprint),
        *("--state-dir", sshd.state_dir),
    )
    assert result.exit_code == 0, result.exception
    return folder / f"{name}.toml"


@pytest.mark.sshd
def test_add_writes_what_it_was_shown_and_what_the_board_says(run: Run, sshd: LoopbackSshd, folder: Path) -> None:
    path = added(run, sshd, folder)
    (board,) = resolve("bench")
    assert board.ssh is not None
    assert board.ssh.host_key == sshd.fingerprint
    assert (board.ssh.user, board.ssh.port) == (sshd.user, sshd.port)
    assert board.model.name == "generic-aarch64-debian"
    before = path.read_text()
    again = run("targets", "add", "bench", "--ssh", "x@y", "--yes")
    assert "exists already" in expect(again, UserError, 2)
    assert path.read_text() == before


@pytest.mark.sshd
def test_a_host_key_is_only_accepted_by_the_user(run: Run, sshd: LoopbackSshd, folder: Path) -> None:
    address = f"{sshd.user}@{sshd.host}:{sshd.port}"
    nobody = run("targets", "add", "a", "--ssh", address, "--identity-file", str(sshd.identity_file))
    assert f"--fingerprint {sshd.fingerprint}" in expect(nobody, UserError, 2)
    assert sshd.fingerprint in nobody.stderr
    other = run("targets", "add", "a", "--ssh", address, "--fingerprint", "SHA256:" + "A" * 43)
    assert sshd.fingerprint in expect(other, HostKeyError, 3)
    assert not folder.exists()


@pytest.mark.sshd
def test_nothing_is_written_where_the_board_lets_nobody_in(
    run: Run, sshd: LoopbackSshd, folder: Path, tmp_path: Path
) -> None:
    strange = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(strange)], check=True)
    address = f"{sshd.user}@{sshd.host}:{sshd.port}"
    result = run("targets", "add", "a", "--ssh", address, "--identity-file", str(strange), "--yes")
    expect(result, LabError, 3)
    assert not folder.exists()


@pytest.mark.sshd
def test_trust_pins_the_key_in_the_boards_file_and_keeps_the_rest(run: Run, sshd: LoopbackSshd, folder: Path) -> None:
    path = added(run, sshd, folder)
    path.write_text(path.read_text().replace(sshd.fingerprint, "SHA256:" + "B" * 43) + "# by hand\n")
    refused = run("targets", "doctor", "bench")
    assert "edgeloop targets trust bench" in expect(refused, HostKeyError, 3)
    result = run("targets", "trust", "bench", "--fingerprint", sshd.fingerprint)
    assert result.exit_code == 0
    (board,) = resolve("bench")
    assert board.ssh is not None
    assert board.ssh.host_key == sshd.fingerprint
    assert "# by hand" in path.read_text()


@pytest.mark.sshd
def test_trust_of_an_address_goes_to_known_hosts(run: Run, sshd: LoopbackSshd, folder: Path, tmp_path: Path) -> None:
    address = f"{sshd.user}@{sshd.host}:{sshd.port}"
    result = run("targets", "trust", address, "--yes")
    assert result.exit_code == 0, result.exception
    assert sshd.public_host_key in (tmp_path / "home/.ssh/known_hosts").read_text()
    assert not folder.exists()


@pytest.mark.sshd
def test_doctor_names_each_difference_with_its_next_step(run: Run, sshd: LoopbackSshd, folder: Path) -> None:
    path = added(run, sshd, folder)
    text = path.read_text().replace("generic-aarch64-debian", "raspberry-pi-4")
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("serial"))
    path.write_text(text.replace("tags = []", 'serial = "1"').replace("[runtime]", "[runtime]\ncores = [901]"))
    result = run("targets", "doctor", "bench", "--json")
    assert result.exit_code == 3, result.exception
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert (checks["serial"]["state"], checks["serial"]["wanted"]) == ("wrong", "1")
    assert (checks["cores"]["state"], checks["cores"]["wanted"]) == ("wrong", "901")
    assert checks["model"]["state"] == "note"
    assert all(check["next_step"] for check in checks.values() if check["state"] != "ok")
    assert {"python", "disk", "time", "engine litert", "engine tflite-runtime", "lease"} <= set(checks)
    spoken = run("targets", "doctor", "bench")
    assert spoken.exit_code == 3
    assert "->" in spoken.stdout


@pytest.mark.sshd
def test_a_runtime_is_pushed_once_and_loads_without_pip_or_root(
    run: Run, sshd: LoopbackSshd, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")  # wheels that this machine has are not downloaded again
    monkeypatch.setenv("HOME", CACHE_HOME)
    added(run, sshd, folder)
    first = run("targets", "provision", "bench", "--engine", "litert")
    if isinstance(first.exception, LabError) and "could not be downloaded" in first.exception.message:
        pytest.skip(f"no package index can be reached: {first.exception.message}")
    assert first.exit_code == 0, first.exception
    assert "ready for litert" in first.stdout
    second = run("targets", "provision", "bench", "--engine", "litert")
    assert "; 0 bytes sent" in second.stdout
    checks = json.loads(run("targets", "doctor", "bench", "--json").stdout)["checks"]
    assert {c["state"]: c["found"] for c in checks if c["name"] == "runtime litert"} == {"ok": "loads: litert 2.3.0"}
    cleaned = run("targets", "clean", "bench", "--all")
    assert cleaned.exit_code == 0
    left = [path for path in (Path(sshd.state_dir) / "runtimes").iterdir() if path.is_dir()]
    assert all((path / "edgeloop_agent").is_dir() for path in left), "only the agent that cleaned may be left"


@pytest.mark.sshd
def test_a_runtime_that_does_not_load_there_is_said_before_anything_is_measured(
    run: Run, sshd: LoopbackSshd, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added(run, sshd, folder)
    bench = open_board(resolve("bench")[0])
    interpreter = interpreter_of(bench.facts())
    bench.close()
    broken = tmp_path / "cache/edgeloop/wheels/broken-1.whl"
    broken.parent.mkdir(parents=True)
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("numpy/__init__.py", "__version__ = '1.26.4'\n")
        archive.writestr("ai_edge_litert/__init__.py", "")
        archive.writestr("ai_edge_litert/interpreter.py", "raise ImportError('made for another processor')")
    real = wheel_lock().find("ai-edge-litert", interpreter.tag, interpreter.machine)
    numpy = wheel_lock().find("numpy", interpreter.tag, interpreter.machine)
    assert real is not None
    assert numpy is not None
    fake = {"file": broken.name, "sha256": hashlib.sha256(broken.read_bytes()).hexdigest()}
    lock = [LockedWheel.model_validate({**item.model_dump(), **fake}) for item in (real, numpy)]
    others = [item for item in wheel_lock().wheel if item.distribution not in {"ai-edge-litert", "numpy"}]
    monkeypatch.setattr(wheels, "wheel_lock", lambda: WheelLock(wheel=(*lock, *others)))
    result = run("targets", "provision", "bench", "--engine", "litert")
    assert "made for another processor" in expect(result, BoardError, 3)


@pytest.mark.sshd
def test_an_unknown_engine_is_bad_input(run: Run, sshd: LoopbackSshd, folder: Path) -> None:
    added(run, sshd, folder)
    text = expect(run("targets", "provision", "bench", "--engine", "onnx"), UserError, 2)
    assert "engines are litert, tflite-runtime" in text


def test_a_target_that_does_not_answer_is_not_bad_input(run: Run, folder: Path) -> None:
    result = run("targets", "add", "a", "--ssh", "x@127.0.0.1:1", "--yes")
    expect(result, UnreachableError, 3)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("add", "a", "--ssh", "pi@"), "is not an address"),
        (("add", "a/b", "--ssh", "x@y"), "can't be a board's name"),
        (("add", "local", "--ssh", "x@y"), "has a meaning of its own"),
        (("add", "a", "--ssh", "x@y", "--model", "pi9"), "no board model 'pi9'"),
        (("add", "a", "--ssh", "x@y", "--identity-file", "/nowhere"), "/nowhere: no such file"),
        (("show", "nowhere"), "no board 'nowhere'"),
        (("doctor", "tag:none"), "no board has the tag"),
        (("trust", "local"), "this machine"),
    ],
)
def test_what_was_given_and_can_not_be_used_is_one_clear_line(
    run: Run, folder: Path, words: tuple[str, ...], text: str
) -> None:
    assert text in expect(run("targets", *words), UserError, 2)


def test_list_shows_boards_and_the_faults_of_files(run: Run, folder: Path) -> None:
    folder.mkdir(parents=True)
    good = (
        'schema = 1\nextends = "raspberry-pi-5"\ntags = ["rack"]\n[ssh]\nhost = "pi5.lab"\nuser = "edge"\nport = 2200\n'
    )
    (folder / "good.toml").write_text(good)
    (folder / "bad.toml").write_text(good + "colour = 1\n")
    result = run("targets", "list")
    assert result.exit_code == 0
    assert "edge@pi5.lab:2200" in result.stdout
    assert "ssh.colour: unknown key" in result.stderr
    boards = {board["name"]: board for board in json.loads(run("targets", "list", "--json").stdout)["boards"]}
    assert set(boards) == {"bad", "good", "local"}
    assert (boards["good"]["tags"], boards["bad"]["model"]) == (["rack"], None)


def test_show_joins_the_models_keys(run: Run, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "zero.toml").write_text(
        'schema = 1\nextends = "raspberry-pi-zero-2w"\n[ssh]\nhost = "z"\n[runtime]\ncores = [3]\n'
    )
    shown = json.loads(run("targets", "show", "zero", "--json").stdout)
    assert (shown["runtime"]["cores"], shown["runtime"]["cache_max_mib"]) == ([3], 1024)
    assert "cache_max_mib = 1024" in run("targets", "show", "zero").stdout


def test_this_machine_is_looked_at_like_a_board(run: Run, folder: Path) -> None:
    result = run("targets", "doctor", "local", "--json")
    assert result.exit_code == 0, result.exception
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert checks["engine litert"]["state"] == "ok"
    assert checks["time"]["state"] == "ok"


def test_doctor_looks_at_this_host(run: Run, folder: Path) -> None:
    result = run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert {"python", "base install", "extra train", "disk for runs"} <= set(checks)
    assert result.exit_code == (2 if any(check["state"] == "wrong" for check in checks.values()) else 0)
    assert "numpy" in checks["base install"]["found"]
