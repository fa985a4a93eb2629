"""The engine `exec`: the user's own program, which runs and times itself. docs/reference/exec.md says what passes.

The session writes inputs and a plan into a folder, starts the program, and reads its answer and arrays out of the same
folder. Nothing that it says is believed unchecked: see program_answer.py.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import selectors
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Optional, Union

import numpy as np

from edgeloop_agent import conditions, folder, wire
from edgeloop_agent.engines.base import Engine, ModelFile
from edgeloop_agent.engines.program_answer import (
    ANSWER_FILE,
    RUNS_MAX,
    ProgramRun,
    ProgramTimes,
    read_answer,
    size_of,
    whole_number,
)
from edgeloop_agent.errors import CrashedError, RefusedError
from edgeloop_agent.evaluate import write_npy_header
from edgeloop_agent.parent import die_with
from edgeloop_agent.samples import Sample, SampleData
from edgeloop_agent.session_folder import PROGRAM_PID_FILE, SOAK
from edgeloop_agent.text import last_line, signal_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROTOCOL = 1
_EXCHANGE, _PLACE = "exchange", "place"
_PLAN = "plan.txt"
_TAIL_BYTES = 4096
_CHUNK = 1 << 16
_RSS_MARGIN_BYTES = 1 << 20


class Program(Engine):
    """An unpacked program. It is a process under the session's, and dies with it."""

    name = "exec"

    def describe(self) -> dict[str, Any]:
        return {"engine_version": self.name}

    def load(self, model: ModelFile) -> dict[str, Any]:
        """Read what the program is; it loads its model itself, in each run."""
        folder_of_model = Path(model.path)
        raw = folder.read_bounded(folder_of_model / wire.PROGRAM_FILE)
        try:
            self._program = wire.decode(wire.WireProgram, raw or b"")
        except wire.WireError as error:
            raise RefusedError("what was pushed is no program: %s" % error) from error
        self._files = folder_of_model / wire.PROGRAM_DIR
        self._model = model
        self._label = os.path.basename(self._program.path)
        return {}

    def inputs(self) -> list[wire.Tensor]:
        return self._program.inputs

    def outputs(self) -> list[wire.Tensor]:
        return self._program.outputs

    def run(
        self,
        kind: str,
        samples: list[Sample],
        plan: wire.SessionPlan,
        store: array.array[int],  # noqa: ARG002 -- it keeps its own times
        folder: Path,
    ) -> dict[str, Any]:
        """Have it time single inferences; for a soak, again and again."""
        while kind == SOAK:
            self._time_latency(samples, plan, folder)
        return self._time_latency(samples, plan, folder)

    def _time_latency(self, samples: list[Sample], plan: wire.SessionPlan, work: Path) -> dict[str, Any]:
        if plan.runs_min > RUNS_MAX:
            raise RefusedError("a program of the user's own times %d runs at most" % RUNS_MAX)
        exchange = self._exchange(samples, work)
        self._plan(
            exchange,
            task="time",
            timing=plan.timing,
            samples=len(samples),
            warmup_runs=plan.warmup_runs_min,
            warmup_ns=int(plan.warmup_s_min * 1e9),
            runs=plan.runs_min,
            runs_max=RUNS_MAX,
            time_ns=int(plan.time_s_min * 1e9),
            period_ns=0 if plan.period_ms is None else int(plan.period_ms * 1e6),
        )
        before = _calibrate_ns()
        run = self._run(exchange, work)
        after = _calibrate_ns()
        times = ProgramTimes(self._label, exchange, run, plan)
        times.check()
        np.save(work / "warmup.npy", times.warmups, allow_pickle=False)
        np.save(work / "latency.npy", times.latencies, allow_pickle=False)
        return {
            **self._version(run),
            "load_ns": times.load_ns,
            "first_ns": times.first_ns,
            "runs": len(times.latencies),
            "warmups": len(times.warmups),
            "missed_periods": times.missed_periods,
            "calibration_ns": [before, after],
            "timed_window_monotonic_ns": [times.opened_ns, times.closed_ns],
            "peak_rss_bytes": run.peak_rss_bytes,
        }

    def evaluate(self, data: SampleData, folder: Path) -> dict[str, Any]:
        """Have it run every sample."""
        exchange = self._exchange(data, folder)
        self._plan(exchange, task="evaluate", samples=data.count)
        run = self._run(exchange, folder)
        load_ns = whole_number(self._label, run.answer, "load_ns")
        for index, tensor in enumerate(self.outputs()):
            self._keep_output(exchange / ("output.%d.bin" % index), tensor, data.count, folder / ("out.%d.npy" % index))
        return {**self._version(run), "load_ns": load_ns, "peak_rss_bytes": run.peak_rss_bytes}

    def _version(self, run: ProgramRun) -> dict[str, Any]:
        words = "".join(c if c.isprintable() else " " for c in run.answer.get("version", ""))[:100]
        return {"engine_version": "%s %s" % (self.name, words or self._label)}

    def _exchange(self, samples: Iterable[Sample], work: Path) -> Path:
        """An empty folder for the program, with its inputs in it: one sample after the other, as the tensors store."""
        exchange = work / _EXCHANGE
        shutil.rmtree(exchange, ignore_errors=True)
        exchange.mkdir()
        with contextlib.ExitStack() as stack:
            sinks = [
                stack.enter_context(open(exchange / ("input.%d.bin" % index), "wb"))
                for index in range(len(self.inputs()))
            ]
            for sample in samples:
                for index, sink in enumerate(sinks):
                    sink.write(_little_endian(sample[index]).tobytes())
        return exchange

    def _plan(self, exchange: Path, **numbers: Union[str, int]) -> None:
        lines = {"protocol": PROTOCOL, **numbers, "threads": self._model.threads}
        (exchange / _PLAN).write_text("".join("%s %s\n" % pair for pair in lines.items()))

    def _keep_output(self, path: Path, tensor: wire.Tensor, count: int, target: Path) -> None:
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        shape = (count, *(tensor.shape[1:] if tensor.shape[:1] == [1] else tensor.shape))
        whole = dtype.itemsize
        for axis in shape:
            whole *= axis
        size = size_of(self._label, path)
        if size != whole:
            line = "%s wrote %d bytes into %s where %d samples of output %s (%s %s) are %d"
            raise RefusedError(
                line % (self._label, size, path.name, count, tensor.name, tensor.dtype, list(shape[1:]), whole)
            )
        with open(path, "rb") as source, open(target, "wb") as sink:
            write_npy_header(sink, shape, dtype)
            shutil.copyfileobj(source, sink, _CHUNK)
        path.unlink()

    def _run(self, exchange: Path, work: Path) -> ProgramRun:
        """Start it and wait for its end; its deadline is the session's, which ends both."""
        command = self._link_files(work / _PLACE)
        path = os.pathsep.join([*self._model.python_path, *filter(None, [os.environ.get("PYTHONPATH")])])
        started_ns = _monotonic_ns()
        try:
            process = subprocess.Popen(
                [*command, *self._program.arguments, str(exchange)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=str(work / _PLACE),
                env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},  # nothing beside its files
                close_fds=False,  # of ours only the board's lock is inherited: it is free when all of them are dead
                preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509 -- this process has no other thread
            )
        except OSError as error:
            raise RefusedError(_not_started(self._label, error)) from error
        (work / PROGRAM_PID_FILE).write_text("%d" % process.pid)
        last, peak = _listen(process, exchange / ANSWER_FILE)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        (work / PROGRAM_PID_FILE).unlink()  # its time is now counted as this process's children's
        ended_ns = _monotonic_ns()
        if process.returncode != 0:
            raise CrashedError(*_ending(self._label, process.returncode, last))
        answer = read_answer(self._label, exchange / ANSWER_FILE)
        return ProgramRun(started_ns, ended_ns, peak or _peak_of(usage.ru_maxrss), answer)

    def _link_files(self, place: Path) -> list[str]:
        """Link its files into a folder of this session's own, where it may write; return the command that starts it."""
        shutil.rmtree(place, ignore_errors=True)
        for source in sorted(path for path in self._files.rglob("*") if path.is_file()):
            link = place / source.relative_to(self._files)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)
        program = str(place / self._program.path)
        return [sys.executable, program] if program.endswith(".py") else [program]


def _listen(process: subprocess.Popen[bytes], answer: Path) -> tuple[str, Optional[int]]:
    """Pass on what it prints until it ended; return the last line, and its peak memory where it waited to be read.

    A program that closed its stdout, its answer written, waits for the end of its stdin: its memory is all still there.
    """
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None  # noqa: PT018
    tail, peak = b"", None
    with selectors.DefaultSelector() as streams, process.stdin, process.stdout, process.stderr:
        for stream in (process.stdout, process.stderr):
            streams.register(stream, selectors.EVENT_READ)
        while streams.get_map():
            for key, _ in streams.select():
                chunk = os.read(key.fd, _CHUNK)
                if chunk:
                    os.write(2, chunk)
                    tail = (tail + chunk)[-_TAIL_BYTES:]
                    continue
                streams.unregister(key.fileobj)
                if key.fileobj is process.stdout:
                    peak = conditions.vm_bytes("VmHWM", str(process.pid)) if answer.exists() else None
                    process.stdin.close()
    return last_line(tail), peak


def _peak_of(max_rss: int) -> Optional[int]:
    """The peak of a process that ended, by the kernel's count; None where that may be this one's, which it began as."""
    own_peak = conditions.vm_bytes("VmHWM")
    peak = max_rss * (1 if sys.platform == "darwin" else 1024)
    return peak if own_peak is not None and peak > own_peak + _RSS_MARGIN_BYTES else None


def _not_started(name: str, error: OSError) -> str:
    why = {
        errno.ENOEXEC: "it is not built for this board's processor",
        errno.ENOENT: "its interpreter, or the loader that it was linked for, is not on the board",
        errno.EACCES: "the state folder may lie on a file system that is mounted noexec",
    }
    text = error.strerror or type(error).__name__
    return "%s can't be started: %s%s" % (name, text, " (%s)" % why[error.errno] if error.errno in why else "")


def _ending(name: str, status: int, last: str) -> tuple[str, Optional[int]]:
    """A status that is not 0 in one line, and the signal."""
    words = ": " + last if last else ""
    if status < 0:
        return "%s was killed by %s%s" % (name, signal_name(-status), words), -status
    return "%s ended with status %d%s" % (name, status, words), None


def _little_endian(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<"))


def _calibrate_ns() -> int:
    """The calibration loop twice: this process has just slept, and its core may still be slow."""
    return min(conditions.calibration_ns(), conditions.calibration_ns())


def _monotonic_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
