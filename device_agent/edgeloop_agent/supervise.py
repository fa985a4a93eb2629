"""The supervisor of a job: waits for the board, runs each step as a fresh process, keeps a record of each.

It holds the board's lock, and every session inherits it: the lock is free only when all of them are dead. Sessions
that are recorded already are not run again, so a supervisor that starts after a killed one goes on where that one was.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Optional

from edgeloop_agent import (
    ARCHIVE,
    cache,
    conditions,
    folder,
    footprint,
    gate,
    governor,
    job,
    power,
    session_process,
    session_record,
    soak,
    wire,
)
from edgeloop_agent.errors import AgentError, raise_for_os
from edgeloop_agent.firmware import Firmware
from edgeloop_agent.job_checks import read_job
from edgeloop_agent.lease import LeaseFile
from edgeloop_agent.root import board_root
from edgeloop_agent.session_folder import SOAK
from edgeloop_agent.wire import Phase

_HEARTBEAT_NS = 1_500_000_000
_POLL_S = 0.2
SAMPLE_S = 0.5
_WORK_DIR = "work"


class EndedError(Exception):
    """The job ends before its schedule: outcome and owner of done.json, and one line."""

    def __init__(self, outcome: str, owner: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.owner = owner


class Cancelled(BaseException):
    """SIGTERM: not an Exception, so that no boundary takes it for an engine's failure."""


def run(state: Path, job_id: str, lock_fd: Optional[int]) -> dict[str, Any]:
    """Supervise a job to its end and return done.json. Raises AgentError where another supervisor lives."""
    place = folder.job_dir(state, job_id)
    if not (place / wire.JOB_FILE).exists():
        raise AgentError("job %s has no job.json on the board" % job_id, "harness")
    lock = lock_fd if lock_fd is not None else folder.open_shared(place / folder.SUPERVISOR_LOCK)
    os.set_inheritable(lock, False)  # noqa: FBT003 -- the function takes no keyword
    if not folder.try_lock(lock):
        raise AgentError("job %s has a supervisor already" % job_id, "harness")
    folder.rewrite(lock, b"%d" % os.getpid())
    raw = folder.read_bounded(place / wire.DONE_FILE)
    if raw is not None:
        return asdict(wire.decode(wire.Done, raw))
    supervisor = _Supervisor(state, place, job_id)
    signal.signal(signal.SIGTERM, _cancel)
    signal.signal(signal.SIGINT, _cancel)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        supervisor.work()
        outcome, owner, detail = "complete", "harness", ""
    except EndedError as end:
        outcome, owner, detail = end.outcome, end.owner, str(end)
    except AgentError as error:
        outcome, owner, detail = "failed", error.owner, str(error)
    except OSError as error:
        outcome, owner, detail = "failed", "board", "%s: %s" % (error.filename or place, error.strerror or error)
    except wire.WireError as error:
        outcome, owner, detail = "failed", "harness", str(error)
    except Cancelled:
        outcome, owner, detail = "cancelled", "user", "cancelled"
    return asdict(supervisor.finish(outcome, owner, detail))


def _cancel(_number: int, _frame: Optional[FrameType]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise Cancelled


class _Supervisor:
    def __init__(self, state: Path, place: Path, job_id: str) -> None:
        self._state = state
        self._place = place
        self._id = job_id
        self._boot = folder.boot_id()
        self._lease = LeaseFile(state)
        self._usable_cores = conditions.allowed_cores()
        self._job: Optional[wire.Job] = None
        self._deadline_ns = 0
        self._phase, self._message, self._beat_ns = Phase.STARTING, "", 0
        self._board_lock: Optional[int] = None
        self._last_load_s: Optional[float] = None
        self._sensor: Optional[power.Sensor] = None
        self._root = board_root()
        self._preparation: dict[str, Any] = {
            "governor": {},
            "gate": dict(gate.NOT_ASKED),
            "soak": dict(soak.NOT_ASKED),
            "stand_in": str(self._root.path) if self._root.stands_in else None,
        }
        self._firmware = Firmware(self._root)
        self._around = self._reader()

    def work(self) -> None:
        first_start = job.first_start(self._place)
        now = folder.boottime_ns()
        if first_start is not None and first_start[0] != self._boot:
            raise EndedError("failed", "board", "the board was restarted while the job ran")
        self._say(Phase.STARTING, "starting")
        request = self._job = read_job(self._state, self._id)
        if first_start is None:
            job.mark_first_start(self._place, self._boot, now)
        self._deadline_ns = (first_start[1] if first_start is not None else now) + int(request.deadline_s * 1e9)
        self._check_agent(request)
        if request.power_sensor is not None:
            self._sensor = power.find(request.power_sensor, self._root.path)
        self._wait_for_board()
        governor.restore_governor(self._state, self._root)
        limits = request.conditions
        self._around = self._reader()
        self._aside()
        self._preparation["governor"] = governor.set_governor(
            self._state, self._root, limits.governor, limits.cores or self._usable_cores
        )
        self._prepare(request)
        self._around.sample(*self._own_processes(), scan=True)
        for step in request.schedule:
            if not (self._place / wire.session_file(step.index, "json")).exists():
                self._say(Phase.RUNNING, "session %d of %d" % (step.index + 1, len(request.schedule)))
                self._session(request, step)

    def finish(self, outcome: str, owner: str, detail: str) -> wire.Done:
        """Restore the governor, write done.json, let go of the board."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends already
        problem = governor.restore_governor(self._state, self._root)
        if problem is not None:
            _log("the governor was not restored: %s" % problem)
        shutil.rmtree(self._place / _WORK_DIR, ignore_errors=True)
        record = wire.Done(self._id, outcome, owner, detail[:1000], self._boot, self._count_records())
        with contextlib.suppress(OSError):
            self._say(Phase.DONE, outcome)
        try:
            wire.write_atomically(self._place / wire.DONE_FILE, wire.encode(record))
        except OSError as error:
            raise_for_os(error, "done.json can't be written (%s: %s)" % (outcome, detail[:200]))
        if self._board_lock is not None:
            os.close(self._board_lock)
        return record

    def _count_records(self) -> int:
        return len(list((self._place / wire.SESSIONS_DIR).glob("*.json")))

    def _check_agent(self, request: wire.Job) -> None:
        if ARCHIVE is not None and cache.hash_of(Path(ARCHIVE)) != request.agent_sha256:
            raise AgentError("job.json was written for another agent than this one; start it again", "harness")

    def _say(self, phase: Phase, message: str) -> None:
        self._phase, self._message, self._beat_ns = phase, message, folder.boottime_ns()
        steps = len(self._job.schedule) if self._job is not None else 0
        note = wire.State(
            self._id, phase.value, self._count_records(), steps, message[:500], self._beat_ns, os.getpid(), self._boot
        )
        wire.write_atomically(self._place / wire.STATE_FILE, wire.encode(note), durable=False)

    def _tick(self) -> None:
        """Beat, and end the job where its deadline or its lease is over."""
        request, now = self._job, folder.boottime_ns()
        assert request is not None
        if now > self._deadline_ns:
            owner = "user" if self._phase is Phase.RUNNING else "lab"
            text = "the job's deadline of %g s passed while %s" % (request.deadline_s, self._message)
            raise EndedError("deadline", owner, text)
        refusal = self._lease.keep(request.lease_token)
        if refusal is not None:
            raise EndedError("lease_lost", "lab", refusal)
        if now - self._beat_ns >= _HEARTBEAT_NS:
            self._say(self._phase, self._message)

    def _wait_for_board(self) -> None:
        self._tick()
        lock = folder.open_shared(self._state / wire.LOCK_FILE)
        self._board_lock = lock
        while not folder.try_lock(lock):
            holder = folder.read_all(lock, 200).decode("ascii", "replace").split()
            message = "waiting for job %s to end" % (holder[0] if holder else "of another user")
            if message != self._message:
                self._say(Phase.WAITING, message)
            time.sleep(_POLL_S)
            self._tick()
        folder.rewrite(lock, b"%s %d" % (self._id.encode(), os.getpid()))
        self._tick()

    def _aside(self) -> None:
        """Leave the measuring cores to the sessions, where there are others."""
        spare = set(self._usable_cores) - set(self._cores())
        if self._cores() and spare and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, spare)

    def _cores(self) -> list[int]:
        return self._job.conditions.cores if self._job is not None else []

    def _reader(self) -> conditions.ConditionProbe:
        return conditions.ConditionProbe(
            self._root, self._cores() or None, lambda: footprint.total(self._state), self._firmware
        )

    def _own_processes(self, session: Optional[session_process.SessionProcess] = None) -> tuple[list[int], list[int]]:
        """Process ids of ours on the measuring cores, and beside them."""
        sessions = [] if session is None else session.pids()
        apart = bool(self._cores()) and bool(set(self._usable_cores) - set(self._cores()))
        return (sessions, [os.getpid()]) if apart else ([*sessions, os.getpid()], [])

    def _prepare(self, request: wire.Job) -> None:
        """Wait for an idle and cool board, then for a warm one, as the request wants."""
        own = self._own_processes()
        pause = partial(self._pause, Phase.GATE)
        self._preparation["gate"] = gate.wait_for_calm(self._reader(), request.conditions, own, pause)
        if request.conditions.soak_max_s is not None:
            self._preparation["soak"] = self._soak(request)

    def _pause(self, phase: Phase, message: str) -> None:
        """Wait until the next look at the board, and keep the job's heartbeat going."""
        if self._phase is not phase:
            self._say(phase, message)
        self._message = message[:500]
        time.sleep(SAMPLE_S)
        self._tick()

    def _soak(self, request: wire.Job) -> dict[str, Any]:
        """Run the model that is timed first until the temperature is flat, and stop it right before the sessions."""
        first = next((step for step in request.schedule if step.kind == "latency"), request.schedule[0])
        work = self._work("soak")
        session_process.pass_arguments(self._state, request, wire.WireStep(first.index, first.subject, SOAK), work)
        load = session_process.SessionProcess(work, self._board_lock, request.conditions.cores or self._usable_cores)
        try:
            self._aside()
            board = self._reader()
            return soak.soak(
                board,
                request.conditions,
                self._own_processes(load),
                lambda: load.last_words() if load.wait(0) else None,
                partial(self._pause, Phase.SOAK),
            )
        finally:
            load.reap()
            self._last_load_s = time.monotonic()
            shutil.rmtree(work, ignore_errors=True)

    def _work(self, name: str) -> Path:
        """An empty folder for a process of this job."""
        work = self._place / _WORK_DIR / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        return work

    def _session(self, job: wire.Job, step: wire.WireStep) -> None:
        work = self._work("%03d" % step.index)
        session_process.pass_arguments(self._state, job, step, work)
        started_utc = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        before = self._around.sample(*self._own_processes(), scan=True)
        during = session_process.ConditionTrace()
        readings = power.Sampler(self._sensor, step.index) if self._sensor and step.kind == "energy" else None
        board = self._reader()
        board.sample(*self._own_processes())
        session = session_process.SessionProcess(work, self._board_lock, job.conditions.cores or self._usable_cores)
        idle_s = None if self._last_load_s is None else time.monotonic() - self._last_load_s
        try:
            self._watch(session, job, board, during, readings)
            after = self._around.sample(*self._own_processes(session), scan=True)
        finally:
            session.reap()
        result = session.result()
        owner = result.get("owner", "model")
        energy = session_record.energy_of(job, result, self._sensor, readings) if step.kind == "energy" else None
        if readings is not None:
            power.write_npy(work / "power.npy", readings.seconds, readings.watts)
        preparation = {**self._preparation, "idle_before_s": None if idle_s is None else round(idle_s, 3)}
        board_conditions = session_record.conditions_of(job, result, before, during.samples, after, preparation)
        record = session_record.record_of(job, step, result, board_conditions, energy, self._boot, started_utc)
        if record.outcome in ("refused", "timeout") and owner != "model":  # no other session would fare better
            raise AgentError(record.detail, owner)
        session_record.keep(self._place, work, record)
        shutil.rmtree(work, ignore_errors=True)

    def _watch(
        self,
        session: session_process.SessionProcess,
        job: wire.Job,
        board: conditions.ConditionProbe,
        during: session_process.ConditionTrace,
        readings: Optional[power.Sampler],
    ) -> None:
        """Look at the board while a session runs, until it ended or its deadline passed."""
        end = time.monotonic() + job.session_plan.deadline_s
        self._aside()
        if readings is not None:
            readings.start()
        due = time.monotonic() + SAMPLE_S
        while not session.wait(min(due, end) - time.monotonic()):
            if time.monotonic() >= end:
                session.kill("killed at the session's deadline of %g s" % job.session_plan.deadline_s)
                break
            if time.monotonic() >= due:
                due += SAMPLE_S * during.stride
                during.add(board.sample(*self._own_processes(session)))
                self._tick()
        self._last_load_s = time.monotonic()
        if readings is not None:
            readings.stop()


def _log(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, (line + "\n").encode())
