"""A job as the host sees it: started detached, looked at, read and cancelled.

The work itself is in supervise.py; nothing here takes long.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Optional

from edgeloop_agent import folder, wire
from edgeloop_agent.errors import AgentError, raise_for_os

READABLE = re.compile(
    r"\A(?:sessions/\d{3,6}\.(?:json|(?:latency|warmup|stages|operators|power|functions|out\.\d{1,3})\.npy)"
    r"|(?:job|state|done)\.json|agent\.log)\Z"
)
LOOK_SESSIONS_MAX = 500
_SESSION = re.compile(r"\A(\d{3,6})\.(json|(?:latency|warmup|stages|operators|power|functions|out\.\d{1,3})\.npy)\Z")
_POLL_S = 0.05
_CANCEL_WAIT_S = 10.0


def start(state: Path, job_id: str, source: Optional[BinaryIO], size: int) -> dict[str, Any]:
    """Start a job's supervisor detached, unless the job is done or one lives. `source`: job.json of `size` bytes."""
    place = folder.job_dir(state, job_id)
    try:
        if source is not None:
            _receive_job(place, source, size)
        if not (place / wire.JOB_FILE).exists():
            raise AgentError("job %s has no job.json on the board" % job_id, "harness")
        if (place / wire.DONE_FILE).exists():
            return {"started": False, "why": "done", "pid": None}
        (place / wire.SESSIONS_DIR).mkdir(exist_ok=True)
        lock = folder.open_shared(place / folder.SUPERVISOR_LOCK)
        if not folder.try_lock(lock):
            return {"started": False, "why": "running", "pid": _supervisor_pid(lock)}
        log = os.open(place / wire.LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise_for_os(error, str(place))
    import subprocess  # heavy, and only starting needs it

    # The lock travels with the descriptor, so there is no moment without a holder.
    command = [*folder.own_command(), "run", "--state-dir", str(state), "--job", job_id, "--lock-fd", str(lock)]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            pass_fds=(lock,),
        )
        folder.rewrite(lock, b"%d" % child.pid)
    finally:
        os.close(log)
        os.close(lock)
    child.returncode = 0  # it outlives us on purpose: no warning about a child that was not waited for
    return {"started": True, "pid": child.pid}


def _receive_job(place: Path, source: BinaryIO, size: int) -> None:
    if not 0 < size <= wire.MESSAGE_BYTES_MAX:
        raise AgentError("job.json of %d bytes, at most %d" % (size, wire.MESSAGE_BYTES_MAX), "harness")
    raw = source.read(size)
    if len(raw) != size:
        raise AgentError("job.json ended after %d of %d bytes" % (len(raw), size), "lab")
    place.mkdir(exist_ok=True)
    if not (place / wire.JOB_FILE).exists() or (place / wire.JOB_FILE).read_bytes() != raw:
        if folder.alive(place / folder.SUPERVISOR_LOCK) or (place / wire.DONE_FILE).exists():
            return  # one that runs or is done is adopted as it is; only its lease token may differ
        wire.write_atomically(place / wire.JOB_FILE, raw)


def _supervisor_pid(lock: int) -> Optional[int]:
    raw = folder.read_all(lock, 32).strip()
    return int(raw) if raw.isdigit() else None


def look(state: Path, job_id: str, after: int, wait_s: float) -> dict[str, Any]:
    """Say how far a job is; with wait_s, wait so long for something new."""
    place = folder.job_dir(state, job_id)
    if not place.is_dir():
        raise AgentError("the board has no job %s" % job_id, "harness", wire.ErrorCode.NO_SUCH_JOB)
    end = time.monotonic() + wait_s
    while True:
        outcome = _message(place / wire.DONE_FILE)
        complete = _complete(place / wire.SESSIONS_DIR, after)
        lives = folder.alive(place / folder.SUPERVISOR_LOCK)
        if outcome is not None or complete or not lives or time.monotonic() >= end:
            break
        time.sleep(_POLL_S)
    if outcome is None and not lives:
        outcome = _message(place / wire.DONE_FILE)  # it may have ended between the two looks
        complete = _complete(place / wire.SESSIONS_DIR, after)
    return {
        "job": job_id,
        "boot_id": folder.boot_id(),
        "supervisor_alive": lives,
        "state": _message(place / wire.STATE_FILE),
        "done": outcome,
        "sessions": complete[:LOOK_SESSIONS_MAX],
    }


def _message(path: Path) -> Any:
    raw = folder.read_bounded(path)
    if raw is None:
        return None
    try:
        return wire.load_json(raw)
    except wire.WireError as error:
        raise AgentError("%s: %s" % (path, error), "board") from error


def _complete(sessions: Path, after: int) -> list[dict[str, Any]]:
    files: dict[int, dict[str, int]] = {}
    try:
        entries = list(os.scandir(sessions))
    except FileNotFoundError:
        return []
    for entry in entries:
        match = _SESSION.match(entry.name)
        if match is not None and int(match.group(1)) > after:
            inner = files.setdefault(int(match.group(1)), {})
            inner["%s/%s" % (wire.SESSIONS_DIR, entry.name)] = entry.stat().st_size
    return [
        {"index": index, "files": files[index]}
        for index in sorted(files)
        if wire.session_file(index, "json") in files[index]
    ]


def read(state: Path, job_id: str, names: list[str], sink: int) -> None:
    """Write files of a job to a descriptor, one after the other. Raises AgentError before the first byte."""
    place = folder.job_dir(state, job_id)
    paths = []
    for name in names:
        if not READABLE.match(name):
            raise AgentError("%r is not a file of a job" % name[:100], "harness")
        if not (place / name).is_file() or (place / name).is_symlink():
            raise AgentError("job %s has no %s" % (job_id, name), "harness")
        paths.append(place / name)
    for path in paths:
        with open(path, "rb") as handle:
            for chunk in iter(lambda: handle.read(1 << 20), b""):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(sink, view) :]


def cancel(state: Path, job_id: str) -> dict[str, Any]:
    """End a job: its supervisor and with it the session. Says how the job ended, which may be complete."""
    place = folder.job_dir(state, job_id)
    if not place.is_dir():
        raise AgentError("the board has no job %s" % job_id, "harness", wire.ErrorCode.NO_SUCH_JOB)
    lock = folder.open_shared(place / folder.SUPERVISOR_LOCK)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _is_free_within(lock, 0):
                break
            pid = _supervisor_pid(lock)
            if pid is None:
                raise AgentError("the supervisor of job %s left no process id" % job_id, "harness")
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
            except PermissionError as error:
                raise AgentError("job %s belongs to another user of the board" % job_id, "lab") from error
            if _is_free_within(lock, _CANCEL_WAIT_S):
                break
        else:
            raise AgentError("the supervisor of job %s can't be ended" % job_id, "board")
        # We hold the supervisor's lock: nobody else writes done.json now.
        record = _message(place / wire.DONE_FILE)
        if record is None:
            note = wire.Done(
                job_id,
                "cancelled",
                "user",
                "cancelled",
                folder.boot_id(),
                len(_complete(place / wire.SESSIONS_DIR, -1)),
            )
            wire.write_atomically(place / wire.DONE_FILE, wire.encode(note))
            record = asdict(note)
        return {"cancelled": record["outcome"] == "cancelled", "outcome": record["outcome"]}
    finally:
        os.close(lock)


def _is_free_within(lock: int, wait_s: float) -> bool:
    end = time.monotonic() + wait_s
    while not folder.try_lock(lock):
        if time.monotonic() >= end:
            return False
        time.sleep(_POLL_S)
    return True


def running(state: Path) -> Optional[str]:
    """Return the id of the job that holds the board, None where none does."""
    if not folder.alive(state / wire.LOCK_FILE):
        return None
    words = (folder.read_bounded(state / wire.LOCK_FILE, 200) or b"").decode("ascii", "replace").split()
    return words[0] if words else None


def first_start(place: Path) -> Optional[tuple[str, int]]:
    """Return boot id and CLOCK_BOOTTIME of a job's first start, None where it never was."""
    value = _message(place / folder.BEGUN_FILE)
    try:
        return None if value is None else (str(value["boot_id"]), int(value["boottime_ns"]))
    except (KeyError, TypeError, ValueError) as error:
        raise AgentError("%s is damaged" % (place / folder.BEGUN_FILE), "board") from error


def mark_first_start(place: Path, boot: str, now_ns: int) -> None:
    """Write down that the job starts now."""
    raw = json.dumps({"boot_id": boot, "boottime_ns": now_ns}).encode()
    wire.write_atomically(place / folder.BEGUN_FILE, raw)
