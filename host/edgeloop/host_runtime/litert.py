"""Opening a .tflite in the real runtime and running it: for child processes only.

A model file may crash the interpreter, so nothing in the controller's own process imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.host_runtime.shapes import is_channels_first


def open_model(content: bytes, shapes: Sequence[Sequence[int]] | None = None, *, keep_all: bool = False) -> Any:
    """Return an interpreter, tensors allocated, one thread; `keep_all`: plain kernels, every tensor stays readable.

    `shapes` are what the inputs are resized to, in the model's order; None leaves them as they are.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keep_all else OpResolverType.AUTO
    interpreter = Interpreter(
        model_content=content,
        num_threads=1,
        experimental_op_resolver_type=resolver,
        experimental_preserve_all_tensors=keep_all,
    )
    if shapes is not None:
        for detail, shape in zip(interpreter.get_input_details(), shapes, strict=True):
            interpreter.resize_tensor_input(detail["index"], list(shape))
    interpreter.allocate_tensors()
    return interpreter


def quantization(detail: Mapping[str, Any]) -> tuple[float | None, int | None]:
    """Return scale and zero point of a whole tensor, (None, None) for floats."""
    scales = detail["quantization_parameters"]["scales"]
    if len(scales) == 0:
        return None, None
    return float(scales[0]), int(detail["quantization_parameters"]["zero_points"][0])


def to_stored(values: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[Any]:
    """Return values as the tensor stores them: same dtype goes in raw, float is quantized by the tensor's scale.

    Raises ValueError for anything else.
    """
    dtype = np.dtype(detail["dtype"])
    if values.dtype == dtype:
        return values
    scale, zero = quantization(detail)
    if scale is not None and zero is not None and values.dtype.kind == "f":
        limits = np.iinfo(dtype)
        steps: NDArray[Any] = np.clip(np.rint(values / np.float32(scale)) + zero, limits.min, limits.max).astype(dtype)
        return steps
    if scale is None and dtype.kind == "f" and values.dtype.kind == "f":
        return values.astype(dtype)
    raise ValueError(f"input {detail['name'] or detail['index']} takes {dtype.name}, the data are {values.dtype.name}")


def to_real(values: NDArray[Any], detail: Mapping[str, Any]) -> NDArray[Any]:
    """Return dequantized float32 values; integers without a scale stay as they are."""
    scale, zero = quantization(detail)
    if scale is None or zero is None:
        return values
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def run(interpreter: Any, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Run all samples one by one; arrays are (n, ...) in the model's own order, outputs likewise, dequantized.

    Raises ValueError for arrays that do not fit.
    """
    sources, sinks = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != len(sources):
        raise ValueError(f"the model takes {len(sources)} inputs, {len(inputs)} were given")
    tensors = []
    for values, detail in zip(inputs, sources, strict=True):
        shape = tuple(int(d) for d in detail["shape"])
        if is_channels_first(shape, values.shape[1:]):
            values = np.moveaxis(values, -1, 1)
        if values.shape[1:] != shape[1:]:
            raise ValueError(
                f"input {detail['name'] or detail['index']} takes samples of shape {shape[1:]}, not {values.shape[1:]}"
            )
        tensors.append(np.ascontiguousarray(to_stored(values, detail)))
    raw: list[list[NDArray[Any]]] = [[] for _ in sinks]
    for index in range(len(tensors[0])):
        for values, detail in zip(tensors, sources, strict=True):
            interpreter.set_tensor(detail["index"], values[index : index + 1])
        interpreter.invoke()
        for samples, detail in zip(raw, sinks, strict=True):
            samples.append(interpreter.get_tensor(detail["index"]))
    return [to_real(np.concatenate(samples), detail) for samples, detail in zip(raw, sinks, strict=True)]
