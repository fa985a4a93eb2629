"""A job as the host sees it: checked when it starts, started detached, looked at, read and cancelled.

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
from typing import Any, BinaryIO, Iterator, Optional

from edgeloop_agent import cache, conditions, folder, power, wire

READABLE = re.compile(
    r"\A(?:sessions/\d{3,6}\.(?:json|(?:latency|warmup|stages|operators|power|functions|out\.\d{1,3})\.npy)"
    r"|(?:job|state|done)\.json|agent\.log)\Z"
)
LOOK_SESSIONS_MAX = 500
_SUFFIX = re.compile(r"\A\.[A-Za-z0-9]{1,16}\Z")
_SESSION = re.compile(r"\A(\d{3,6})\.(json|(?:latency|warmup|stages|operators|power|functions|out\.\d{1,3})\.npy)\Z")
_THREADS_MAX = 256
_SECONDS_MAX = 7 * 24 * 3600.0
_POLL_S = 0.05
_CANCEL_WAIT_S = 10.0


def read_job(state: Path, job_id: str) -> wire.Job:
    """Return a job, checked against the protocol and this board. Raises AgentError with the first fault."""
    raw = folder.read_bounded(folder.job_dir(state, job_id) / wire.JOB_FILE)
    if raw is None:
        raise folder.AgentError("job %s has no job.json on the board" % job_id, "harness")
    try:
        job = wire.decode(wire.Job, raw)
    except wire.WireError as error:
        raise folder.AgentError("job.json: %s" % error, "harness") from error
    for fault in _faults(job, job_id):
        raise folder.AgentError("job.json: %s" % fault, "harness")
    _check_board(state, job)
    return job


def _faults(job: wire.Job, job_id: str) -> Iterator[str]:
    if job.id != job_id:
        yield "it is the job %s, its folder says %s" % (job.id[:64], job_id)
    if not job.subjects or not job.schedule:
        yield "it has %d subjects and %d steps" % (len(job.subjects), len(job.schedule))
    if not 0 < job.deadline_s <= _SECONDS_MAX:
        yield "deadline_s is %g, wanted more than 0 and at most a week" % job.deadline_s
    for subject in job.subjects:
        yield from _subject_faults(subject)
    for place, step in enumerate(job.schedule):
        yield from _step_faults(job, place, step)
    if job.power_sensor is not None and not power.NAME.match(job.power_sensor):
        yield "%r is not the name of a power sensor" % job.power_sensor[:80]
    yield from _plan_faults(job.session_plan)
    yield from _conditions_faults(job.conditions)
    if (job.pipeline is not None) != (job.session_plan.timing == "end_to_end"):
        yield "a pipeline and the timing end_to_end go together"
    if job.pipeline is not None and job.data_sha256 is None:
        yield "a pipeline needs data"
    hashes = [job.data_sha256, job.pipeline.sha256 if job.pipeline is not None else None]
    for name in [*job.python_path, *(name for name in hashes if name is not None)]:
        if not wire.SHA256.match(name):
            yield "%r is not a hash" % name[:80]


def _step_faults(job: wire.Job, place: int, step: wire.WireStep) -> Iterator[str]:
    if step.index != place:
        yield "step %d has the index %d" % (place, step.index)
    known = 0 <= step.subject < len(job.subjects)
    if not known:
        yield "step %d names subject %d of %d" % (place, step.subject, len(job.subjects))
    if step.kind not in wire.STEP_KINDS:
        yield "step %d is of the kind %r" % (place, step.kind[:40])
    if step.kind == "evaluate" and job.data_sha256 is None:
        yield "step %d evaluates, and there are no data" % place
    if step.kind == "energy" and job.session_plan.energy_window_s <= 0:
        yield "step %d measures energy, and energy_window_s is 0" % place
    if step.kind == "profile" and known and job.subjects[step.subject].parts_sha256 is None:
        yield "step %d profiles, and its subject has no parts" % place
    if step.kind == "tune" and known and job.subjects[step.subject].engine not in wire.TUNED_ENGINES:
        yield "step %d times functions, which %s has none of" % (place, job.subjects[step.subject].engine[:40])
    if known and job.subjects[step.subject].engine == wire.EXEC:
        if step.kind not in ("latency", "evaluate"):
            yield "step %d is of the kind %s, which no program of the user's knows" % (place, step.kind)
        if job.pipeline is not None:
            yield "step %d runs a pipeline, and there is none around a program of the user's" % place


def _subject_faults(subject: wire.WireSubject) -> Iterator[str]:
    where = "subject %s" % subject.label[:40]
    if subject.engine not in (*wire.ENGINES, wire.EXEC):
        yield "%s: no engine is called %r" % (where, subject.engine[:40])
    if not wire.SHA256.match(subject.model_sha256) or not _SUFFIX.match(subject.model_suffix):
        yield "%s: the model's name is not a hash and a suffix" % where
    if subject.parts_sha256 is not None and not wire.SHA256.match(subject.parts_sha256):
        yield "%s: the name of its parts is not a hash" % where
    if not 1 <= subject.threads <= _THREADS_MAX:
        yield "%s: %d threads" % (where, subject.threads)
    if subject.delegate is not None:
        yield from _delegate_faults(subject, subject.delegate, where)


def _delegate_faults(subject: wire.WireSubject, delegate: wire.WireDelegate, where: str) -> Iterator[str]:
    if subject.engine not in wire.DELEGATING:
        yield "%s: %s takes no delegate" % (where, subject.engine[:40])
    if subject.shapes is not None or subject.parts_sha256 is not None:
        yield "%s: a model that is resized or cut into its operators is given to no delegate" % where
    if not all(isinstance(value, str) for value in delegate.options.values()):
        yield "%s: the options of the delegate %s are not all text" % (where, delegate.name[:40])


def _plan_faults(plan: wire.SessionPlan) -> Iterator[str]:
    if plan.timing not in wire.TIMINGS:
        yield "session_plan: no timing is called %r" % plan.timing[:40]
    if plan.warmup_runs_min < 1 or plan.runs_min < 1:
        yield "session_plan: at least one run and one warm-up run are wanted"
    for name in ("warmup_s_min", "warmup_s_max", "time_s_min", "energy_window_s", "deadline_s", "period_ms"):
        value = getattr(plan, name)
        if value is not None and not 0 <= value <= _SECONDS_MAX:
            yield "session_plan: %s is %g" % (name, value)
    if plan.deadline_s == 0 or plan.period_ms == 0:
        yield "session_plan: deadline_s and period_ms must be more than 0"


def _conditions_faults(asked: wire.Conditions) -> Iterator[str]:
    for name in ("cool_down_max_s", "soak_max_s", "soak_window_s", "soak_slope_max_c_per_min"):
        value = getattr(asked, name)
        if value is not None and not 0 <= value <= _SECONDS_MAX:
            yield "conditions: %s is %g" % (name, value)


def _check_board(state: Path, job: wire.Job) -> None:
    allowed = conditions.allowed_cores()
    strange = sorted(set(job.conditions.cores) - set(allowed))
    if strange:
        raise folder.AgentError("cores %s are asked for, this board lets us use %s" % (strange, allowed), "user")
    for name in job.cached_files():
        if not cache.is_present(state / wire.CACHE_DIR, name):
            raise folder.AgentError("%s is not in the board's cache; push it first" % name, "harness")
    for name in job.unpacked():
        if cache.runtime_path(state, name) is None:
            raise folder.AgentError("runtime %s is not unpacked on the board" % name, "harness")


def start(state: Path, job_id: str, source: Optional[BinaryIO], size: int) -> dict[str, Any]:
    """Start a job's supervisor detached, unless the job is done or one lives. `source`: job.json of `size` bytes."""
    place = folder.job_dir(state, job_id)
    try:
        if source is not None:
            _receive_job(place, source, size)
        if not (place / wire.JOB_FILE).exists():
            raise folder.AgentError("job %s has no job.json on the board" % job_id, "harness")
        if (place / wire.DONE_FILE).exists():
            return {"started": False, "why": "done", "pid": None}
        (place / wire.SESSIONS_DIR).mkdir(exist_ok=True)
        lock = folder.open_shared(place / folder.SUPERVISOR_LOCK)
        if not folder.try_lock(lock):
            return {"started": False, "why": "running", "pid": _supervisor_pid(lock)}
        log = os.open(place / wire.LOG_FILE, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        folder.raise_for_os(error, str(place))
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
        raise folder.AgentError("job.json of %d bytes, at most %d" % (size, wire.MESSAGE_BYTES_MAX), "harness")
    raw = source.read(size)
    if len(raw) != size:
        raise folder.AgentError("job.json ended after %d of %d bytes" % (len(raw), size), "lab")
    place.mkdir(exist_ok=True)
    if not (place / wire.JOB_FILE).exists() or (place / wire.JOB_FILE).read_bytes() != raw:
        if folder.alive(place / folder.SUPERVISOR_LOCK) or (place / wire.DONE_FILE).exists():
            return  # what runs or is done is adopted as it is; only its lease token may differ
        wire.write_atomically(place / wire.JOB_FILE, raw)


def _supervisor_pid(lock: int) -> Optional[int]:
    raw = folder.read_all(lock, 32).strip()
    return int(raw) if raw.isdigit() else None


def look(state: Path, job_id: str, after: int, wait_s: float) -> dict[str, Any]:
    """Say how far a job is; with wait_s, wait so long for something new."""
    place = folder.job_dir(state, job_id)
    if not place.is_dir():
        raise folder.AgentError("the board has no job %s" % job_id, "harness")
    end = time.monotonic() + wait_s
    while True:
        done = _message(place / wire.DONE_FILE)
        complete = _complete(place / wire.SESSIONS_DIR, after)
        lives = folder.alive(place / folder.SUPERVISOR_LOCK)
        if done is not None or complete or not lives or time.monotonic() >= end:
            break
        time.sleep(_POLL_S)
    if done is None and not lives:
        done = _message(place / wire.DONE_FILE)  # it may have ended between the two looks
        complete = _complete(place / wire.SESSIONS_DIR, after)
    return {
        "job": job_id,
        "boot_id": folder.boot_id(),
        "supervisor_alive": lives,
        "state": _message(place / wire.STATE_FILE),
        "done": done,
        "sessions": complete[:LOOK_SESSIONS_MAX],
    }


def _message(path: Path) -> Any:
    raw = folder.read_bounded(path)
    if raw is None:
        return None
    try:
        return wire.load_json(raw)
    except wire.WireError as error:
        raise folder.AgentError("%s: %s" % (path, error), "board") from error


def _complete(sessions: Path, after: int) -> list[dict[str, Any]]:
    files: dict[int, dict[str, int]] = {}
    try:
        entries = list(os.scandir(sessions))
    except FileNotFoundError:
        return []
    for entry in entries:
        found = _SESSION.match(entry.name)
        if found is not None and int(found.group(1)) > after:
            inner = files.setdefault(int(found.group(1)), {})
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
            raise folder.AgentError("%r is not a file of a job" % name[:100], "harness")
        if not (place / name).is_file() or (place / name).is_symlink():
            raise folder.AgentError("job %s has no %s" % (job_id, name), "harness")
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
        raise folder.AgentError("the board has no job %s" % job_id, "harness")
    lock = folder.open_shared(place / folder.SUPERVISOR_LOCK)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _ended(lock, 0):
                break
            pid = _supervisor_pid(lock)
            if pid is None:
                raise folder.AgentError("the supervisor of job %s left no process id" % job_id, "harness")
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
            except PermissionError as error:
                raise folder.AgentError("job %s belongs to another user of the board" % job_id, "lab") from error
            if _ended(lock, _CANCEL_WAIT_S):
                break
        else:
            raise folder.AgentError("the supervisor of job %s can't be ended" % job_id, "board")
        # We hold the supervisor's lock: nobody else writes done.json now.
        done = _message(place / wire.DONE_FILE)
        if done is None:
            note = wire.Done(
                job_id,
                "cancelled",
                "user",
                "cancelled",
                folder.boot_id(),
                len(_complete(place / wire.SESSIONS_DIR, -1)),
            )
            wire.write_atomically(place / wire.DONE_FILE, wire.encode(note))
            done = asdict(note)
        return {"cancelled": done["outcome"] == "cancelled", "outcome": done["outcome"]}
    finally:
        os.close(lock)


def _ended(lock: int, wait_s: float) -> bool:
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


def begun(place: Path) -> Optional[tuple[str, int]]:
    """Return boot id and CLOCK_BOOTTIME of a job's first start, None where it never was."""
    value = _message(place / folder.BEGUN_FILE)
    try:
        return None if value is None else (str(value["boot_id"]), int(value["boottime_ns"]))
    except (KeyError, TypeError, ValueError) as error:
        raise folder.AgentError("%s is damaged" % (place / folder.BEGUN_FILE), "board") from error


def mark_begun(place: Path, boot: str, now_ns: int) -> None:
    """Write down that the job starts now."""
    raw = json.dumps({"boot_id": boot, "boottime_ns": now_ns}).encode()
    wire.write_atomically(place / folder.BEGUN_FILE, raw)
