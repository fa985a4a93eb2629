"""The sessions that run single inferences one after the other, by their kind."""

from __future__ import annotations

import array
from pathlib import Path
from typing import Any

from edgeloop_agent import energy, timing, wire
from edgeloop_agent.intervals import TimedCalls
from edgeloop_agent.session_folder import SOAK


def run(kind: str, calls: TimedCalls, plan: wire.SessionPlan, store: array.array[int], folder: Path) -> dict[str, Any]:
    """Run a `latency`, `energy` or soak session; arrays into the folder, the rest of its record is returned."""
    if kind == SOAK:
        timing.heat(calls, plan, store)
    if kind == "energy":
        return energy.measure_windows(calls, plan, store, folder)
    return timing.time_latency(calls, plan, store, folder)
