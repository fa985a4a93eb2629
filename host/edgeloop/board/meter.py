"""A power meter that a command on this host reads: its lines, stamped, until it is closed.

Each line is `WATTS` or `SECONDS WATTS`; an empty one, or one that begins with `#`, says nothing. With SECONDS, a clock
of the meter's own that only goes forward, readings may arrive late and in bursts: the earliest arrival places that
clock on this host's. A command that ends, falls silent, or prints anything else is named in one line, and nothing is
measured on with it.
"""

from __future__ import annotations

import array
import contextlib
import math
import os
import selectors
import signal
import subprocess
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgeloop.board.link import last_line, shell_line
from edgeloop.core.board import PowerMeterSpec
from edgeloop.core.check import printable
from edgeloop.errors import LabError

LINE_BYTES_MAX = 1024
SILENT_S_MAX = 10.0
READINGS_A_SECOND_MAX = 20_000
READINGS_MAX = 4_000_000
"""Kept at most; the oldest go. 24 bytes each."""
WATTS_MAX = 1e5
PLACED_BY_S = 30.0
"""Readings so long before and after a time say where it is on a clock of the meter's own."""
_CHUNK = 1 << 16
_END_WAIT_S = 2.0
_STDERR_BYTES = 4096
_POLL_S = 0.2


class CommandMeter:
    """ports.PowerMeter by a child process in a group of its own."""

    def __init__(self, spec: PowerMeterSpec, now_s: Callable[[], float] = time.monotonic) -> None:
        self._command = list(spec.command)
        self._name = f"power meter `{printable(shell_line(self._command))}`"
        self._now_s = now_s
        self._lock = threading.Condition()
        self._arrival_s: array.array[float] = array.array("d")
        self._own: array.array[float] = array.array("d")
        self._watts: array.array[float] = array.array("d")
        self._has_own_clock: bool | None = None
        self._heard_s = 0.0
        self._second: tuple[int, int] = (0, 0)
        self._fault: str | None = None
        self._closing = False
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the command and wait for its first reading. Raises LabError."""
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise LabError(
                f"{self._name} can't be started: {error.strerror}", next_step="correct power_meter.command"
            ) from error
        self._heard_s = self._now_s()
        self._thread = threading.Thread(target=self._listen, args=(self._process,), name="power-meter", daemon=True)
        self._thread.start()
        with self._lock:
            while not self._watts and self._fault is None:
                if not self._lock.wait(_POLL_S):
                    self._check_silence()
            if self._fault is None:
                return
        self.close()
        self.check()

    def check(self) -> None:
        """Raise LabError where the meter ended, fell silent or printed what is no reading."""
        with self._lock:
            self._check_silence()
            if self._fault is not None:
                raise LabError(f"{self._name} {self._fault}", next_step="run it by hand and see what it prints")

    def readings(self, since_s: float = -math.inf, until_s: float = math.inf) -> NDArray[np.float64]:
        """(2, n): seconds of this host's clock, and watts, with one before and one after the times where there are.

        A clock of the meter's own is placed by the readings around those times only: it may drift over a long job.
        """
        with self._lock:
            first = bisect_left(self._arrival_s, since_s - PLACED_BY_S)
            last = bisect_right(self._arrival_s, until_s + PLACED_BY_S)
            arrival_s, watts = np.array(self._arrival_s[first:last]), np.array(self._watts[first:last])
            own = np.array(self._own[first:last]) if self._has_own_clock else arrival_s
        seconds = own + (arrival_s - own).min() if self._has_own_clock and len(own) else arrival_s
        first = max(0, int(np.searchsorted(seconds, since_s)) - 1)
        last = int(np.searchsorted(seconds, until_s, side="right")) + 1
        return np.stack([seconds[first:last], watts[first:last]])

    def wait_until(self, time_s: float, longest_s: float) -> None:
        """Wait until a reading is as late as `time_s`, at most so long. Raises as `check`."""
        end_s = self._now_s() + longest_s
        while self._now_s() < end_s:
            self.check()
            if (self.readings(time_s)[0] >= time_s).any():
                return
            with self._lock:
                self._lock.wait(_POLL_S)

    def close(self) -> None:
        """End the command and everything it started. Safe to call twice."""
        self._closing = True
        process, self._process = self._process, None
        if process is None:
            return
        for number, wait_s in ((signal.SIGTERM, _END_WAIT_S), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)
        if self._thread is not None:
            self._thread.join(_END_WAIT_S)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    # the listening thread

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        line, words = b"", b""
        with selectors.DefaultSelector() as selector, contextlib.suppress(OSError, ValueError):
            selector.register(process.stdout, selectors.EVENT_READ)
            selector.register(process.stderr, selectors.EVENT_READ)
            while selector.get_map() and self._fault is None and not self._closing:
                for key, _ in selector.select(_POLL_S):
                    data = os.read(key.fd, _CHUNK)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stderr:
                        words = (words + data)[-_STDERR_BYTES:]
                    else:
                        line = self._take(line + data)
                if process.stdout not in [key.fileobj for key in selector.get_map().values()]:
                    break
        self._report_end(process, words)

    def _report_end(self, process: subprocess.Popen[bytes], words: bytes) -> None:
        if self._fault is not None or self._closing:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_WAIT_S)
        status, last = process.returncode, last_line(words)
        how = "closed its output" if status is None else _ending(status)
        self._fail(how + (f": {last}" if last else ""))

    def _take(self, data: bytes) -> bytes:
        """Take whole lines, all with one time of arrival; return what is left of the last."""
        now_s = self._now_s()
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._fault is None:
                self._line(line, now_s)
        if len(rest) > LINE_BYTES_MAX:
            self._fail(f"printed a line of more than {LINE_BYTES_MAX} bytes")
            return b""
        return rest

    def _line(self, line: bytes, now_s: float) -> None:
        text = line.decode("utf-8", "replace").strip()
        if len(line) > LINE_BYTES_MAX:
            self._fail(f"printed a line of {len(line)} bytes")
            return
        if not text or text.startswith("#"):
            return
        numbers = _numbers(text)
        if numbers is None:
            self._fail(f"printed {printable(text)[:60]!r} where WATTS or SECONDS WATTS is wanted")
            return
        *own, watts = numbers
        with self._lock:
            has_clock = bool(own)
            if self._has_own_clock not in (None, has_clock):
                self._set_fault("printed lines with and without SECONDS")
            elif abs(watts) > WATTS_MAX:
                self._set_fault(f"printed {watts:g} W, more than {WATTS_MAX:g}")
            elif has_clock and self._own and own[0] < self._own[-1]:
                self._set_fault(f"went back in time, from {self._own[-1]:.6f} s to {own[0]:.6f} s")
            elif self._too_fast(now_s):
                self._set_fault(f"printed more than {READINGS_A_SECOND_MAX:,} readings in a second")
            else:
                self._has_own_clock = has_clock
                self._keep(now_s, own, watts)
            self._lock.notify_all()

    def _keep(self, now_s: float, own: list[float], watts: float) -> None:
        self._heard_s = now_s
        self._arrival_s.append(now_s)
        self._own.extend(own)
        self._watts.append(watts)
        if len(self._watts) > READINGS_MAX:
            for column in (self._arrival_s, self._own, self._watts):
                del column[: READINGS_MAX // 4]

    def _too_fast(self, now_s: float) -> bool:
        second, count = self._second
        self._second = (int(now_s), count + 1 if int(now_s) == second else 1)
        return self._second[1] > READINGS_A_SECOND_MAX

    def _fail(self, fault: str) -> None:
        with self._lock:
            self._set_fault(fault)
            self._lock.notify_all()

    def _set_fault(self, fault: str) -> None:
        self._fault = self._fault or fault

    def _check_silence(self) -> None:
        silent_s = self._now_s() - self._heard_s
        if self._fault is None and silent_s > SILENT_S_MAX:
            self._set_fault(f"printed nothing for {silent_s:.0f} s")


def open_meter(spec: PowerMeterSpec) -> CommandMeter:
    """The meter of a board's file, not started yet."""
    return CommandMeter(spec)


def _numbers(text: str) -> list[float] | None:
    """One or two finite numbers, or None."""
    words: list[Any] = text.split()
    if len(words) not in (1, 2):
        return None
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
