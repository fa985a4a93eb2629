"""Reaching a real sshd: whom we trust, how we log in, and what is said when it does not work."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeloop.board.known_hosts import host_key
from edgeloop.board.ssh import SshLink, scan_host_key, trust_host_key
from edgeloop.core.board import Ssh
from edgeloop.errors import HostKeyError, LabError, UnreachableError
from edgeloop.testing.sshd import LoopbackSshd

pytestmark = pytest.mark.sshd
OTHER_FINGERPRINT = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own: no key, no config, no known host, no agent."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


def whoami(ssh: Ssh) -> str:
    link = SshLink(ssh, "b")
    try:
        return link.run(["id", "-un"]).stdout.decode().strip()
    finally:
        link.close()


def sessions_in(log: Path) -> int:
    return log.read_text().count("Accepted publickey")


class TestHostKeys:
    def test_a_pinned_fingerprint_is_enough(self, sshd_session: LoopbackSshd) -> None:
        assert whoami(sshd_session.ssh) == sshd_session.user

    @pytest.mark.usefixtures("_sshd_or_skip")
    def test_any_of_a_servers_keys_may_be_the_pinned_one(self) -> None:
        with LoopbackSshd(("ed25519", "ecdsa", "rsa")) as sshd:
            for kind in ("ed25519", "ecdsa", "rsa"):
                assert whoami(sshd.ssh.model_copy(update={"host_key": sshd.fingerprint_of(kind)})) == sshd.user
            with pytest.raises(HostKeyError):
                whoami(sshd.ssh.model_copy(update={"host_key": OTHER_FINGERPRINT}))

    def test_another_key_than_the_pinned_one_is_refused_before_we_log_in(self, sshd: LoopbackSshd) -> None:
        with pytest.raises(HostKeyError) as caught:
            whoami(sshd.ssh.model_copy(update={"host_key": OTHER_FINGERPRINT}))
        (line,) = caught.value.lines()
        assert sshd.fingerprint in line
        assert OTHER_FINGERPRINT in line
        assert "edgeloop targets trust b" in line
        assert sessions_in(sshd.folder / "sshd.log") == 0

    def test_an_unknown_key_is_refused_and_says_how_to_trust_it(self, sshd: LoopbackSshd) -> None:
        with pytest.raises(LabError, match=r"is not known here.*nothing was sent") as caught:
            whoami(sshd.ssh.model_copy(update={"host_key": None}))
        assert "edgeloop targets trust b" in (caught.value.next_step or "")
        assert sessions_in(sshd.folder / "sshd.log") == 0

    def test_a_key_that_was_trusted_is_known_from_then_on(self, sshd_session: LoopbackSshd, home: Path) -> None:
        ssh = sshd_session.ssh.model_copy(update={"host_key": None})
        key = scan_host_key(ssh)
        assert (key.type, key.fingerprint) == ("ssh-ed25519", sshd_session.fingerprint)
        assert trust_host_key(ssh, key) == home / ".ssh/known_hosts"
        assert whoami(ssh) == sshd_session.user

    def test_known_hosts_of_openssh_itself_is_read_hashed_names_too(
        self, sshd_session: LoopbackSshd, home: Path
    ) -> None:
        known = home / ".ssh/known_hosts"
        known.write_text(f"[127.0.0.1]:{sshd_session.port} {sshd_session.public_host_key}\n")
        subprocess.run(["ssh-keygen", "-H", "-f", str(known)], check=True, capture_output=True)
        assert "127.0.0.1" not in known.read_text()
        assert whoami(sshd_session.ssh.model_copy(update={"host_key": None})) == sshd_session.user

    def test_another_key_in_known_hosts_is_refused(self, sshd: LoopbackSshd) -> None:
        ssh = sshd.ssh.model_copy(update={"host_key": None})
        other = (sshd.folder / "id.pub").read_text().split()
        trust_host_key(ssh, host_key(other[0], other[1]))
        with pytest.raises(HostKeyError, match="not the pinned"):
            whoami(ssh)
        assert sessions_in(sshd.folder / "sshd.log") == 0


class TestLoggingIn:
    def test_a_key_the_server_does_not_take_is_named(self, sshd_session: LoopbackSshd, tmp_path: Path) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")], check=True)
        with pytest.raises(LabError, match=r"none of our keys; tried: .*/other") as caught:
            whoami(sshd_session.ssh.model_copy(update={"identity_file": str(tmp_path / "other")}))
        assert "ssh-copy-id" in (caught.value.next_step or "")

    def test_an_identity_file_that_is_absent_or_encrypted_is_named(
        self, sshd_session: LoopbackSshd, tmp_path: Path
    ) -> None:
        with pytest.raises(LabError, match=r"absent \(no such file\)"):
            whoami(sshd_session.ssh.model_copy(update={"identity_file": str(tmp_path / "absent")}))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(tmp_path / "enc")], check=True)
        with pytest.raises(LabError, match=r"enc \(encrypted; ssh-add it\)"):
            whoami(sshd_session.ssh.model_copy(update={"identity_file": str(tmp_path / "enc")}))

    def test_no_key_at_all_is_said(self, sshd_session: LoopbackSshd) -> None:
        with pytest.raises(LabError, match="none, there is no key"):
            whoami(sshd_session.ssh.model_copy(update={"identity_file": None}))

    def test_a_key_in_the_agent_is_used(
        self, sshd_session: LoopbackSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sock = tmp_path / "agent"
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
        try:
            monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
            ends = time.monotonic() + 10
            while not sock.exists() and time.monotonic() < ends:
                time.sleep(0.01)
            subprocess.run(["ssh-add", "-q", str(sshd_session.identity_file)], check=True, capture_output=True)
            assert whoami(sshd_session.ssh.model_copy(update={"identity_file": None})) == sshd_session.user
        finally:
            agent.kill()
            agent.wait()


class TestConfig:
    def test_ssh_config_gives_what_the_board_file_leaves_out(self, sshd_session: LoopbackSshd, home: Path) -> None:
        (home / ".ssh/config").write_text("Include boards\n")
        (home / ".ssh/boards").write_text(
            f"Host pi-*\n  HostName {sshd_session.host}\n  Port {sshd_session.port}\n  User {sshd_session.user}\n"
            f"  IdentityFile {sshd_session.identity_file}\n  UserKnownHostsFile {home}/known\n"
        )
        (home / "known").write_text(f"[127.0.0.1]:{sshd_session.port} {sshd_session.public_host_key}\n")
        assert whoami(Ssh(host="pi-7")) == sshd_session.user

    def test_the_board_file_wins_over_ssh_config(self, sshd_session: LoopbackSshd, home: Path) -> None:
        (home / ".ssh/config").write_text("Host *\n  Port 1\n  User nobody\n")
        assert whoami(sshd_session.ssh) == sshd_session.user

    def test_a_proxy_command_carries_the_connection(self, sshd_session: LoopbackSshd, home: Path) -> None:
        relay = home / "relay.py"
        relay.write_text(
            "import os, socket, sys, threading\n"
            "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
            "def up():\n"
            "    while d := os.read(0, 65536): s.sendall(d)\n"
            "threading.Thread(target=up, daemon=True).start()\n"
            "while d := s.recv(65536): os.write(1, d)\n"
        )
        (home / ".ssh/config").write_text(f"Host *\n  ProxyCommand {sys.executable} {relay} %h %p\n")
        assert whoami(sshd_session.ssh) == sshd_session.user

    def test_a_proxy_command_that_fails_is_quoted(self, sshd_session: LoopbackSshd, home: Path) -> None:
        (home / ".ssh/config").write_text("Host *\n  ProxyCommand sh -c 'echo no route to the lab >&2; exit 1'\n")
        with pytest.raises(UnreachableError, match="no route to the lab"):
            whoami(sshd_session.ssh)


class TestJumpHosts:
    @pytest.fixture
    def jump(self, home: Path, _sshd_or_skip: None) -> Iterator[LoopbackSshd]:
        with LoopbackSshd() as jump:
            (home / ".ssh/config").write_text(f"Host 127.0.0.1\n  IdentityFile {jump.identity_file}\n")
            yield jump

    def test_a_board_behind_a_jump_host_is_reached_through_it(
        self, sshd_session: LoopbackSshd, jump: LoopbackSshd, home: Path
    ) -> None:
        (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{jump.port} {jump.public_host_key}\n")
        place = f"{jump.user}@127.0.0.1:{jump.port}"
        assert whoami(sshd_session.ssh.model_copy(update={"jump": place})) == sshd_session.user
        assert sessions_in(jump.folder / "sshd.log") == 1

    def test_the_jump_hosts_key_is_checked_too(self, sshd: LoopbackSshd, jump: LoopbackSshd) -> None:
        place = f"{jump.user}@127.0.0.1:{jump.port}"
        with pytest.raises(LabError, match=f"{jump.port}: its ssh-ed25519 host key .* is not known here"):
            whoami(sshd.ssh.model_copy(update={"jump": place}))
        assert sessions_in(jump.folder / "sshd.log") == 0

    def test_a_board_that_the_jump_host_can_not_reach_is_unreachable(self, jump: LoopbackSshd, home: Path) -> None:
        (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{jump.port} {jump.public_host_key}\n")
        ssh = Ssh(host="127.0.0.1", port=1, user="x", jump=f"{jump.user}@127.0.0.1:{jump.port}", connect_timeout_s=5)
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1 does not answer"):
            whoami(ssh)


class TestFaults:
    def test_a_dead_port_is_unreachable_with_host_port_and_next_step(self) -> None:
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1 does not answer.*Connection refused") as caught:
            whoami(Ssh(host="127.0.0.1", port=1, user="pi"))
        assert caught.value.next_step == "see whether it is up: ssh -p 1 pi@127.0.0.1"

    def test_a_name_that_is_none_is_unreachable(self) -> None:
        with pytest.raises(UnreachableError, match=r"no-such-board\.invalid:22 does not answer"):
            whoami(Ssh(host="no-such-board.invalid", user="pi", connect_timeout_s=5))

    def test_a_server_that_is_no_ssh_server_is_unreachable(self, tmp_path: Path) -> None:
        script = (
            "import socket\ns = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1], flush=True)\n"
            "while True:\n    c, _ = s.accept()\n    c.sendall(b'HTTP/1.0 400 no\\r\\n\\r\\n')\n    c.close()\n"
        )
        server = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            with pytest.raises(UnreachableError, match="does not answer as an SSH server"):
                whoami(Ssh(host="127.0.0.1", port=port, user="pi", connect_timeout_s=3))
        finally:
            server.kill()
            server.communicate()

    def test_the_deadline_fires_while_the_server_is_frozen_and_it_works_when_thawed(self, sshd: LoopbackSshd) -> None:
        link = SshLink(sshd.ssh, "b")
        link.run(["true"])
        sshd.freeze()
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="within 1 s"):
            link.run(["true"], deadline_s=1)
        with pytest.raises(UnreachableError):  # a new connection to a frozen server
            link.run(["true"], deadline_s=1)
        assert time.monotonic() - began < 8
        sshd.thaw()
        assert link.run(["echo", "back"], deadline_s=20).stdout == b"back\n"
        link.close()

    def test_the_deadline_fires_while_a_transfer_is_frozen(self, sshd: LoopbackSshd, tmp_path: Path) -> None:
        big = tmp_path / "big"
        big.write_bytes(bytes(40_000_000))
        link = SshLink(sshd.ssh, "b")
        link.run(["true"])
        sshd.freeze()
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="within 1 s"):
            link.run(["cat"], stdin=big, deadline_s=1)
        link.close()
        assert time.monotonic() - began < 5
        sshd.thaw()

    def test_a_connection_that_is_cut_is_unreachable_and_made_again(self, sshd: LoopbackSshd) -> None:
        link = SshLink(sshd.ssh, "b")
        link.run(["true"])
        cutter = threading.Timer(0.3, sshd.cut)
        cutter.start()
        with pytest.raises(UnreachableError, match="the connection was lost"):
            link.run(["sleep", "20"], deadline_s=15)
        cutter.join()
        assert link.run(["echo", "again"]).stdout == b"again\n"
        link.close()
