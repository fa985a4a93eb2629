"""One session: a fresh process that loads one model and times or evaluates it.

Its arguments are `args.json` in its own folder; it answers with `result.json` and arrays beside it, and the supervisor
turns those into the session's record. What is written after loading survives a crash while running.
"""

from __future__ import annotations

import array
import contextlib
import os
import platform
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from edgeloop_agent import conditions, engines, memory, timing, wire
from edgeloop_agent.errors import CrashedError, DelegateError, PipelineError, RefusedError
from edgeloop_agent.parent import die_with
from edgeloop_agent.session_folder import (
    PROFILE,
    PROGRAM_PID_FILE,
    TUNE,
    Arguments,
    UserCode,
    read_arguments,
    write_result,
)
from edgeloop_agent.text import kind_and_line, one_line

if TYPE_CHECKING:
    from edgeloop_agent.engines.base import Engine

_OOM_SCORE = 500  # of the harness's processes the kernel shall take this one first


def main(folder: Path) -> int:
    """Run one session in its folder. Returns 0 where result.json says how it went."""
    arguments = read_arguments(folder)
    die_with(arguments.parent)
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
        from edgeloop_agent import evaluate, intervals, pipeline, profile, runs, samples  # noqa: F401 -- memory is read next

        row = engines.find_engine(arguments.engine)
        needs_store = phases is None and row is not None and row.in_process
        store = timing.store_for(arguments.plan) if needs_store else array.array("q")
        engine = engines.load_engine(arguments.engine)
    except Exception as error:  # noqa: BLE001 -- a runtime that does not fit the board fails in any way; it is one line
        line = "%s can't be imported on the board: %s" % (arguments.engine, kind_and_line(error))
        write_result(folder, {**result, "outcome": "refused", "owner": "board", "detail": line})
        return 0
    try:
        _session(arguments, engine, store, phases, folder, result)
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
        result.update(outcome="crashed", detail=kind_and_line(error))
    write_result(folder, result)
    return 0


def _session(
    arguments: Arguments,
    engine: Engine,
    store: array.array[int],
    phases: Optional[memory.Phases],
    folder: Path,
    result: dict[str, Any],
) -> None:
    """From loading the model to the last array; `result` grows as things become known."""
    from edgeloop_agent.engines.base import ModelFile

    result.update(engine.describe())
    if arguments.kind == TUNE:
        _tune(arguments, engine, folder)
        return
    if phases is not None:
        phases.end("runtime")
    result.update(
        engine.load(
            ModelFile(arguments.model, arguments.threads, arguments.shapes, arguments.delegate, arguments.python_path)
        )
    )
    if phases is not None:
        phases.end("load")
    _keep_tensors(arguments, engine.inputs(), engine.outputs(), folder, result)
    if phases is not None:
        result.update(profile=_profile(arguments, engine, phases, folder))
    elif arguments.pipeline is not None:
        result.update(_through_pipeline(arguments, arguments.pipeline, engine, store, folder, result))
    else:
        result.update(_bare(arguments, engine, store, folder))
    result.setdefault("peak_rss_bytes", conditions.vm_bytes("VmHWM"))


def _tune(arguments: Arguments, engine: Engine, folder: Path) -> None:
    """Time the functions of a library, each by itself."""
    from edgeloop_agent import tune

    tie = partial(die_with, os.getpid())
    calls = engine.functions(arguments.model, arguments.seed)
    tune.time_functions(calls, arguments.seed, tie, folder, folder / PROGRAM_PID_FILE)


def _keep_tensors(
    arguments: Arguments, inputs: list[wire.Tensor], outputs: list[wire.Tensor], folder: Path, result: dict[str, Any]
) -> None:
    """Keep what is known before anything runs. Raises RefusedError where the job names other tensors."""
    result.update(inputs=list(map(asdict, inputs)), outputs=list(map(asdict, outputs)))
    write_result(folder, {**result, "outcome": "crashed", "detail": "after loading the model"}, final=False)
    for what, names, tensors in (("inputs", arguments.inputs, inputs), ("outputs", arguments.outputs, outputs)):
        if len(names) != len(tensors):
            raise RefusedError("the model has %d %s, the job names %d" % (len(tensors), what, len(names)))


def _profile(arguments: Arguments, engine: Engine, phases: memory.Phases, folder: Path) -> dict[str, Any]:
    """The pass of its own: on the first sample, random where a pipeline would have to make one."""
    from edgeloop_agent import profile, samples

    if arguments.parts is None:
        raise RefusedError("a profile needs the model's parts")
    data = None
    if arguments.data is not None and arguments.pipeline is None:
        data = samples.SampleData(arguments.data, arguments.inputs, engine.inputs())
    sample = samples.for_latency(data, engine.inputs(), arguments.seed)[0]
    model = engine.in_process_model()
    return profile.profile(model, arguments.model, arguments.parts, arguments.threads, sample, phases, folder)


def _bare(arguments: Arguments, engine: Engine, store: array.array[int], folder: Path) -> dict[str, Any]:
    """The network by itself, on samples as its inputs take them."""
    from edgeloop_agent import samples

    data = samples.SampleData(arguments.data, arguments.inputs, engine.inputs()) if arguments.data else None
    if arguments.kind == "evaluate":
        if data is None:
            raise RefusedError("an evaluation needs data")
        return engine.evaluate(data, folder)
    cycle = samples.for_latency(data, engine.inputs(), arguments.seed)
    return {"samples_cycled": len(cycle), **engine.run(arguments.kind, cycle, arguments.plan, store, folder)}


def _through_pipeline(
    arguments: Arguments,
    code: UserCode,
    engine: Engine,
    store: array.array[int],
    folder: Path,
    result: dict[str, Any],
) -> dict[str, Any]:
    """The user's pipeline around the network, on encoded samples. Raises PipelineError for what is the user's."""
    from edgeloop_agent import evaluate, intervals, runs, samples
    from edgeloop_agent.pipeline import RAISED, StagedPipeline

    if arguments.data is None:
        raise RefusedError("a pipeline needs data")
    data, model = samples.EncodedData(arguments.data), engine.in_process_model()
    pipeline = StagedPipeline(code.path, code.class_name, code.label, arguments.inputs, arguments.outputs)
    pipeline.tell_where_it_hangs(
        lambda where: write_result(folder, {**result, "outcome": "crashed", "hung": where}, final=False)
    )
    try:
        if arguments.kind == "evaluate":
            return {"results": list(map(asdict, evaluate.through_pipeline(pipeline, model, data, folder)))}
        cycle = samples.encoded_for_latency(data)
        calls = intervals.of_pipeline(pipeline, model, cycle, arguments.plan)
        return {"samples_cycled": len(cycle), **runs.run(arguments.kind, calls, arguments.plan, store, folder)}
    except RefusedError:
        raise
    except RAISED as error:
        fault = pipeline.fault(error)
        if fault is not None:
            raise fault from error
        if isinstance(error, (ValueError, RuntimeError)):
            raise RefusedError("%s can't run the model: %s" % (model.version, one_line(error))) from error
        raise
