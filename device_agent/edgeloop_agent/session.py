"""One session: a fresh process that loads one model and times or evaluates it.

It is told what to do by `args.json` in its own folder and answers with `result.json` and arrays beside it; the
supervisor turns those into the session's record. What is written after loading survives a crash while running.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import json
import os
import platform
import signal
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from edgeloop_agent import conditions, memory, timing, wire

if TYPE_CHECKING:
    from edgeloop_agent.engines.interpreter import Engine
    from edgeloop_agent.intervals import Timed

ARGS_FILE = "args.json"
RESULT_FILE = "result.json"
PROGRAM_PID_FILE = "program.pid"
"""The process id of what a session starts, the user's own program: what it takes is no foreign load."""
AFTER_LOADING = "after loading the model"
PROFILE = "profile"
TUNE = "tune"
SOAK = "soak"
"""The kind of a process that heats the board as the latency sessions do, until it is killed; never recorded."""
_PR_SET_PDEATHSIG = 1
_OOM_SCORE = 500  # of the harness's processes the kernel shall take this one first


@dataclass
class UserCode:
    """The user's pipeline: a file, a class in it, and what people call it."""

    path: str
    class_name: str
    label: str


@dataclass
class Arguments:
    """args.json: everything resolved by the supervisor."""

    kind: str
    engine: str
    model: str
    threads: int
    inputs: list[str]
    outputs: list[str]
    data: Optional[str]
    pipeline: Optional[UserCode]
    parts: Optional[str]
    python_path: list[str]
    plan: wire.SessionPlan
    seed: int
    parent: int
    shapes: Optional[list[list[int]]] = None
    """What the inputs are resized to; None: the file's own shapes."""
    delegate: Optional[wire.WireDelegate] = None


def main(folder: Path) -> int:
    """Run one session in its folder. Returns 0 where result.json says how it went."""
    raw = json.loads((folder / ARGS_FILE).read_bytes())
    code = raw["pipeline"] and UserCode(**raw["pipeline"])
    delegate = raw["delegate"] and wire.WireDelegate(**raw["delegate"])
    plan = wire.SessionPlan(**raw["plan"])
    arguments = Arguments(**{**raw, "plan": plan, "pipeline": code, "delegate": delegate})
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
    phases = memory.Phases() if arguments.kind == PROFILE else None
    try:
        from edgeloop_agent import energy, engines, evaluate, intervals, profile, samples  # noqa: F401 -- memory is read next
        from edgeloop_agent.engines.interpreter import CrashedError, DelegateError, RefusedError
        from edgeloop_agent.pipeline import PipelineError

        own = arguments.engine == wire.EXEC
        store = timing.store_for(arguments.plan) if phases is None and not own else array.array("q")
        engine = None if own else engines.load_engine(arguments.engine)
    except Exception as error:  # noqa: BLE001 -- a runtime that does not fit the board fails in any way; it is one line
        line = "%s can't be imported on the board: %s: %s" % (arguments.engine, type(error).__name__, _last(error))
        _say(folder, {**result, "outcome": "refused", "owner": "board", "detail": line})
        return 0
    try:
        if engine is None:
            _in_own_program(arguments, folder, result)
        else:
            _in_engine(arguments, engine, store, phases, folder, result)
    except CrashedError as error:
        result.update(outcome="crashed", detail=str(error), signal=error.signal)
    except RefusedError as error:
        result.update(outcome="refused", detail=str(error))
    except DelegateError as error:
        result.update(outcome="refused", owner=error.owner, detail=str(error))
    except PipelineError as error:
        result.update(outcome="refused", owner="user", detail=str(error))
    except OSError as error:
        result.update(outcome="refused", owner="board", detail="%s: %s" % (error.strerror, error.filename))
    except Exception as error:  # noqa: BLE001 -- whatever an engine raises is this session's outcome, never a traceback
        result.update(outcome="crashed", detail="%s: %s" % (type(error).__name__, _last(error)))
    _say(folder, result)
    return 0


def _in_engine(
    arguments: Arguments,
    engine: Engine,
    store: array.array[int],
    phases: Optional[memory.Phases],
    folder: Path,
    result: dict[str, Any],
) -> None:
    """What a session does with a runtime in its own process."""
    result.update(engine_version=engine.version, runtime_rss_bytes=conditions.vm_bytes("VmRSS"))
    if arguments.kind == TUNE:
        _tune(arguments, engine, folder)
        return
    if phases is not None:
        phases.end("runtime")
    start = time.perf_counter_ns()
    engine.load(arguments.model, arguments.threads, arguments.shapes, arguments.delegate)
    result.update(load_ns=time.perf_counter_ns() - start, delegate=engine.delegated)
    if phases is not None:
        phases.end("load")
    _say_loaded(arguments, engine.inputs(), engine.outputs(), folder, result)
    if phases is not None:
        result.update(profile=_profiled(arguments, engine, phases, folder))
    elif arguments.pipeline is not None:
        result.update(_through_pipeline(arguments, arguments.pipeline, engine, store, folder, result))
    else:
        result.update(_bare(arguments, engine, store, folder))
    result["peak_rss_bytes"] = result.get("peak_rss_bytes") or conditions.vm_bytes("VmHWM")


def _tune(arguments: Arguments, engine: Engine, folder: Path) -> None:
    """Time the functions of a library, each by itself."""
    from edgeloop_agent import tune

    tie = partial(_die_with, os.getpid())
    calls = engine.functions(arguments.model, arguments.seed)
    tune.time_functions(calls, arguments.seed, tie, folder, folder / PROGRAM_PID_FILE)


def _in_own_program(arguments: Arguments, folder: Path, result: dict[str, Any]) -> None:
    """What a session does with the user's own program: it is a process of its own, under this one."""
    from edgeloop_agent import program, samples
    from edgeloop_agent.engines.interpreter import RefusedError

    tie = partial(_die_with, os.getpid())
    own = program.ProgramSession(Path(arguments.model), arguments.threads, arguments.python_path, tie)
    _say_loaded(arguments, own.inputs, own.outputs, folder, result)
    data = samples.SampleData(arguments.data, arguments.inputs, own.inputs) if arguments.data else None
    if arguments.kind == "evaluate":
        if data is None:
            raise RefusedError("an evaluation needs data")
        result.update(own.evaluate(data, folder))
        return
    held = samples.for_latency(data, own.inputs, arguments.seed)
    while arguments.kind == SOAK:
        own.time_latency(held, arguments.plan, folder)
    result.update(own.time_latency(held, arguments.plan, folder))


def _say_loaded(
    arguments: Arguments, inputs: list[wire.Tensor], outputs: list[wire.Tensor], folder: Path, result: dict[str, Any]
) -> None:
    """Keep what is known before anything runs. Raises RefusedError where the job names other tensors."""
    from edgeloop_agent.engines.interpreter import RefusedError

    result.update(inputs=list(map(asdict, inputs)), outputs=list(map(asdict, outputs)))
    _say(folder, {**result, "outcome": "crashed", "detail": AFTER_LOADING})
    for what, wanted, found in (("inputs", arguments.inputs, inputs), ("outputs", arguments.outputs, outputs)):
        if len(wanted) != len(found):
            raise RefusedError("the model has %d %s, the job names %d" % (len(found), what, len(wanted)))


def _profiled(arguments: Arguments, engine: Engine, phases: memory.Phases, folder: Path) -> dict[str, Any]:
    """The pass of its own: on the first sample, random where a pipeline would have to make one."""
    from edgeloop_agent import profile, samples
    from edgeloop_agent.engines.interpreter import RefusedError

    if arguments.parts is None:
        raise RefusedError("a profile needs the model's parts")
    data = None
    if arguments.data is not None and arguments.pipeline is None:
        data = samples.SampleData(arguments.data, arguments.inputs, engine.inputs())
    sample = samples.for_latency(data, engine.inputs(), arguments.seed)[0]
    return profile.profile(engine, arguments.model, arguments.parts, arguments.threads, sample, phases, folder)


def _bare(arguments: Arguments, engine: Engine, store: array.array[int], folder: Path) -> dict[str, Any]:
    """The network by itself, on samples as its inputs take them."""
    from edgeloop_agent import evaluate, intervals, samples
    from edgeloop_agent.engines.interpreter import RefusedError, one_line

    data = samples.SampleData(arguments.data, arguments.inputs, engine.inputs()) if arguments.data else None
    if arguments.kind == "evaluate":
        if data is None:
            raise RefusedError("an evaluation needs data")
        evaluate.evaluate(engine, data, folder)
        return {}
    held = samples.for_latency(data, engine.inputs(), arguments.seed)
    timed = intervals.of_engine(engine, held, arguments.plan.timing)
    try:
        return {"samples_cycled": len(held), **_run(arguments, timed, store, folder)}
    except (ValueError, RuntimeError) as error:
        raise RefusedError("%s can't run the model: %s" % (engine.version, one_line(error))) from error


def _run(arguments: Arguments, timed: Timed, store: array.array[int], folder: Path) -> dict[str, Any]:
    """What a session does that runs single inferences one after the other."""
    from edgeloop_agent import energy

    if arguments.kind == SOAK:
        timing.heat(timed, arguments.plan, store)
    if arguments.kind == "energy":
        return energy.measure_windows(timed, arguments.plan, store, folder)
    return timing.time_latency(timed, arguments.plan, store, folder)


def _through_pipeline(
    arguments: Arguments,
    code: UserCode,
    engine: Engine,
    store: array.array[int],
    folder: Path,
    result: dict[str, Any],
) -> dict[str, Any]:
    """The user's pipeline around the network, on encoded samples. Raises PipelineError for what is the user's."""
    from edgeloop_agent import evaluate, intervals, samples
    from edgeloop_agent.engines.interpreter import RefusedError, one_line
    from edgeloop_agent.pipeline import RAISED, StagedPipeline

    if arguments.data is None:
        raise RefusedError("a pipeline needs data")
    data = samples.EncodedData(arguments.data)
    pipeline = StagedPipeline(code.path, code.class_name, code.label, arguments.inputs, arguments.outputs)
    pipeline.tell_where_it_hangs(lambda where: _say(folder, {**result, "outcome": "crashed", "hung": where}))
    try:
        if arguments.kind == "evaluate":
            return {"results": list(map(asdict, evaluate.through_pipeline(pipeline, engine, data, folder)))}
        held = samples.encoded_for_latency(data)
        timed = intervals.of_pipeline(pipeline, engine, held, arguments.plan)
        return {"samples_cycled": len(held), **_run(arguments, timed, store, folder)}
    except RefusedError:
        raise
    except RAISED as error:
        fault = pipeline.fault(error)
        if fault is not None:
            raise fault from error
        if isinstance(error, (ValueError, RuntimeError)):
            raise RefusedError("%s can't run the model: %s" % (engine.version, one_line(error))) from error
        raise


def _say(folder: Path, result: dict[str, Any]) -> None:
    wire.write_atomically(folder / RESULT_FILE, json.dumps(result, allow_nan=False).encode(), durable=False)


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
