"""A real sshd on a free loopback port, with host key, user key and state folder made for it: a board for tests.

Run as root, it logs people in as the user `edgeboard` (made at first use), so that nothing on the "board" is root;
run as anybody else, as oneself. `freeze`, `thaw` and `cut` are the faults of a network.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from edgeloop.core.board import Ssh

BOARD_USER = "edgeboard"
BOARD_PYTHON = "/usr/bin/python3"
_START_S = 10.0


def why_no_sshd() -> str | None:
    """A reason to skip, with the command that helps, or None."""
    if not _sshd():
        return "no sshd here; install it: apt-get install openssh-server"
    if os.geteuid() == 0 and not _has_board_user() and not shutil.which("useradd"):
        return f"sshd would log in as root: make a user first: adduser {BOARD_USER}"
    return None


class LoopbackSshd:
    """`with LoopbackSshd() as sshd`: everything a board's file says of it, and its faults."""

    def __init__(self, host_key_types: Sequence[str] = ("ed25519",)) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.user = _board_user()
        self.python = BOARD_PYTHON
        self.folder = Path(tempfile.mkdtemp(prefix="edgeloop-sshd-"))
        self.folder.chmod(0o755)  # the board's user looks into it
        self.identity_file = self.folder / "id"
        self.state_dir = str(self.folder / "state")
        self._process: subprocess.Popen[bytes] | None = None
        account = pwd.getpwnam(self.user)
        _key(self.identity_file)
        self._host_keys = [self.folder / f"host-{kind}" for kind in host_key_types]
        for kind, path in zip(host_key_types, self._host_keys, strict=True):
            _key(path, kind)
        Path(self.state_dir).mkdir(mode=0o755)
        if os.geteuid() == 0:
            os.chown(self.state_dir, account.pw_uid, account.pw_gid)
        self.fingerprint = self.fingerprint_of(host_key_types[0])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._end_what_it_left()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def ssh(self) -> Ssh:
        """The way to reach it, with its host key pinned."""
        return Ssh(
            host=self.host,
            port=self.port,
            user=self.user,
            host_key=self.fingerprint,
            identity_file=str(self.identity_file),
            connect_timeout_s=10,
        )

    def write_board(self, folder: Path, name: str = "loopback", *, ssh: Ssh | None = None) -> None:
        """Write the board's file, and a model for it, into a campaign's folder. `ssh` replaces how it is reached."""
        reach, model = ssh or self.ssh, f"{name}-model"
        (folder / f"{model}.toml").write_text(
            f'schema = 1\nname = "{model}"\ntitle = "sshd on this machine"\narchitectures = ["x86_64", "aarch64"]\n'
        )
        (folder / f"{name}.toml").write_text(
            f'schema = 1\nname = "{name}"\nextends = "{model}"\n[ssh]\nhost = "{reach.host}"\nport = {reach.port}\n'
            f'user = "{reach.user}"\nhost_key = "{reach.host_key}"\nidentity_file = "{reach.identity_file}"\n'
            f'[runtime]\npython = "{self.python}"\nstate_dir = "{self.state_dir}"\n'
        )

    @property
    def public_host_key(self) -> str:
        """`type base64`, as known_hosts has it."""
        return " ".join(Path(f"{self._host_keys[0]}.pub").read_text().split()[:2])

    def fingerprint_of(self, host_key_type: str) -> str:
        """`SHA256:...` of one of its host keys."""
        return _words("ssh-keygen", "-lf", f"{self.folder}/host-{host_key_type}.pub")[1]

    def start(self) -> None:
        """Listen; on the same port as before where it was stopped in between."""
        self.port = self.port or _free_port()
        config = self.folder / "sshd_config"
        config.write_text(
            "".join(f"HostKey {path}\n" for path in self._host_keys)
            + f"ListenAddress {self.host}\nPort {self.port}\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/id.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nAllowTcpForwarding yes\nUseDNS no\nPrintMotd no\nMaxStartups 200\n"
            "Subsystem sftp internal-sftp\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [_sshd(), "-D", "-e", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        ends_s = time.monotonic() + _START_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > ends_s:
                raise RuntimeError(f"sshd did not start: {(self.folder / 'sshd.log').read_text()[-500:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server and its connections. What commands detached goes on, as on a board that loses its network."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def cut(self) -> None:
        """End the connections; the server goes on listening."""
        self._signal(signal.SIGKILL, listener=False)

    def freeze(self) -> None:
        """Server and connections stop in their tracks; the sockets stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals, *, listener: bool = True) -> None:
        assert self._process is not None
        for pid in (*([self._process.pid] if listener else []), *_sshd_descendants(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end_what_it_left(self) -> None:
        """End processes whose command line names this board's own folder: supervisors and sessions of its jobs."""
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                is_ours = self.state_dir.encode() in (entry / "cmdline").read_bytes()
                if is_ours and int(entry.name) != os.getpid():
                    os.kill(int(entry.name), signal.SIGKILL)


def _sshd() -> str:
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin") or ""


def _has_board_user() -> bool:
    try:
        pwd.getpwnam(BOARD_USER)
    except KeyError:
        return False
    return True


def _board_user() -> str:
    if os.geteuid() != 0:
        return getpass.getuser()
    if not _has_board_user():
        # `*` is a password that nothing matches; useradd's own `!` would lock the account for keys too.
        subprocess.run(["useradd", "-m", "-s", "/bin/bash", "-p", "*", BOARD_USER], check=True)
    return BOARD_USER


def _key(path: Path, kind: str = "ed25519") -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "edgeloop-test", "-f", str(path)], check=True)


def _words(*argv: str) -> list[str]:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _sshd_descendants(root: int) -> Iterator[int]:
    """Processes of the server itself below `root`, for each connection; not the commands that they run."""
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            head, _, tail = (entry / "stat").read_text().rpartition(")")
            names[int(entry.name)] = head.partition("(")[2]
            children.setdefault(int(tail.split()[1]), []).append(int(entry.name))
    todo = list(children.get(root, ()))
    while todo:
        pid = todo.pop()
        if names[pid].startswith("sshd"):
            yield pid
            todo += children.get(pid, ())
