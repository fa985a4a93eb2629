"""A session process from the supervisor's side: started in its own group, waited for, killed, its result read."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional, Sequence

from edgeloop_agent import folder, session, wire
from edgeloop_agent.root import Root, chosen

_TERM_WAIT_S = 1.0
_KILL_WAIT_S = 15.0
_TICK_S = 0.25
_TAIL_BYTES = 4096
_LOG_BYTES = 16384
_DURING_BYTES_MAX = 1_500_000
_DURING_MIN = 50


def write_arguments(state: Path, job: wire.Job, step: wire.WireStep, work: Path) -> None:
    """Write args.json for one step of a job."""
    subject = job.subjects[step.subject]
    cache = state / wire.CACHE_DIR
    arguments = session.Arguments(
        kind=step.kind,
        engine=subject.engine,
        model=str(_model(state, subject)),
        threads=subject.threads,
        inputs=subject.inputs,
        outputs=subject.outputs,
        data=str(cache / (job.data_sha256 + ".npz")) if job.data_sha256 is not None else None,
        parts=None if subject.parts_sha256 is None else str(cache / (subject.parts_sha256 + ".zip")),
        pipeline=None if job.pipeline is None else _user_code(cache, job.pipeline),
        python_path=[str(state / wire.RUNTIMES_DIR / name) for name in job.python_path],
        plan=job.session_plan,
        seed=job.seed,
        parent=os.getpid(),
        shapes=subject.shapes,
        delegate=subject.delegate,
    )
    (work / session.ARGS_FILE).write_text(json.dumps(asdict(arguments)))


def _model(state: Path, subject: wire.WireSubject) -> Path:
    """The model's file, or the folder of a user's own program."""
    if subject.engine == wire.EXEC:
        return state / wire.RUNTIMES_DIR / subject.model_sha256
    return state / wire.CACHE_DIR / (subject.model_sha256 + subject.model_suffix)


def _user_code(cache: Path, pipeline: wire.WirePipeline) -> session.UserCode:
    return session.UserCode(str(cache / (pipeline.sha256 + ".py")), pipeline.class_name, pipeline.label)


class SessionProcess:
    """One running session. The board's lock travels with it; its stdout and stderr come to a bounded tail."""

    def __init__(self, work: Path, board_lock: Optional[int], cores: Sequence[int]) -> None:
        self._work = work
        self._tail = b""
        self._logged = 0
        self._killed: Optional[str] = None
        self._root = chosen()
        self._oom_kills = _oom_kills(self._root)
        self._pipe, write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)  # inherited, so the session is on its cores from its first instruction
        try:
            self._process = subprocess.Popen(
                [*folder.own_command(), "session", "--folder", str(work)],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                cwd=str(work),
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # numpy's threads would only cost memory
                start_new_session=True,
                pass_fds=() if board_lock is None else (board_lock,),
            )
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(write_end)
        self.pid = self._process.pid

    def pids(self) -> list[int]:
        """The session's process, and the user's own program that it started."""
        raw = folder.read_bounded(self._work / session.PROGRAM_PID_FILE, 20) or b""
        return [self.pid, *([int(raw)] if raw.isdigit() else [])]

    def wait(self, seconds: float) -> bool:
        """Wait so long for the end of the process; True once it ended. It stays unreaped, so /proc still has it."""
        end = time.monotonic() + seconds
        open_end = True
        while not self._ended():
            left = end - time.monotonic()
            if left <= 0:
                return False
            if open_end:
                ready, _, _ = select.select([self._pipe], [], [], min(left, _TICK_S))
                open_end = not ready or self._drain()
            else:
                time.sleep(min(left, 0.01))  # its pipe is closed: it is about to end
        return True

    def kill(self, why: str) -> None:
        """End the whole group: TERM, then KILL. Raises AgentError where the kernel does not let go of it."""
        self._killed = why
        for number, wait_s in ((signal.SIGTERM, _TERM_WAIT_S), (signal.SIGKILL, _KILL_WAIT_S)):
            self._signal(number)
            if self.wait(wait_s):
                return
        raise folder.AgentError("a session can't be killed (process %d); restart the board" % self.pid, "board")

    def reap(self) -> None:
        """Kill what is left of the group and collect the process. Safe to call at any time."""
        if not self._ended():
            with contextlib.suppress(folder.AgentError):
                self.kill("killed with its supervisor")
        self._signal(signal.SIGKILL)  # the unreaped leader keeps the group's number from being used again
        self._drain()
        os.close(self._pipe)
        if self._ended():
            self._process.wait()

    def result(self) -> dict[str, Any]:
        """Return what the session said, with outcome, detail and signal as they really were."""
        said = self._said()
        status = self._process.returncode
        last = folder.last_line(self._tail)
        if self._killed is not None:
            where = said.get("hung")
            detail = "%s: %s" % (self._killed, where) if where else self._killed
            return {**said, "outcome": "timeout", "detail": detail, "owner": "user" if where else "model"}
        if status < 0:
            line = "killed by %s" % folder.signal_name(-status)
            if -status == signal.SIGKILL and _oom_kills(self._root) > self._oom_kills:
                line += " by the kernel: the board ran out of memory"
            detail = line + (": " + last if last else "")
            return {**said, "outcome": "crashed", "detail": detail, "signal": -status}
        if status != 0 or "outcome" not in said or said.get("detail") == session.AFTER_LOADING:
            where = "ended with status %d" % status
            return {**said, "outcome": "crashed", "detail": where + (": " + last if last else "")}
        return said

    def last_words(self) -> str:
        """Return in one line why a process ended that was to go on; it is not collected yet."""
        self._drain()
        said = str(self._said().get("detail") or "")
        last = folder.last_line(self._tail) if said in ("", session.AFTER_LOADING) else said
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) if hasattr(os, "waitid") else None
        if status is not None and status.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            return "killed by %s%s" % (folder.signal_name(status.si_status), ": " + last if last else "")
        return last or "it left no word"

    def _said(self) -> dict[str, Any]:
        try:
            said = wire.load_json(folder.read_bounded(self._work / session.RESULT_FILE) or b"")
        except wire.WireError:
            return {}
        return said if isinstance(said, dict) else {}

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _ended(self) -> bool:
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return True

    def _drain(self) -> bool:
        """Take what the session printed; False where the other end is closed."""
        while True:
            try:
                chunk = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            if self._logged < _LOG_BYTES:
                with contextlib.suppress(OSError):
                    os.write(2, chunk[: _LOG_BYTES - self._logged])
                self._logged += len(chunk)
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]


class ConditionTrace:
    """Conditions during a session. A long one keeps fewer of them: the record's size is bounded."""

    def __init__(self) -> None:
        self.kept: list[dict[str, Any]] = []
        self.stride = 1

    def add(self, sample: dict[str, Any]) -> None:
        """Keep a sample; where there are too many, drop every other one and take them half as often."""
        self.kept.append(sample)
        if len(self.kept) > max(_DURING_MIN, _DURING_BYTES_MAX // len(json.dumps(sample))):
            del self.kept[1::2]
            self.stride *= 2


def _oom_kills(root: Root) -> int:
    found = re.search(r"^oom_kill (\d{1,20})$", root.text("proc/vmstat") or "", re.MULTILINE)
    return int(found.group(1)) if found else 0
