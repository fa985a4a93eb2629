"""One job on a board, from pushing its files to the last file of its samples.

A lost connection loses nothing: the job goes on there, and looking goes on when the board answers again. A controller
that was restarted finds its job by its id, which is a hash of the request.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from edgeloop.board.agent import BoardAgent, Look, UnknownJobError, error_by_owner
from edgeloop.board.metering import MeterBeside
from edgeloop.core.board import Board
from edgeloop.core.check import one_bounded_line
from edgeloop.core.measurement import MeasureRequest
from edgeloop.errors import (
    BoardError,
    DataError,
    EdgeloopError,
    HarnessError,
    LeaseError,
    UnreachableError,
    UserError,
)
from edgeloop.ports import Activity, Progress, Watch
from edgeloop.records.job_request import JobRequest, job_request_of
from edgeloop.records.npy_files import count_samples
from edgeloop.records.samples import AttemptFolder
from edgeloop.records.session_files import parts_of_step
from edgeloop.records.session_record import RECORD_BYTES_MAX, ReportedSession
from edgeloop_agent import wire

_T = TypeVar("_T")
SESSION_BYTES_MAX = 1 << 30
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
_WAITING_PHASES = (wire.Phase.WAITING, wire.Phase.GATE)


class PreparedBoard(Protocol):
    """The part of a bench that a job needs."""

    @property
    def board(self) -> Board: ...
    @property
    def agent(self) -> BoardAgent: ...

    def facts(self) -> Mapping[str, Any]: ...
    def prepare(self, request: MeasureRequest, data_sha256: str | None, watch: Watch) -> tuple[str, ...]: ...
    def job(
        self,
        request: MeasureRequest,
        job_id: str,
        data_sha256: str | None,
        runtimes: Sequence[str],
        token: str,
        deadline_s: float,
    ) -> wire.Job: ...
    def token_of(self, job_id: str) -> str: ...
    def acquire(self, token: str, seconds: float) -> Mapping[str, Any]: ...
    def meter_beside(self, request: MeasureRequest) -> MeterBeside | None: ...
    def now_s(self) -> float: ...
    def pause(self, seconds: float) -> None: ...


class JobRun:
    """One job, followed to its end."""

    def __init__(
        self,
        bench: PreparedBoard,
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
        self._last_index = -1
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
        samples = None if data is None else count_samples(data)
        if data is None and any(step.kind == "evaluate" for step in self._request.schedule):
            raise HarnessError("an `evaluate` session was asked for without data")
        if self._request.measures_energy and self._bench.board.power_meter is None:
            raise UserError(f"{self._name} has no power meter", next_step="add [power_meter] to its board file")
        self._say("connecting")
        facts = self._bench.facts()
        job_request = job_request_of(self._request, self._bench.board, self._job_id, facts, samples)
        goes_on = self._folder.holds(self._job_id) and self._is_on_board()
        runtimes: tuple[str, ...] = ()
        if not goes_on:
            runtimes = self._again(
                lambda: self._bench.prepare(self._request, self._data_sha256, self._watch), _PREPARE_AGAIN_S
            )
            self._folder.begin(job_request)
        boot_id = None if goes_on else self._take_board()
        try:
            with contextlib.ExitStack() as stack:
                beside = self._bench.meter_beside(self._request)
                self._meter = None if beside is None else stack.enter_context(beside)
                if not goes_on:
                    self._start(runtimes)
                done = self._collect(job_request, boot_id)
        except UnreachableError:
            raise  # the job goes on there, and is adopted when the board answers again
        except EdgeloopError:
            self._leave()
            raise
        with contextlib.suppress(EdgeloopError):  # it expires by itself
            self._agent.release_lease(self._token)
        if done.outcome != "complete":
            raise self._error_of(done)
        self._folder.finish(wire.encode(done))

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
        except UnknownJobError:  # it was never started, or cleaned away
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
            self._say(f"waiting for the board, held by {holder}", Activity.WAITING)
            self._bench.pause(pause_s)
            pause_s = min(pause_s * 1.5, _PAUSE_MAX_S)

    def _longest_s(self) -> float:
        """The longest that the job may run on the board."""
        plan, environment = self._request.plan, self._request.environment.on(self._bench.board.environment)
        return min(self._request.deadline_s, self._total * plan.deadline_s + environment.waiting_s_max)

    def _collect(self, job_request: JobRequest, boot_id: str | None) -> wire.Done:
        """Look until the job is done and every session of it is here."""
        self._last_index = self._folder.last_index()
        self._beat_s = self._bench.now_s()
        was_dead = False
        while True:
            if self._bench.now_s() > self._ends_s:
                raise BoardError(
                    f"{self._name}: {self._progress()} within {self._request.deadline_s:g} s; the job was cancelled",
                    next_step=_LONGER,
                )
            look = self._again(lambda: self._agent.look(self._job_id, after=self._last_index, wait_s=_LOOK_WAIT_S))
            boot_id = self._same_boot(look, boot_id)
            if self._meter is not None and look.done is None:
                self._meter.check()
            for index in sorted(look.sessions):
                if not self._last_index < index < self._total:
                    continue
                self._again(partial(self._fetch, job_request, look, index, boot_id))
                self._last_index = index
                self._say("measuring")
            if look.done is not None:
                if look.done.outcome != "complete" or self._last_index == self._total - 1:
                    return look.done
                if not look.sessions:
                    raise BoardError(f"{self._name}: done with {self._progress()}")
            elif not look.supervisor_alive:
                if was_dead:
                    raise self._killed_error()
                was_dead = True  # it may have ended between two of the agent's reads
            else:
                was_dead = False
                self._check_beat(look)
                self._say_state(look.state)

    def _check_beat(self, look: Look) -> None:
        """Raise BoardError for an agent that lives and does nothing any more."""
        beat_ns = None if look.state is None else look.state.heartbeat_ns
        now_s = self._bench.now_s()
        if beat_ns != self._beat_ns:
            self._beat_ns, self._beat_s = beat_ns, now_s
        elif now_s - self._beat_s > _SILENT_MAX_S:
            raise BoardError(
                f"{self._name}: the agent hangs after {self._progress()}: no heartbeat for "
                f"{now_s - self._beat_s:.0f} s; the job was cancelled",
                next_step="measure again; look at the board's disk and what else runs there",
            )

    def _fetch(self, job_request: JobRequest, look: Look, index: int, boot_id: str) -> None:
        sizes = sizes_to_read(job_request, look, index)
        files = self._agent.read(self._job_id, {wire.session_file(index, part): n for part, n in sizes.items()})
        parts = {part: files[wire.session_file(index, part)] for part in sizes}
        self._folder.keep(job_request, index, parts, boot_id, self._beside)

    def _beside(self, record: ReportedSession) -> Mapping[str, bytes]:
        return {} if self._meter is None else self._meter.parts_of(record)

    def _same_boot(self, look: Look, boot_id: str | None) -> str:
        """The boot that the job ran on. Raises BoardError where the board rebooted: attempts never mix boots."""
        if look.done is not None:
            return look.done.boot_id
        began = boot_id if look.state is None else look.state.boot_id
        if began is not None and began != look.boot_id:
            raise BoardError(
                f"{self._name}: rebooted after {self._progress()}; the attempt is closed",
                next_step="measure again; look at its power supply if this comes back",
            )
        return look.boot_id

    def _error_of(self, done: wire.Done) -> EdgeloopError:
        detail = one_bounded_line(done.detail) or done.outcome
        text = f"{self._name}: {detail} (after {done.sessions} of {self._total} sessions)"
        if done.outcome == "lease_lost":
            return LeaseError(text, next_step="measure again")
        if done.outcome == "cancelled":
            return BoardError(text, next_step="measure again: a new attempt starts from nothing")
        if done.outcome == "deadline":  # the same deadline as this host's, whoever's clock tells it first
            return BoardError(text, next_step=_LONGER)
        return error_by_owner(done.owner)(text)

    def _killed_error(self) -> BoardError:
        words = self._agent.log_tail(self._job_id)
        return BoardError(
            f"{self._name}: the agent was killed after {self._progress()}"
            + (f"; its last words: {words}" if words else ""),
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
                    line = f"{self._name}: no connection for {waited_s:.0f} s: {error.message}"
                    raise UnreachableError(line, next_step=error.next_step) from error
                self._say(f"no connection to {self._name}, trying again", Activity.NO_CONNECTION)
                self._bench.pause(pause_s)
                pause_s = min(pause_s * 2, _PAUSE_MAX_S)

    def _progress(self) -> str:
        return f"{self._last_index + 1} of {self._total} sessions"

    def _say_state(self, state: wire.State | None) -> None:
        """Pass on the agent's own words."""
        waits = state is not None and state.phase in _WAITING_PHASES
        message = "" if state is None else state.message
        self._say(message or "measuring", Activity.WAITING if waits else Activity.WORKING)

    def _say(self, text: str, activity: Activity = Activity.WORKING) -> None:
        self._watch(Progress(one_bounded_line(text), activity, self._last_index + 1, self._total))


def sizes_to_read(request: JobRequest, look: Look, index: int) -> dict[str, int]:
    """Sizes of a finished session's files by part. Raises BoardError beyond the bound."""
    on_board = look.sessions[index]
    sizes = {part: on_board[part] for part in parts_of_step(request, index) if part in on_board}
    if sum(sizes.values()) > SESSION_BYTES_MAX or sizes.get("json", 0) > RECORD_BYTES_MAX:
        raise BoardError(f"{request.target}: session {index} has {sum(sizes.values())} bytes; that is refused")
    return sizes
