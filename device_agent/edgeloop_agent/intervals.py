"""The inside of a timed interval: the engine's call, that with its copies, or the user's whole pipeline.

Everything that an interval needs is bound before it, so that a latency holds the calls and nothing of the harness.
"""

from __future__ import annotations

import array
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional

from edgeloop_agent import wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgeloop_agent.loaded_model import LoadedModel
    from edgeloop_agent.pipeline import StagedPipeline
    from edgeloop_agent.samples import Encoded, Sample

_STAGES = len(wire.STAGES)
_STAGED_RUNS_A_SECOND = 10_000  # a pipeline in Python is slower than a bare network
_STAGED_RUNS_MAX = 262_144

Once = Callable[[int], "tuple[int, int]"]
"""Runs sample i and returns start and end of its timed interval, perf_counter_ns."""


class Stages:
    """Times in ns of each stage of each run, one run after the other; it grows where it is full."""

    def __init__(self, plan: wire.SessionPlan) -> None:
        runs = int((plan.warmup_s_max + plan.time_s_min) * _STAGED_RUNS_A_SECOND)
        self.store = array.array("q", [0]) * (_STAGES * min(max(runs, 1), _STAGED_RUNS_MAX))
        self.runs = 0

    def keep(self, *marks: int) -> None:
        """Keep a run by the clock's readings before, between and after its stages."""
        at = self.runs * _STAGES
        if at == len(self.store):
            self.store.extend(self.store)
        for stage in range(_STAGES):
            self.store[at + stage] = marks[stage + 1] - marks[stage]
        self.runs += 1

    def table(self, first: int, last: int) -> NDArray[Any]:
        """(stages, runs) of the runs from `first` up to `last`."""
        import numpy as np

        rows = np.frombuffer(self.store, np.int64).reshape(-1, _STAGES)[first:last]
        return np.ascontiguousarray(rows.T)


@dataclass
class TimedCalls:
    """The calls that are timed, and the same around calls that do nothing: the time of these is the agent's own."""

    once: Once
    idle: Once
    samples: int
    """The number to cycle through."""
    stages: Optional[Stages] = None


def of_model(model: LoadedModel, samples: list[Sample], boundary: str) -> TimedCalls:
    """Time the network: `invoke`, or `copy_in_out`."""
    setters, getters = model.setters(), model.getters()
    bind = _invoke_only if boundary == "invoke" else _copy_in_out
    no_setters = [(_nothing_of_two, number) for _, number in setters]
    no_getters = [(_nothing_of_one, number) for _, number in getters]
    once = bind(samples, setters, model.invoker(), getters)
    idle = bind(samples, no_setters, _nothing, no_getters)
    return TimedCalls(once, idle, len(samples))


def of_pipeline(
    pipeline: StagedPipeline, model: LoadedModel, samples: list[Encoded], plan: wire.SessionPlan
) -> TimedCalls:
    """Time the user's pipeline from the encoded sample to the result, each stage too."""
    copy_in, copy_out = pipeline.bind(model)
    stages = Stages(plan)
    once = _end_to_end(
        samples, stages, pipeline.load, pipeline.preprocess, copy_in, model.invoker(), copy_out, pipeline.postprocess
    )
    take = _nothing_of_one
    idle = _end_to_end(samples, stages, take, take, take, _nothing, _nothing, take)
    return TimedCalls(once, idle, len(samples), stages)


def _invoke_only(samples: list[Sample], setters: list[Any], invoke: Callable[[], Any], _getters: list[Any]) -> Once:
    calls = [[(*setters[i], values) for i, values in enumerate(sample)] for sample in samples]
    now = time.perf_counter_ns

    def once(index: int) -> tuple[int, int]:
        for set_input, tensor, values in calls[index]:
            set_input(tensor, values)
        start = now()
        invoke()
        return start, now()

    return once


def _copy_in_out(samples: list[Sample], setters: list[Any], invoke: Callable[[], Any], getters: list[Any]) -> Once:
    calls = [[(*setters[i], values) for i, values in enumerate(sample)] for sample in samples]
    now = time.perf_counter_ns

    def once(index: int) -> tuple[int, int]:
        inputs = calls[index]
        start = now()
        for set_input, tensor, values in inputs:
            set_input(tensor, values)
        invoke()
        results = [get(tensor) for get, tensor in getters]
        end = now()
        del results  # freeing them is not part of the interval
        return start, end

    return once


def _end_to_end(
    samples: list[Encoded],
    stages: Stages,
    load: Callable[[Any], Any],
    preprocess: Callable[[Any], Any],
    copy_in: Callable[[Any], Any],
    invoke: Callable[[], Any],
    copy_out: Callable[[], Any],
    postprocess: Callable[[Any], Any],
) -> Once:
    now, keep = time.perf_counter_ns, stages.keep

    def once(index: int) -> tuple[int, int]:
        sample = samples[index]
        start = now()
        content = load(sample)
        after_load = now()
        inputs = preprocess(content)
        after_preprocess = now()
        copy_in(inputs)
        after_copy_in = now()
        invoke()
        after_invoke = now()
        outputs = copy_out()
        after_copy_out = now()
        result = postprocess(outputs)
        end = now()
        keep(start, after_load, after_preprocess, after_copy_in, after_invoke, after_copy_out, end)
        del content, inputs, outputs, result  # freeing them is not part of the interval
        return start, end

    return once


def _nothing() -> None:
    pass


def _nothing_of_one(_value: Any) -> None:
    pass


def _nothing_of_two(_first: Any, _second: Any) -> None:
    pass
