"""The answer of a user's own program, read and checked: sizes, counts and floors, and that its times can be.

What is not as the protocol says is the program's fault, and one line. docs/reference/exec.md has the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from edgeloop_agent import wire
from edgeloop_agent.errors import RefusedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

ANSWER_FILE = "answer.txt"
RUNS_MAX = 1 << 22
"""Timed runs, and warm-ups, that are read at most: 32 MiB each."""
BUSY_SHARE_MIN = 0.1
"""Of the window, back to back: times that were meant as microseconds fill a thousandth of it."""
PERIOD_SLACK = 0.05
"""The error that a program's own way of waiting may have, over all its periods together."""
_ANSWER_BYTES_MAX = 64 * 1024


@dataclass
class ProgramRun:
    """One run of the program that ended well. Times are CLOCK_MONOTONIC."""

    started_ns: int
    ended_ns: int
    peak_rss_bytes: Optional[int]
    answer: dict[str, str]
    """The lines of answer.txt."""


class ProgramTimes:
    """The answer to the task `time`."""

    def __init__(self, name: str, exchange: Path, run: ProgramRun, plan: wire.SessionPlan) -> None:
        self._name = name
        self._run = run
        self._plan = plan
        answer = run.answer
        self.load_ns = whole_number(name, answer, "load_ns")
        self.first_ns = whole_number(name, answer, "first_ns")
        self.opened_ns = whole_number(name, answer, "window_start_ns")
        self.closed_ns = whole_number(name, answer, "window_end_ns")
        self.missed_periods = 0 if plan.period_ms is None else whole_number(name, answer, "missed_periods")
        self.warmups = _times_in(name, exchange / "warmup.bin")
        self.latencies = _times_in(name, exchange / "latency.bin")

    def check(self) -> None:
        """Raise RefusedError for a floor that is not met, and for times that can't be."""
        plan, run = self._plan, self._run
        window, warm = self.closed_ns - self.opened_ns, self.opened_ns - run.started_ns
        if not run.started_ns <= self.opened_ns < self.closed_ns <= run.ended_ns:
            raise self._fault("its timed window is not within the time that it ran; it is told by CLOCK_MONOTONIC")
        full = len(self.latencies) >= RUNS_MAX
        if len(self.latencies) < plan.runs_min or len(self.warmups) < plan.warmup_runs_min:
            line = "%d timed and %d warm-up runs where at least %d and %d were asked for"
            runs = (len(self.latencies), len(self.warmups), plan.runs_min, plan.warmup_runs_min)
            raise self._fault(line % runs)
        if window < plan.time_s_min * 1e9 and not full:
            raise self._fault(
                "it timed for %.3g s where at least %g s were asked for" % (window / 1e9, plan.time_s_min)
            )
        before = self.load_ns + self.first_ns
        if before + int(self.warmups.sum()) > warm:
            raise self._fault("load, first inference and warm-up are longer than the time before its window")
        if warm - before < plan.warmup_s_min * 1e9 and len(self.warmups) < RUNS_MAX:
            line = "it warmed up for at most %.3g s where at least %g s were asked for"
            raise self._fault(line % ((warm - before) / 1e9, plan.warmup_s_min))
        busy = int(self.latencies.sum())
        if busy > window:
            raise self._fault("its latencies come to %.4g s in a window of %.4g s" % (busy / 1e9, window / 1e9))
        if plan.period_ms is not None:
            self._check_period(window, int(plan.period_ms * 1e6))
        elif busy < BUSY_SHARE_MIN * window:
            line = "its latencies come to %.2g %% of its window, back to back; they are told in nanoseconds"
            raise self._fault(line % (100 * busy / window))

    def _check_period(self, window: int, period: int) -> None:
        runs = len(self.latencies)
        least, most = (runs - 1) * period, (runs + self.missed_periods + 1) * period
        if not (1 - PERIOD_SLACK) * least <= window <= (1 + PERIOD_SLACK) * most:
            line = "%d runs and %d missed periods of %g ms do not fill its window of %.4g s"
            raise self._fault(line % (runs, self.missed_periods, period / 1e6, window / 1e9))

    def _fault(self, what: str) -> RefusedError:
        return RefusedError("the times of %s can't be: %s" % (self._name, what))


def read_answer(name: str, path: Path) -> dict[str, str]:
    """The lines `key value` of answer.txt."""
    if size_of(name, path) > _ANSWER_BYTES_MAX:
        raise RefusedError("%s wrote more than %d bytes into %s" % (name, _ANSWER_BYTES_MAX, path.name))
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    return {key: value.strip() for key, _, value in (line.strip().partition(" ") for line in lines) if key}


def whole_number(name: str, answer: dict[str, str], key: str) -> int:
    """The whole number of a line of an answer. Raises RefusedError where there is none."""
    value = answer.get(key)
    if value is None:
        raise RefusedError("%s does not say %s in %s" % (name, key, ANSWER_FILE))
    if not (value.isascii() and value.isdigit() and len(value) < wire.INTEGER_DIGITS_MAX):
        raise RefusedError("%s says %s %s in %s, which is no whole number" % (name, key, value[:40], ANSWER_FILE))
    return int(value)


def _times_in(name: str, path: Path) -> NDArray[Any]:
    """Times in ns, int64. Raises RefusedError where they are cut short, too many, or no times."""
    size = size_of(name, path)
    if size == 0 or size % 8 or size > 8 * RUNS_MAX:
        line = "%s wrote %d bytes into %s: 8 for each run are wanted, and at most %d runs"
        raise RefusedError(line % (name, size, path.name, RUNS_MAX))
    values = np.fromfile(path, "<i8").astype(np.int64)
    if values.min() < 0 or values.max() == 0 or values.max() > 1 << 62 or float(values.sum(dtype=np.float64)) > 1e18:
        raise RefusedError("%s wrote %s that holds no times in nanoseconds" % (name, path.name))
    return values


def size_of(name: str, path: Path) -> int:
    """Bytes of a file that the program was to write: a real one, not a link to elsewhere."""
    if path.is_symlink() or not path.is_file():
        raise RefusedError("%s ended without writing %s" % (name, path.name))
    return path.stat().st_size
