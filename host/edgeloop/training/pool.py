"""The controller's side of training: one process that has torch in it, asked over a socket pair. No torch here.

A crash stays in that process: the request that caused it fails with what is known, the next one gets a fresh process.
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
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from edgeloop.core.campaign import Data, Task
from edgeloop.core.network import NetworkSizes, NetworkSpec
from edgeloop.errors import EdgeloopError, HarnessError, TrainingError
from edgeloop.ports import TrainedNetwork, TrainingJob
from edgeloop.processes.files import write_whole
from edgeloop.processes.limits import ProcessLimits
from edgeloop.processes.memory_limit import apply_limit, describe_limit
from edgeloop.training.key import sizes_key, training_key
from edgeloop.training.messages import Abandon, Progressed, Raised, Request, Returned
from edgeloop.training.summary import read_trained

Progress = Callable[[str, float], None]

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
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def key(self, job: TrainingJob) -> str:
        """The key that names the job's folder; raises MissingExtraError, UserError."""
        return training_key(job)

    def submit(self, job: TrainingJob, progress: Progress) -> Future[TrainedNetwork]:
        """Start a training, join one that waits or runs already, or find it done."""
        key = training_key(job)
        done = read_trained(self._networks / key)
        if done is not None:
            found: Future[TrainedNetwork] = Future()
            found.set_result(done[0])
            return found
        with self._changed:
            if self._closed:
                raise HarnessError("training has been closed")
            waiting = [self._running] if self._running is not None else []
            for task in (*waiting, *self._tasks):
                if task.key == key and not task.abandoned:
                    task.listeners.append(progress)
                    return task.future
            task = _Task(key, job, [progress])
            self._tasks.append(task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="trainings", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return task.future

    def abandon(self, keep: str) -> None:
        """Cancel trainings that wait and stop the one that runs, but for the one with the key `keep`."""
        with self._changed:
            for task in [t for t in self._tasks if t.key != keep]:
                self._tasks.remove(task)
                task.future.cancel()
            running = self._running
            if running is not None and running.key != keep and not running.abandoned:
                running.abandoned = True
                worker = self._workers.get("train")
                if worker is not None:
                    worker.abandon()

    def describe(self, network: NetworkSpec, task: Task, data: Data, channel_multiple: int) -> NetworkSizes:
        """What a network would cost; asked once, then read. A second process answers while the first one trains.

        A process that dies of it is told of where a second one does too: without sizes nothing can be asked.
        """
        kept = self._networks / "sizes" / f"{sizes_key(network, task, data, channel_multiple)}.json"
        with contextlib.suppress(OSError, ValueError, ValidationError):
            return NetworkSizes.model_validate(json.loads(kept.read_text()))
        role = "train" if self._in_use["train"].acquire(blocking=False) else "describe"
        try:
            if role == "describe":
                self._in_use[role].acquire()
            sizes = self._described(role, (network, task, data, channel_multiple))
        finally:
            self._in_use[role].release()
        assert isinstance(sizes, NetworkSizes)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, sizes.model_dump_json())
        return sizes

    def _described(self, role: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return self._ask(role, "describe", arguments, lambda _what, _fraction: None)
        except TrainingError:
            return self._ask(role, "describe", arguments, lambda _what, _fraction: None)

    def close(self) -> None:
        """Stop everything at once; what runs fails with HarnessError, what waits is cancelled."""
        with self._changed:
            self._closed = True
            while self._tasks:
                self._tasks.popleft().future.cancel()
            self._changed.notify_all()
            for worker in self._workers.values():
                worker.kill()
        if self._thread is not None:
            self._thread.join()
        for worker in self._workers.values():
            worker.kill()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._tasks) or self._closed)
                if self._closed:
                    return
                task = self._running = self._tasks.popleft()
            try:
                if task.future.set_running_or_notify_cancel():
                    with self._in_use["train"]:
                        result = self._ask("train", "train", (task.job, self._networks), task.progressed, task)
                    task.future.set_result(result)
            except BaseException as error:  # noqa: BLE001 -- the thread's boundary: whoever waits for it gets it
                task.future.set_exception(error)
            finally:
                with self._changed:
                    self._running = None

    def _ask(
        self, role: str, function: str, arguments: tuple[Any, ...], progress: Progress, task: _Task | None = None
    ) -> Any:
        with self._changed:
            if self._closed:
                raise HarnessError("training has been closed")
            worker = self._workers.get(role)
            if worker is None or not worker.alive:
                log = self._networks / "logs" / f"{role}.log"
                memory_max_bytes = self._limits[role].memory_max_bytes
                worker = self._workers[role] = _Worker(self._entry, self._threads, log, memory_max_bytes)
            worker.send(function, arguments, self._limits[function].deadline_s)
            if task is not None and task.abandoned:
                worker.abandon()
        return worker.answer(progress)


@dataclass(eq=False, slots=True)
class _Task:
    key: str
    job: TrainingJob
    listeners: list[Progress]
    future: Future[TrainedNetwork] = field(default_factory=Future)
    abandoned: bool = False

    def progressed(self, what: str, fraction: float) -> None:
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

    def send(self, function: str, arguments: tuple[Any, ...], deadline_s: float) -> None:
        self._number += 1
        self._function, self._deadline_s, self._ends_s = function, deadline_s, time.monotonic() + deadline_s
        with contextlib.suppress(OSError):  # a process that is gone is told of by answer()
            self._connection.send(Request(self._number, function, arguments))

    def abandon(self) -> None:
        """Ask it to stop what it was sent last, at its next report, which has to come soon."""
        self._ends_s = min(self._ends_s, time.monotonic() + _ABANDONED_S)
        with contextlib.suppress(OSError):
            self._connection.send(Abandon(self._number))

    def answer(self, progress: Progress) -> Any:
        """Wait for the answer to what was sent last. Raises what the child raised, or TrainingError if it died, or
        was not done at its deadline and was stopped."""
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
        key = "training_minutes_max" if self._function == "train" else "build_deadline_s"
        raise TrainingError(
            f"the training process was not done after {self._deadline_s:g} s and was stopped{self._said()}",
            next_step=f"see {self._log}; toolchain.{key} gives it more",
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
        bound = describe_limit(self._memory_max_bytes)
        hint = " or lower training.batch, if memory ran out" if code == -signal.SIGKILL or bound else ""
        return TrainingError(f"the training process {how}{bound}{self._said()}", next_step=f"see {self._log}{hint}")

    def _said(self) -> str:
        """Its last lines."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = [line for line in file.read()[-4096:].decode(errors="replace").splitlines() if line.strip()]
        return f"; it said last: {' | '.join(lines[-_LOG_LINES:])}" if lines else ""
