"""Child processes of the builders: a job in, a result file out, a deadline, and no orphans.

A child gets one line of JSON on stdin and may be started before there is a job, so that its imports are done when
one comes. It ends when stdin closes, when the job is done, or at the deadline, whichever is first. What toolchains
print goes to a log. Both halves are here: `ChildProcess` for the parent, `serve` for the child.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from edgeloop.errors import BuildError, DataError, EdgeloopError, ModelError, ParityError, UserError
from edgeloop.processes.memory_limit import apply_limit, describe_limit
from edgeloop.sentences import text_from_json, text_to_json

_GRACE_S = 2.0  # the parent kills first; this is for a child whose parent is gone
_TAIL_BYTES = 4096
_SAID_MAX = 300
_TOLD: dict[str, type[EdgeloopError]] = {
    kind.__name__: kind for kind in (BuildError, DataError, ModelError, ParityError, UserError)
}
"""What a child may say went wrong."""


class ChildError(Exception):
    """The child left no result: `message` says how it ended, `last_line` is the last thing it wrote.

    `more` names the key of a campaign that gives it more of what it may have lacked; None where nothing bounds it.
    """

    def __init__(self, message: str, last_line: str, more: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.last_line = last_line
        self.more = more

    def __str__(self) -> str:
        return f"{self.message}: {self.last_line}" if self.last_line else self.message


def python_module(module: str) -> tuple[str, ...]:
    """The command of a child that serves; `-P` keeps files of the working directory from shadowing modules."""
    return (sys.executable, "-P", "-m", module)


class ChildProcess:
    """One child in a process group of its own. Starts at once; takes one job."""

    def __init__(self, command: Sequence[str], log: Path, memory_max_bytes: int | None = None) -> None:
        """`memory_max_bytes` bounds the private memory of the child and of each of its own; Linux alone can."""
        self.log = log
        self._memory_max_bytes = memory_max_bytes
        self._temporary = log.with_name(f"{log.name}.tmp")  # however it ends, what it leaves there goes with it
        self._temporary.mkdir(exist_ok=True)
        environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self._temporary.resolve()),
        }
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
            )
        apply_limit(self._process.pid, memory_max_bytes)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def finish(self, job: Mapping[str, Any], result: Path, deadline_s: float) -> dict[str, Any]:
        """Give the job and return the child's result. Raises ChildError; the whole group is gone either way."""
        try:
            line = json.dumps({**job, "result": str(result), "deadline_s": deadline_s}) + "\n"
            stdin = self._process.stdin
            assert stdin is not None
            try:
                stdin.write(line.encode())
                stdin.flush()
            except BrokenPipeError:
                pass  # it is dead already: how it ended is told below
            try:
                status = self._process.wait(deadline_s)
            except subprocess.TimeoutExpired:
                told = f"was not done after {deadline_s:g} s and was stopped"
                raise ChildError(told, self._last_line(), "toolchain.build_deadline_s") from None
        finally:
            self.kill()
        if status < 0:
            raise self._death(f"was ended by {_signal_name(-status)}")
        try:
            answer: dict[str, Any] = json.loads(result.read_bytes())
        except FileNotFoundError:
            raise self._death(f"ended with status {status} and no result") from None
        return answer

    def kill(self) -> None:
        """End the whole group and remove its temporary files; harmless where it has ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, a group of zombies
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._temporary, ignore_errors=True)
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _death(self, how: str) -> ChildError:
        more = None if self._memory_max_bytes is None else "toolchain.memory_max_mib"
        return ChildError(how + describe_limit(self._memory_max_bytes), self._last_line(), more)

    def _last_line(self) -> str:
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
        said = [line for line in lines if line]
        return said[-1] if said else ""


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} (out of memory, usually)" if name == "SIGKILL" else name


def serve(
    work: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    *,
    prepare: Callable[[], None],
    rehearse: Callable[[], None] | None = None,
) -> NoReturn:
    """The child's whole life: import, wait for a job, work, leave the result, end without teardown.

    `rehearse` is called only where no job is waiting yet: it warms what a first piece of work would have to.
    """
    prepare()
    if rehearse is not None and not select.select([0], [], [], 0)[0]:
        rehearse()
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 65536)
        if not part:
            os._exit(0)
        line += part
    job = json.loads(line)
    # SIGALRM's default action ends a process that is stuck in native code, and one whose parent was killed.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, job["deadline_s"] + _GRACE_S)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    started = time.monotonic()
    try:
        answer = dict(work(job))
    except EdgeloopError as error:
        answer = {
            "error": {
                "kind": type(error).__name__,
                "message": error.message,
                "next_step": text_to_json(error.next_step),
            }
        }
    except Exception:  # noqa: BLE001 -- the boundary: what a toolchain raises is told by the log's last line
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    answer["seconds"] = time.monotonic() - started
    result = Path(job["result"])
    partial = result.with_name(result.name + ".partial")
    partial.write_text(json.dumps(answer))
    partial.replace(result)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # toolchains have crashed in their own teardown


def raise_told(answer: Mapping[str, Any], where: str = "", next_step: str | None = None) -> None:
    """Raise the error that a child's answer tells, if it tells one: `where` it was, and what to do where it says
    nothing of that."""
    if error := answer.get("error"):
        message = f"{where}: {error['message']}" if where else str(error["message"])
        raise _TOLD[error["kind"]](message, next_step=text_from_json(error["next_step"]) or next_step)


def one_line(error: Exception) -> str:
    """What a toolchain raised, for a message: its kind and the begin of what it says."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_SAID_MAX]}" + ("..." if len(text) > _SAID_MAX else "")


def _end_with_parent() -> None:
    while os.read(0, 65536):
        pass
    if os.getpgrp() == os.getpid():  # a linker or a compiler that it started goes with it
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
