"""Timing one inference after the other: how long to warm up, when there is enough, and what it costs to time."""

from __future__ import annotations

import array
import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, NoReturn, Optional

from edgeloop_agent import conditions, wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop_agent.intervals import Once, TimedCalls

_TREND_EVERY_NS = 100_000_000
_TREND_LOOKS_AT = 4000
_TREND_HALF_MIN = 4  # with fewer, three standard errors are wider than a steady trend
_TREND_RELATIVE = 0.01
_STORE_RUNS = (65_536, 2_097_152)
_STORE_RUNS_A_SECOND = 50_000
_IDLE_RUNS = 1000


def store_for(plan: wire.SessionPlan) -> array.array[int]:
    """Return room for a session's latencies, touched. Made before the model is loaded, it is no part of its memory."""
    runs = int((plan.warmup_s_max + plan.time_s_min) * _STORE_RUNS_A_SECOND)
    return array.array("q", [0]) * min(max(runs, _STORE_RUNS[0]), _STORE_RUNS[1])


class Loop:
    """Runs one inference after the other, back to back or one each period, cycling through the samples.

    Latencies in ns go to `store` one after the other; it grows where it is full. `missed_periods` counts the starts
    that were due while the run before was still going on.
    """

    def __init__(self, once: Once, samples: int, period_ms: Optional[float], store: array.array[int]) -> None:
        self.store = store
        self.missed_periods = 0
        self._count = 0
        self._once = once
        self._samples = samples
        self._period_ns = None if period_ms is None else int(period_ms * 1e6)
        self._next = 0
        self._due_ns = time.perf_counter_ns()

    def run(self, enough: Callable[[int, int], bool]) -> slice:
        """Run until `enough(runs, now_ns)`, asked after each run; return where in the store the latencies are."""
        store = self.store
        first = count = self._count
        once, samples, period = self._once, self._samples, self._period_ns
        self._due_ns = max(self._due_ns, time.perf_counter_ns())  # what came between two calls was no run of ours
        while True:
            if period is not None:
                self._wait(period, first=count == first)
            start, end = once(self._next)
            if count == len(store):
                store.extend(store)
            store[count] = end - start
            count += 1
            self._next = (self._next + 1) % samples
            if enough(count - first, end):
                self._count = count
                return slice(first, count)

    def come_due(self) -> None:
        """Sleep until the next run is due, without running it: the end of a whole period."""
        left_ns = self._due_ns - time.perf_counter_ns()
        if self._period_ns is not None and left_ns > 0:
            time.sleep(left_ns / 1e9)

    def _wait(self, period_ns: int, first: bool) -> None:
        """Sleep until the next start; a run that took longer than its period moves the ones after it."""
        left_ns = self._due_ns - time.perf_counter_ns()
        if left_ns > 0:
            time.sleep(left_ns / 1e9)
        else:
            self.missed_periods += 0 if first else 1 + -left_ns // period_ns
            self._due_ns -= left_ns
        self._due_ns += period_ns


def has_settled(store: array.array[int], count: int) -> bool:
    """True where the last third of the warm-up shows no trend: its two halves have the same median.

    The same: within 1 %, or within three standard errors of a difference of medians. The noise comes from the steps
    between neighbours, which a trend hardly moves.
    """
    third = count // 3
    stride = max(1, third // _TREND_LOOKS_AT)
    last = store[count - third : count : stride]
    half = len(last) // 2
    if half < _TREND_HALF_MIN:
        return False
    early, late = _median(last[:half]), _median(last[half:])
    middle = _median(last)
    steps = _median([abs(last[i] - last[i - 1]) for i in range(1, len(last))])
    deviation = 1.4826 * steps / 2**0.5  # of a step, whose variance is twice that of a value
    error = float(1.2533 * deviation * (2 / half) ** 0.5)
    return abs(early - late) <= max(_TREND_RELATIVE * middle, 3 * error)


def _median(values: Iterable[int]) -> float:
    in_order = sorted(values)
    middle = len(in_order) // 2
    return float(in_order[middle] if len(in_order) % 2 else (in_order[middle - 1] + in_order[middle]) / 2)


def warm_enough(plan: wire.SessionPlan, start: int, store: array.array[int]) -> Callable[[int, int], bool]:
    """Return the end of a warm-up: its floors, then no trend any more, at most its cap."""
    floor = start + int(plan.warmup_s_min * 1e9)
    cap = start + int(plan.warmup_s_max * 1e9)
    next_look = floor

    def enough(count: int, now: int) -> bool:
        nonlocal next_look
        if count < plan.warmup_runs_min or now < floor:
            return False
        if now >= cap:
            return True
        if now < next_look:
            return False
        next_look = now + _TREND_EVERY_NS
        return has_settled(store, count)

    return enough


def heat(calls: TimedCalls, plan: wire.SessionPlan, store: array.array[int]) -> NoReturn:
    """Run as a latency session runs, back to back or with its period, keep nothing, and never return."""
    while True:
        if calls.stages is not None:
            calls.stages.runs = 0
        Loop(calls.once, calls.samples, plan.period_ms, store).run(lambda count, _now: count == len(store))


def time_latency(calls: TimedCalls, plan: wire.SessionPlan, store: array.array[int], folder: Path) -> dict[str, Any]:
    """First inference, warm-up, calibration, timed runs, calibration; arrays into warmup.npy and latency.npy.

    Garbage is not collected meanwhile, unless the user's pipeline is timed: then it is, as in the
    user's own program.
    """
    start, end = calls.once(0)
    overhead_ns = _overhead_ns(calls)
    stages_before = 0 if calls.stages is None else calls.stages.runs
    loop = Loop(calls.once, calls.samples, plan.period_ms, store)
    gc.collect()
    if calls.stages is None:
        gc.disable()
    try:
        warmups = loop.run(warm_enough(plan, time.perf_counter_ns(), store))
        before = conditions.calibration_ns()
        again = loop.run(lambda _count, _now: True)  # the calibration took the caches: one more warm-up
        loop.missed_periods = 0
        opened_ns = time.perf_counter_ns()
        floor = opened_ns + int(plan.time_s_min * 1e9)
        latencies = loop.run(lambda count, now: now >= floor and count >= plan.runs_min)
        closed_ns = time.perf_counter_ns()
        after = conditions.calibration_ns()
    finally:
        gc.enable()
    peak = conditions.vm_bytes("VmHWM")
    save(folder / "warmup.npy", store[warmups.start : again.stop])
    save(folder / "latency.npy", store[latencies])
    if calls.stages is not None:
        table = calls.stages.table(stages_before + latencies.start, stages_before + latencies.stop)
        _save_table(folder / "stages.npy", table)
    return {
        "first_ns": end - start,
        "overhead_ns": overhead_ns,
        "runs": latencies.stop - latencies.start,
        "warmups": again.stop - warmups.start,
        "missed_periods": loop.missed_periods,
        "stages": [] if calls.stages is None else list(wire.STAGES),
        "calibration_ns": [before, after],
        "timed_window_monotonic_ns": [opened_ns, closed_ns],
        "peak_rss_bytes": peak,
    }


def _overhead_ns(calls: TimedCalls) -> int:
    """Median of the interval around calls that do nothing. An upper bound: even a call that does nothing takes time."""
    loop = Loop(calls.idle, calls.samples, None, array.array("q", [0]) * _IDLE_RUNS)
    return int(_median(loop.store[loop.run(lambda count, _now: count >= _IDLE_RUNS)]))


def save(path: Path, values: array.array[int]) -> None:
    """Write times in ns as an .npy of int64."""
    import numpy as np

    _save_table(path, np.frombuffer(values, np.int64))


def _save_table(path: Path, values: NDArray[Any]) -> None:
    import numpy as np

    np.save(path, values, allow_pickle=False)
