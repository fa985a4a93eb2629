"""The supervisor of a job: waits for the board, runs each step as a fresh process, records what it saw.

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
from pathlib import Path
from types import FrameType
from typing import Any, Optional

from edgeloop_agent import ARCHIVE, cache, child, conditions, folder, footprint, gate, governor, job, power, soak, wire
from edgeloop_agent.firmware import Firmware
from edgeloop_agent.lease import LeaseFile
from edgeloop_agent.root import chosen
from edgeloop_agent.session import SOAK

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
        raise folder.AgentError("job %s has no job.json on the board" % job_id, "harness")
    lock = lock_fd if lock_fd is not None else folder.open_shared(place / folder.SUPERVISOR_LOCK)
    os.set_inheritable(lock, False)  # noqa: FBT003 -- the function takes no keyword
    if not folder.try_lock(lock):
        raise folder.AgentError("job %s has a supervisor already" % job_id, "harness")
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
    except EndedError as ended:
        outcome, owner, detail = ended.outcome, ended.owner, str(ended)
    except folder.AgentError as error:
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
        self._allowed = conditions.allowed_cores()
        self._job: Optional[wire.Job] = None
        self._deadline_ns = 0
        self._phase, self._message, self._beat_ns = "waiting", "", 0
        self._board_lock: Optional[int] = None
        self._governor: dict[str, Any] = {}
        self._gate = dict(gate.NOT_ASKED)
        self._soak = dict(soak.NOT_ASKED)
        self._loaded_s: Optional[float] = None
        self._sensor: Optional[power.Sensor] = None
        self._root = chosen()
        self._firmware = Firmware(self._root)
        self._around = self._reader()

    def work(self) -> None:
        begun = job.begun(self._place)
        now = folder.boottime_ns()
        if begun is not None and begun[0] != self._boot:
            raise EndedError("failed", "board", "the board was restarted while the job ran")
        self._say("waiting", "starting")
        found = self._job = job.read_job(self._state, self._id)
        if begun is None:
            job.mark_begun(self._place, self._boot, now)
        self._deadline_ns = (begun[1] if begun is not None else now) + int(found.deadline_s * 1e9)
        self._check_agent(found)
        self._sensor = power.find(found.power_sensor, self._root.path) if found.power_sensor is not None else None
        self._wait_for_board()
        governor.restore_governor(self._state, self._root)
        cores = found.conditions.cores
        self._around = self._reader()
        self._aside()
        self._governor = governor.set_governor(
            self._state, self._root, found.conditions.governor, cores or self._allowed
        )
        self._prepare(found)
        self._around.sample(*self._own(), scan=True)
        for step in found.schedule:
            if not (self._place / wire.session_file(step.index, "json")).exists():
                self._say("running", "session %d of %d" % (step.index + 1, len(found.schedule)))
                self._session(found, step)

    def finish(self, outcome: str, owner: str, detail: str) -> wire.Done:
        """Restore what was changed, write done.json, let go of the board."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends already
        problem = governor.restore_governor(self._state, self._root)
        if problem is not None:
            _log("the governor was not restored: %s" % problem)
        shutil.rmtree(self._place / _WORK_DIR, ignore_errors=True)
        done = wire.Done(self._id, outcome, owner, detail[:1000], self._boot, self._recorded())
        with contextlib.suppress(OSError):
            self._say("done", outcome)
        try:
            wire.write_atomically(self._place / wire.DONE_FILE, wire.encode(done))
        except OSError as error:
            folder.raise_for_os(error, "done.json can't be written (%s: %s)" % (outcome, detail[:200]))
        if self._board_lock is not None:
            os.close(self._board_lock)
        return done

    def _recorded(self) -> int:
        return len(list((self._place / wire.SESSIONS_DIR).glob("*.json")))

    def _check_agent(self, found: wire.Job) -> None:
        if ARCHIVE is not None and cache.hash_of(Path(ARCHIVE)) != found.agent_sha256:
            raise folder.AgentError("job.json was written for another agent than this one; start it again", "harness")

    def _say(self, phase: str, message: str) -> None:
        self._phase, self._message, self._beat_ns = phase, message, folder.boottime_ns()
        steps = len(self._job.schedule) if self._job is not None else 0
        note = wire.State(
            self._id, phase, self._recorded(), steps, message[:500], self._beat_ns, os.getpid(), self._boot
        )
        wire.write_atomically(self._place / wire.STATE_FILE, wire.encode(note), durable=False)

    def _tick(self) -> None:
        """Beat, and end the job where its deadline or its lease is over."""
        found, now = self._job, folder.boottime_ns()
        assert found is not None
        if now > self._deadline_ns:
            owner = "user" if self._phase == "running" else "lab"
            text = "the job's deadline of %g s passed while %s" % (found.deadline_s, self._message)
            raise EndedError("deadline", owner, text)
        refusal = self._lease.keep(found.lease_token)
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
                self._say("waiting", message)
            time.sleep(_POLL_S)
            self._tick()
        folder.rewrite(lock, b"%s %d" % (self._id.encode(), os.getpid()))
        self._tick()

    def _aside(self) -> None:
        """Leave the measuring cores to the sessions, where there are others."""
        spare = set(self._allowed) - set(self._cores())
        if self._cores() and spare and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, spare)

    def _cores(self) -> list[int]:
        return self._job.conditions.cores if self._job is not None else []

    def _reader(self) -> conditions.ConditionProbe:
        return conditions.ConditionProbe(
            self._root, self._cores() or None, lambda: footprint.total(self._state), self._firmware
        )

    def _own(self, session: Optional[child.SessionProcess] = None) -> tuple[list[int], list[int]]:
        """Process ids of ours on the measuring cores, and beside them."""
        sessions = [] if session is None else session.pids()
        apart = bool(self._cores()) and bool(set(self._allowed) - set(self._cores()))
        return (sessions, [os.getpid()]) if apart else ([*sessions, os.getpid()], [])

    def _prepare(self, found: wire.Job) -> None:
        """What comes before the first session: the gate, then the soak."""
        own = self._own()
        self._gate = gate.wait_for_calm(self._reader(), found.conditions, own, lambda told: self._pause("gate", told))
        if found.conditions.soak_max_s is not None:
            self._soak = self._soaked(found)

    def _pause(self, phase: str, told: str) -> None:
        """Wait until the next look at the board, and keep the job's heartbeat going."""
        if self._phase != phase:
            self._say(phase, told)
        self._message = told[:500]
        time.sleep(SAMPLE_S)
        self._tick()

    def _soaked(self, found: wire.Job) -> dict[str, Any]:
        """Run the model that is timed first until the temperature is flat, and stop it right before the sessions."""
        first = next((step for step in found.schedule if step.kind == "latency"), found.schedule[0])
        work = self._work("soak")
        child.write_arguments(self._state, found, wire.WireStep(first.index, first.subject, SOAK), work)
        load = child.SessionProcess(work, self._board_lock, found.conditions.cores or self._allowed)
        try:
            self._aside()
            board = self._reader()
            return soak.soak(
                board,
                found.conditions,
                self._own(load),
                lambda: load.last_words() if load.wait(0) else None,
                lambda told: self._pause("gate", told),
            )
        finally:
            load.reap()
            self._loaded_s = time.monotonic()
            shutil.rmtree(work, ignore_errors=True)

    def _work(self, name: str) -> Path:
        """An empty folder for a process of this job."""
        work = self._place / _WORK_DIR / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        return work

    def _session(self, found: wire.Job, step: wire.WireStep) -> None:
        work = self._work("%03d" % step.index)
        child.write_arguments(self._state, found, step, work)
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        before = self._around.sample(*self._own(), scan=True)
        board = self._reader()
        board.sample(*self._own())
        during = child.ConditionTrace()
        session = child.SessionProcess(work, self._board_lock, found.conditions.cores or self._allowed)
        idle_s = None if self._loaded_s is None else time.monotonic() - self._loaded_s
        readings = power.Sampler(self._sensor, step.index) if self._sensor and step.kind == "energy" else None
        try:
            end = time.monotonic() + found.session_plan.deadline_s
            self._aside()
            if readings is not None:
                readings.start()
            due = time.monotonic() + SAMPLE_S
            while not session.wait(min(due, end) - time.monotonic()):
                if time.monotonic() >= end:
                    session.kill("killed at the session's deadline of %g s" % found.session_plan.deadline_s)
                    break
                if time.monotonic() >= due:
                    due += SAMPLE_S * during.stride
                    during.add(board.sample(*self._own(session)))
                    self._tick()
            self._loaded_s = time.monotonic()
            if readings is not None:
                readings.stop()
            after = self._around.sample(*self._own(session), scan=True)
        finally:
            session.reap()
        result = session.result()
        record = self._record(found, step, result, started)
        record["energy"] = self._energy(found, result, readings) if step.kind == "energy" else None
        if readings is not None:
            power.write_npy(work / "power.npy", readings.seconds, readings.watts)
        extra = {**record.pop("extra"), "idle_before_s": None if idle_s is None else round(idle_s, 3)}
        record["conditions"] = self._conditions(extra, before, during.kept, after)
        owner = record.pop("owner")
        if record["outcome"] in ("refused", "timeout") and owner != "model":  # no other session would fare better
            raise folder.AgentError(record["detail"], owner)
        self._keep(step.index, work, record)
        shutil.rmtree(work, ignore_errors=True)

    def _record(self, found: wire.Job, step: wire.WireStep, result: dict[str, Any], started: str) -> dict[str, Any]:
        subject = found.subjects[step.subject]
        kept = {
            key: result.get(key)
            for key in ("load_ns", "first_ns", "peak_rss_bytes", "runtime_rss_bytes", "overhead_ns")
        }
        ok = result["outcome"] == "ok"
        return {
            **kept,
            "schema": wire.SCHEMA,
            "job_id": self._id,
            "index": step.index,
            "subject": step.subject,
            "kind": step.kind,
            "outcome": result["outcome"],
            "detail": str(result.get("detail", ""))[:1000],
            "owner": result.get("owner", "model"),
            "signal": result.get("signal"),
            "engine_version": result.get("engine_version", subject.engine),
            "python_version": result.get("python_version", ""),
            "runs": result.get("runs", 0) if ok else 0,
            "warmups": result.get("warmups", 0) if ok else 0,
            "missed_periods": result.get("missed_periods", 0) if ok else 0,
            "stages": result.get("stages", []) if ok else [],
            "readings": result.get("readings", {}) if ok else {},
            "inputs": result.get("inputs", []),
            "outputs": result.get("outputs", []),
            "profile": result.get("profile") if ok else None,
            "results": result.get("results", []) if ok else [],
            "boot_id": self._boot,
            "started_utc": started,
            "extra": {
                "calibration_ns": result.get("calibration_ns"),
                "timed_window_monotonic_ns": result.get("timed_window_monotonic_ns"),
                "samples_cycled": result.get("samples_cycled"),
                "delegate": result.get("delegate"),
                "pinned_cores": result.get("pinned_cores") if found.conditions.cores else None,
            },
        }

    def _energy(
        self, found: wire.Job, result: dict[str, Any], readings: Optional[power.Sampler]
    ) -> Optional[dict[str, Any]]:
        if result["outcome"] != "ok":
            return None
        return {
            "idle_ns": result["idle_window_monotonic_ns"],
            "active_ns": result["timed_window_monotonic_ns"],
            "period_ms": found.session_plan.period_ms,
            "sensor": self._sensor.label if self._sensor is not None else None,
            "update_s": self._sensor.update_s if self._sensor is not None else None,
            "readings": len(readings.seconds) if readings is not None else 0,
            "reading_cpu_s": readings.cpu_s if readings is not None else 0.0,
        }

    def _conditions(
        self, extra: dict[str, Any], before: dict[str, Any], during: list[dict[str, Any]], after: dict[str, Any]
    ) -> dict[str, Any]:
        window = extra["timed_window_monotonic_ns"]
        for sample in during:
            sample["timed"] = bool(window) and window[0] <= sample["monotonic_ns"] <= window[1]
        unknown = set(before["unknown"]).intersection(after["unknown"], *(sample["unknown"] for sample in during))
        return {
            **extra,
            "before": before,
            "during": during,
            "after": after,
            "governor": self._governor,
            "gate": self._gate,
            "soak": self._soak,
            "stand_in": str(self._root.path) if self._root.stands_in else None,
            "unknown": sorted(unknown),
        }

    def _keep(self, index: int, work: Path, record: dict[str, Any]) -> None:
        """Arrays first, the record last: whoever sees the record sees all of it."""
        message = wire.from_plain(wire.SessionRecord, record)
        if message.outcome == "ok":
            for path in sorted(work.glob("*.npy")):
                with open(path, "rb") as handle:
                    os.fsync(handle.fileno())
                os.replace(path, self._place / wire.session_file(index, path.name))
        wire.write_atomically(self._place / wire.session_file(index, "json"), wire.encode(message))


def _log(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, (line + "\n").encode())
