"""The pass of its own: where memory goes, and the time of each operator. It says nothing of the timed sessions.

The host cut the model into parts, each a small model of one operator (or of two that a runtime may take for one). They
run here one after the other, each on what those before it gave: kernels see the values that they see in the whole.
"""

from __future__ import annotations

import array
import gc
import json
import time
import zipfile
from pathlib import Path
from typing import Any, Callable

import numpy as np

from edgeloop_agent import conditions, memory
from edgeloop_agent.engines import load_engine
from edgeloop_agent.engines.interpreter import Engine, RefusedError, one_line
from edgeloop_agent.samples import Sample

PARTS_FILE = "parts.json"
ROUNDS = 3
_POLLED_RUNS = 200
_POLLED_S = 1.0
_WARM_RUNS = 5
_WARM_NS = 5_000_000
_RUNS = (10, 20_000)  # of a part in a round, at least and at most
_PART_NS = 30_000_000
_WHOLE_NS = 200_000_000


def profile(
    engine: Engine, model: str, parts: str, threads: int, sample: Sample, phases: memory.Phases, folder: Path
) -> dict[str, Any]:
    """Return what SessionRecord.profile holds; every single time into operators.npy. Raises RefusedError."""
    try:
        with zipfile.ZipFile(parts) as archive:
            told = json.loads(archive.read(PARTS_FILE))
            seen = _memory(engine, model, told, sample, phases)
            times, runs, equal = _rounds(engine, archive, told, threads, sample)
    except (zipfile.BadZipFile, OSError, KeyError) as error:
        raise RefusedError("the model's parts can't be read: %s" % error) from error
    np.save(folder / "operators.npy", np.frombuffer(times, np.int64), allow_pickle=False)
    return {"runs": runs, "outputs_equal": equal, "memory": seen}


def _memory(engine: Engine, model: str, told: dict[str, Any], sample: Sample, phases: memory.Phases) -> dict[str, Any]:
    invoke = engine.invoker()
    _put(engine, sample)
    _run(engine, invoke, "the model")
    phases.end("first")
    read: list[int] = []
    end = time.monotonic() + _POLLED_S
    while len(read) < _POLLED_RUNS and time.monotonic() < end:
        _run(engine, invoke, "the model")
        now = conditions.vm_bytes("VmRSS")
        if now is None:
            break
        read.append(now)
    phases.end("runs")
    mapped, resident = memory.mapped_bytes(model)
    activation, note = memory.activations(engine, int(told["tensors"]), told["activations"])
    return {
        "phases": phases.told,
        "polled": len(read),
        "rss_min_bytes": min(read, default=None),
        "rss_max_bytes": max(read, default=None),
        "model_mapped_bytes": mapped,
        "model_resident_bytes": resident,
        "activation_bytes": activation,
        "activation_note": note,
    }


def _rounds(
    engine: Engine, archive: zipfile.ZipFile, told: dict[str, Any], threads: int, sample: Sample
) -> tuple[array.array[int], list[list[int]], bool]:
    """Time the whole and then each part, ROUNDS times over: a drift of the board falls on all of them alike."""
    times = array.array("q")
    runs = []
    for _ in range(ROUNDS):
        values = dict(zip(told["inputs"], sample))  # noqa: B905 -- Python 3.9; their number was checked
        counts = [_timed(engine, engine.invoker(), _WHOLE_NS, times, "the model")]
        for part in told["parts"]:
            name = "part %s" % part["file"]
            own = load_engine(engine.name)
            own.load_content(archive.read(part["file"]), threads)
            _put(own, [values[tensor] for tensor in part["reads"]])
            counts.append(_timed(own, own.invoker(), _PART_NS, times, name))
            for number, (get, index) in enumerate(own.getters()):
                values[part["writes"][number]] = get(index)
            del own
        runs.append(counts)
    outputs = [get(index) for get, index in engine.getters()]
    equal = all(np.array_equal(output, values[told["outputs"][i]]) for i, output in enumerate(outputs))
    return times, runs, equal


def _put(engine: Engine, arrays: list[Any]) -> None:
    for values, (put, index) in zip(arrays, engine.setters()):  # noqa: B905 -- Python 3.9
        try:
            put(index, values)
        except ValueError as error:
            raise RefusedError("an operator changes the shape of what it gives: %s" % one_line(error)) from error


def _run(engine: Engine, invoke: Callable[[], None], what: str) -> None:
    try:
        invoke()
    except (ValueError, RuntimeError) as error:
        raise RefusedError("%s can't run %s: %s" % (engine.version, what, one_line(error))) from error


def _timed(engine: Engine, invoke: Callable[[], None], ns: int, times: array.array[int], what: str) -> int:
    """Warm up, then time single runs into `times`; return how many."""
    now = time.perf_counter_ns
    start = now()
    warm = 0
    while warm < _WARM_RUNS or now() - start < _WARM_NS:
        _run(engine, invoke, what)
        warm += 1
    gc.disable()
    try:
        first, count = now(), 0
        while count < _RUNS[0] or (now() - first < ns and count < _RUNS[1]):
            start = now()
            invoke()
            times.append(now() - start)
            count += 1
    finally:
        gc.enable()
    return count
