"""A clock that moves only when it is told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_START = datetime(2025, 1, 1, tzinfo=UTC)


class FakeClock:
    """Starts at 1 January 2025, 00:00 UTC, with an arbitrary monotonic time."""

    def __init__(self, monotonic_s: float = 1000.0) -> None:
        self._started_s = monotonic_s
        self._now_s = monotonic_s

    def advance(self, seconds: float) -> None:
        """Raises ValueError for a step back: a monotonic clock makes none."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock does not go back by {-seconds:g} s")
        self._now_s += seconds

    def monotonic_s(self) -> float:
        return self._now_s

    def utc(self) -> str:
        now = _START + timedelta(seconds=self._now_s - self._started_s)
        return now.strftime("%Y-%m-%dT%H:%M:%SZ")
