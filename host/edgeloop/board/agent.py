"""The agent's commands as typed calls over a Link: pushed on first use, its answers bounded, its errors translated.

A board's answer is data, never trusted: one JSON object of bounded size, or the call is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.board.bundle import AgentBundle, agent_bundle
from edgeloop.board.link import last_line
from edgeloop.core.board import Board
from edgeloop.errors import (
    BoardError,
    BoardFullError,
    EdgeloopError,
    HarnessError,
    LabError,
    LeaseError,
    ModelError,
    Owner,
    UserError,
)
from edgeloop.ports import Link
from edgeloop.sentences import command_line
from edgeloop_agent import wire

_CALL_S = 60.0
_PROBE_S = 180.0
_UNPACK_S = 600.0
_SLOWEST_BYTES_PER_S = 100_000
"""A transfer slower than this is given up."""
_KINDS: dict[str, type[EdgeloopError]] = {
    Owner.USER: UserError,
    Owner.MODEL: ModelError,
    Owner.BOARD: BoardError,
    Owner.LAB: LabError,
    Owner.HARNESS: HarnessError,
}
_CANT_OPEN = 2
"""The exit status of a Python that can't open the file that it is to run."""

# Runs before the agent is there, on whatever Python the board has: no f-strings, no agent. With a size it takes the
# bytes from stdin; either way the file's bytes are hashed on the board before it says `ok`. Where it fails, the last
# line on stderr is a code (old, damaged, full, failed) and a detail.
_RECEIVER = """
import errno, hashlib, os, sys
folder, sha, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
if sys.version_info < (3, 9):
    sys.exit("old %d.%d" % sys.version_info[:2])
path = os.path.join(folder, sha + ".pyz")
def good(raw):
    return hashlib.sha256(raw).hexdigest() == sha
if size < 0:
    try:
        with open(path, "rb") as f:
            print("ok" if good(f.read(1000000)) else "absent")
    except OSError:
        print("absent")
    sys.exit()
raw = sys.stdin.buffer.read(size + 1)
if len(raw) != size or not good(raw):
    sys.exit("damaged")
temporary = path + ".tmp%d" % os.getpid()
try:
    os.makedirs(folder, exist_ok=True)
    try:
        with open(temporary, "wb") as f:
            f.write(raw)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
except OSError as error:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
    sys.exit("%s %s: %s" % ("full" if full else "failed", error.filename or path, error.strerror))
print("ok")
"""


_CLOCK = "import time; print(time.clock_gettime_ns(time.CLOCK_MONOTONIC))"


class UnknownJobError(HarnessError):
    """The board has no such job."""


def error_by_owner(owner: str) -> type[EdgeloopError]:
    """The kind of error for an owner that a board names."""
    return _KINDS.get(owner, BoardError)


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a job. `sessions` holds sizes in bytes by part (`json`, `latency.npy`, `out.0.npy`)."""

    boot_id: str
    supervisor_alive: bool
    state: wire.State | None
    done: wire.Done | None
    sessions: Mapping[int, Mapping[str, int]]


class BoardAgent:
    """The agent on one board. Raises BoardError for answers that are not what the protocol says."""

    def __init__(self, link: Link, board: Board, *, bundle: Callable[[], AgentBundle] = agent_bundle) -> None:
        self._link = link
        self._name = board.name
        self._python = board.runtime.python
        self._state_dir = board.runtime.state_dir
        self._bundle = bundle
        self._is_there = False
        self.bytes_pushed = 0
        """Bytes of files sent to the board by this object: agent, models, data, wheels."""

    def probe(
        self,
        python_path: Sequence[str] = (),
        engines: Sequence[str] = (),
        power_sensor: str | None = None,
        libraries: Sequence[str] = (),
    ) -> dict[str, Any]:
        """The board as it describes itself; `engines` are imported and their versions given, a sensor is read once,
        `libraries` of delegates are loaded."""
        argv = [word for folder in python_path for word in ("--python-path", folder)]
        argv += [word for engine in engines for word in ("--engine", engine)]
        argv += [] if power_sensor is None else ["--power-sensor", power_sensor]
        argv += [word for library in libraries for word in ("--delegate-library", library)]
        return self.call("probe", *argv, deadline_s=_PROBE_S)

    def monotonic_ns(self) -> int:
        """The board's CLOCK_MONOTONIC at some moment during this call, which is kept as short as can be."""
        answer = self._link.run([self._python, "-E", "-S", "-c", _CLOCK], deadline_s=_CALL_S, output_max=4096)
        text = answer.stdout.strip()
        if answer.exit_status != 0 or not text.isdigit() or len(text) > wire.INTEGER_DIGITS_MAX:
            raise self._refusal("clock", last_line(answer.stderr) or "no number")
        return int(text)

    def missing(self, names: Iterable[str], runtimes: Iterable[str] = ()) -> tuple[frozenset[str], frozenset[str]]:
        """Of these cache names and runtimes, those that the board does not have, whole and verified."""
        names, runtimes = frozenset(names), frozenset(runtimes)
        answer = self.call("has", *sorted(names), *(w for r in sorted(runtimes) for w in ("--runtime", r)))
        return names - _texts(answer.get("present")), runtimes - _texts(answer.get("runtimes_present"))

    def push(self, path: Path, sha256: str) -> None:
        """Send a file under its `cache_name`; hashed on the board before it gets that name."""
        size = path.stat().st_size
        argv = ["--name", cache_name(sha256, path), "--sha256", sha256, "--bytes", str(size)]
        answer = self.call("receive", *argv, stdin=path, deadline_s=_CALL_S + size / _SLOWEST_BYTES_PER_S)
        if answer.get("already") is not True:
            self.bytes_pushed += size

    def unpack(self, names: Sequence[str], runtime: str) -> None:
        """Unpack cached wheels into runtimes/<runtime>."""
        self.call("unpack", "--wheels", *names, "--as", runtime, deadline_s=_UNPACK_S)

    def clean(self, *, max_mib: int | None = None, everything: bool = False) -> dict[str, Any]:
        """Free the cache down to a quota, or all of it; the files of a running job stay."""
        argv = [] if max_mib is None else ["--max-mib", str(max_mib)]
        answer = self.call("clean", *argv, *(["--all"] if everything else []), deadline_s=_UNPACK_S)
        self._is_there = False
        return answer

    def acquire_lease(self, owner: str, seconds: float, token: str) -> dict[str, Any]:
        return self.call("lease", "acquire", "--owner", owner, "--seconds", f"{seconds:.0f}", "--token", token)

    def release_lease(self, token: str) -> None:
        self.call("lease", "release", "--token", token)

    def show_lease(self) -> dict[str, Any]:
        return self.call("lease", "show")

    def start(self, job: wire.Job) -> dict[str, Any]:
        """Hand over job.json and start its supervisor, which lives on by itself. A job that runs or is done stays."""
        raw = wire.encode(job)
        return self.call("start", "--job", job.id, "--job-bytes", str(len(raw)), stdin=raw)

    def cancel(self, job_id: str) -> None:
        self.call("cancel", "--job", job_id)

    def look(self, job_id: str, *, after: int, wait_s: float) -> Look:
        """Look how far a job is; waits on the board up to `wait_s` for a session past `after`, or the end."""
        argv = ["--job", job_id, "--after", str(after), "--wait-s", f"{wait_s:g}"]
        answer = self.call("look", *argv, deadline_s=wait_s + 20)
        try:
            state, outcome = answer["state"], answer["done"]
            return Look(
                boot_id=str(answer["boot_id"]),
                supervisor_alive=answer["supervisor_alive"] is True,
                state=None if state is None else wire.from_plain(wire.State, state),
                done=None if outcome is None else wire.from_plain(wire.Done, outcome),
                sessions=dict(_session_sizes(item) for item in answer["sessions"]),
            )
        except (wire.WireError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._refusal("look", f"{type(error).__name__}: {error}") from error

    def read(self, job_id: str, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """Files of a job by name; `sizes` says how many bytes each has, in the order wanted."""
        argv = [word for name in sizes for word in ("--file", name)]
        total = sum(sizes.values())
        raw = self._run("read", ["--job", job_id, *argv], None, _CALL_S + total / _SLOWEST_BYTES_PER_S, total)
        if len(raw) != total:
            raise self._refusal("read", f"{len(raw)} bytes where {total} were announced")
        files, at = {}, 0
        for name, size in sizes.items():
            files[name] = raw[at : at + size]
            at += size
        return files

    def log_tail(self, job_id: str) -> str:
        """The last line of a job's log, empty where it can't be had."""
        try:
            return last_line(self._run("read", ["--job", job_id, "--file", wire.LOG_FILE], None, _CALL_S))
        except EdgeloopError:
            return ""

    def call(
        self, command: str, *argv: str, stdin: bytes | Path | None = None, deadline_s: float = _CALL_S
    ) -> dict[str, Any]:
        """Run one command of the agent and return its JSON object."""
        raw = self._run(command, argv, stdin, deadline_s, wire.MESSAGE_BYTES_MAX)
        try:
            answer = wire.load_json(raw)
        except wire.WireError as error:
            raise self._refusal(command, str(error)) from error
        if not isinstance(answer, dict):
            raise self._refusal(command, "no JSON object")
        return answer

    def _run(
        self,
        command: str,
        argv: Sequence[str],
        stdin: bytes | Path | None,
        deadline_s: float,
        output_max: int = wire.MESSAGE_BYTES_MAX,
    ) -> bytes:
        self._ensure_agent()
        agent = f"{self._state_dir}/{wire.CACHE_DIR}/{self._bundle().sha256}.pyz"
        # `lease acquire` is two words; options follow the last of them.
        words = [command, *argv[:1]] if command == "lease" else [command]
        rest = argv[1:] if command == "lease" else argv
        answer = self._link.run(
            [self._python, "-E", agent, *words, "--state-dir", self._state_dir, *rest],
            stdin=stdin,
            deadline_s=deadline_s,
            output_max=max(output_max, 65536),
        )
        if answer.exit_status == 0:
            return answer.stdout
        raise self._error_of(command, answer.exit_status, answer.stdout, answer.stderr)

    def _error_of(self, command: str, status: int, stdout: bytes, stderr: bytes) -> EdgeloopError:
        try:
            answer = wire.load_json(stdout)
            text = f"{self._name}: {last_line(str(answer['error']).encode())}"
            kind, code = _KINDS[answer["owner"]], answer.get("code")
        except (wire.WireError, KeyError, TypeError, AttributeError):
            if status == _CANT_OPEN:
                self._is_there = False  # somebody cleaned the cache; the next call pushes it again
            return self._refusal(command, last_line(stderr) or f"exit status {status}")
        match code:
            case wire.ErrorCode.DISK_FULL:
                return self._full(text)
            case wire.ErrorCode.LEASE:
                return LeaseError(text)
            case wire.ErrorCode.NO_SUCH_JOB:
                return UnknownJobError(text)
        return kind(text)

    def _full(self, text: str) -> BoardFullError:
        return BoardFullError(text, next_step=f"free space there: {command_line('targets clean', self._name)}")

    def _refusal(self, command: str, why: str) -> BoardError:
        why = last_line(why.encode())
        return BoardError(
            f"{self._name}: the agent's answer to `{command}` is refused: {why}",
            next_step=command_line("targets doctor", self._name),
        )

    def _ensure_agent(self) -> None:
        """Push the agent where the board does not have just these bytes."""
        if self._is_there:
            return
        if not self._bootstrap(-1, None):
            data = self._bundle().data
            self._bootstrap(len(data), data)
            self.bytes_pushed += len(data)
        self._is_there = True

    def _bootstrap(self, size: int, data: bytes | None) -> bool:
        """Ask for the agent's file, or send it; true where it is there. Raises BoardError."""
        folder = f"{self._state_dir}/{wire.CACHE_DIR}"
        argv = [self._python, "-E", "-c", _RECEIVER, folder, self._bundle().sha256, str(size)]
        answer = self._link.run(argv, stdin=data, deadline_s=_CALL_S)
        if answer.exit_status == 0 and answer.stdout.strip() in {b"ok", b"absent"}:
            return answer.stdout.strip() == b"ok"
        words = last_line(answer.stderr)
        code, _, detail = words.partition(" ")
        other_python = "name another one with runtime.python in the board's file"
        if answer.exit_status in {126, 127}:
            raise BoardError(f"{self._name}: there is no Python at {self._python}: {words}", next_step=other_python)
        match code:
            case "old":
                raise BoardError(
                    f"{self._name}: {self._python} is Python {detail}; the agent needs 3.9 or later",
                    next_step=other_python,
                )
            case "full":
                raise self._full(f"{self._name}: the agent can't be stored: {detail}")
            case "failed":
                raise BoardError(
                    f"{self._name}: the agent can't be stored: {detail}",
                    next_step="name a folder that may be written with runtime.state_dir",
                )
        raise BoardError(
            f"{self._name}: {self._python} does not answer as a Python: {words or f'exit status {answer.exit_status}'}",
            next_step="a login shell there must print nothing for commands; see runtime.python in the board's file",
        )


def cache_name(sha256: str, path: Path) -> str:
    """The name of a file in a board's cache: its hash and its suffix."""
    return sha256 + path.suffix


def _texts(value: object) -> frozenset[str]:
    return frozenset(part for part in value if isinstance(part, str)) if isinstance(value, list) else frozenset()


def _session_sizes(item: Any) -> tuple[int, dict[str, int]]:
    """(index, sizes by part) of one session in a look. Names are rebuilt from the index, not taken over."""
    index = item["index"]
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise ValueError("a session's index is not a number")
    start = wire.session_file(index, "")
    sizes = {}
    for name, size in item["files"].items():
        if not name.startswith(start) or not isinstance(size, int) or size < 0:
            raise ValueError(f"session {index} lists a strange file")
        sizes[name[len(start) :]] = size
    return index, sizes
