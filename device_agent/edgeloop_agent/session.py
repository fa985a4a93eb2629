"""One session: a fresh process that loads one model and times or evaluates it.

It is told what to do by `args.json` in its own folder and answers with `result.json` and arrays beside it; the
supervisor turns those into the session's record. What is written after loading survives a crash while running.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from edgeloop_agent import conditions, timing, wire

if TYPE_CHECKING:
    from edgeloop_agent.engines.interpreter import Engine

ARGS_FILE = "args.json"
RESULT_FILE = "result.json"
AFTER_LOADING = "after loading the model"
SOAK = "soak"
"""The kind of a process that heats the board as the latency sessions do, until it is killed; never recorded."""
_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 500  # of the harness's processes the kernel shall take this one first


@dataclass
class Arguments:
    """args.json: everything resolved by the supervisor."""

    kind: str
    engine: str
    model: str
    threads: int
    inputs: list[str]
    data: Optional[str]
    python_path: list[str]
    plan: wire.SessionPlan
    seed: int
    parent: int


def main(folder: Path) -> int:
    """Run one session in its folder. Returns 0 where result.json says how it went."""
    raw = json.loads((folder / ARGS_FILE).read_bytes())
    arguments = Arguments(**{**raw, "plan": wire.SessionPlan(**raw["plan"])})
    _die_with(arguments.parent)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    result: dict[str, Any] = {
        "outcome": "ok",
        "detail": "",
        "owner": "model",
        "engine_version": arguments.engine,
        "python_version": platform.python_version(),
        "pinned_cores": conditions.allowed_cores(),
    }
    sys.path[:0] = arguments.python_path
    try:
        from edgeloop_agent import engines, evaluate, samples
        from edgeloop_agent.engines.interpreter import RefusedError

        store = timing.store_for(arguments.plan)
        engine = engines.load_engine(arguments.engine)
    except Exception as error:  # noqa: BLE001 -- a runtime that does not fit the board fails in any way; it is one line
        line = "%s can't be imported on the board: %s: %s" % (arguments.engine, type(error).__name__, _last(error))
        return _write(folder, {**result, "outcome": "refused", "owner": "board", "detail": line})
    try:
        result.update(engine_version=engine.version, runtime_rss_bytes=conditions.vm_bytes("VmRSS"))
        start = time.perf_counter_ns()
        engine.load(arguments.model, arguments.threads)
        result.update(load_ns=time.perf_counter_ns() - start)
        result.update(inputs=list(map(asdict, engine.inputs())), outputs=list(map(asdict, engine.outputs())))
        _write(folder, {**result, "outcome": "crashed", "detail": AFTER_LOADING})
        _check_inputs(arguments, engine)
        data = samples.Data(arguments.data, arguments.inputs, engine.inputs()) if arguments.data else None
        if arguments.kind == "evaluate":
            if data is None:
                raise RefusedError("an evaluation needs data")
            result.update(evaluated=evaluate.evaluate(engine, data, folder))
        else:
            held = samples.for_latency(data, engine.inputs(), arguments.seed)
            if arguments.kind == SOAK:
                timing.heat(engine, held, arguments.plan, store)
            result.update(samples_cycled=len(held))
            result.update(timing.time_latency(engine, held, arguments.plan, store, folder))
        result.update(peak_rss_bytes=conditions.vm_bytes("VmHWM"))
    except RefusedError as error:
        result.update(outcome="refused", detail=str(error))
    except OSError as error:
        result.update(outcome="refused", owner="board", detail="%s: %s" % (error.strerror, error.filename))
    except Exception as error:  # noqa: BLE001 -- whatever an engine raises is this session's outcome, never a traceback
        result.update(outcome="crashed", detail="%s: %s" % (type(error).__name__, _last(error)))
    return _write(folder, result)


def _check_inputs(arguments: Arguments, engine: Engine) -> None:
    from edgeloop_agent.engines.interpreter import RefusedError

    wanted, found = len(arguments.inputs), len(engine.inputs())
    if wanted != found:
        raise RefusedError("the model has %d inputs, the job names %d" % (found, wanted))


def _write(folder: Path, result: dict[str, Any]) -> int:
    wire.write_atomically(folder / RESULT_FILE, json.dumps(result, allow_nan=False).encode(), durable=False)
    return 0


def _last(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else "no message")[:300]


def _die_with(parent: int) -> None:
    """Be killed when the supervisor dies, however it dies. Linux; elsewhere its locks alone guard the board."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
