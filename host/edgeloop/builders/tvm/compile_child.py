"""The child process of the TVM builder: `python -m edgeloop.builders.tvm.compile_child`, one job on stdin.

It compiles a .tflite, float or quantized, into a library for a processor; makes a library of candidates for tuning to
time; or runs a library on this host. What `ready_models` compiles goes through `compile_module` too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from edgeloop.builders import parity
from edgeloop.builders.tvm.jobs import (
    TVM_JOBS,
    BuildLibraryAnswer,
    BuildLibraryJob,
    CandidatesAnswer,
    CandidatesJob,
    RunLibraryJob,
    ScheduleCandidate,
    TvmJob,
)
from edgeloop.builders.tvm.quantized.graph import core_for
from edgeloop.builders.tvm.quantized.importer import import_quantized, is_quantized
from edgeloop.builders.tvm.schedule import (
    TileChoice,
    choose_by_rule,
    list_choices,
    lowered_functions,
    schedule_module,
    schedule_with,
    workload_of,
)
from edgeloop.builders.tvm.tuning import LIBRARY, plan_candidates
from edgeloop.builders.tvm.versions import (
    GLIBC,
    MODEL,
    NATIVE,
    TvmTarget,
    host_library_name,
    host_target,
    tool_versions,
)
from edgeloop.core.artifact import Artifact
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import BuildError
from edgeloop.host_runtime import litert
from edgeloop.host_runtime.jobs import PredictAnswer
from edgeloop.host_runtime.sample_files import read_samples, write_samples
from edgeloop.processes import json_child
from edgeloop.processes.files import sha256_of


def _prepare() -> None:
    import tvm.relax.frontend.tflite

    _ = tvm


def _work(job: TvmJob) -> BaseModel:
    """Build, run, or make a library of candidates. Raises BuildError, ParityError."""
    match job:
        case BuildLibraryJob():
            return _build(job)
        case CandidatesJob():
            return _make_candidates(job)
        case RunLibraryJob():
            write_samples(
                job.samples.outputs,
                run_library(job.library, job.inputs, job.outputs, read_samples(job.samples.inputs)),
            )
            return PredictAnswer()


def _build(job: BuildLibraryJob) -> BuildLibraryAnswer:
    target, host, library = job.target, host_target(), job.folder / MODEL
    module = import_functions(job.model, target)
    cpu, schedules = compile_module(module, target, library, job.inputs, job.outputs, job.choices)
    host_library = library
    if target != host:
        host_library = job.folder / host_library_name()
        compile_module(import_functions(job.model, host), host, host_library, job.inputs, job.outputs)
    with np.load(job.probe) as arrays:
        samples = [arrays[f"parity/x/{spec.name}"] for spec in job.inputs]
        targets = {spec.name: arrays[f"parity/y/{spec.name}"] for spec in job.outputs}
    results = run_library(host_library, job.inputs, job.outputs, samples)
    outputs = {spec.name: values for spec, values in zip(job.outputs, results, strict=True)}
    comparison = parity.compare(outputs, targets, job.outputs, job.rule)
    print(f"parity: {comparison}")  # noqa: T201 -- the child's log
    if job.rule == "custom":
        np.savez(job.folder / parity.OUTPUTS, **outputs)  # type: ignore[arg-type]
    else:
        parity.refuse_disagreement(comparison)
    artifact = Artifact(
        path=MODEL,
        sha256=sha256_of(library),
        deployed_bytes=library.stat().st_size,
        inputs=job.inputs,
        outputs=job.outputs,
        tools=tool_versions() | {"processor": f"{target.triple} {cpu}"} | schedules,
        parity=comparison,
    )
    return BuildLibraryAnswer(artifact=artifact)


def compile_module(
    module: Any,
    target: TvmTarget,
    library: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    choices: Mapping[str, TileChoice] | None = None,
) -> tuple[str, dict[str, str]]:
    """Compile a lowered network for one core of a processor; return LLVM's name of it, and what is tuned in it.

    Raises BuildError.
    """
    from tvm import relax

    cpu, processor = _processor(target)
    description: dict[str, Any] = {
        key: [spec.agent_form() for spec in specs] for key, specs in (("inputs", inputs), ("outputs", outputs))
    }
    schedules = {}
    if choices is not None:
        functions = lowered_functions(module)
        pairs = {
            name: (choices[workload], choose_by_rule(function, target.machine))
            for name, function in functions
            if (workload := workload_of(function)) in choices
        }
        description["schedules"] = {name: choice.model_dump() for name, (choice, _) in pairs.items()}
        other = sum(choice != by_rule for choice, by_rule in pairs.values())
        schedules["schedules"] = f"{len(pairs)} of {len(functions)} functions measured, {other} other than the rule's"
    with processor:
        scheduled_module = schedule_module(module, target.machine, choices)
    # Compiled, not bytecode: what lies between two functions costs far less then.
    executable = relax.build(scheduled_module, target=processor, exec_mode="compiled")
    _export(executable, target, library, {"artifact": description})
    return cpu, schedules


def _make_candidates(job: CandidatesJob) -> CandidatesAnswer:
    """Compile what tuning measures next into one library, a function each."""
    import tvm
    from tvm import s_tir

    _, processor = _processor(job.target)
    own = lowered_functions(import_functions(job.model, job.target))
    functions = {workload_of(f): (name, f) for name, f in reversed(own)}
    space = {workload: list_choices(f, job.target.machine) for workload, (_, f) in sorted(functions.items())}
    in_library: dict[str, Any] = {}
    candidates: list[ScheduleCandidate] = []
    for workload, choice in plan_candidates(space, job.timings, job.trials, job.candidates_max):
        name, function = functions[workload]
        symbol: str | None = f"candidate_{len(in_library)}"
        try:
            in_library[str(symbol)] = schedule_with(function, choice).with_attr("global_symbol", symbol)
        except s_tir.ScheduleError as error:
            print(f"no schedule: {name}, {choice}: {str(error).strip().splitlines()[-1]}")  # noqa: T201 -- the child's log
            symbol = None
        candidates.append(ScheduleCandidate(workload=workload, function=name, choice=choice, symbol=symbol))
    if in_library:
        parameters = [[symbol, [_kind(one) for one in function.params]] for symbol, function in in_library.items()]
        with processor:
            library = tvm.compile(tvm.IRModule(in_library), target=processor)
        _export(library, job.target, job.folder / LIBRARY, {"functions": parameters})
    workloads = tuple(workload for workload, choices in space.items() if choices)
    return CandidatesAnswer(candidates=tuple(candidates), workloads=workloads)


def _kind(parameter: Any) -> list[Any]:
    return [str(parameter.ty.dtype), [int(size) for size in parameter.ty.shape]]


def _processor(target: TvmTarget) -> tuple[str, Any]:
    """LLVM's name of the core, and TVM's target for one of it."""
    import tvm

    cpu = str(tvm.target.codegen.llvm_get_system_cpu()) if target.mcpu == NATIVE else target.mcpu
    return cpu, tvm.target.Target({"kind": "llvm", "mtriple": target.triple, "mcpu": cpu, "num-cores": 1})


def import_functions(model: Path, target: TvmTarget) -> Any:
    """Import a .tflite; its functions are plain loops then. Raises BuildError."""
    content = model.read_bytes()
    if not is_quantized(content):
        return lower(_import_float(content), target)
    _, processor = _processor(target)
    with processor:
        return import_quantized(content, core_for(target.machine, _feature_test(processor)))


def lower(module: Any, target: TvmTarget) -> Any:
    """Make plain loops of the functions of an imported float network."""
    from tvm import relax

    with _processor(target)[1]:
        return relax.get_pipeline("zero")(module)


def _export(module: Any, target: TvmTarget, library: Path, descriptions: Mapping[str, Any]) -> None:
    """Link a library that describes itself, each description in the string `edgeloop_<name>`. Raises BuildError."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "artifact.c"
        source.write_text(
            "".join(
                f"const char *const edgeloop_{key} = {json.dumps(json.dumps(description))};\n"
                for key, description in descriptions.items()
            )
        )
        module.export_library(str(library), fcompile=_linker(target, source))


def _import_float(content: bytes) -> Any:
    import tflite
    import tvm
    from tvm.relax.frontend.tflite import from_tflite

    try:
        return from_tflite(tflite.Model.GetRootAsModel(content, 0))
    except tvm.error.OpNotImplemented as error:
        raise BuildError(
            f"TVM's importer: {' '.join(str(error).split())}", next_step="leave tvm out of the engines for this network"
        ) from error


def _feature_test(processor: Any) -> Callable[[str], bool]:
    from tvm.target import codegen

    return lambda feature: bool(codegen.target_has_features(feature, processor))


def _linker(target: TvmTarget, source: Path) -> Any:
    def link(output: str, objects: Sequence[str], **_options: Any) -> None:
        command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{target.triple}.{GLIBC}", "-shared", "-fPIC"]
        process = subprocess.run(
            [*command, "-O2", "-s", "-o", output, *objects, str(source)], capture_output=True, text=True, check=False
        )
        if process.returncode != 0:
            raise BuildError(f"linking for {target}: {(process.stderr.strip().splitlines() or ['no message'])[-1]}")

    link.output_format = "so"  # type: ignore[attr-defined]  # as export_library asks
    return link


def run_library(
    library: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], samples: Sequence[NDArray[Any]]
) -> list[NDArray[Any]]:
    """Run all samples one by one through a library for this machine; (n, ...) in, (n, ...) out, dequantized."""
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    tensors = [litert.to_stored(x, spec) for x, spec in zip(samples, inputs, strict=True)]
    rows: list[list[NDArray[Any]]] = []
    for index in range(len(tensors[0])):
        out = machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(x[index : index + 1])) for x in tensors))
        rows.append([one.numpy() for one in (out if not hasattr(out, "numpy") else [out])])
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return [litert.to_real(column, spec) for column, spec in zip(columns, outputs, strict=True)]


if __name__ == "__main__":
    json_child.serve(_work, TVM_JOBS, prepare=_prepare)
