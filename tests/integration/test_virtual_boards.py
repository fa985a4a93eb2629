"""Virtual boards from `create` to `remove`, with a program in QEMU's place: states, ports, keys, refusals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import fake_qemu
import paramiko
import pytest

from edgeloop.board.virtual import image as images
from edgeloop.board.virtual.boards import Places, VirtualBoards
from edgeloop.board.virtual.machine import Machine
from edgeloop.config.board_files import resolve
from edgeloop.errors import ConfigError, LabError, UserError


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Places]:
    """Folders of the test's own, a ready image, and the fake QEMU on the PATH; every machine is ended afterwards."""
    programs = tmp_path / "bin"
    programs.mkdir()
    fake_qemu.install(programs)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name in ("config", "data", "cache", "state"):
        monkeypatch.setenv(f"XDG_{name.upper()}_HOME", str(tmp_path / name))
    for arch in ("arm64", "armhf"):
        folder = tmp_path / "cache/edgeloop/virtual" / images.Spec(arch=arch).name
        folder.mkdir(parents=True)
        for file in ("vmlinuz", "initrd", "root.img"):
            (folder / file).write_bytes(file.encode())
    made = Places()
    yield made
    for pid in _pids(made):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def boards(places: Places) -> VirtualBoards:
    return VirtualBoards(places)


def _pids(places: Places) -> list[int]:
    found = (Machine(folder, folder.name, "", 0).pid() for folder in places.data.glob("[!.]*/"))
    return [pid for pid in found if pid is not None]


def make(boards: VirtualBoards, name: str = "virt", arch: str = "arm64", cpu: str = "cortex-a72") -> Path:
    return boards.create(name, arch=arch, cpu=cpu, memory_mib=512, mirror=None, say=lambda _text: None)


def port_of(file: Path) -> int:
    return int(tomllib.loads(file.read_text())["ssh"]["port"])


def test_a_board_is_created_started_stopped_and_removed(boards: VirtualBoards, places: Places) -> None:
    file = make(boards)
    assert boards.state("virt") == "stopped"
    port = boards.start("virt")
    assert boards.state("virt") == "running"
    assert port_of(file) == port
    assert boards.stop("virt") == ("running", True)
    assert boards.state("virt") == "stopped"
    boards.remove("virt")
    assert boards.all_boards() == ([], [])
    assert not file.exists()
    assert list(places.data.iterdir()) == []


def test_its_file_is_that_of_an_emulated_board_with_a_pinned_key_and_a_user_that_is_not_root(
    boards: VirtualBoards, places: Places
) -> None:
    make(boards, arch="armhf")
    (board,) = resolve("virt")
    assert board.emulated
    assert board.shares_host
    assert board.model.name == "virtual-armhf"
    assert board.ssh is not None
    assert (board.ssh.host, board.ssh.user, board.ssh.jump) == ("127.0.0.1", "edge", "none")
    key = paramiko.Ed25519Key(data=_blob(places.data / "virt/host_key.pub"))
    assert board.ssh.host_key == key.fingerprint
    identity = Path(str(board.ssh.identity_file))
    assert identity.stat().st_mode & 0o777 == 0o600
    assert paramiko.Ed25519Key.from_private_key_file(str(identity)).can_sign()
    initrd = (places.data / "virt/initrd").read_bytes()
    assert initrd.startswith(b"initrd" + b"\0\0" + b"070701")  # the image's, padded to words, then the board's own
    assert b"PRIVATE KEY" in initrd
    assert (places.data / "virt/initrd").stat().st_mode & 0o777 == 0o600


def _blob(path: Path) -> bytes:
    import base64

    return base64.b64decode(path.read_text().split()[1])


def test_every_board_has_keys_of_its_own(boards: VirtualBoards, places: Places) -> None:
    make(boards, "one")
    make(boards, "two")
    for file in ("id_ed25519", "host_key.pub"):
        assert (places.data / "one" / file).read_bytes() != (places.data / "two" / file).read_bytes()


def test_several_run_at_once_on_ports_of_their_own(boards: VirtualBoards) -> None:
    for name in ("one", "two"):
        make(boards, name)
    ports = {boards.start(name) for name in ("one", "two")}
    assert len(ports) == 2
    assert [item.state for item in boards.all_boards()[0]] == ["running", "running"]


def test_a_board_comes_back_at_its_port_where_that_is_free_and_its_file_says_so_where_it_is_not(
    boards: VirtualBoards,
) -> None:
    file = make(boards)
    first = boards.start("virt")
    boards.stop("virt")
    assert boards.start("virt") == first
    boards.stop("virt")
    with socket.create_server(("127.0.0.1", first)):
        second = boards.start("virt")
    assert second != first
    assert port_of(file) == second


def test_a_port_that_is_taken_between_the_look_and_qemus_own_is_left(
    boards: VirtualBoards, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make(boards)
    first = port_of(file)
    monkeypatch.setenv("FAKE_QEMU", f"taken:{first}")
    assert boards.start("virt") != first


def test_a_machine_that_is_gone_is_stale_and_starts_again(boards: VirtualBoards, places: Places) -> None:
    make(boards)
    boards.start("virt")
    os.kill(_pids(places)[0], signal.SIGKILL)
    _until(lambda: boards.state("virt") == "stale")
    assert boards.stop("virt")[0] == "stale"
    assert boards.state("virt") == "stopped"
    boards.start("virt")
    os.kill(_pids(places)[0], signal.SIGKILL)
    _until(lambda: boards.state("virt") == "stale")
    boards.start("virt")
    assert boards.state("virt") == "running"


def test_a_process_that_was_given_the_id_since_is_never_signalled(boards: VirtualBoards, places: Places) -> None:
    make(boards)
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            stat = Path(f"/proc/{other.pid}/stat").read_text()
            fields = stat.rpartition(")")[2].split()
            fields[19] = str(int(fields[19]) - 1)  # the same id, another start
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            record = f"{boot}\n{other.pid} (sh) {' '.join(fields)}\n"
            (places.data / "virt/process").write_text(record)
            assert boards.state("virt") == "stale"
            assert boards.stop("virt") == ("stale", True)
            boards.kill("virt")
            assert other.poll() is None
        finally:
            other.kill()


def test_a_record_of_another_boot_of_the_host_is_stale(boards: VirtualBoards, places: Places) -> None:
    make(boards)
    stat = Path(f"/proc/{os.getpid()}/stat").read_text()
    (places.data / "virt/process").write_text(f"00000000-0000-0000-0000-000000000000\n{stat}")
    assert boards.state("virt") == "stale"
    boards.kill("virt")  # this process goes on


def test_a_board_that_ignores_everything_is_ended_at_the_deadline(
    boards: VirtualBoards, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_QEMU", "deaf")
    monkeypatch.setattr("edgeloop.board.virtual.machine._TERM_S", 0.2)
    make(boards)
    boards.start("virt")
    machine = Machine(places.data / "virt", "virt", "cortex-a72", 512)
    assert machine.stop(deadline_s=0.3) is False
    assert _pids(places) == []


@pytest.mark.parametrize(("mode", "said"), [("dead", "no such CPU"), ("mute", "it printed last: booting")])
def test_a_board_that_does_not_come_up_leaves_nothing(
    boards: VirtualBoards, places: Places, monkeypatch: pytest.MonkeyPatch, mode: str, said: str
) -> None:
    monkeypatch.setenv("FAKE_QEMU", mode)
    make(boards)
    machine = Machine(places.data / "virt", "virt", "cortex-a72", 512)
    with pytest.raises(LabError, match=said):
        machine.start(None, deadline_s=2.0)
    assert _pids(places) == []
    assert boards.state("virt") == "stopped"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "../up"}, "can't be a board's name"),
        ({"name": "local"}, "has a meaning of its own"),
        ({"name": "raspberry-pi-4"}, "has a meaning of its own"),
        ({"cpu": "cortex-a57"}, "cpu 'cortex-a57' is unknown"),
        ({"arch": "x86_64"}, "arch 'x86_64' is unknown"),
        ({"memory_mib": 12}, "memory_mib 12"),
        ({"mirror": "nowhere"}, "is not a mirror"),
    ],
)
def test_what_can_not_be_used_is_refused_in_one_line(
    boards: VirtualBoards, places: Places, change: dict[str, object], said: str
) -> None:
    asked = {"name": "virt", "arch": "arm64", "cpu": "cortex-a72", "memory_mib": 512, "mirror": None, **change}
    with pytest.raises(UserError, match=said) as caught:
        boards.create(**asked, say=lambda _text: None)  # type: ignore[arg-type]
    assert len(caught.value.lines()) == 1
    assert not places.data.exists()
    assert not places.board_files.exists()


def test_a_name_that_is_taken_by_any_board_is_refused(boards: VirtualBoards, places: Places) -> None:
    make(boards)
    with pytest.raises(UserError, match="exists already; choose another name, or: edgeloop board remove virt"):
        raise_lines(lambda: make(boards))
    (places.board_files / "pi4.toml").write_text('schema = 1\nextends = "raspberry-pi-4"\n[ssh]\nhost = "pi4"\n')
    with pytest.raises(UserError, match="exists already"):
        make(boards, "pi4")
    assert not (places.data / "pi4").exists()


def raise_lines(call: object) -> None:
    """Raise what a user reads, next step included."""
    try:
        call()  # type: ignore[operator]
    except UserError as error:
        raise UserError(error.lines()[0]) from error


def test_a_running_board_is_neither_removed_nor_started_twice(boards: VirtualBoards) -> None:
    make(boards)
    boards.start("virt")
    with pytest.raises(UserError, match="is running"):
        boards.remove("virt")
    with pytest.raises(UserError, match="runs already"):
        boards.start("virt")


def test_an_unknown_board_is_named_beside_those_there_are(boards: VirtualBoards) -> None:
    make(boards, "one")
    for call in (boards.start, boards.stop, boards.remove):
        with pytest.raises(UserError, match="no virtual board 'two'; there are one"):
            call("two")


def test_without_qemu_the_install_command_is_named_and_nothing_is_made(
    boards: VirtualBoards, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeloop.board.virtual.needs.find", lambda _program: None)
    with pytest.raises(ConfigError, match="apt-get install qemu-system-arm"):
        make(boards)
    assert not places.data.exists()


def test_without_room_nothing_is_made(boards: VirtualBoards, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "COPY_MIB", 1 << 40)
    with pytest.raises(LabError, match="MiB free, a virtual board needs"):
        make(boards)
    assert list(places.data.iterdir()) == []


def test_a_board_file_that_was_deleted_is_written_again_at_the_next_start(boards: VirtualBoards) -> None:
    file = make(boards)
    before = tomllib.loads(file.read_text())["ssh"]["host_key"]
    file.unlink()
    boards.start("virt")
    assert tomllib.loads(file.read_text())["ssh"]["host_key"] == before


def test_what_a_user_added_to_the_board_file_stays(boards: VirtualBoards) -> None:
    file = make(boards)
    file.write_text(file.read_text() + '\n[runtime]\nstate_dir = "/home/edge/own"  # mine\n')
    boards.start("virt")
    assert 'state_dir = "/home/edge/own"  # mine' in file.read_text()
    assert resolve("virt")[0].runtime.state_dir == "/home/edge/own"


def test_the_command_lists_states_as_json_and_as_a_table(boards: VirtualBoards) -> None:
    make(boards, "one")
    make(boards, "two", arch="armhf", cpu="cortex-a53")
    port = boards.start("two")
    listed = json.loads(_command("list", "--json"))
    assert [(b["name"], b["state"], b["emulated"]) for b in listed["boards"]] == [
        ("one", "stopped", True),
        ("two", "running", True),
    ]
    assert listed["boards"][1]["port"] == port
    table = _command("list").splitlines()
    assert table[2].split() == ["two", "running", f"127.0.0.1:{port}", "armhf", "cortex-a53", "512", "MiB"]
    assert _command("stop", "two") == "two: powered off\n"
    assert _command("stop", "two") == "two: was not running\n"


def _command(*words: str) -> str:
    argv = [sys.executable, "-m", "edgeloop", "board", *words]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def test_what_a_killed_test_started_is_ended_with_it(places: Places, tmp_path: Path) -> None:
    """The guard of the shipped context manager outlives its process, and cleans up after it."""
    script = (
        "import sys, time\nfrom edgeloop.testing.virtual_board import VirtualBoardHome\n"
        "with VirtualBoardHome() as home:\n    home.create('virt')\n"
        "    print(home.folder, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as test:
        assert test.stdout is not None
        folder = Path(test.stdout.readline().strip())
        machine = Machine(folder / "data/edgeloop/boards/virt", "virt", "cortex-a72", 1024)
        assert machine.state() == "running"
        test.kill()
    _until(lambda: not folder.exists())
    assert machine.pid() is None


def _until(true: object, within_s: float = 20.0) -> None:
    ends_s = time.monotonic() + within_s
    while not true():  # type: ignore[operator]
        assert time.monotonic() < ends_s
        time.sleep(0.02)
