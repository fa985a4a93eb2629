"""One board, ready to measure: the job is pushed, lives on the board, and is looked at until its results are here.

A lost connection loses nothing: the job goes on, and looking goes on when the board answers again. A controller that
was restarted finds its job by its id, which is a hash of what was asked.
"""

from __future__ import annotations

import contextlib
import getpass
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from platformdirs import user_cache_path

from edgeloop.board.agent import BoardAgent, Look, cache_name, sha256_of
from edgeloop.board.bundle import AgentBundle, agent_bundle
from edgeloop.board.job import AttemptFolder, job_id_of, wire_job
from edgeloop.board.job_request import JobRequest, asked_of
from edgeloop.board.meter import open_meter
from edgeloop.board.metering import MeterBeside
from edgeloop.board.provision import bring_runtimes
from edgeloop.board.session_files import samples_in, sizes_to_read
from edgeloop.board.wheels import WheelSet, wheels_for
from edgeloop.core.board import Board, Runtime
from edgeloop.core.board import PowerMeterSpec as DeclaredMeter
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Attempt, MeasureRequest
from edgeloop.errors import (
    BoardError,
    DataError,
    EdgeloopError,
    HarnessError,
    LabError,
    LeaseError,
    ModelError,
    Owner,
    UnreachableError,
    UserError,
)
from edgeloop.ports import Link, PowerMeter, Watch
from edgeloop_agent import wire

RuntimeFor = Callable[[Mapping[str, Any], Sequence[str]], WheelSet]
"""(facts, engines) -> the wheels to push for them; none where the board has what it needs."""

_T = TypeVar("_T")
_LOOK_WAIT_S = 2.0
_PAUSE_MIN_S = 0.2
_PAUSE_MAX_S = 5.0
_PREPARE_AGAIN_S = 60.0
"""How long to try again where the connection drops before the job was started."""
_AWAY_MAX_S = 300.0
"""How long a board that answered before may be away: time to restart, or for a network to come back. A job goes on
there meanwhile, and is adopted by whoever resumes."""
_SILENT_MAX_S = 120.0
"""An agent whose heartbeat, due every 1.5 s, stands still for so long does not end by itself."""
_LONGER = "give the measurement a longer deadline"
_LEASE_S = 120.0
"""From taking a board to the job's start; from then on the job itself keeps the lease, so that a board whose controller
and job are both gone is free again soon."""
_BY_OWNER: dict[str, type[EdgeloopError]] = {
    Owner.USER: UserError,
    Owner.MODEL: ModelError,
    Owner.BOARD: BoardError,
    Owner.LAB: LabError,
    Owner.HARNESS: HarnessError,
}


class BoardBench:
    """The Bench of one board over a Link."""

    def __init__(
        self,
        board: Board,
        link: Link,
        *,
        runtime_for: RuntimeFor | None = None,
        bundle: Callable[[], AgentBundle] = agent_bundle,
        meter_for: Callable[[DeclaredMeter], PowerMeter] = open_meter,
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
            engines = wire.ENGINES if self._board.runtime.source == "system" else ()
            self._facts = self.agent.probe(engines=engines)
        return self._facts

    def close(self) -> None:
        self._link.close()

    def provision(self, engines: Sequence[str], watch: Watch | None = None) -> tuple[str, ...]:
        """Bring runtime and numpy for these engines; return the folders under runtimes/, none for the system's.

        Raises BoardError, naming all that is missing, before anything is pushed.
        """
        wheels = self._runtime_for(self.facts(), engines)
        return bring_runtimes(self.agent, wheels, lambda what: watch(what, 0, 0) if watch else None)

    def measure(self, request: MeasureRequest, watch: Watch) -> Attempt:
        """Measure every step of the schedule; see the port for what is promised and raised."""
        folder = AttemptFolder(request.folder)
        data_sha256 = None if request.data is None else sha256_of(request.data)
        meter = self._board.power_meter if request.measures_energy else None
        job_id = job_id_of(request, data_sha256, meter)
        if not (folder.holds(job_id) and folder.is_complete()):
            _Measuring(self, request, folder, job_id, data_sha256, watch).run()
        return _usable(folder.read())

    def prepare(self, request: MeasureRequest, data_sha256: str | None, watch: Watch) -> tuple[str, ...]:
        """Push what the request needs and the board lacks; return its runtimes. A second time nothing is sent."""
        pushed_before = self.agent.bytes_pushed
        runtimes = self.provision(sorted({subject.engine for subject in request.subjects}), watch)
        files = {subject.artifact.sha256: Path(subject.artifact.path) for subject in request.subjects}
        if request.data is not None and data_sha256 is not None:
            files[data_sha256] = request.data
        files |= {s.parts.sha256: Path(s.parts.path) for s in request.subjects if s.parts is not None}
        if request.pipeline is not None:
            files[request.pipeline.sha256] = request.pipeline.path
        named = {cache_name(sha256, path): (sha256, path) for sha256, path in files.items()}
        missing, _ = self.agent.missing(named)
        for name in sorted(missing):
            sha256, path = named[name]
            watch(f"pushing {path.name}", 0, len(request.schedule))
            self.agent.push(path, sha256)
        self._unpack_programs(request, watch)
        if self.agent.bytes_pushed > pushed_before:
            self.agent.clean(max_mib=self._board.runtime.cache_max_mib)
        return runtimes

    def _unpack_programs(self, request: MeasureRequest, watch: Watch) -> None:
        """Unpack what the user's own programs need, where the board has not done so before."""
        programs = {s.artifact.sha256: s.artifact for s in request.subjects if s.engine == wire.EXEC}
        packed = self.agent.missing((), sorted(programs))[1] if programs else frozenset[str]()
        for sha256 in sorted(packed):
            watch(f"unpacking {Path(programs[sha256].origin).name}", 0, len(request.schedule))
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
        declared = self._board.power_meter
        if not request.measures_energy or declared is None or not declared.on_host:
            return None
        # The meter stamps its readings with this host's own clock, so the board's is placed on that one.
        return MeterBeside(self._meter_for(declared), self.agent.monotonic_ns, time.monotonic)

    def now_s(self) -> float:
        return self._now_s()

    def pause(self, seconds: float) -> None:
        self._sleep_s(seconds)


class _Measuring:
    """One call of `measure`: from pushing to the last file."""

    def __init__(
        self,
        bench: BoardBench,
        request: MeasureRequest,
        folder: AttemptFolder,
        job_id: str,
        data_sha256: str | None,
        watch: Watch,
    ) -> None:
        self._bench = bench
        self._agent = bench.agent
        self._request = request
        self._folder = folder
        self._job_id = job_id
        self._data_sha256 = data_sha256
        self._token = bench.token_of(job_id)
        self._name = bench.board.name
        self._total = len(request.schedule)
        self._after = -1
        self._ends_s = bench.now_s() + request.deadline_s
        self._watch = watch
        self._meter: MeterBeside | None = None
        self._beat_ns: int | None = None
        self._beat_s = bench.now_s()

    def run(self) -> None:
        """Leave the folder complete, or raise."""
        data = self._request.data
        if data is not None and data.suffix != ".npz":
            raise DataError(f"{data}: data for a board are an .npz file")
        samples = None if data is None else samples_in(data)
        if data is None and any(step.kind == "evaluate" for step in self._request.schedule):
            raise HarnessError("an `evaluate` session was asked for without data")
        if self._request.measures_energy and self._bench.board.power_meter is None:
            raise UserError(f"{self._name} has no power meter", next_step="add [power_meter] to its board file")
        self._say("connecting")
        facts = self._bench.facts()
        asked = asked_of(self._request, self._bench.board, self._job_id, facts, samples)
        adopted = self._folder.holds(self._job_id) and self._is_on_board()
        runtimes: tuple[str, ...] = ()
        if not adopted:
            runtimes = self._again(
                lambda: self._bench.prepare(self._request, self._data_sha256, self._watch), _PREPARE_AGAIN_S
            )
            self._folder.begin(asked)
        boot_id = None if adopted else self._take_board()
        try:
            with contextlib.ExitStack() as stack:
                beside = self._bench.meter_beside(self._request)
                self._meter = None if beside is None else stack.enter_context(beside)
                if not adopted:
                    self._start(runtimes)
                done = self._collect(asked, boot_id)
        except UnreachableError:
            raise  # the job goes on there, and is adopted when the board answers again
        except EdgeloopError:
            self._leave()
            raise
        with contextlib.suppress(EdgeloopError):  # it expires by itself
            self._agent.release_lease(self._token)
        if done.outcome != "complete":
            raise self._failed(done)
        self._folder.finish(done)

    def _start(self, runtimes: Sequence[str]) -> None:
        left_s = max(1.0, self._ends_s - self._bench.now_s())
        job = self._bench.job(
            self._request, self._job_id, self._data_sha256, runtimes, self._token, min(left_s, self._longest_s())
        )
        self._say("starting")
        self._again(lambda: self._agent.start(job))

    def _leave(self) -> None:
        """Nothing more comes of this attempt: free the board, as far as it still listens."""
        with contextlib.suppress(EdgeloopError):
            self._agent.cancel(self._job_id)
        with contextlib.suppress(EdgeloopError):
            self._agent.release_lease(self._token)

    def _is_on_board(self) -> bool:
        """True where an earlier controller started this job: it is adopted, running or done."""
        try:
            look = self._again(lambda: self._agent.look(self._job_id, after=self._total, wait_s=0))
        except HarnessError:  # the board knows no such job: it was never started, or cleaned away
            return False
        return look.done is not None or look.state is not None or look.supervisor_alive

    def _take_board(self) -> str | None:
        """Wait for the board's lease; return the boot id it was given under."""
        pause_s, began_s = 1.0, self._bench.now_s()
        while True:
            answer = self._again(partial(self._bench.acquire, self._token, _LEASE_S))
            if answer.get("acquired") is True:
                boot_id = answer.get("boot_id")
                return boot_id if isinstance(boot_id, str) else None
            holder = str(answer.get("holder"))[:80]
            if self._bench.now_s() + pause_s > self._ends_s:
                waited_s = self._bench.now_s() - began_s
                raise LeaseError(
                    f"{self._name}: held by {holder}; waited {waited_s:.0f} s",
                    next_step="measure again later, or give a longer deadline",
                )
            self._say(f"waiting for the board, held by {holder}")
            self._bench.pause(pause_s)
            pause_s = min(pause_s * 1.5, _PAUSE_MAX_S)

    def _longest_s(self) -> float:
        """The longest that the job may run on the board."""
        plan, environment = self._request.plan, self._request.environment.on(self._bench.board.environment)
        return min(self._request.deadline_s, self._total * plan.deadline_s + environment.waiting_s_max)

    def _collect(self, asked: JobRequest, boot_id: str | None) -> wire.Done:
        """Look until the job is done and every session of it is here."""
        self._after = self._folder.fetched()
        self._beat_s = self._bench.now_s()
        seen_dead = False
        while True:
            if self._bench.now_s() > self._ends_s:
                raise BoardError(
                    f"{self._name}: {self._after + 1} of {self._total} sessions within {self._request.deadline_s:g} s;"
                    " the job was cancelled",
                    next_step=_LONGER,
                )
            look = self._again(lambda: self._agent.look(self._job_id, after=self._after, wait_s=_LOOK_WAIT_S))
            boot_id = self._same_boot(look, boot_id)
            if self._meter is not None and look.done is None:
                self._meter.check()
            for index in sorted(look.sessions):
                if not self._after < index < self._total:
                    continue
                self._again(partial(self._fetch, asked, look, index, boot_id))
                self._after = index
                self._say("measuring")
            if look.done is not None:
                if look.done.outcome != "complete" or self._after == self._total - 1:
                    return look.done
                if not look.sessions:
                    raise BoardError(f"{self._name}: done with {self._after + 1} of {self._total} sessions")
            elif not look.supervisor_alive:
                if seen_dead:
                    raise self._died()
                seen_dead = True  # it may have ended between two of the agent's reads
            else:
                seen_dead = False
                self._check_beat(look)
                self._say(look.state.message or "measuring" if look.state is not None else "measuring")

    def _check_beat(self, look: Look) -> None:
        """Raise BoardError for an agent that lives and does nothing any more."""
        beat_ns = None if look.state is None else look.state.heartbeat_ns
        now_s = self._bench.now_s()
        if beat_ns != self._beat_ns:
            self._beat_ns, self._beat_s = beat_ns, now_s
        elif now_s - self._beat_s > _SILENT_MAX_S:
            raise BoardError(
                f"{self._name}: the agent hangs after {self._after + 1} of {self._total} sessions: no heartbeat for "
                f"{now_s - self._beat_s:.0f} s; the job was cancelled",
                next_step="measure again; look at the board's disk and what else runs there",
            )

    def _fetch(self, asked: JobRequest, look: Look, index: int, boot_id: str) -> None:
        sizes = sizes_to_read(asked, look, index)
        files = self._agent.read(self._job_id, {wire.session_file(index, part): n for part, n in sizes.items()})
        parts = {part: files[wire.session_file(index, part)] for part in sizes}
        self._folder.keep(asked, index, parts, boot_id, self._beside)

    def _beside(self, record: wire.SessionRecord) -> Mapping[str, bytes]:
        return {} if self._meter is None else self._meter.parts_of(record)

    def _same_boot(self, look: Look, boot_id: str | None) -> str:
        """The boot that the job ran on. Raises BoardError where the board rebooted: attempts never mix boots."""
        if look.done is not None:
            return look.done.boot_id
        began = boot_id if look.state is None else look.state.boot_id
        if began is not None and began != look.boot_id:
            raise BoardError(
                f"{self._name}: rebooted after {self._after + 1} of {self._total} sessions; the attempt is closed",
                next_step="measure again; look at its power supply if this comes back",
            )
        return look.boot_id

    def _failed(self, done: wire.Done) -> EdgeloopError:
        detail = _one_line(done.detail) or done.outcome
        text = f"{self._name}: {detail} (after {done.sessions} of {self._total} sessions)"
        if done.outcome == "lease_lost":
            return LeaseError(text, next_step="measure again")
        if done.outcome == "cancelled":
            return BoardError(text, next_step="measure again: a new attempt starts from nothing")
        if done.outcome == "deadline":  # the same deadline as this host's, whoever's clock tells it first
            return BoardError(text, next_step=_LONGER)
        return _BY_OWNER.get(done.owner, BoardError)(text)

    def _died(self) -> BoardError:
        said = self._agent.log_tail(self._job_id)
        return BoardError(
            f"{self._name}: the agent was killed after {self._after + 1} of {self._total} sessions"
            + (f"; its last words: {said}" if said else ""),
            next_step="measure again; see whether the board ran out of memory",
        )

    def _again(self, call: Callable[[], _T], patience_s: float = _AWAY_MAX_S) -> _T:
        """Make a call until the board answers. The connection was there before, so it may come back."""
        began_s = self._bench.now_s()
        until_s = min(self._ends_s, began_s + patience_s)
        pause_s = _PAUSE_MIN_S
        while True:
            try:
                return call()
            except UnreachableError as error:
                if self._bench.now_s() + pause_s > until_s:
                    waited_s = self._bench.now_s() - began_s
                    told = f"{self._name}: no connection for {waited_s:.0f} s: {error.message}"
                    raise UnreachableError(told, next_step=error.next_step) from error
                self._say(f"no connection to {self._name}, trying again")
                self._bench.pause(pause_s)
                pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    def _say(self, what: str) -> None:
        self._watch(_one_line(what), self._after + 1, self._total)


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
            raise ModelError(f"{label}: {engine} on {attempt.target} refuses the model: {_one_line(own[0].detail)}")
    return attempt


def _one_line(text: str) -> str:
    words = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in words)[:300]
