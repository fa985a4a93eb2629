"""A child process that opens a .tflite nobody vouches for: inspects, counts or splits it, or predicts with it.

Knows numpy and the runtime only, so that it starts fast: `python -m edgeloop.host_runtime.litert_child`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import DataError, ModelError
from edgeloop.host_runtime.jobs import (
    RUNTIME_JOBS,
    CountAnswer,
    CountJob,
    InspectAnswer,
    InspectJob,
    OperatorsAnswer,
    OperatorsJob,
    PredictAnswer,
    PredictJob,
    RuntimeJob,
    SplitAnswer,
    SplitJob,
)
from edgeloop.host_runtime.shapes import Shape, format_shape, resolve_shapes
from edgeloop.processes import json_child

_DEFAULT_SIGNATURE = "serving_default"
_FLEX = "Flex"
"""The names of TensorFlow's own operators begin so in a .tflite."""


def _prepare() -> None:
    import ai_edge_litert.interpreter  # noqa: F401
    import numpy  # noqa: F401, ICN001


def _work(job: RuntimeJob) -> BaseModel:
    """Do one job. Raises ModelError, DataError, UserError."""
    match job:
        case InspectJob():
            return _inspect(job)
        case CountJob():
            return _count(job)
        case OperatorsJob():
            return _count_operators(job)
        case SplitJob():
            return _split(job)
        case PredictJob():
            return _predict(job)


def _inspect(job: InspectJob) -> InspectAnswer:
    content = job.model.read_bytes()
    signature = _walk(content)
    foreign = job.for_delegate and bool(_custom_operators(content))
    interpreter = _open_without_operators(content) if foreign else _open(content)
    names: list[dict[int, str]] = [{}, {}]
    if signature is not None:
        runner = interpreter.get_signature_runner(signature)
        names = [
            {int(d["index"]): name for name, d in details.items()}
            for details in (runner.get_input_details(), runner.get_output_details())
        ]
    inputs = _specs(interpreter.get_input_details(), names[0], "input")
    declared_shapes = _declared_shapes(interpreter.get_input_details())
    shapes = resolve_shapes([spec.name for spec in inputs], declared_shapes, job.shapes)
    resized = shapes != [spec.shape for spec in inputs]
    if resized:
        interpreter = _open_resized(content, shapes)
        inputs = _specs(interpreter.get_input_details(), names[0], "input")
    outputs = _specs(interpreter.get_output_details(), names[1], "output")
    return InspectAnswer(inputs=inputs, outputs=outputs, resized=resized)


def _declared_shapes(details: list[dict[str, Any]]) -> list[list[int]]:
    """The shape of each input as the file declares it, dynamic dimensions open."""
    shapes = []
    for detail in details:
        signature = detail.get("shape_signature")
        shapes.append([int(d) for d in (detail["shape"] if signature is None or len(signature) == 0 else signature)])
    return shapes


def _open_resized(content: bytes, shapes: list[Shape]) -> Any:
    """The model with its inputs in other shapes, run once: shapes of outputs may be known only then."""
    from edgeloop.host_runtime import litert

    try:
        interpreter = litert.open_model(content, shapes)
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())[:200]
        raise ModelError(f"does not run with {', '.join(map(format_shape, shapes))} as inputs: {text}") from error
    return interpreter


def _count(job: CountJob) -> CountAnswer:
    from edgeloop.host_runtime import litert
    from edgeloop.host_runtime.tflite_sizes import count

    content = job.model.read_bytes()
    _walk(content)
    # Without delegates: inside one, tensors keep the shapes that the file has.
    interpreter = litert.open_model(content, job.shapes, keep_all=True)
    if job.shapes is not None:
        interpreter.invoke()
    sizes, lightening = count(
        content, {int(d["index"]): tuple(map(int, d["shape"])) for d in interpreter.get_tensor_details()}
    )
    return CountAnswer(sizes=sizes, lightening=lightening)


def _count_operators(job: OperatorsJob) -> OperatorsAnswer:
    from ai_edge_litert.tools import flatbuffer_utils

    content = job.model.read_bytes()
    _walk(content)
    graph = flatbuffer_utils.read_model_from_bytearray(bytearray(content)).subgraphs[0]
    return OperatorsAnswer(operators=len(graph.operators or []))


def _split(job: SplitJob) -> SplitAnswer:
    from edgeloop.host_runtime.tflite_split import split

    content = job.model.read_bytes()
    _walk(content)
    operators, parts = split(content, job.parts)
    return SplitAnswer(operators=operators, parts=parts)


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
        tensors = [*(graph.inputs or []), *(graph.outputs or [])]
        for op in graph.operators or []:
            tensors += [*(op.inputs or []), *(op.outputs or [])]
            if not 0 <= op.opcodeIndex < len(model.operatorCodes or []):
                raise ModelError("damaged: an operator has no code")
        if any(not -1 <= int(t) < count for t in tensors):
            raise ModelError("damaged: an operator names a tensor that does not exist")
        if any(not 0 <= int(t.buffer) < len(model.buffers) for t in graph.tensors or []):
            raise ModelError("damaged: a tensor names a buffer that does not exist")
    return _signature(model)


def _signature(model: Any) -> str | None:
    """The only signature, else `serving_default`. Raises ModelError where it is not clear which, or it can't be run.

    The runtimes run the first graph of a file; a signature of another one would be measured as something else.
    """
    signatures = {
        (s.signatureKey or b"").decode(errors="replace"): int(s.subgraphIndex) for s in model.signatureDefs or []
    }
    if not signatures:
        return None
    name = _DEFAULT_SIGNATURE if _DEFAULT_SIGNATURE in signatures else next(iter(signatures))
    if len(signatures) > 1 and name != _DEFAULT_SIGNATURE:
        raise ModelError(
            f"has the signatures {', '.join(signatures)}, and none is {_DEFAULT_SIGNATURE}",
            next_step="convert it with one of them alone",
        )
    if signatures[name] != 0:
        raise ModelError(
            f"its signature {name} is graph {signatures[name]} of the file, and runtimes run the first",
            next_step="convert it with that one alone",
        )
    return name


def _open(content: bytes, shapes: tuple[Shape, ...] | None = None) -> Any:
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


def _open_without_operators(content: bytes) -> Any:
    """An interpreter that knows inputs and outputs of a model whose operators it need not have."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        return Interpreter(model_content=content, num_threads=1)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"can't be loaded by LiteRT: {' '.join(str(error).split())[:200]}") from error


def _custom_operators(content: bytes) -> list[str]:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    return sorted({code.customCode.decode(errors="replace") for code in model.operatorCodes if code.customCode})


def _specs(details: list[dict[str, Any]], names: Mapping[int, str], fallback: str) -> tuple[TensorSpec, ...]:
    from edgeloop.host_runtime import litert

    specs = []
    for position, detail in enumerate(details):
        _refuse_other_than_numbers(detail["dtype"])
        own_name = str(detail["name"]).removesuffix(":0")
        specs.append(litert.tensor_spec(detail, names.get(int(detail["index"])) or own_name or f"{fallback}{position}"))
    return tuple(specs)


def _refuse_other_than_numbers(dtype: Any) -> None:
    import numpy as np

    kind = np.dtype(dtype)
    if kind.kind not in "biuf":
        raise ModelError(f"takes or gives {kind.name} tensors; edgeloop measures numbers only")


def _predict(job: PredictJob) -> PredictAnswer:
    from edgeloop.host_runtime import litert
    from edgeloop.host_runtime.sample_files import read_samples, write_samples

    interpreter = _open(job.model.read_bytes(), job.shapes)
    try:
        outputs = litert.run(interpreter, read_samples(job.samples.inputs))
    except ValueError as error:
        raise DataError(str(error)) from error
    write_samples(job.samples.outputs, outputs)
    return PredictAnswer()


if __name__ == "__main__":
    json_child.serve(_work, RUNTIME_JOBS, prepare=_prepare)
