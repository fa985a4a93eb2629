"""The engine `exec`: the user's own program, which runs and times itself. docs/reference/exec.md says what passes.

The session writes inputs and a plan into a folder, starts the program, and reads its answer and arrays out of the same
folder. Nothing that it says is believed unchecked: sizes, counts and floors, and that its times fit into the time that
it really ran. What is not as the protocol says is the program's fault, and one line.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Optional

import numpy as np

from edgeloop_agent import conditions, folder, session, wire
from edgeloop_agent.engines.interpreter import CrashedError, RefusedError
from edgeloop_agent.evaluate import write_npy_header

if TYPE_CHECKING:
    from edgeloop_agent.samples import Sample, SampleData

PROTOCOL = 1
RUNS_MAX = 1 << 22
"""Timed runs, and warm-ups, that are read at most: 32 MiB each."""
BUSY_SHARE_MIN = 0.1
"""Of the window, back to back: times that were meant as microseconds fill a thousandth of it."""
PERIOD_SLACK = 0.05
"""What a program's own way of waiting may be off by, of all its periods together."""
_EXCHANGE, _PLACE = "exchange", "place"
_PLAN, _ANSWER = "plan.txt", "answer.txt"
_ANSWER_BYTES_MAX = 64 * 1024
_TAIL_BYTES = 4096
_CHUNK = 1 << 16
_RSS_MARGIN_BYTES = 1 << 20


@dataclass
class _Ran:
    """One run of the program that ended well. Times are CLOCK_MONOTONIC."""

    started_ns: int
    ended_ns: int
    peak_rss_bytes: Optional[int]
    told: dict[str, str]


class ProgramSession:
    """An unpacked program. `tie` is called in the new process before the program is: it dies with this one."""

    def __init__(self, unpacked: Path, threads: int, python_path: list[str], tie: Callable[[], None]) -> None:
        raw = folder.read_bounded(unpacked / wire.PROGRAM_FILE)
        try:
            self._declared = wire.decode(wire.WireProgram, raw or b"")
        except wire.WireError as error:
            raise RefusedError("what was pushed is no program: %s" % error) from error
        self._files = unpacked / wire.PROGRAM_DIR
        self._threads = threads
        self._python_path = python_path
        self._tie = tie
        self.name = os.path.basename(self._declared.path)
        self.inputs = self._declared.inputs
        self.outputs = self._declared.outputs

    def time_latency(self, held: list[Sample], plan: wire.SessionPlan, work: Path) -> dict[str, Any]:
        """Have it time single inferences; arrays into warmup.npy and latency.npy.

        Raises RefusedError where its answer can't be believed, CrashedError, OSError where the disk is full.
        """
        if plan.runs_min > RUNS_MAX:
            raise RefusedError("a program of the user's own times %d runs at most" % RUNS_MAX)
        exchange = self._exchange(held, work)
        self._plan(
            exchange,
            task="time",
            timing=plan.timing,
            samples=len(held),
            warmup_runs=plan.warmup_runs_min,
            warmup_ns=int(plan.warmup_s_min * 1e9),
            runs=plan.runs_min,
            runs_max=RUNS_MAX,
            time_ns=int(plan.time_s_min * 1e9),
            period_ns=0 if plan.period_ms is None else int(plan.period_ms * 1e6),
        )
        before = _calibrated_ns()
        ran = self._run(exchange, work)
        after = _calibrated_ns()
        timed = _Timed(self.name, exchange, ran, plan)
        timed.check()
        np.save(work / "warmup.npy", timed.warmups, allow_pickle=False)
        np.save(work / "latency.npy", timed.latencies, allow_pickle=False)
        return {
            **self._version(ran),
            "load_ns": timed.load_ns,
            "first_ns": timed.first_ns,
            "runs": len(timed.latencies),
            "warmups": len(timed.warmups),
            "missed_periods": timed.missed,
            "calibration_ns": [before, after],
            "timed_window_monotonic_ns": [timed.opened_ns, timed.closed_ns],
            "samples_cycled": len(held),
            "peak_rss_bytes": ran.peak_rss_bytes,
        }

    def evaluate(self, data: SampleData, work: Path) -> dict[str, Any]:
        """Have it run every sample; what comes out into out.<i>.npy. Raises as `time_latency`."""
        exchange = self._exchange(data, work)
        self._plan(exchange, task="evaluate", samples=data.count)
        ran = self._run(exchange, work)
        load_ns = _whole(self.name, ran.told, "load_ns")
        for index, tensor in enumerate(self.outputs):
            self._keep_output(exchange / ("output.%d.bin" % index), tensor, data.count, work / ("out.%d.npy" % index))
        return {**self._version(ran), "load_ns": load_ns, "peak_rss_bytes": ran.peak_rss_bytes}

    def _version(self, ran: _Ran) -> dict[str, Any]:
        told = "".join(c if c.isprintable() else " " for c in ran.told.get("version", ""))[:100]
        return {"engine_version": "%s %s" % (wire.EXEC, told or self.name)}

    def _exchange(self, samples: Iterable[Sample], work: Path) -> Path:
        """An empty folder for the program, with its inputs in it: one sample after the other, as the tensors store."""
        exchange = work / _EXCHANGE
        shutil.rmtree(exchange, ignore_errors=True)
        exchange.mkdir()
        with contextlib.ExitStack() as stack:
            sinks = [
                stack.enter_context(open(exchange / ("input.%d.bin" % index), "wb"))
                for index in range(len(self.inputs))
            ]
            for sample in samples:
                for index, sink in enumerate(sinks):
                    sink.write(_little_endian(sample[index]).tobytes())
        return exchange

    def _plan(self, exchange: Path, **numbers: Any) -> None:
        lines = {"protocol": PROTOCOL, **numbers, "threads": self._threads}
        (exchange / _PLAN).write_text("".join("%s %s\n" % pair for pair in lines.items()))

    def _keep_output(self, path: Path, tensor: wire.Tensor, count: int, target: Path) -> None:
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        shape = (count, *(tensor.shape[1:] if tensor.shape[:1] == [1] else tensor.shape))
        wanted = dtype.itemsize
        for size in shape:
            wanted *= size
        found = _size(self.name, path)
        if found != wanted:
            told = "%s wrote %d bytes into %s where %d samples of output %s (%s %s) are %d"
            raise RefusedError(
                told % (self.name, found, path.name, count, tensor.name, tensor.dtype, list(shape[1:]), wanted)
            )
        with open(path, "rb") as source, open(target, "wb") as sink:
            write_npy_header(sink, shape, dtype)
            shutil.copyfileobj(source, sink, _CHUNK)
        path.unlink()

    def _run(self, exchange: Path, work: Path) -> _Ran:
        """Start it and wait for its end; its deadline is the session's, which ends both."""
        command = self._placed(work / _PLACE)
        path = os.pathsep.join([*self._python_path, *filter(None, [os.environ.get("PYTHONPATH")])])
        started = _monotonic_ns()
        try:
            process = subprocess.Popen(
                [*command, *self._declared.arguments, str(exchange)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=str(work / _PLACE),
                env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},  # nothing beside its files
                close_fds=False,  # of ours only the board's lock is inherited: it is free when all of them are dead
                preexec_fn=self._tie,  # noqa: PLW1509 -- this process has no other thread
            )
        except OSError as error:
            raise RefusedError(_not_started(self.name, error)) from error
        (work / session.PROGRAM_PID_FILE).write_text("%d" % process.pid)
        last, peak = _listen(process, exchange / _ANSWER)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        (work / session.PROGRAM_PID_FILE).unlink()  # its time is now counted as this process's children's
        ended = _monotonic_ns()
        if process.returncode != 0:
            raise CrashedError(*_ending(self.name, process.returncode, last))
        return _Ran(started, ended, peak or _peak_of(usage.ru_maxrss), _answer(self.name, exchange / _ANSWER))

    def _placed(self, place: Path) -> list[str]:
        """Links to its files in a folder of this session's own, where it may write; return how it is started."""
        shutil.rmtree(place, ignore_errors=True)
        for source in sorted(path for path in self._files.rglob("*") if path.is_file()):
            link = place / source.relative_to(self._files)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source)
        program = str(place / self._declared.path)
        return [sys.executable, program] if program.endswith(".py") else [program]


class _Timed:
    """The answer to the task `time`, and what is wrong with it."""

    def __init__(self, name: str, exchange: Path, ran: _Ran, plan: wire.SessionPlan) -> None:
        self._name = name
        self._ran = ran
        self._asked = plan
        told = ran.told
        self.load_ns, self.first_ns = _whole(name, told, "load_ns"), _whole(name, told, "first_ns")
        self.opened_ns, self.closed_ns = _whole(name, told, "window_start_ns"), _whole(name, told, "window_end_ns")
        self.missed = 0 if plan.period_ms is None else _whole(name, told, "missed_periods")
        self.warmups = _times(name, exchange / "warmup.bin")
        self.latencies = _times(name, exchange / "latency.bin")

    def check(self) -> None:
        """Raise RefusedError for a floor that is not met, and for times that can't be."""
        plan, ran = self._asked, self._ran
        window, warm = self.closed_ns - self.opened_ns, self.opened_ns - ran.started_ns
        if not ran.started_ns <= self.opened_ns < self.closed_ns <= ran.ended_ns:
            raise self._fault("its timed window is not within the time that it ran; it is told by CLOCK_MONOTONIC")
        full = len(self.latencies) >= RUNS_MAX
        if len(self.latencies) < plan.runs_min or len(self.warmups) < plan.warmup_runs_min:
            asked = "%d timed and %d warm-up runs where at least %d and %d were asked for"
            runs = (len(self.latencies), len(self.warmups), plan.runs_min, plan.warmup_runs_min)
            raise self._fault(asked % runs)
        if window < plan.time_s_min * 1e9 and not full:
            raise self._fault(
                "it timed for %.3g s where at least %g s were asked for" % (window / 1e9, plan.time_s_min)
            )
        before = self.load_ns + self.first_ns
        if before + int(self.warmups.sum()) > warm:
            raise self._fault("load, first inference and warm-up are longer than the time before its window")
        if warm - before < plan.warmup_s_min * 1e9 and len(self.warmups) < RUNS_MAX:
            asked = "it warmed up for at most %.3g s where at least %g s were asked for"
            raise self._fault(asked % ((warm - before) / 1e9, plan.warmup_s_min))
        busy = int(self.latencies.sum())
        if busy > window:
            raise self._fault("its latencies come to %.4g s in a window of %.4g s" % (busy / 1e9, window / 1e9))
        if plan.period_ms is not None:
            self._check_period(window, int(plan.period_ms * 1e6))
        elif busy < BUSY_SHARE_MIN * window:
            told = "its latencies come to %.2g %% of its window, back to back; they are told in nanoseconds"
            raise self._fault(told % (100 * busy / window))

    def _check_period(self, window: int, period: int) -> None:
        runs = len(self.latencies)
        least, most = (runs - 1) * period, (runs + self.missed + 1) * period
        if not (1 - PERIOD_SLACK) * least <= window <= (1 + PERIOD_SLACK) * most:
            told = "%d runs and %d missed periods of %g ms do not fill its window of %.4g s"
            raise self._fault(told % (runs, self.missed, period / 1e6, window / 1e9))

    def _fault(self, what: str) -> RefusedError:
        return RefusedError("the times of %s can't be: %s" % (self._name, what))


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
    return folder.last_line(tail), peak


def _peak_of(max_rss: int) -> Optional[int]:
    """The peak of a process that ended, by the kernel's own count; None where that may be what it inherited of us."""
    inherited = conditions.vm_bytes("VmHWM")
    peak = max_rss * (1 if sys.platform == "darwin" else 1024)
    return peak if inherited is not None and peak > inherited + _RSS_MARGIN_BYTES else None


def _not_started(name: str, error: OSError) -> str:
    why = {
        "Exec format error": "it is not built for this board's processor",
        "No such file or directory": "its interpreter, or the loader that it was linked for, is not on the board",
        "Permission denied": "the state folder may lie on a file system that is mounted noexec",
    }
    text = error.strerror or type(error).__name__
    return "%s can't be started: %s%s" % (name, text, " (%s)" % why[text] if text in why else "")


def _ending(name: str, status: int, last: str) -> tuple[str, Optional[int]]:
    """What a status that is not 0 means, in one line, and the signal."""
    said = ": " + last if last else ""
    if status < 0:
        return "%s was killed by %s%s" % (name, folder.signal_name(-status), said), -status
    return "%s ended with status %d%s" % (name, status, said), None


def _answer(name: str, path: Path) -> dict[str, str]:
    """The lines `key value` of answer.txt."""
    if _size(name, path) > _ANSWER_BYTES_MAX:
        raise RefusedError("%s wrote more than %d bytes into %s" % (name, _ANSWER_BYTES_MAX, path.name))
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    return {key: value.strip() for key, _, value in (line.strip().partition(" ") for line in lines) if key}


def _whole(name: str, told: dict[str, str], key: str) -> int:
    value = told.get(key)
    if value is None:
        raise RefusedError("%s does not say %s in %s" % (name, key, _ANSWER))
    if not (value.isascii() and value.isdigit() and len(value) < wire.INTEGER_DIGITS_MAX):
        raise RefusedError("%s says %s %s in %s, which is no whole number" % (name, key, value[:40], _ANSWER))
    return int(value)


def _times(name: str, path: Path) -> Any:
    """Times in ns, int64. Raises RefusedError where they are cut short, too many, or no times."""
    size = _size(name, path)
    if size == 0 or size % 8 or size > 8 * RUNS_MAX:
        told = "%s wrote %d bytes into %s: 8 for each run are wanted, and at most %d runs"
        raise RefusedError(told % (name, size, path.name, RUNS_MAX))
    values = np.fromfile(path, "<i8").astype(np.int64)
    if values.min() < 0 or values.max() == 0 or values.max() > 1 << 62 or float(values.sum(dtype=np.float64)) > 1e18:
        raise RefusedError("%s wrote %s that holds no times in nanoseconds" % (name, path.name))
    return values


def _size(name: str, path: Path) -> int:
    """Bytes of a file that the program was to write: a real one, not a link to elsewhere."""
    if path.is_symlink() or not path.is_file():
        raise RefusedError("%s ended without writing %s" % (name, path.name))
    return path.stat().st_size


def _little_endian(values: Any) -> Any:
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<"))


def _calibrated_ns() -> int:
    """The calibration loop twice: this process has just slept, and its core may still be slow."""
    return min(conditions.calibration_ns(), conditions.calibration_ns())


def _monotonic_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
