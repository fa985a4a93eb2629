"""Soaking: the model runs until the board's temperature is flat, so that sessions see the state it ends up in.

Flat: over a window, the slope of the hottest temperature (least squares) is within a bound, rising or falling.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Callable, Optional

from edgeloop_agent import wire
from edgeloop_agent.conditions import ConditionProbe

NOT_ASKED = {"asked": False, "passed": None, "took_s": 0.0, "detail": ""}
_READINGS_MIN = 5


class Flatness:
    """Temperatures over the last `window_s` seconds and their slope."""

    def __init__(self, window_s: float, slope_max_c_per_min: float) -> None:
        self._window_s = window_s
        self._slope_max = slope_max_c_per_min
        self._readings: deque[tuple[float, float]] = deque()

    def add(self, at_s: float, celsius: float) -> None:
        """Take a reading; times never go back."""
        self._readings.append((at_s, celsius))
        while len(self._readings) > 1 and at_s - self._readings[1][0] >= self._window_s:
            self._readings.popleft()

    def slope_c_per_min(self) -> Optional[float]:
        """Return the slope over the window in degrees a minute, None while the window is not full."""
        if len(self._readings) < _READINGS_MIN or self._readings[-1][0] - self._readings[0][0] < self._window_s:
            return None
        count = len(self._readings)
        mean_s = sum(at for at, _ in self._readings) / count
        mean_c = sum(celsius for _, celsius in self._readings) / count
        spread = sum((at - mean_s) ** 2 for at, _ in self._readings)
        return 60 * sum((at - mean_s) * (celsius - mean_c) for at, celsius in self._readings) / spread

    @property
    def is_flat(self) -> bool:
        slope = self.slope_c_per_min()
        return slope is not None and abs(slope) <= self._slope_max


def soak(
    board: ConditionProbe,
    limits: wire.Conditions,
    own: tuple[list[int], list[int]],
    load_ended: Callable[[], Optional[str]],
    pause: Callable[[str], None],
    now_s: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Watch a load that runs until the temperature is flat; return how that went.

    {asked, passed, took_s, start_c, end_c, slope_c_per_min, window_s, slope_max_c_per_min, end (a sample), detail}.
    `passed` is None where no temperature can be read. `load_ended` says why the load is no longer running, `pause`
    waits until the next look; its text says how far it is.
    """
    assert limits.soak_max_s is not None
    flatness = Flatness(limits.soak_window_s, limits.soak_slope_max_c_per_min)
    start = now_s()
    start_c = celsius = _hottest(board)
    is_flat: Optional[bool] = False
    while True:
        took_s = now_s() - start
        if celsius is None:
            is_flat, detail = None, "no temperature can be read, so nobody can tell when it is flat"
            break
        flatness.add(took_s, celsius)
        slope = flatness.slope_c_per_min()
        if flatness.is_flat:
            is_flat, detail = True, ""
            break
        reading = "%.1f C" % celsius if slope is None else "%.1f C, %+.2f C a minute" % (celsius, slope)
        if took_s >= limits.soak_max_s:
            detail = "not flat after %g s: %s over the last %g s" % (round(took_s), reading, limits.soak_window_s)
            break
        fault = load_ended()
        if fault is not None:
            detail = "the model that heats the board ended after %.0f s: %s" % (took_s, fault)
            break
        pause("soaking: %s" % reading)
        celsius = _hottest(board)
    return {
        "asked": True,
        "passed": is_flat,
        "took_s": round(took_s, 3),
        "start_c": start_c,
        "end_c": celsius,
        "slope_c_per_min": flatness.slope_c_per_min(),
        "window_s": limits.soak_window_s,
        "slope_max_c_per_min": limits.soak_slope_max_c_per_min,
        "end": board.sample(*own),
        "detail": detail,
    }


def _hottest(board: ConditionProbe) -> Optional[float]:
    return max(board.temperatures_c().values(), default=None)
