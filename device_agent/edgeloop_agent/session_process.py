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
from pathlib import Path
from typing import Any, Optional, Sequence

from edgeloop_agent import folder, session_folder, wire
from edgeloop_agent.errors import AgentError
from edgeloop_agent.job_needs import is_unpacked
from edgeloop_agent.root import Root, board_root
from edgeloop_agent.session_folder import Arguments, UserCode
from edgeloop_agent.text import last_line, signal_name

_TERM_WAIT_S = 1.0
_KILL_WAIT_S = 15.0
_TICK_S = 0.25
_TAIL_BYTES = 4096
_LOG_BYTES = 16384
_DURING_BYTES_MAX = 1_500_000
_DURING_MIN = 50


def pass_arguments(state: Path, job: wire.Job, step: wire.WireStep, work: Path) -> None:
    """Write args.json for one step of a job."""
    subject = job.subjects[step.subject]
    cache = state / wire.CACHE_DIR
    arguments = Arguments(
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
    session_folder.write_arguments(work, arguments)


def _model(state: Path, subject: wire.WireSubject) -> Path:
    """The model's file, or its folder where it is unpacked."""
    if is_unpacked(subject):
        return state / wire.RUNTIMES_DIR / subject.model_sha256
    return state / wire.CACHE_DIR / (subject.model_sha256 + subject.model_suffix)


def _user_code(cache: Path, pipeline: wire.WirePipeline) -> UserCode:
    return UserCode(str(cache / (pipeline.sha256 + ".py")), pipeline.class_name, pipeline.label)


class SessionProcess:
    """One running session. The board's lock travels with it; its stdout and stderr come to a bounded tail."""

    def __init__(self, work: Path, board_lock: Optional[int], cores: Sequence[int]) -> None:
        self._work = work
        self._tail = b""
        self._logged_bytes = 0
        self._kill_reason: Optional[str] = None
        self._root = board_root()
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
        raw = folder.read_bounded(self._work / session_folder.PROGRAM_PID_FILE, 20) or b""
        return [self.pid, *([int(raw)] if raw.isdigit() else [])]

    def wait(self, seconds: float) -> bool:
        """Wait so long for the end of the process; True once it ended. It stays unreaped, so /proc still has it."""
        end = time.monotonic() + seconds
        open_end = True
        while not self._has_ended():
            rest_s = end - time.monotonic()
            if rest_s <= 0:
                return False
            if open_end:
                ready, _, _ = select.select([self._pipe], [], [], min(rest_s, _TICK_S))
                open_end = not ready or self._drain()
            else:
                time.sleep(min(rest_s, 0.01))  # its pipe is closed: it is about to end
        return True

    def kill(self, why: str) -> None:
        """End the whole group: TERM, then KILL. Raises AgentError where the kernel does not let go of it."""
        self._kill_reason = why
        for number, wait_s in ((signal.SIGTERM, _TERM_WAIT_S), (signal.SIGKILL, _KILL_WAIT_S)):
            self._signal(number)
            if self.wait(wait_s):
                return
        raise AgentError("a session can't be killed (process %d); restart the board" % self.pid, "board")

    def reap(self) -> None:
        """Kill what is left of the group and collect the process. Safe to call at any time."""
        if not self._has_ended():
            with contextlib.suppress(AgentError):
                self.kill("killed with its supervisor")
        self._signal(signal.SIGKILL)  # the unreaped leader keeps the group's number from being used again
        self._drain()
        os.close(self._pipe)
        if self._has_ended():
            self._process.wait()

    def result(self) -> dict[str, Any]:
        """Return the session's own result, with outcome, detail and signal as they really were."""
        result = session_folder.read_result(self._work)
        is_final = result.pop("final", False) is True
        status = self._process.returncode
        last = last_line(self._tail)
        if self._kill_reason is not None:
            where = result.get("hung")
            detail = "%s: %s" % (self._kill_reason, where) if where else self._kill_reason
            return {**result, "outcome": "timeout", "detail": detail, "owner": "user" if where else "model"}
        if status < 0:
            line = "killed by %s" % signal_name(-status)
            if -status == signal.SIGKILL and _oom_kills(self._root) > self._oom_kills:
                line += " by the kernel: the board ran out of memory"
            detail = line + (": " + last if last else "")
            return {**result, "outcome": "crashed", "detail": detail, "signal": -status}
        if status != 0 or not is_final:
            where = "ended with status %d" % status
            return {**result, "outcome": "crashed", "detail": where + (": " + last if last else "")}
        return result

    def last_words(self) -> str:
        """Return in one line why a process ended that was to go on; it is not collected yet."""
        self._drain()
        result = session_folder.read_result(self._work)
        detail = str(result.get("detail") or "") if result.get("final") is True else ""
        last = detail or last_line(self._tail)
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) if hasattr(os, "waitid") else None
        if status is not None and status.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
            return "killed by %s%s" % (signal_name(status.si_status), ": " + last if last else "")
        return last or "it left no word"

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _has_ended(self) -> bool:
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        with contextlib.suppress(ChildProcessError):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return True

    def _drain(self) -> bool:
        """Take the session's output so far; False where the other end is closed."""
        while True:
            try:
                chunk = os.read(self._pipe, 1 << 16)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            if self._logged_bytes < _LOG_BYTES:
                with contextlib.suppress(OSError):
                    os.write(2, chunk[: _LOG_BYTES - self._logged_bytes])
                self._logged_bytes += len(chunk)
            self._tail = (self._tail + chunk)[-_TAIL_BYTES:]


class ConditionTrace:
    """Conditions during a session. A long one keeps fewer of them: the record's size is bounded."""

    def __init__(self) -> None:
        self.samples: list[dict[str, Any]] = []
        self.stride = 1

    def add(self, sample: dict[str, Any]) -> None:
        """Keep a sample; where there are too many, drop every other one and take them half as often."""
        self.samples.append(sample)
        if len(self.samples) > max(_DURING_MIN, _DURING_BYTES_MAX // len(json.dumps(sample))):
            del self.samples[1::2]
            self.stride *= 2


def _oom_kills(root: Root) -> int:
    match = re.search(r"^oom_kill (\d{1,20})$", root.content("proc/vmstat") or "", re.MULTILINE)
    return int(match.group(1)) if match else 0
