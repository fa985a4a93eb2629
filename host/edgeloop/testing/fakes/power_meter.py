"""A power meter whose time is a FakeClock's: it reads what a function of the time says, a hundred times a second."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from edgeloop.errors import LabError
from edgeloop.testing.fakes.clock import FakeClock


class FakePowerMeter:
    """ports.PowerMeter. Waiting moves the clock; `ends_after_s` is the time after which its source is gone."""

    def __init__(
        self,
        clock: FakeClock,
        watts: Callable[[float], float] = lambda _time_s: 2.5,
        *,
        interval_s: float = 0.01,
        ends_after_s: float | None = None,
    ) -> None:
        self._clock = clock
        self._watts = watts
        self._interval_s = interval_s
        self._ends_after_s = ends_after_s
        self._start_s: float | None = None

    def start(self) -> None:
        self._start_s = self._clock.monotonic_s()

    def check(self) -> None:
        if self._ends_after_s is not None and self._running_s() > self._ends_after_s:
            raise LabError("the fake meter ended")

    def wait_until(self, time_s: float, longest_s: float) -> None:
        end_s = self._clock.monotonic_s() + longest_s
        while self._clock.monotonic_s() < end_s:
            self.check()
            if self._clock.monotonic_s() >= time_s + self._interval_s:
                return
            self._clock.advance(self._interval_s)

    def readings(self, since_s: float, until_s: float) -> NDArray[np.float64]:
        first_s = self._clock.monotonic_s() - self._running_s()
        seconds = first_s + self._interval_s * np.arange(int(self._running_s() / self._interval_s) + 1)
        first = max(0, int(np.searchsorted(seconds, since_s)) - 1)
        last = int(np.searchsorted(seconds, until_s, side="right")) + 1
        seconds = seconds[first:last]
        return np.stack([seconds, np.array([self._watts(time_s) for time_s in seconds], np.float64)])

    def close(self) -> None:
        self._start_s = None

    def _running_s(self) -> float:
        if self._start_s is None:
            raise LabError("the fake meter was not started")
        return self._clock.monotonic_s() - self._start_s
