"""A child process that opens a .tflite nobody vouches for: `inspect`, `count` or `cut` it, or `predict` with it.

Knows numpy and the runtime only, so that it starts fast: `python -m edgeloop.host_runtime.litert_child`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeloop.errors import DataError, ModelError
from edgeloop.processes import json_child

_DEFAULT_SIGNATURE = "serving_default"
_FLEX = "Flex"
"""How the names of TensorFlow's own operators begin in a .tflite."""


def _prepare() -> None:
    import ai_edge_litert.interpreter  # noqa: F401
    import numpy  # noqa: F401, ICN001


def _work(job: Mapping[str, Any]) -> dict[str, Any]:
    if job["do"] == "cut":
        return _cut(Path(job["model"]), Path(job["parts"]))
    if job["do"] == "count":
        return _count(job)
    if job["do"] == "operators":
        return _operators(Path(job["model"]).read_bytes())
    return _inspect(job) if job["do"] == "inspect" else _predict(job)


def _inspect(job: Mapping[str, Any]) -> dict[str, Any]:
    content = Path(job["model"]).read_bytes()
    signature = _walk(content)
    foreign = job["delegated"] and bool(_custom_operators(content))
    interpreter = _unprepared(content) if foreign else _open(content)
    named: list[dict[int, str]] = [{}, {}]
    if signature is not None:
        runner = interpreter.get_signature_runner(signature)
        named = [
            {int(d["index"]): name for name, d in details.items()}
            for details in (runner.get_input_details(), runner.get_output_details())
        ]
    inputs = _specs(interpreter.get_input_details(), named[0], "input")
    wanted = _shapes(interpreter.get_input_details(), [spec["name"] for spec in inputs], job)
    resized = wanted != [tuple(spec["shape"]) for spec in inputs]
    if resized:
        interpreter = _resized(content, wanted)
        inputs = _specs(interpreter.get_input_details(), named[0], "input")
    return {
        "inputs": inputs,
        "outputs": _specs(interpreter.get_output_details(), named[1], "output"),
        "resized": resized,
    }


def _shapes(details: list[dict[str, Any]], names: list[str], job: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """The shape of each input, dynamic dimensions filled with what the job tells."""
    from edgeloop.host_runtime import shapes

    declared = []
    for detail in details:
        signature = detail.get("shape_signature")
        declared.append([int(d) for d in (detail["shape"] if signature is None or len(signature) == 0 else signature)])
    return shapes.settled(names, declared, job["shapes"], job["samples"])


def _resized(content: bytes, wanted: list[tuple[int, ...]]) -> Any:
    """The model with its inputs in other shapes, run once: shapes of outputs may be known only then."""
    from edgeloop.host_runtime import litert, shapes

    try:
        interpreter = litert.open_model(content, wanted)
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise ModelError(f"does not run with {', '.join(map(shapes.shown, wanted))} as inputs: {text}") from error
    return interpreter


def _count(job: Mapping[str, Any]) -> dict[str, Any]:
    from edgeloop.host_runtime import litert
    from edgeloop.host_runtime.tflite_sizes import counted

    content = Path(job["model"]).read_bytes()
    _walk(content)
    # Without delegates: inside one, tensors keep the shapes that the file has.
    interpreter = litert.open_model(content, job["shapes"], keep_all=True)
    if job["shapes"] is not None:
        interpreter.invoke()
    return counted(content, {int(d["index"]): tuple(map(int, d["shape"])) for d in interpreter.get_tensor_details()})


def _operators(content: bytes) -> dict[str, Any]:
    from ai_edge_litert.tools import flatbuffer_utils

    _walk(content)
    graph = flatbuffer_utils.read_model_from_bytearray(bytearray(content)).subgraphs[0]
    return {"operators": len(graph.operators or [])}


def _cut(model: Path, parts: Path) -> dict[str, Any]:
    from edgeloop.host_runtime.tflite_split import cut

    content = model.read_bytes()
    _walk(content)
    return cut(content, parts)


def _walk(content: bytes) -> str | None:
    """Read every table and vector with bounds checked: the runtime itself follows offsets blindly.

    Returns the signature that is run, None where the file has none.
    """
    import struct

    from ai_edge_litert.tools import flatbuffer_utils

    try:
        model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    except (struct.error, ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
        raise ModelError("cut short or damaged: its tables point outside the file") from error
    if not model.subgraphs or not model.buffers:
        raise ModelError("has no graph in it")
    for graph in model.subgraphs:
        count = len(graph.tensors or [])
        touched = [*(graph.inputs or []), *(graph.outputs or [])]
        for op in graph.operators or []:
            touched += [*(op.inputs or []), *(op.outputs or [])]
            if not 0 <= op.opcodeIndex < len(model.operatorCodes or []):
                raise ModelError("damaged: an operator has no code")
        if any(not -1 <= int(t) < count for t in touched):
            raise ModelError("damaged: an operator names a tensor that does not exist")
        if any(not 0 <= int(t.buffer) < len(model.buffers) for t in graph.tensors or []):
            raise ModelError("damaged: a tensor names a buffer that does not exist")
    return _signature(model)


def _signature(model: Any) -> str | None:
    """The only signature, else `serving_default`. Raises ModelError where it is not clear which, or it can't be run.

    The runtimes run the first graph of a file; a signature of another one would be measured as something else.
    """
    found = {(s.signatureKey or b"").decode(errors="replace"): int(s.subgraphIndex) for s in model.signatureDefs or []}
    if not found:
        return None
    name = _DEFAULT_SIGNATURE if _DEFAULT_SIGNATURE in found else next(iter(found))
    if len(found) > 1 and name != _DEFAULT_SIGNATURE:
        raise ModelError(
            f"has the signatures {', '.join(found)}, and none is {_DEFAULT_SIGNATURE}",
            next_step="convert it with one of them alone",
        )
    if found[name] != 0:
        raise ModelError(
            f"its signature {name} is graph {found[name]} of the file, and runtimes run the first",
            next_step="convert it with that one alone",
        )
    return name


def _open(content: bytes, shapes: list[list[int]] | None = None) -> Any:
    from edgeloop.host_runtime import litert

    try:
        return litert.open_model(content, shapes)
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        custom = _custom_operators(content)
        if custom and ("custom op" in text or "Flex delegate" in text):
            of_tensorflow = all(name.startswith(_FLEX) for name in custom)
            what = "operators of TensorFlow itself" if of_tensorflow else "custom operators"
            raise ModelError(
                f"needs {what}, which LiteRT does not have: {', '.join(custom)}",
                next_step="convert the model with built-in operators only",
            ) from error
        raise ModelError(f"can't be loaded by LiteRT: {text[:200]}") from error


def _unprepared(content: bytes) -> Any:
    """An interpreter that tells inputs and outputs of a model whose operators it need not have."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        return Interpreter(model_content=content, num_threads=1)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"can't be loaded by LiteRT: {' '.join(str(error).split())[:200]}") from error


def _custom_operators(content: bytes) -> list[str]:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    return sorted({code.customCode.decode(errors="replace") for code in model.operatorCodes if code.customCode})


def _specs(details: list[dict[str, Any]], named: Mapping[int, str], fallback: str) -> list[dict[str, Any]]:
    from edgeloop.host_runtime import litert

    specs: list[dict[str, Any]] = []
    for position, detail in enumerate(details):
        dtype = _dtype_name(detail["dtype"])
        scale, zero = litert.quantization(detail)
        name = named.get(int(detail["index"])) or str(detail["name"]).removesuffix(":0") or f"{fallback}{position}"
        shape = [int(d) for d in detail["shape"]]
        specs.append(
            {
                "name": name,
                "dtype": dtype,
                "shape": shape,
                "layout": "channels_last" if len(shape) > 2 else "flat",
                "scale": scale,
                "zero_point": zero,
            }
        )
    return specs


def _dtype_name(dtype: Any) -> str:
    import numpy as np

    kind = np.dtype(dtype)
    if kind.kind not in "biuf":
        raise ModelError(f"takes or gives {kind.name} tensors; edgeloop measures numbers only")
    return str(kind.name)


def _predict(job: Mapping[str, Any]) -> dict[str, Any]:
    import numpy as np

    from edgeloop.host_runtime import litert

    interpreter = _open(Path(job["model"]).read_bytes(), job.get("shapes"))
    with np.load(job["inputs"]) as arrays:
        given = [arrays[str(position)] for position in range(len(arrays.files))]
    try:
        outputs = litert.run(interpreter, given)
    except ValueError as error:
        raise DataError(str(error)) from error
    np.savez(job["outputs"], **{str(i): array for i, array in enumerate(outputs)})  # type: ignore[arg-type]
    return {}


if __name__ == "__main__":
    json_child.serve(_work, prepare=_prepare)
