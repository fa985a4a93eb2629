"""Child processes: a typed job goes in, a typed answer comes out, with a deadline and no orphans.

A child gets one line of JSON on stdin and may be started before there is a job, so that its imports are over when one
comes. It ends when stdin closes, when the job is over, or at the deadline, whichever is first. What toolchains print
goes to a log. Both halves are here: `ChildProcess` for the parent, `serve` for the child. They share the models of
their jobs and answers, which are validated where they enter the child and where they come back.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NoReturn, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from edgeloop.errors import BuildError, DataError, EdgeloopError, HarnessError, ModelError, ParityError, UserError
from edgeloop.processes.files import write_whole
from edgeloop.processes.limits import DEFAULT_LIMITS, ProcessLimits
from edgeloop.processes.memory_limit import apply_limit, describe_limit
from edgeloop.sentences import text_from_json, text_to_json

_GRACE_S = 2.0  # the parent kills first; this is for a child whose parent is gone
_TAIL_BYTES = 4096

Job = TypeVar("Job", bound=BaseModel)
Answer = TypeVar("Answer", bound=BaseModel)


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


class FaultKind(StrEnum):
    """The errors that a child may report: of a class that is not here, its nearest base is."""

    BUILD = "BuildError"
    DATA = "DataError"
    HARNESS = "HarnessError"
    MODEL = "ModelError"
    PARITY = "ParityError"
    USER = "UserError"

    @classmethod
    def of(cls, error: EdgeloopError) -> FaultKind:
        bases = (kind for base in type(error).__mro__ for kind, of_kind in _ERRORS.items() if of_kind is base)
        return next(bases, cls.HARNESS)


_ERRORS: dict[FaultKind, type[EdgeloopError]] = {
    FaultKind.BUILD: BuildError,
    FaultKind.DATA: DataError,
    FaultKind.HARNESS: HarnessError,
    FaultKind.MODEL: ModelError,
    FaultKind.PARITY: ParityError,
    FaultKind.USER: UserError,
}


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ChildFault(_Message):
    """An error of ours that a child reports instead of an answer."""

    kind: FaultKind
    message: str
    next_step: str | list[str | list[object]] | None = None
    """In the form of `sentences.text_to_json`."""

    @classmethod
    def of(cls, error: EdgeloopError) -> Self:
        return cls(kind=FaultKind.of(error), message=error.message, next_step=text_to_json(error.next_step))

    def error(self, where: str = "", next_step: str | None = None) -> EdgeloopError:
        """Return the error to raise: `where` it was, and what to do where the child says nothing of that."""
        message = f"{where}: {self.message}" if where else self.message
        return _ERRORS[self.kind](message, next_step=text_from_json(self.next_step) or next_step)


class JobError(Exception):
    """The child says why it could not do its job."""

    def __init__(self, fault: ChildFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


@contextlib.contextmanager
def faults_at(where: str) -> Iterator[None]:
    """Raise what a child reports as an error of ours, with where it was."""
    try:
        yield
    except JobError as error:
        raise error.fault.error(where) from error


class _Order(_Message):
    """The line on a child's stdin: its job as JSON, and what every child has to know."""

    job: str
    result: Path
    deadline_s: float


class _Result(_Message):
    """The file that a child leaves: its answer as JSON, or what went wrong."""

    answer: str | None = None
    fault: ChildFault | None = None


def python_module(module: str) -> tuple[str, ...]:
    """Return the command of a child that serves; `-P` keeps files of the working directory from shadowing modules."""
    return (sys.executable, "-P", "-m", module)


class ChildProcess:
    """One child in a process group of its own. Starts at once; takes one job."""

    def __init__(self, command: Sequence[str], log: Path, limits: ProcessLimits = DEFAULT_LIMITS) -> None:
        """The memory of `limits` bounds the child and each of its own; its deadline counts from the job on."""
        self.log = log
        self._limits = limits
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
        apply_limit(self._process.pid, limits.memory_max_bytes)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def finish(self, job: BaseModel, answer: type[Answer], result: Path) -> Answer:
        """Give the job and return the child's answer, which travels in the file `result`.

        Raises ChildError for a child that left none, JobError for one that says why. The whole group is gone either
        way, and so is the file.
        """
        deadline_s = self._limits.deadline_s
        order = _Order(job=job.model_dump_json(by_alias=True), result=result, deadline_s=deadline_s)
        try:
            stdin = self._process.stdin
            assert stdin is not None
            try:
                stdin.write(order.model_dump_json().encode() + b"\n")
                stdin.flush()
            except BrokenPipeError:
                pass  # it is dead already: how it ended is said below
            try:
                status = self._process.wait(deadline_s)
            except subprocess.TimeoutExpired:
                how = f"was not done after {deadline_s:g} s and was stopped"
                raise ChildError(how, self._last_line(), "toolchain.build_deadline_s") from None
        finally:
            self.kill()
        if status < 0:
            raise self._death(f"was ended by {_signal_name(-status)}")
        try:
            content = result.read_bytes()
        except FileNotFoundError:
            raise self._death(f"ended with status {status} and no result") from None
        result.unlink()
        try:
            message = _Result.model_validate_json(content)
            if message.fault is None:
                return answer.model_validate_json(message.answer or "")
        except ValidationError as error:
            what = f"left a result that is no {answer.__name__}"
            raise ChildError(what, " ".join(str(error.errors(include_url=False)[0]["msg"]).split())) from error
        raise JobError(message.fault)

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
        memory_max_bytes = self._limits.memory_max_bytes
        more = None if memory_max_bytes is None else "toolchain.memory_max_mib"
        return ChildError(how + describe_limit(memory_max_bytes), self._last_line(), more)

    def _last_line(self) -> str:
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")


def run_in_child(
    command: Sequence[str],
    job: BaseModel,
    answer: type[Answer],
    folder: Path,
    limits: ProcessLimits = DEFAULT_LIMITS,
    *,
    log: str = "child.log",
) -> Answer:
    """Start a child for one job and return its answer; its log stays in `folder`. Raises as `ChildProcess.finish`."""
    return ChildProcess(command, folder / log, limits).finish(job, answer, folder / "result.json")


def _signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name} (out of memory, usually)" if name == "SIGKILL" else name


def serve(
    work: Callable[[Job], BaseModel],
    jobs: type[Job] | TypeAdapter[Job],
    *,
    prepare: Callable[[], None],
    rehearse: Callable[[], None] | None = None,
) -> NoReturn:
    """The child's whole life: import, wait for a job, work, leave the result, end without teardown.

    `jobs` is the type of the jobs that it takes; a child of several kinds of them gives their union's adapter.
    `rehearse` is called only where no job is waiting yet: it warms what a first piece of work would have to.
    """
    adapter = jobs if isinstance(jobs, TypeAdapter) else TypeAdapter(jobs)
    prepare()
    if rehearse is not None and not select.select([0], [], [], 0)[0]:
        rehearse()
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 65536)
        if not part:
            os._exit(0)
        line += part
    order = _Order.model_validate_json(line)
    # SIGALRM's default action ends a process that is stuck in native code, and one whose parent was killed.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, order.deadline_s + _GRACE_S)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer = work(adapter.validate_json(order.job))
        result = _Result(answer=answer.model_dump_json(by_alias=True))
    except EdgeloopError as error:
        result = _Result(fault=ChildFault.of(error))
    except Exception:  # noqa: BLE001 -- the boundary: what a toolchain raises is told by the log's last line
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    write_whole(order.result, result.model_dump_json())
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # toolchains have crashed in their own teardown


def _end_with_parent() -> None:
    while os.read(0, 65536):
        pass
    if os.getpgrp() == os.getpid():  # a linker or a compiler that it started goes with it
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
