"""Timing one inference after the other: what is inside an interval, how long to warm up, when there is enough.

Everything that an interval needs is bound before it, so that a latency holds the calls and nothing of the harness.
"""

from __future__ import annotations

import array
import gc
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional

from edgeloop_agent import conditions, wire

if TYPE_CHECKING:
    from edgeloop_agent.engines.interpreter import Engine
    from edgeloop_agent.samples import Sample

_TREND_EVERY_NS = 100_000_000
_TREND_LOOKS_AT = 4000
_TREND_HALF_MIN = 4  # with fewer, three standard errors are wider than a steady trend
_TREND_RELATIVE = 0.01
_STORE_RUNS = (65_536, 2_097_152)
_STORE_RUNS_A_SECOND = 50_000

Once = Callable[[int], "tuple[int, int]"]
"""Runs sample i and returns start and end of its timed interval, perf_counter_ns."""


def one_run(engine: Engine, held: list[Sample], timing: str) -> Once:
    """Return the function that times one inference: everything bound before, nothing in the interval but the calls."""
    setters = engine.setters()
    bound = [[(*setters[i], values) for i, values in enumerate(sample)] for sample in held]
    getters, invoke, now = engine.getters(), engine.invoker(), time.perf_counter_ns

    def invoke_only(index: int) -> tuple[int, int]:
        for put, tensor, values in bound[index]:
            put(tensor, values)
        start = now()
        invoke()
        return start, now()

    def copy_in_out(index: int) -> tuple[int, int]:
        inputs = bound[index]
        start = now()
        for put, tensor, values in inputs:
            put(tensor, values)
        invoke()
        results = [get(tensor) for get, tensor in getters]
        end = now()
        del results  # freeing them is not part of the interval
        return start, end

    return invoke_only if timing == "invoke" else copy_in_out


def store_for(plan: wire.SessionPlan) -> array.array[int]:
    """Return room for a session's latencies, touched. Made before the model is loaded, it is no part of its memory."""
    runs = int((plan.warmup_s_max + plan.time_s_min) * _STORE_RUNS_A_SECOND)
    return array.array("q", [0]) * min(max(runs, _STORE_RUNS[0]), _STORE_RUNS[1])


class Loop:
    """Runs one inference after the other, back to back or one each period, cycling through the samples.

    Latencies in ns go to `store` one after the other; it grows where it is full.
    """

    def __init__(self, once: Once, samples: int, period_ms: Optional[float], store: array.array[int]) -> None:
        self.store = store
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
        while True:
            if period is not None:
                self._wait(period)
            start, end = once(self._next)
            if count == len(store):
                store.extend(store)
            store[count] = end - start
            count += 1
            self._next = (self._next + 1) % samples
            if enough(count - first, end):
                self._count = count
                return slice(first, count)

    def _wait(self, period_ns: int) -> None:
        """Sleep until the next start; a run that took longer than its period moves the ones after it."""
        left = self._due_ns - time.perf_counter_ns()
        if left > 0:
            time.sleep(left / 1e9)
        else:
            self._due_ns -= left
        self._due_ns += period_ns


def settled(store: array.array[int], count: int) -> bool:
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


def _median(values: Any) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return float(ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2)


def _warm_enough(plan: wire.SessionPlan, start: int, store: array.array[int]) -> Callable[[int, int], bool]:
    floor = start + int(plan.warmup_s_min * 1e9)
    cap = start + int(plan.warmup_s_max * 1e9)
    asked = floor

    def enough(count: int, now: int) -> bool:
        nonlocal asked
        if count < plan.warmup_runs_min or now < floor:
            return False
        if now >= cap:
            return True
        if now < asked:
            return False
        asked = now + _TREND_EVERY_NS
        return settled(store, count)

    return enough


def heat(engine: Engine, held: list[Sample], plan: wire.SessionPlan, store: array.array[int]) -> NoReturn:
    """Run as a latency session runs, back to back or with its period, keep nothing, and never return."""
    once = one_run(engine, held, plan.timing)
    while True:
        Loop(once, len(held), plan.period_ms, store).run(lambda count, _now: count == len(store))


def time_latency(
    engine: Engine, held: list[Sample], plan: wire.SessionPlan, store: array.array[int], folder: Path
) -> dict[str, Any]:
    """First inference, warm-up, calibration, timed runs, calibration; arrays into warmup.npy and latency.npy."""
    from edgeloop_agent.engines.interpreter import RefusedError, one_line

    once = one_run(engine, held, plan.timing)
    try:
        start, end = once(0)
        first_ns = end - start
        loop = Loop(once, len(held), plan.period_ms, store)
        gc.collect()
        gc.disable()
        warmups = loop.run(_warm_enough(plan, time.perf_counter_ns(), store))
        before = conditions.calibration_ns()
        again = loop.run(lambda _count, _now: True)  # the calibration took the caches: one more warm-up
        opened = time.perf_counter_ns()
        floor = opened + int(plan.time_s_min * 1e9)
        latencies = loop.run(lambda count, now: now >= floor and count >= plan.runs_min)
        closed = time.perf_counter_ns()
        after = conditions.calibration_ns()
    except (ValueError, RuntimeError) as error:
        raise RefusedError("%s can't run the model: %s" % (engine.version, one_line(error))) from error
    finally:
        gc.enable()
    peak = conditions.vm_bytes("VmHWM")
    _save(folder / "warmup.npy", store[warmups.start : again.stop])
    _save(folder / "latency.npy", store[latencies])
    return {
        "first_ns": first_ns,
        "runs": latencies.stop - latencies.start,
        "warmups": again.stop - warmups.start,
        "calibration_ns": [before, after],
        "timed_window_monotonic_ns": [opened, closed],
        "peak_rss_bytes": peak,
    }


def _save(path: Path, values: array.array[int]) -> None:
    import numpy as np

    np.save(path, np.frombuffer(values, np.int64), allow_pickle=False)
