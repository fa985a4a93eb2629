"""The controller's side of training: one process that has torch in it, asked over a socket pair. No torch here.

A crash stays in that process: the request that caused it fails and says how, the next one gets a fresh process.
Finished trainings are folders `<key>/` with a `training.json`, and are never made again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from edgeloop.core.campaign import Data, Task
from edgeloop.core.network import NetworkSizes, NetworkSpec
from edgeloop.errors import EdgeloopError, HarnessError, TrainingError
from edgeloop.ports import TrainedNetwork, TrainingJob, TrainingProgress
from edgeloop.processes.files import write_whole
from edgeloop.processes.limits import ProcessLimits
from edgeloop.processes.memory_limit import apply_limit, describe_limit
from edgeloop.training.key import sizes_key, training_key
from edgeloop.training.messages import (
    Abandon,
    DescribeCall,
    NumberedCall,
    Progressed,
    Raised,
    Returned,
    TrainCall,
)
from edgeloop.training.summary import read_trained

_TRAINING_LIMITS: Final = ProcessLimits(deadline_s=8 * 3600.0)
_DESCRIBE_LIMITS: Final = ProcessLimits(deadline_s=600.0)
_LOG_LINES = 3
_TICK_S = 0.5
_ABANDONED_S = 60.0
"""How long a training that nobody waits for may take to its next report."""


class TrainingPool:
    """The `Trainer` and `Networks` ports. Trainings run one after another, in the order they were submitted."""

    def __init__(
        self,
        networks: Path,
        *,
        entry: str = "edgeloop.wiring.training_worker",
        threads: int | None = None,
        training_limits: ProcessLimits = _TRAINING_LIMITS,
        describe_limits: ProcessLimits = _DESCRIBE_LIMITS,
    ) -> None:
        """`networks` is the folder of finished trainings; `entry` the module that the process works with.

        A process that looks at networks while another trains is held to `describe_limits`; the one that trains looks at
        them too while it is idle, within the deadline of those and its own memory.
        """
        self._networks = networks
        self._limits = {"train": training_limits, "describe": describe_limits}
        self._entry = entry
        # One core is left to the controller and to a builder that warms up: with every core taken, threads that wait
        # for each other made steps of small networks 4 to 40 times slower on two cores.
        self._threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._workers: dict[str, _Worker] = {}
        self._in_use = {"train": threading.Lock(), "describe": threading.Lock()}
        self._tasks: deque[_Task] = deque()
        self._running: _Task | None = None
        self._state_changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def key(self, job: TrainingJob) -> str:
        """The key that names the job's folder; raises MissingExtraError, UserError."""
        return training_key(job)

    def submit(self, job: TrainingJob, progress: TrainingProgress) -> Future[TrainedNetwork]:
        """Start a training, join one that waits or runs already, or find it done."""
        key = training_key(job)
        earlier = read_trained(self._networks / key)
        if earlier is not None:
            future: Future[TrainedNetwork] = Future()
            future.set_result(earlier[0])
            return future
        with self._state_changed:
            if self._is_closed:
                raise HarnessError("training has been closed")
            waiting = [self._running] if self._running is not None else []
            for task in (*waiting, *self._tasks):
                if task.key == key and not task.is_abandoned:
                    task.listeners.append(progress)
                    return task.future
            task = _Task(key, job, [progress])
            self._tasks.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="trainings", daemon=True)
                self._thread.start()
            self._state_changed.notify_all()
            return task.future

    def abandon(self, keep: str) -> None:
        """Cancel trainings that wait and stop the one that runs, but for the one with the key `keep`."""
        with self._state_changed:
            for task in [t for t in self._tasks if t.key != keep]:
                self._tasks.remove(task)
                task.future.cancel()
            running = self._running
            if running is not None and running.key != keep and not running.is_abandoned:
                running.is_abandoned = True
                worker = self._workers.get("train")
                if worker is not None:
                    worker.abandon()

    def describe(self, network: NetworkSpec, task: Task, data: Data, channel_multiple: int) -> NetworkSizes:
        """Return the sizes of a network; computed once, then read. A second process answers while the first one trains.

        Where a process dies of it, a second one tries: without sizes no candidate can be chosen.
        """
        file = self._networks / "sizes" / f"{sizes_key(network, task, data, channel_multiple)}.json"
        with contextlib.suppress(OSError, ValueError, ValidationError):
            return NetworkSizes.model_validate(json.loads(file.read_text()))
        role = "train" if self._in_use["train"].acquire(blocking=False) else "describe"
        try:
            if role == "describe":
                self._in_use[role].acquire()
            sizes = self._describe(role, DescribeCall(network, task, data, channel_multiple))
        finally:
            self._in_use[role].release()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, sizes.model_dump_json())
        return sizes

    def _describe(self, role: str, call: DescribeCall) -> NetworkSizes:
        try:
            answer = self._ask(role, call, lambda _what, _fraction: None)
        except TrainingError:
            answer = self._ask(role, call, lambda _what, _fraction: None)
        assert isinstance(answer, NetworkSizes)
        return answer

    def close(self) -> None:
        """Stop everything at once; what runs fails with HarnessError, what waits is cancelled."""
        with self._state_changed:
            self._is_closed = True
            while self._tasks:
                self._tasks.popleft().future.cancel()
            self._state_changed.notify_all()
            for worker in self._workers.values():
                worker.kill()
        if self._thread is not None:
            self._thread.join()
        for worker in self._workers.values():
            worker.kill()

    def _work(self) -> None:
        while True:
            with self._state_changed:
                self._state_changed.wait_for(lambda: bool(self._tasks) or self._is_closed)
                if self._is_closed:
                    return
                task = self._running = self._tasks.popleft()
            try:
                if task.future.set_running_or_notify_cancel():
                    with self._in_use["train"]:
                        result = self._ask("train", TrainCall(task.job, self._networks), task.report, task)
                    assert isinstance(result, TrainedNetwork)
                    task.future.set_result(result)
            except BaseException as error:  # noqa: BLE001 -- the thread's boundary: whoever waits for it gets it
                task.future.set_exception(error)
            finally:
                with self._state_changed:
                    self._running = None

    def _ask(
        self, role: str, call: TrainCall | DescribeCall, progress: TrainingProgress, task: _Task | None = None
    ) -> TrainedNetwork | NetworkSizes:
        with self._state_changed:
            if self._is_closed:
                raise HarnessError("training has been closed")
            worker = self._workers.get(role)
            if worker is None or not worker.alive:
                log = self._networks / "logs" / f"{role}.log"
                memory_max_bytes = self._limits[role].memory_max_bytes
                worker = self._workers[role] = _Worker(self._entry, self._threads, log, memory_max_bytes)
            worker.send(call, self._limits["train" if isinstance(call, TrainCall) else "describe"].deadline_s)
            if task is not None and task.is_abandoned:
                worker.abandon()
        return worker.answer(progress)


@dataclass(eq=False, slots=True)
class _Task:
    key: str
    job: TrainingJob
    listeners: list[TrainingProgress]
    future: Future[TrainedNetwork] = field(default_factory=Future)
    is_abandoned: bool = False

    def report(self, what: str, fraction: float) -> None:
        for listener in list(self.listeners):
            listener(what, fraction)


class _Worker:
    """One child process and its socket."""

    def __init__(self, entry: str, threads: int, log: Path, memory_max_bytes: int | None) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log = log
        self._memory_max_bytes = memory_max_bytes
        self._deadline_s = self._ends_s = 0.0
        self._number = 0
        self._limit_key = ""
        ours, theirs = Pipe()
        self._connection: Connection = ours
        with log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "edgeloop.training.training_child",
                    str(theirs.fileno()),
                    entry,
                    str(threads),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is the parent's to answer; kill() takes the whole group
                # Threads that wait must not spin: beside any other busy process, spinning made epochs 20 times slower.
                env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONUNBUFFERED": "1"},
            )
        theirs.close()
        apply_limit(self._process.pid, memory_max_bytes)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, call: TrainCall | DescribeCall, deadline_s: float) -> None:
        self._number += 1
        self._deadline_s, self._ends_s = deadline_s, time.monotonic() + deadline_s
        self._limit_key = "training_minutes_max" if isinstance(call, TrainCall) else "build_deadline_s"
        with contextlib.suppress(OSError):  # answer() reports a process that is gone
            self._connection.send(NumberedCall(self._number, call))

    def abandon(self) -> None:
        """Ask it to stop the last call that it was sent, at its next report, which has to come soon."""
        self._ends_s = min(self._ends_s, time.monotonic() + _ABANDONED_S)
        with contextlib.suppress(OSError):
            self._connection.send(Abandon(self._number))

    def answer(self, progress: TrainingProgress) -> TrainedNetwork | NetworkSizes:
        """Wait for the answer to the last call that was sent.

        Raises the error that the call raised in the child; TrainingError if the child died, or was not done at its
        deadline and was stopped.
        """
        while True:
            try:
                if not self._connection.poll(_TICK_S):
                    self._end_late()
                    continue
                message = self._connection.recv()
            except (EOFError, OSError) as gone:
                raise self._death() from gone
            match message:
                case Progressed(what, fraction):
                    progress(what, fraction)
                case Returned(value):
                    return value
                case Raised(error):
                    raise error

    def _end_late(self) -> None:
        if time.monotonic() < self._ends_s:
            return
        self.kill()
        raise TrainingError(
            f"the training process was not done after {self._deadline_s:g} s and was stopped{self._last_lines()}",
            next_step=f"see {self._log}; toolchain.{self._limit_key} gives it more",
        )

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, number)

    def _death(self) -> EdgeloopError:
        code = self._process.wait()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        limit = describe_limit(self._memory_max_bytes)
        hint = " or lower training.batch, if memory ran out" if code == -signal.SIGKILL or limit else ""
        return TrainingError(
            f"the training process {how}{limit}{self._last_lines()}", next_step=f"see {self._log}{hint}"
        )

    def _last_lines(self) -> str:
        """The end of its log, as a part of a message."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = [line for line in file.read()[-4096:].decode(errors="replace").splitlines() if line.strip()]
        return f"; it said last: {' | '.join(lines[-_LOG_LINES:])}" if lines else ""
