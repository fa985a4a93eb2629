"""A request as the board reads it, and what came back as the host keeps it: one folder for each attempt.

    request.json            what was asked, of which board, by which job id
    sessions/NNN.*          the agent's files as they came, NNN.json last
    done.json               last of all: with it the folder is complete

Reading is strict: a file that does not fit what was asked is refused with BoardError, wherever it came from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgeloop.board.job_request import JobRequest
from edgeloop.board.metering import HOST_PARTS, trace_of
from edgeloop.board.session_files import (
    checked_arrays,
    checked_record,
    dequantized,
    profile_of,
    session_of,
    wanted_parts,
    written,
)
from edgeloop.core.board import Board, PowerMeterSpec
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays, Attempt, MeasureRequest, Session
from edgeloop.core.plan import SOAK_SLOPE_MAX_C_PER_MIN, SOAK_WINDOW_S
from edgeloop.errors import BoardError, LabError, kept_on_disk
from edgeloop_agent import wire

REQUEST_FILE = "request.json"


def job_id_of(request: MeasureRequest, data_sha256: str | None, meter: PowerMeterSpec | None = None) -> str:
    """The job's name on the board: the same request always has the same, so a restarted controller finds it.

    `meter` is the board's, where energy is measured: with another one it is another job.
    """
    subjects = [subject.words for subject in request.subjects]
    steps = [[step.index, step.label, step.kind] for step in request.schedule]
    parts = [request.key, request.plan, request.environment, subjects, steps, data_sha256, request.attempt]
    if any(subject.parts is not None for subject in request.subjects):
        parts.append(["parts", [subject.parts and subject.parts.sha256 for subject in request.subjects]])
    if any(subject.artifact.resized for subject in request.subjects):
        parts.append(["shapes", [subject.artifact.resized_to for subject in request.subjects]])
    if request.pipeline is not None:
        parts.append(["pipeline", request.pipeline.sha256, request.pipeline.class_name])
    if meter is not None:
        parts.append(["meter", meter.model_dump(mode="json")])
    return key_of("job", *parts)[:32]


def wire_job(
    request: MeasureRequest,
    board: Board,
    *,
    job_id: str,
    agent_sha256: str,
    token: str,
    owner: str,
    data_sha256: str | None,
    python_path: Sequence[str],
    deadline_s: float,
) -> wire.Job:
    """Return job.json for a request. Steps must be numbered from 0 in order."""
    labels = [subject.label for subject in request.subjects]
    plan, environment = request.plan, request.environment.on(board.environment)
    soaked = environment.throttling == "soak"
    return wire.Job(
        id=job_id,
        agent_sha256=agent_sha256,
        lease_token=token,
        lease_owner=owner,
        subjects=[
            wire.WireSubject(
                label=subject.label,
                engine=subject.engine,
                model_sha256=subject.artifact.sha256,
                model_suffix=Path(subject.artifact.path).suffix,
                threads=subject.threads,
                inputs=[spec.name for spec in subject.artifact.inputs],
                outputs=[spec.name for spec in subject.artifact.outputs],
                parts_sha256=None if subject.parts is None else subject.parts.sha256,
                shapes=subject.artifact.resized_to,
                delegate=None
                if subject.delegate is None
                else wire.WireDelegate(
                    subject.delegate.name, subject.delegate.library, subject.delegate.worded_options
                ),
            )
            for subject in request.subjects
        ],
        schedule=[wire.WireStep(step.index, labels.index(step.label), step.kind) for step in request.schedule],
        session_plan=wire.SessionPlan(
            warmup_runs_min=plan.warmup_runs_min,
            warmup_s_min=plan.warmup_s_min,
            warmup_s_max=plan.warmup_s_max,
            runs_min=plan.runs_min,
            time_s_min=plan.time_s_min,
            timing=plan.timing,
            period_ms=plan.period_ms,
            energy_window_s=plan.energy_window_s,
            deadline_s=plan.deadline_s,
        ),
        conditions=wire.Conditions(
            cores=list(board.runtime.cores),
            governor=environment.governor,
            idle_gate=plan.idle_gate,
            start_temperature_max_c=environment.start_temperature_max_c,
            cool_down_max_s=environment.cool_down_max_s or 0.0,
            foreign_load_max_pct=environment.foreign_load_max_pct,
            soak_max_s=environment.soak_max_s if soaked else None,
            soak_window_s=SOAK_WINDOW_S,
            soak_slope_max_c_per_min=SOAK_SLOPE_MAX_C_PER_MIN,
        ),
        data_sha256=data_sha256,
        pipeline=None
        if request.pipeline is None
        else wire.WirePipeline(request.pipeline.sha256, request.pipeline.class_name, request.pipeline.label),
        python_path=list(python_path),
        power_sensor=board.power_meter.hwmon if board.power_meter is not None and request.measures_energy else None,
        seed=plan.seed,
        deadline_s=deadline_s,
    )


class AttemptFolder:
    """The files of one attempt on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def holds(self, job_id: str) -> bool:
        """True where the folder was begun for just this job."""
        asked = self._asked_or_none()
        return asked is not None and asked.job_id == job_id

    def is_complete(self) -> bool:
        return (self.folder / wire.DONE_FILE).is_file() and (self.folder / REQUEST_FILE).is_file()

    def asked(self) -> JobRequest:
        """What the folder was begun for. Raises LabError where it was not."""
        asked = self._asked_or_none()
        if asked is None:
            raise LabError(f"{self.folder} holds no complete measurement", next_step="measure again")
        return asked

    def begin(self, asked: JobRequest) -> None:
        """Start the folder anew for this job; what an earlier attempt left in it goes."""
        with kept_on_disk(self.folder):
            (self.folder / wire.SESSIONS_DIR).mkdir(parents=True, exist_ok=True)
            (self.folder / wire.DONE_FILE).unlink(missing_ok=True)
            for old in (self.folder / wire.SESSIONS_DIR).iterdir():
                old.unlink()
        self._write(REQUEST_FILE, json.dumps(asked.model_dump(mode="json"), sort_keys=True).encode())

    def fetched(self) -> int:
        """Index of the last session of an unbroken row from 0 that is here; -1 where there is none."""
        index = -1
        while (self.folder / wire.session_file(index + 1, "json")).is_file():
            index += 1
        return index

    def keep(
        self,
        asked: JobRequest,
        index: int,
        parts: Mapping[str, bytes],
        boot_id: str,
        beside: Callable[[wire.SessionRecord], Mapping[str, bytes]] = lambda _record: {},
    ) -> wire.SessionRecord:
        """Check one session's files and write them. Raises BoardError for what does not fit what was asked.

        `beside` gives what this host has to add, once the session's own files are found good.
        """
        record = checked_record(asked, index, parts.get("json", b""))
        if record.boot_id != boot_id:
            raise BoardError(f"{asked.target}: session {index} comes from another boot of the board")
        checked_arrays(asked, record, parts)
        parts = {**parts, **beside(record)}
        profile_of(asked, record, parts)
        for part in sorted(parts, key=lambda name: name == "json"):
            self._write(wire.session_file(index, part), parts[part])
        return record

    def finish(self, done: wire.Done) -> None:
        self._write(wire.DONE_FILE, wire.encode(done))

    def read(self) -> Attempt:
        """Load a complete folder. Raises LabError where it is not whole, BoardError where its files do not fit."""
        asked = self.asked()
        if not self.is_complete():
            raise LabError(f"{self.folder} holds no complete measurement", next_step="measure again")
        sessions: list[Session] = []
        outputs: dict[str, Arrays] = {}
        versions: dict[str, str] = {}
        for step in asked.schedule:
            parts = self._parts(asked, step.index)
            record = checked_record(asked, step.index, parts["json"])
            arrays = checked_arrays(asked, record, parts)
            power = trace_of(record, asked.power_meter, arrays, parts)
            sessions.append(session_of(step, record, arrays, power, profile_of(asked, record, parts)))
            if record.engine_version:
                engine = asked.subject_of(step.index).engine
                versions[step.label] = f"{engine} {record.engine_version.removeprefix(engine).strip()}".strip()
            if step.kind == "evaluate" and record.outcome == "ok":
                outputs[step.label] = {
                    name: dequantized(arrays[f"out.{i}.npy"], tensor)
                    for i, (name, tensor) in enumerate(written(asked, record))
                }
        return Attempt(
            job_id=asked.job_id,
            target=asked.target,
            board_model=asked.board_model,
            emulated=asked.emulated,
            engine_versions=versions,
            sessions=tuple(sessions),
            outputs=outputs,
            facts=asked.facts,
        )

    def _asked_or_none(self) -> JobRequest | None:
        try:
            return JobRequest.model_validate_json((self.folder / REQUEST_FILE).read_bytes())
        except (OSError, ValueError):
            return None

    def _parts(self, asked: JobRequest, index: int) -> dict[str, bytes]:
        found = {}
        for part in (*wanted_parts(asked, index), *HOST_PARTS):
            path = self.folder / wire.session_file(index, part)
            if path.is_file():
                found[part] = path.read_bytes()
        if "json" not in found:
            raise LabError(f"{self.folder}: session {index} is missing", next_step="measure again")
        return found

    def _write(self, name: str, raw: bytes) -> None:
        path = self.folder / name
        with kept_on_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            wire.write_atomically(path, raw)


def read_attempt(folder: Path) -> Attempt:
    """Load what `measure` kept in a folder: sessions with raw samples, outputs dequantized to float32.

    Raises LabError where the folder is not complete, BoardError where its files are not what was asked for.
    """
    return AttemptFolder(folder).read()
