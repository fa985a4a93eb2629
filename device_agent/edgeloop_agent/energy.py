"""An energy session: two windows, one idle and one active, whose power is measured by somebody else.

The process is there in both, model loaded and warm; in the idle window it sleeps, in the active one it infers, once
every period or back to back. Before and after each window it does the same as within, so that a meter that lags a
little, or a clock that is a little off, sees nothing else.
"""

from __future__ import annotations

import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from edgeloop_agent import conditions, timing, wire

if TYPE_CHECKING:
    import array

    from edgeloop_agent.intervals import TimedCalls

Enough = Callable[[int, int], bool]
"""(runs, now in ns) -> whether the runs are enough."""
LEAD_S = 0.5
"""The same state before a window: a sensor may report an average over the time before its reading."""
TAIL_S = 0.2
"""And after it: where board and meter have different clocks, the window may lie a little later than thought."""


def measure_windows(calls: TimedCalls, plan: wire.SessionPlan, store: array.array[int], folder: Path) -> dict[str, Any]:
    """First inference, warm-up, idle window, active window; latencies of the active one into latency.npy."""
    start, end = calls.once(0)
    loop = timing.Loop(calls.once, calls.samples, plan.period_ms, store)
    gc.collect()
    if calls.stages is None:
        gc.disable()
    try:
        warmups = loop.run(timing.warm_enough(plan, time.perf_counter_ns(), store))
        time.sleep(LEAD_S)
        idle_opened = _monotonic_ns()
        time.sleep(plan.energy_window_s)
        idle_closed = _monotonic_ns()
        time.sleep(TAIL_S)
        loop.run(_for_s(LEAD_S))
        loop.come_due()
        loop.missed_periods = 0
        opened_ns = _monotonic_ns()
        latencies = loop.run(_window(plan, opened_ns))
        loop.come_due()  # the last period is a whole one: its idle part belongs to it
        closed_ns, missed_periods = _monotonic_ns(), loop.missed_periods
        loop.run(_for_s(TAIL_S))
    finally:
        gc.enable()
    peak = conditions.vm_bytes("VmHWM")
    timing.save(folder / "warmup.npy", store[warmups])
    timing.save(folder / "latency.npy", store[latencies])
    return {
        "first_ns": end - start,
        "runs": latencies.stop - latencies.start,
        "warmups": warmups.stop - warmups.start,
        "missed_periods": missed_periods,
        "timed_window_monotonic_ns": [opened_ns, closed_ns],
        "idle_window_monotonic_ns": [idle_opened, idle_closed],
        "peak_rss_bytes": peak,
    }


def _window(plan: wire.SessionPlan, opened_ns: int) -> Enough:
    """Whole periods that fill the window; back to back, inferences until it is over."""
    if plan.period_ms is None:
        end_ns = opened_ns + int(plan.energy_window_s * 1e9)
        return lambda _count, _now: _monotonic_ns() >= end_ns
    periods = max(1, round(plan.energy_window_s * 1000 / plan.period_ms))
    return lambda count, _now: count >= periods


def _for_s(seconds: float) -> Enough:
    end_ns = time.perf_counter_ns() + int(seconds * 1e9)
    return lambda _count, now: now >= end_ns


def _monotonic_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
