"""One board, ready to measure: what a job needs is pushed, and `job_run` follows it to its end."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from edgeloop.board.agent import BoardAgent, cache_name
from edgeloop.board.bundle import AgentBundle, agent_bundle
from edgeloop.board.job import job_id_of, wire_job
from edgeloop.board.job_run import JobRun
from edgeloop.board.meter import open_meter
from edgeloop.board.metering import MeterBeside
from edgeloop.board.provision import bring_runtimes
from edgeloop.board.wheels import WheelSet, wheels_for
from edgeloop.core.board import Board, PowerMeterSpec, Runtime
from edgeloop.core.check import one_bounded_line
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Attempt, MeasureRequest
from edgeloop.engines.registry import ENGINES, wheel_engines
from edgeloop.errors import LabError, ModelError
from edgeloop.ports import Activity, Link, PowerMeter, Progress, Watch
from edgeloop.processes.files import sha256_of
from edgeloop.records.samples import AttemptFolder
from edgeloop_agent import wire

RuntimeFor = Callable[[Mapping[str, Any], Sequence[str]], WheelSet]
"""(facts, engines) -> the wheels to push for them; none where the board has what it needs."""


class BoardBench:
    """The Bench of one board over a Link."""

    def __init__(
        self,
        board: Board,
        link: Link,
        *,
        runtime_for: RuntimeFor | None = None,
        bundle: Callable[[], AgentBundle] = agent_bundle,
        meter_for: Callable[[PowerMeterSpec], PowerMeter] = open_meter,
        now_s: Callable[[], float] = time.monotonic,
        sleep_s: Callable[[float], None] = time.sleep,
    ) -> None:
        self._board = board
        self._link = link
        self._runtime_for = runtime_for or (lambda facts, engines: wheels_for(facts, engines, board.runtime.source))
        self._bundle = bundle
        self._meter_for = meter_for
        self._now_s = now_s
        self._sleep_s = sleep_s
        self._facts: Mapping[str, Any] | None = None
        self._owner = f"{getpass.getuser()}@{socket.gethostname()}"
        self.agent = BoardAgent(link, board, bundle=bundle)

    @property
    def board(self) -> Board:
        return self._board

    @property
    def bytes_pushed(self) -> int:
        """Bytes of files sent to the board so far: agent, wheels, models, data."""
        return self.agent.bytes_pushed

    def facts(self) -> Mapping[str, Any]:
        """The board as it described itself at the first call; see docs/reference/agent.md, Probe."""
        if self._facts is None:
            engines = wheel_engines() if self._board.runtime.source == "system" else ()
            self._facts = self.agent.probe(engines=engines)
        return self._facts

    def close(self) -> None:
        self._link.close()

    def provision(self, engines: Sequence[str], watch: Watch | None = None) -> tuple[str, ...]:
        """Bring runtime and numpy for these engines; return the folders under runtimes/, none for the system's.

        Raises BoardError, naming all that is missing, before anything is pushed.
        """
        wheels = self._runtime_for(self.facts(), engines)
        return bring_runtimes(
            self.agent, wheels, lambda text: watch(Progress(text, Activity.PUSHING)) if watch else None
        )

    def measure(self, request: MeasureRequest, watch: Watch) -> Attempt:
        """Measure every step of the schedule; see the port for what is promised and raised."""
        folder = AttemptFolder(request.folder)
        data_sha256 = None if request.data is None else sha256_of(request.data)
        meter = self._board.power_meter if request.measures_energy else None
        job_id = job_id_of(request, data_sha256, meter)
        if not (folder.holds(job_id) and folder.is_complete()):
            JobRun(self, request, folder, job_id, data_sha256, watch).run()
        return _usable(folder.read())

    def prepare(self, request: MeasureRequest, data_sha256: str | None, watch: Watch) -> tuple[str, ...]:
        """Push the files that the board lacks for a request; return its runtimes. A second time nothing is sent."""
        pushed_before = self.agent.bytes_pushed
        runtimes = self.provision(sorted({subject.engine for subject in request.subjects}), watch)
        files = {subject.artifact.sha256: Path(subject.artifact.path) for subject in request.subjects}
        if request.data is not None and data_sha256 is not None:
            files[data_sha256] = request.data
        files |= {s.parts.sha256: Path(s.parts.path) for s in request.subjects if s.parts is not None}
        if request.pipeline is not None:
            files[request.pipeline.sha256] = request.pipeline.path
        by_name = {cache_name(sha256, path): (sha256, path) for sha256, path in files.items()}
        missing, _ = self.agent.missing(by_name)
        for name in sorted(missing):
            sha256, path = by_name[name]
            watch(Progress(f"pushing {path.name}", Activity.PUSHING, total=len(request.schedule)))
            self.agent.push(path, sha256)
        self._unpack_programs(request, watch)
        if self.agent.bytes_pushed > pushed_before:
            self.agent.clean(max_mib=self._board.runtime.cache_max_mib)
        return runtimes

    def _unpack_programs(self, request: MeasureRequest, watch: Watch) -> None:
        """Unpack the user's own programs, where the board has not done so before."""
        programs = {s.artifact.sha256: s.artifact for s in request.subjects if ENGINES[s.engine].unpacks}
        absent = self.agent.missing((), sorted(programs))[1] if programs else frozenset[str]()
        for sha256 in sorted(absent):
            name = Path(programs[sha256].origin).name
            watch(Progress(f"unpacking {name}", Activity.PUSHING, total=len(request.schedule)))
            self.agent.unpack([cache_name(sha256, Path(programs[sha256].path))], sha256)

    def job(
        self,
        request: MeasureRequest,
        job_id: str,
        data_sha256: str | None,
        runtimes: Sequence[str],
        token: str,
        deadline_s: float,
    ) -> wire.Job:
        return wire_job(
            request,
            self._board,
            job_id=job_id,
            agent_sha256=self._bundle().sha256,
            token=token,
            owner=self._owner,
            data_sha256=data_sha256,
            python_path=runtimes,
            deadline_s=deadline_s,
        )

    def token_of(self, job_id: str) -> str:
        """This controller's lease token for a job: a restarted controller has the same, another one does not."""
        return key_of("lease", job_id, self._owner)[:32]

    def acquire(self, token: str, seconds: float) -> Mapping[str, Any]:
        return self.agent.acquire_lease(self._owner, seconds, token)

    def meter_beside(self, request: MeasureRequest) -> MeterBeside | None:
        """The host's meter of this board, where the request needs it."""
        meter = self._board.power_meter
        if not request.measures_energy or meter is None or not meter.on_host:
            return None
        # The meter stamps its readings with this host's own clock, so the board's is placed on that one.
        return MeterBeside(self._meter_for(meter), self.agent.monotonic_ns, time.monotonic)

    def now_s(self) -> float:
        return self._now_s()

    def pause(self, seconds: float) -> None:
        self._sleep_s(seconds)


def open_bench(board: Board) -> BoardBench:
    """The bench of a board, over SSH or on this machine. Nothing is sent before the first call."""
    if board.kind == "local":
        from edgeloop.board.local import LocalLink

        return BoardBench(_in_own_folder(board), LocalLink())
    from edgeloop.board.ssh import SshLink

    if board.ssh is None:
        raise LabError(f"{board.name}: its file does not say how to reach it", next_step="add [ssh] with host and user")
    return BoardBench(board, SshLink(board.ssh, board.name))


def _in_own_folder(board: Board) -> Board:
    """This machine keeps its job folders in the user's cache, unless its file names another place."""
    if board.runtime.state_dir != Runtime.model_fields["state_dir"].default:
        return board
    state_dir = str(user_cache_path("edgeloop") / "local-board")
    return board.model_copy(update={"runtime": board.runtime.model_copy(update={"state_dir": state_dir})})


def _usable(attempt: Attempt) -> Attempt:
    """Raise ModelError where an engine refused every session of a subject: there is nothing to judge."""
    for label in dict.fromkeys(session.label for session in attempt.sessions):
        own = [session for session in attempt.sessions if session.label == label]
        if all(session.outcome == "refused" for session in own):
            engine = attempt.engine_versions.get(label, "the engine")
            raise ModelError(
                f"{label}: {engine} on {attempt.target} refuses the model: {one_bounded_line(own[0].detail)}"
            )
    return attempt
