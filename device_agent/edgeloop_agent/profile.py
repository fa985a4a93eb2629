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
from edgeloop_agent.errors import RefusedError
from edgeloop_agent.loaded_model import LoadedModel
from edgeloop_agent.samples import Sample
from edgeloop_agent.text import one_line

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
    model: LoadedModel, path: str, parts: str, threads: int, sample: Sample, phases: memory.Phases, folder: Path
) -> dict[str, Any]:
    """Return SessionRecord.profile; every single time into operators.npy. Raises RefusedError."""
    try:
        with zipfile.ZipFile(parts) as archive:
            network = json.loads(archive.read(PARTS_FILE))
            memory_pass = _memory(model, path, network, sample, phases)
            times, runs, equal = _rounds(model, archive, network, threads, sample)
    except (zipfile.BadZipFile, OSError, KeyError) as error:
        raise RefusedError("the model's parts can't be read: %s" % error) from error
    np.save(folder / "operators.npy", np.frombuffer(times, np.int64), allow_pickle=False)
    return {"runs": runs, "outputs_equal": equal, "memory": memory_pass}


def _memory(
    model: LoadedModel, path: str, network: dict[str, Any], sample: Sample, phases: memory.Phases
) -> dict[str, Any]:
    invoke = model.invoker()
    _set_inputs(model, sample)
    _run(model, invoke, "the model")
    phases.end("first")
    read: list[int] = []
    end = time.monotonic() + _POLLED_S
    while len(read) < _POLLED_RUNS and time.monotonic() < end:
        _run(model, invoke, "the model")
        now = conditions.vm_bytes("VmRSS")
        if now is None:
            break
        read.append(now)
    phases.end("runs")
    mapped_bytes, resident_bytes = memory.mapped_bytes(path)
    activation, note = memory.activations(model, int(network["tensors"]), network["activations"])
    return {
        "phases": phases.readings,
        "polled": len(read),
        "rss_min_bytes": min(read, default=None),
        "rss_max_bytes": max(read, default=None),
        "model_mapped_bytes": mapped_bytes,
        "model_resident_bytes": resident_bytes,
        "activation_bytes": activation,
        "activation_note": note,
    }


def _rounds(
    model: LoadedModel, archive: zipfile.ZipFile, network: dict[str, Any], threads: int, sample: Sample
) -> tuple[array.array[int], list[list[int]], bool]:
    """Time the whole and then each part, ROUNDS times over: a drift of the board falls on all of them alike."""
    times = array.array("q")
    runs = []
    for _ in range(ROUNDS):
        values = dict(zip(network["inputs"], sample))  # noqa: B905 -- Python 3.9; their number was checked
        counts = [_time(model, model.invoker(), _WHOLE_NS, times, "the model")]
        for part in network["parts"]:
            name = "part %s" % part["file"]
            own = model.part(archive.read(part["file"]), threads)
            _set_inputs(own, [values[tensor] for tensor in part["reads"]])
            counts.append(_time(own, own.invoker(), _PART_NS, times, name))
            for number, (get, index) in enumerate(own.getters()):
                values[part["writes"][number]] = get(index)
            del own
        runs.append(counts)
    outputs = [get(index) for get, index in model.getters()]
    equal = all(np.array_equal(output, values[network["outputs"][i]]) for i, output in enumerate(outputs))
    return times, runs, equal


def _set_inputs(model: LoadedModel, arrays: list[Any]) -> None:
    for values, (set_input, index) in zip(arrays, model.setters()):  # noqa: B905 -- Python 3.9
        try:
            set_input(index, values)
        except ValueError as error:
            raise RefusedError("an operator changes the shape of what it gives: %s" % one_line(error)) from error


def _run(model: LoadedModel, invoke: Callable[[], None], what: str) -> None:
    try:
        invoke()
    except (ValueError, RuntimeError) as error:
        raise RefusedError("%s can't run %s: %s" % (model.version, what, one_line(error))) from error


def _time(model: LoadedModel, invoke: Callable[[], None], ns: int, times: array.array[int], what: str) -> int:
    """Warm up, then time single runs into `times`; return how many."""
    now = time.perf_counter_ns
    start = now()
    warm = 0
    while warm < _WARM_RUNS or now() - start < _WARM_NS:
        _run(model, invoke, what)
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
