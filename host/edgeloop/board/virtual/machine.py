"""One QEMU process in a board's folder: started, watched until SSH answers, powered off, and never mistaken.

A process is known by its id together with the time it started at and this host's boot, so that an id which the system
gave to somebody else since is never signalled. The folder holds:

    vmlinuz, initrd, root.img    what it runs
    process                      host boot id, then the line of /proc/PID/stat at its start; absent while stopped
    console.log, console.sock    what the board printed; where it is told to power off
    qemu.log                     what QEMU said
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeloop.board.virtual import needs
from edgeloop.errors import LabError

State = Literal["running", "stopped", "stale"]
"""stale: it was started and is gone without having been stopped (killed, crashed, or powered off from inside)."""
HOST = "127.0.0.1"
CORES = 2
START_DEADLINE_S = 180.0
"""From QEMU's start to an answer of sshd: 8 to 20 s on an idle host of two cores, much more on a busy one."""
STOP_DEADLINE_S = 60.0
_TERM_S = 5.0
_PORTS_TRIED = 5
_PROCESS = "process"
_CONSOLE = "console.sock"
_CONSOLE_LOG = "console.log"
_QEMU_LOG = "qemu.log"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Writes down who it is before it becomes QEMU, so that no moment exists in which QEMU runs and nobody knows.
_LAUNCH = """\
read -r boot < /proc/sys/kernel/random/boot_id && read -r stat < /proc/$$/stat &&
printf '%s\\n%s\\n' "$boot" "$stat" > process.new && mv process.new process && exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """QEMU's machine, and the folder it runs in."""

    folder: Path
    name: str
    cpu: str
    memory_mib: int

    def state(self) -> State:
        """Its state now, by its process."""
        if not (self.folder / _PROCESS).exists():
            return "stopped"
        return "running" if self.pid() is not None else "stale"

    def pid(self) -> int | None:
        """Id of its QEMU, where that very process still runs."""
        try:
            boot, stat = (self.folder / _PROCESS).read_text(encoding="ascii").splitlines()[:2]
            if boot != _BOOT_ID.read_text(encoding="ascii").strip():
                return None
            pid = int(stat.split()[0])
            now = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except (OSError, ValueError):
            return None
        return pid if _start_ticks(now) == _start_ticks(stat) and _alive(now) else None

    def start(self, prefer_port: int | None, *, deadline_s: float = START_DEADLINE_S) -> int:
        """Start QEMU on a free port of 127.0.0.1 and wait until the board's sshd answers; return the port.

        It outlives its starter. Raises LabError where it does not come up; nothing of it is left then.
        """
        self.clear()
        ends_s = time.monotonic() + deadline_s
        port = free_port(prefer_port)
        for attempt in range(_PORTS_TRIED):
            process = self._launch(port)
            try:
                if self._answers(process, port, ends_s):
                    return port
            except BaseException:
                self.kill()
                raise
            status, words = process.poll(), self._last_words(_QEMU_LOG)
            if status is not None and "host forwarding rule" in words and attempt + 1 < _PORTS_TRIED:
                self.clear()
                port = free_port()  # somebody took it between our look and QEMU's
                continue
            self.kill()
            if status is not None:
                raise LabError(f"{self.name}: QEMU ended with {status}: {words}", next_step=f"see {self.folder}")
            raise LabError(
                f"{self.name}: no answer from its sshd within {deadline_s:g} s; it printed last: "
                f"{self._last_words(_CONSOLE_LOG) or 'nothing'}",
                next_step=f"see {self.folder / _CONSOLE_LOG}; a busy host boots boards slowly",
            )
        raise LabError(f"{self.name}: no free port for it on {HOST}")

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> bool:
        """Have the board power itself off; end its QEMU at the deadline. True where it went by itself."""
        ends_s, ask_s = time.monotonic() + deadline_s, 0.0
        by_itself = True
        with self._console() as console:
            while (pid := self.pid()) is not None:
                now_s = time.monotonic()
                if now_s > ends_s:
                    by_itself = False
                    self._end(pid)
                    break
                if now_s >= ask_s:  # while the kernel still boots, nobody listens yet
                    with contextlib.suppress(OSError):
                        console.sendall(b"poweroff\n")
                    ask_s = now_s + 3.0
                time.sleep(0.1)
        self.clear()
        return by_itself

    def kill(self) -> None:
        """Pull the plug."""
        pid = self.pid()
        if pid is not None:
            self._end(pid, at_once=True)
        self.clear()

    def clear(self) -> None:
        """Forget a process that is gone."""
        for name in (_PROCESS, _CONSOLE):
            (self.folder / name).unlink(missing_ok=True)

    def _end(self, pid: int, *, at_once: bool = False) -> None:
        for number, wait_s in ((signal.SIGTERM, _TERM_S), (signal.SIGKILL, _TERM_S)):
            if at_once and number is signal.SIGTERM:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            ends_s = time.monotonic() + wait_s
            while self.pid() is not None and time.monotonic() < ends_s:
                time.sleep(0.02)
            if self.pid() is None:
                return

    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        argv = ["sh", "-c", _LAUNCH, "sh", *self._qemu(port)]
        with (self.folder / _QEMU_LOG).open("wb") as log:
            return subprocess.Popen(
                argv, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _qemu(self, port: int) -> list[str]:
        # Relative paths: a socket's path may have some hundred bytes only.
        return shlex.split(
            f"{needs.QEMU.program} -name {shlex.quote(self.name)} -M virt -accel tcg -cpu {self.cpu} -smp {CORES}"
            f" -m {self.memory_mib} -nodefaults -display none"
            " -kernel vmlinuz -initrd initrd -append 'console=ttyAMA0 quiet panic=1'"
            f" -chardev socket,id=console,path={_CONSOLE},server=on,wait=off,logfile={_CONSOLE_LOG}"
            " -serial chardev:console"
            " -drive file=root.img,if=none,id=disk,format=raw -device virtio-blk-device,drive=disk"
            f" -netdev user,id=net,restrict=on,hostfwd=tcp:{HOST}:{port}-:22"
            " -device virtio-net-device,netdev=net -device virtio-rng-device"
        )

    def _answers(self, process: subprocess.Popen[bytes], port: int, ends_s: float) -> bool:
        """Wait for sshd's banner; QEMU itself takes connections long before there is a board behind them."""
        while time.monotonic() < ends_s and process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1) as connection:
                connection.settimeout(2)
                if connection.recv(4) == b"SSH-":
                    return True
            time.sleep(0.1)
        return False

    @contextlib.contextmanager
    def _console(self) -> Iterator[socket.socket]:
        """A connection to the board's console, held open: of one that is closed, QEMU drops what it has not read."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as console:
                console.settimeout(2)
                with contextlib.suppress(OSError):
                    console.connect(f"/proc/self/fd/{folder}/{_CONSOLE}")
                yield console
        finally:
            os.close(folder)

    def _last_words(self, name: str) -> str:
        """The last words of a log, on one line."""
        try:
            text = (self.folder / name).read_bytes()[-600:].decode("utf-8", "replace")
        except OSError:
            return ""
        words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return words[-300:]


def check_programs() -> None:
    """Raise UserError where a program is missing that machines run with."""
    needs.require(needs.TO_RUN)


def _start_ticks(stat: str) -> str:
    """Field 22 of /proc/PID/stat, in ticks since the host's boot. The second field, a name, may hold blanks."""
    return stat.rpartition(")")[2].split()[19]


def _alive(stat: str) -> bool:
    """False once nothing of it is left: a killed process is a zombie while its threads still hold its ports."""
    fields = stat.rpartition(")")[2].split()
    state, threads = fields[0], int(fields[17])
    return state not in {"Z", "X"} or threads > 1


def free_port(prefer: int | None = None) -> int:
    """A port nobody listens at now: the one before, so that an address keeps, or one that the system picks."""
    for port in (*([prefer] if prefer else []), 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise LabError(f"no free port on {HOST}")
