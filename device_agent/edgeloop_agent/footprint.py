"""The cost of the agent's short commands while a session measures: kept off its cores, and accounted for.

A look from the host starts an interpreter on the board. It steps aside as soon as it runs, and the processor time it
took is added to a counter that the supervisor takes off the load of others: the harness is not foreign load.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edgeloop_agent import folder, wire
from edgeloop_agent.errors import AgentError

COUNTER = "footprint"


def step_aside(state: Path) -> bool:
    """Go to the supervisor's cores, where a job runs. True where those are not the measuring ones."""
    if not hasattr(os, "sched_setaffinity") or not folder.alive(state / wire.LOCK_FILE):
        return False
    try:
        words = (folder.read_bounded(state / wire.LOCK_FILE, 200) or b"").split()
        cores = os.sched_getaffinity(int(words[1]))
        apart = cores != os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
    except (OSError, ValueError, IndexError):
        return False
    return apart


def ticks() -> int:
    """Processor time of this process so far, in clock ticks."""
    times = os.times()
    return round((times.user + times.system) * os.sysconf("SC_CLK_TCK"))


def add(state: Path, spent_ticks: int) -> None:
    """Add to the counter. Best effort: a command never fails for its own accounting."""
    with contextlib.suppress(OSError, AgentError), folder.hold_lock(state / COUNTER, 1.0) as fd:
        folder.rewrite(fd, b"%d" % (_parse(folder.read_all(fd, 40)) + spent_ticks))


def total(state: Path) -> int:
    """The sum of what was added so far, in clock ticks."""
    with contextlib.suppress(AgentError):
        return _parse(folder.read_bounded(state / COUNTER, 40) or b"")
    return 0


def _parse(raw: bytes) -> int:
    return int(raw) if raw.strip().isdigit() else 0
