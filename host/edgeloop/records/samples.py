"""The samples of one attempt on this machine: one folder, read without a board and without the agent.

    request.json            the job: its id, its board, its subjects and steps
    sessions/NNN.*          the agent's files as they came, NNN.json last
    done.json               last of all: with it the folder is complete

Reading is strict: a file that does not fit the job is refused with BoardError, wherever it came from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from edgeloop.core.measurement import Arrays, Attempt, Session
from edgeloop.errors import BoardError, LabError, kept_on_disk
from edgeloop.processes.files import write_whole
from edgeloop.records.job_request import JobRequest
from edgeloop.records.power_files import HOST_PARTS, trace_of
from edgeloop.records.session_files import (
    dequantized,
    output_tensors,
    parts_of_step,
    profile_of,
    read_arrays,
    read_session_record,
    session_of,
)
from edgeloop.records.session_record import ReportedSession

REQUEST_FILE = "request.json"
DONE_FILE = "done.json"
SESSIONS_DIR = "sessions"


def session_file(index: int, part: str) -> str:
    """`sessions/007.json`, `sessions/007.latency.npy`, ... in the folder."""
    return f"{SESSIONS_DIR}/{index:03d}.{part}"


class AttemptFolder:
    """The files of one attempt on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def holds(self, job_id: str) -> bool:
        """True where the folder was begun for just this job."""
        request = self._request_or_none()
        return request is not None and request.job_id == job_id

    def is_complete(self) -> bool:
        return (self.folder / DONE_FILE).is_file() and (self.folder / REQUEST_FILE).is_file()

    def request(self) -> JobRequest:
        """The job that the folder was begun for. Raises LabError where it was not."""
        request = self._request_or_none()
        if request is None:
            raise LabError(f"{self.folder} holds no complete measurement", next_step="measure again")
        return request

    def begin(self, request: JobRequest) -> None:
        """Start the folder anew for this job; the files of an earlier attempt go."""
        with kept_on_disk(self.folder):
            (self.folder / SESSIONS_DIR).mkdir(parents=True, exist_ok=True)
            (self.folder / DONE_FILE).unlink(missing_ok=True)
            for old in (self.folder / SESSIONS_DIR).iterdir():
                old.unlink()
        self._write(REQUEST_FILE, json.dumps(request.model_dump(mode="json"), sort_keys=True).encode())

    def last_index(self) -> int:
        """Index of the last session of an unbroken row from 0 that is here; -1 where there is none."""
        index = -1
        while (self.folder / session_file(index + 1, "json")).is_file():
            index += 1
        return index

    def keep(
        self,
        request: JobRequest,
        index: int,
        parts: Mapping[str, bytes],
        boot_id: str,
        beside: Callable[[ReportedSession], Mapping[str, bytes]] = lambda _record: {},
    ) -> ReportedSession:
        """Check one session's files and write them. Raises BoardError for a file that does not fit the job.

        `beside` gives the parts that this host has to add, once the session's own files are good.
        """
        record = read_session_record(request, index, parts.get("json", b""))
        if record.boot_id != boot_id:
            raise BoardError(f"{request.target}: session {index} comes from another boot of the board")
        read_arrays(request, record, parts)
        parts = {**parts, **beside(record)}
        profile_of(request, record, parts)
        for part in sorted(parts, key=lambda name: name == "json"):
            self._write(session_file(index, part), parts[part])
        return record

    def finish(self, done: bytes) -> None:
        """Write done.json, as the agent wrote it."""
        self._write(DONE_FILE, done)

    def read(self) -> Attempt:
        """Load a complete folder. Raises LabError where it is not whole, BoardError where its files do not fit."""
        request = self.request()
        if not self.is_complete():
            raise LabError(f"{self.folder} holds no complete measurement", next_step="measure again")
        sessions: list[Session] = []
        outputs: dict[str, Arrays] = {}
        versions: dict[str, str] = {}
        for step in request.schedule:
            parts = self._parts(request, step.index)
            record = read_session_record(request, step.index, parts["json"])
            arrays = read_arrays(request, record, parts)
            power = trace_of(record, request.power_meter, arrays, parts)
            sessions.append(session_of(step, record, arrays, power, profile_of(request, record, parts)))
            if record.engine_version:
                engine = request.subject_of(step.index).engine
                versions[step.label] = f"{engine} {record.engine_version.removeprefix(engine).strip()}".strip()
            if step.kind == "evaluate" and record.outcome == "ok":
                outputs[step.label] = {
                    name: dequantized(arrays[f"out.{i}.npy"], tensor)
                    for i, (name, tensor) in enumerate(output_tensors(request, record))
                }
        return Attempt(
            job_id=request.job_id,
            target=request.target,
            board_model=request.board_model,
            emulated=request.emulated,
            engine_versions=versions,
            sessions=tuple(sessions),
            outputs=outputs,
            facts=request.facts,
        )

    def _request_or_none(self) -> JobRequest | None:
        try:
            return JobRequest.model_validate_json((self.folder / REQUEST_FILE).read_bytes())
        except (OSError, ValueError):
            return None

    def _parts(self, request: JobRequest, index: int) -> dict[str, bytes]:
        parts = {}
        for part in (*parts_of_step(request, index), *HOST_PARTS):
            path = self.folder / session_file(index, part)
            if path.is_file():
                parts[part] = path.read_bytes()
        if "json" not in parts:
            raise LabError(f"{self.folder}: session {index} is missing", next_step="measure again")
        return parts

    def _write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        with kept_on_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content, durable=True)
