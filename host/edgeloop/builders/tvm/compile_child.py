"""The child process of the TVM builder: `python -m edgeloop.builders.tvm.compile_child`, one job on stdin.

In: a .tflite, float or quantized, names for its tensors, a processor, and maybe the inputs and outputs of the parity
gate. Out: `model.so`, another library for this machine where the processor is not its own, `artifact.json`, and
`outputs.npz` where the task brings its own agreement. Or: a library for this machine and inputs, and out come the
outputs. Or: what tuning has measured of the network's functions, and out comes a library with what it measures next.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.builders import parity
from edgeloop.builders.tvm.quantized.graph import core_of
from edgeloop.builders.tvm.quantized.importer import imported, is_quantized
from edgeloop.builders.tvm.schedule import (
    Choice,
    choices,
    functions_of,
    rule,
    schedule_with,
    scheduled,
    workload_of,
)
from edgeloop.builders.tvm.tuning import LIBRARY, TimedSchedules, planned
from edgeloop.builders.tvm.versions import GLIBC, NATIVE, TvmTarget, on_host, this_host, tool_versions
from edgeloop.core.artifact import Artifact
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import BuildError
from edgeloop.host_runtime import litert
from edgeloop.processes import json_child

MODEL = "model.so"


def _prepare() -> None:
    import tvm.relax.frontend.tflite

    _ = tvm


def _work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Build, run, or make a library of candidates. Raises BuildError, ParityError."""
    if job["do"] == "candidates":
        return _candidates(job)
    if job["do"] == "predict":
        inputs, outputs = _specs(job["tensors"])
        with np.load(job["inputs"]) as arrays:
            given = [arrays[str(i)] for i in range(len(arrays.files))]
        made = run_library(Path(job["model"]), inputs, outputs, given)
        np.savez(job["outputs"], **{str(i): out for i, out in enumerate(made)})  # type: ignore[arg-type]
        return {}
    target, folder = TvmTarget.model_validate(job["processor"]), Path(job["target"])
    inputs, outputs = _specs(job)
    tuned = None
    if job["tuned"] is not None:
        tuned = {workload: Choice.model_validate(choice) for workload, choice in job["tuned"].items()}
    model, here = Path(job["model"]), this_host()
    cpu, schedules = compile_module(functions_in(model, target), target, folder / MODEL, inputs, outputs, tuned)
    if target != here:
        compile_module(functions_in(model, here), here, folder / on_host(), inputs, outputs)
    with np.load(job["probe"]) as arrays:
        given = [arrays[f"parity/x/{spec.name}"] for spec in inputs]
        expected = {spec.name: arrays[f"parity/y/{spec.name}"] for spec in outputs}
    made = run_library(folder / (MODEL if target == here else on_host()), inputs, outputs, given)
    named = {spec.name: values for spec, values in zip(outputs, made, strict=True)}
    judged = parity.compare(named, expected, outputs, job["rule"])
    print(f"parity: {judged}")  # noqa: T201 -- the child's log
    if job["rule"] == "custom":
        np.savez(folder / "outputs.npz", **named)  # type: ignore[arg-type]
    else:
        parity.gate(judged)
    content = (folder / MODEL).read_bytes()
    artifact = Artifact(
        path=MODEL,
        sha256=hashlib.sha256(content).hexdigest(),
        deployed_bytes=len(content),
        inputs=inputs,
        outputs=outputs,
        tools=tool_versions() | {"processor": f"{target.triple} {cpu}"} | schedules,
        parity=judged,
    )
    (folder / "artifact.json").write_text(json.dumps(artifact.model_dump(mode="json"), indent=1))
    return {}


def compile_module(
    module: Any,
    target: TvmTarget,
    library: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    tuned: Mapping[str, Choice] | None = None,
) -> tuple[str, dict[str, str]]:
    """Compile a lowered network for one core of a processor; return LLVM's name of it, and what is tuned in it.

    Raises BuildError.
    """
    from tvm import relax

    cpu, processor = _processor(target)
    told: dict[str, Any] = {
        key: [s.agent_form() for s in specs] for key, specs in (("inputs", inputs), ("outputs", outputs))
    }
    schedules = {}
    if tuned is not None:
        functions = functions_of(module)
        chosen = {name: (tuned[w], rule(f, target.machine)) for name, f in functions if (w := workload_of(f)) in tuned}
        told["schedules"] = {name: choice.model_dump() for name, (choice, _) in chosen.items()}
        other = sum(choice != ruled for choice, ruled in chosen.values())
        schedules["schedules"] = f"{len(chosen)} of {len(functions)} functions measured, {other} other than the rule's"
    with processor:
        made = scheduled(module, target.machine, tuned)
    # Compiled, not bytecode: what lies between two functions costs far less then.
    executable = relax.build(made, target=processor, exec_mode="compiled")
    _export(executable, target, library, {"artifact": told})
    return cpu, schedules


def _candidates(job: Mapping[str, Any]) -> dict[str, Any]:
    """Compile what tuning measures next into one library, a function each. Says what they are, in their order."""
    import tvm
    from tvm import s_tir

    target, folder = TvmTarget.model_validate(job["processor"]), Path(job["target"])
    _, processor = _processor(target)
    own = functions_of(functions_in(Path(job["model"]), target))
    functions = {workload_of(f): (name, f) for name, f in reversed(own)}
    space = {workload: choices(f, target.machine) for workload, (_, f) in sorted(functions.items())}
    seen = {workload: TimedSchedules.model_validate(told) for workload, told in job["measured"].items()}
    made: dict[str, Any] = {}
    answer: list[dict[str, Any]] = []
    for workload, choice in planned(space, seen, job["trials"], job["most"]):
        name, function = functions[workload]
        symbol: str | None = f"candidate_{len(made)}"
        try:
            made[str(symbol)] = schedule_with(function, choice).with_attr("global_symbol", symbol)
        except s_tir.ScheduleError as error:
            print(f"no schedule: {name}, {choice}: {str(error).strip().splitlines()[-1]}")  # noqa: T201 -- the child's log
            symbol = None
        answer.append({"workload": workload, "function": name, "choice": choice.model_dump(), "symbol": symbol})
    if made:
        told = [[symbol, [_kind(parameter) for parameter in function.params]] for symbol, function in made.items()]
        with processor:
            library = tvm.compile(tvm.IRModule(made), target=processor)
        _export(library, target, folder / LIBRARY, {"functions": told})
    return {"candidates": answer, "workloads": [workload for workload, found in space.items() if found]}


def _kind(parameter: Any) -> list[Any]:
    return [str(parameter.ty.dtype), [int(size) for size in parameter.ty.shape]]


def _processor(target: TvmTarget) -> tuple[str, Any]:
    """LLVM's name of the core, and TVM's target for one of it."""
    import tvm

    cpu = str(tvm.target.codegen.llvm_get_system_cpu()) if target.mcpu == NATIVE else target.mcpu
    return cpu, tvm.target.Target({"kind": "llvm", "mtriple": target.triple, "mcpu": cpu, "num-cores": 1})


def functions_in(model: Path, target: TvmTarget) -> Any:
    """The functions of a .tflite, as plain loops. Raises BuildError."""
    content = model.read_bytes()
    if not is_quantized(content):
        return lowered(_float_module(content), target)
    _, processor = _processor(target)
    with processor:
        return imported(content, core_of(target.machine, _has(processor)))


def lowered(module: Any, target: TvmTarget) -> Any:
    """The functions of an imported float network, as plain loops."""
    from tvm import relax

    with _processor(target)[1]:
        return relax.get_pipeline("zero")(module)


def _export(module: Any, target: TvmTarget, library: Path, told: Mapping[str, Any]) -> None:
    """Link a library that says the `told` of itself, each in the string `edgeloop_<name>`. Raises BuildError."""
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "artifact.c"
        lines = [f"const char *const edgeloop_{key} = {json.dumps(json.dumps(said))};\n" for key, said in told.items()]
        source.write_text("".join(lines))
        module.export_library(str(library), fcompile=_linker(target, source))


def _float_module(content: bytes) -> Any:
    import tflite
    import tvm
    from tvm.relax.frontend.tflite import from_tflite

    try:
        return from_tflite(tflite.Model.GetRootAsModel(content, 0))
    except tvm.error.OpNotImplemented as error:
        raise BuildError(
            f"TVM's importer: {' '.join(str(error).split())}", next_step="leave tvm out of the engines for this network"
        ) from error


def _has(processor: Any) -> Callable[[str], bool]:
    from tvm.target import codegen

    return lambda feature: bool(codegen.target_has_features(feature, processor))


def _linker(target: TvmTarget, source: Path) -> Any:
    def link(output: str, objects: Sequence[str], **_options: Any) -> None:
        command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{target.triple}.{GLIBC}", "-shared", "-fPIC"]
        done = subprocess.run(
            [*command, "-O2", "-s", "-o", output, *objects, str(source)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BuildError(f"linking for {target}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")

    link.output_format = "so"  # type: ignore[attr-defined]  # as export_library asks
    return link


def run_library(
    library: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], given: Sequence[NDArray[Any]]
) -> list[NDArray[Any]]:
    """All samples one by one through a library for this machine; (n, ...) in, (n, ...) out, dequantized."""
    import tvm
    from tvm import relax

    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    stored = [litert.to_stored(x, _detail(spec)) for x, spec in zip(given, inputs, strict=True)]
    rows: list[list[NDArray[Any]]] = []
    for index in range(len(stored[0])):
        out = machine["main"](*(tvm.runtime.tensor(np.ascontiguousarray(x[index : index + 1])) for x in stored))
        rows.append([one.numpy() for one in (out if not hasattr(out, "numpy") else [out])])
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return [litert.to_real(column, _detail(spec)) for column, spec in zip(columns, outputs, strict=True)]


def _detail(spec: TensorSpec) -> dict[str, Any]:
    """A tensor as the interpreters tell it."""
    scales, zeros = ([] if one is None else [one] for one in (spec.scale, spec.zero_point))
    quantization = {"scales": scales, "zero_points": zeros}
    return {"name": spec.name, "dtype": spec.dtype, "quantization_parameters": quantization}


def _specs(told: Mapping[str, Any]) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    inputs, outputs = (tuple(TensorSpec.model_validate(s) for s in told[key]) for key in ("inputs", "outputs"))
    return inputs, outputs


if __name__ == "__main__":
    json_child.serve(_work, prepare=_prepare)
