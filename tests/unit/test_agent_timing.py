"""A duty cycle keeps its periods, and says which it could not keep. The clock is faked."""

from __future__ import annotations

import array

import pytest

from edgeloop_agent import timing

PERIOD_NS = 1_000_000


class Clock:
    """Time passes only where somebody sleeps or a run takes it."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.slept_ns: list[int] = []

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept_ns.append(round(seconds * 1e9))
        self.now_ns += round(seconds * 1e9)


def cycle(monkeypatch: pytest.MonkeyPatch, took_ns: list[int]) -> tuple[timing.Loop, Clock, list[int]]:
    """Run once for each duration; return loop, clock and the times at which the runs began."""
    clock, began = Clock(), []
    monkeypatch.setattr(timing, "time", clock)

    def once(_sample: int) -> tuple[int, int]:
        start = clock.now_ns
        began.append(start)
        clock.now_ns += took_ns[len(began) - 1]
        return start, clock.now_ns

    loop = timing.Loop(once, 1, PERIOD_NS / 1e6, array.array("q", [0]) * 8)
    loop.run(lambda count, _now: count == len(took_ns))
    return loop, clock, began


def test_runs_shorter_than_the_period_start_on_it_and_sleep_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, clock, began = cycle(monkeypatch, [200_000] * 4)
    assert began == [0, PERIOD_NS, 2 * PERIOD_NS, 3 * PERIOD_NS]
    assert clock.slept_ns == [800_000] * 3
    assert loop.missed_periods == 0


@pytest.mark.parametrize(("took", "missed"), [(1.5, 1), (1.999, 1), (2.5, 2), (0.999, 0)])
def test_every_start_that_a_long_run_overran_is_counted(
    monkeypatch: pytest.MonkeyPatch, took: float, missed: int
) -> None:
    loop, _, _ = cycle(monkeypatch, [100_000, int(took * PERIOD_NS), 100_000])
    assert loop.missed_periods == missed


def test_a_late_run_starts_at_once_and_moves_the_ones_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, began = cycle(monkeypatch, [100_000, 1_700_000, 100_000, 100_000])
    assert began == [0, PERIOD_NS, 2_700_000, 3_700_000]
