"""Timing functions one by one: schedules that may be built into a network.

They are called in a process under the session. One that crashes, or does not end, costs itself: the process is started
again behind it, and what was timed before stays, since the times lie in memory that both share.
"""

from __future__ import annotations

import gc
import mmap
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Sequence

import numpy as np

from edgeloop_agent.text import signal_name
from edgeloop_agent.wire import NOT_CALLED_NS

if TYPE_CHECKING:
    from numpy.typing import NDArray

FUNCTIONS_FILE = "functions.npy"
ROUNDS, CALLS = 7, 15
CALLS_NS = 20_000_000
"""Of a function in a round: after this time it is not called again, however few calls there were."""
HANGS_S = 20.0
_POLL_S = 0.02
_NONE = -1


def time_functions(
    calls: Sequence[Callable[[], None]], seed: int, tie: Callable[[], None], folder: Path, pid_file: Path
) -> None:
    """Write the time of each single call to functions.npy: int64, ns, (functions, rounds, calls).

    Rounds go over all functions in an order of their own, so that a drift of the board falls on all alike. A function
    that crashed has no call in the rounds from there on; `tie` is called in each process that is started.
    """
    times = _shared_array((len(calls), ROUNDS, CALLS))
    times[...] = NOT_CALLED_NS
    has_failed, at = _shared_array((len(calls),)), _shared_array((2,))
    while True:
        at[0] = _NONE
        pid = os.fork()
        if pid == 0:
            _in_child(calls, seed, tie, times, has_failed, at)
        pid_file.write_bytes(b"%d" % pid)
        fault = _wait_for_end(pid, at)
        if not fault:
            break
        if at[0] == _NONE:
            raise RuntimeError("the process that calls the functions %s before the first" % fault)
        has_failed[at[0]] = 1
        os.write(2, b"function %d %s\n" % (at[0], fault.encode()))
    np.save(folder / FUNCTIONS_FILE, times, allow_pickle=False)


def _shared_array(shape: tuple[int, ...]) -> NDArray[Any]:
    size = int(np.prod(shape))
    return np.frombuffer(mmap.mmap(-1, max(1, size) * 8), np.int64, count=size).reshape(shape)


def _in_child(
    calls: Sequence[Callable[[], None]],
    seed: int,
    tie: Callable[[], None],
    times: NDArray[Any],
    has_failed: NDArray[Any],
    at: NDArray[Any],
) -> None:
    """Call the functions that are not timed yet, and end the process."""
    status = 1
    try:
        tie()
        gc.disable()
        for number in range(ROUNDS):
            for index in random.Random(seed + number).sample(range(len(calls)), len(calls)):
                if not has_failed[index] and times[index, number, 0] == NOT_CALLED_NS:
                    at[:] = index, at[1] + 1
                    _time(calls[index], times[index, number])
        status = 0
    except Exception as error:  # noqa: BLE001 -- whatever a function raises costs that function
        os.write(2, b"%s: %s\n" % (type(error).__name__.encode(), str(error).encode(errors="replace")[:300]))
    finally:
        os._exit(status)


def _time(call: Callable[[], None], row: NDArray[Any]) -> None:
    """Warm up, then time single calls; the first is written last, since it says that the row is whole."""
    now = time.perf_counter_ns
    call()
    times: list[int] = []
    first = now()
    while len(times) < CALLS and (not times or now() - first < CALLS_NS):
        start = now()
        call()
        times.append(now() - start)
    row[1 : len(times)] = times[1:]
    row[0] = times[0]


def _wait_for_end(pid: int, at: NDArray[Any]) -> str:
    """Wait for the process; return its fault in words, empty where it has none. One that hangs is killed."""
    calls, since = int(at[1]), time.monotonic()
    while True:
        ended_pid, status = os.waitpid(pid, os.WNOHANG)
        if ended_pid:
            return _fault_of(status)
        if at[1] != calls:
            calls, since = int(at[1]), time.monotonic()
        if time.monotonic() - since > HANGS_S:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return "did not end within %g s" % HANGS_S
        time.sleep(_POLL_S)


def _fault_of(status: int) -> str:
    if os.WIFSIGNALED(status):
        return "was ended by %s" % signal_name(os.WTERMSIG(status))
    return "failed" if os.WEXITSTATUS(status) else ""
