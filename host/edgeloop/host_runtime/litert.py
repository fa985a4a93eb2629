"""Opening a .tflite in the real runtime and running it: for child processes only.

A model file may crash the interpreter, so nothing in the controller's own process imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.tensors import TensorSpec
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


def tensor_spec(detail: Mapping[str, Any], name: str | None = None) -> TensorSpec:
    """Return a tensor as an interpreter describes it, under its own name where none is given."""
    shape = tuple(int(size) for size in detail["shape"])
    scales = detail["quantization_parameters"]["scales"]
    zero_points = detail["quantization_parameters"]["zero_points"]
    return TensorSpec(
        name=name or str(detail["name"] or detail["index"]),
        dtype=str(np.dtype(detail["dtype"]).name),
        shape=shape,
        layout="channels_last" if len(shape) > 2 else "flat",
        scale=float(scales[0]) if len(scales) else None,
        zero_point=int(zero_points[0]) if len(scales) else None,
    )


def to_stored(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Return values as the tensor stores them: same dtype goes in raw, float is quantized by the tensor's scale.

    Raises ValueError for anything else.
    """
    dtype = np.dtype(spec.dtype)
    if values.dtype == dtype:
        return values
    if spec.scale is not None and spec.zero_point is not None and values.dtype.kind == "f":
        limits = np.iinfo(dtype)
        steps = np.rint(values / np.float32(spec.scale)) + spec.zero_point
        in_range: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(dtype)
        return in_range
    if spec.scale is None and dtype.kind == "f" and values.dtype.kind == "f":
        return values.astype(dtype)
    raise ValueError(f"input {spec.name} takes {dtype.name}, the data are {values.dtype.name}")


def to_real(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    """Return dequantized float32 values; integers without a scale stay as they are."""
    if spec.scale is None or spec.zero_point is None:
        return values
    return (values.astype(np.float32) - np.float32(spec.zero_point)) * np.float32(spec.scale)


def run(interpreter: Any, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Run all samples one by one; arrays are (n, ...) in the model's own order, outputs likewise, dequantized.

    Raises ValueError for arrays that do not fit.
    """
    sources, sinks = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != len(sources):
        raise ValueError(f"the model takes {len(sources)} inputs, {len(inputs)} were given")
    tensors = [_as_model_takes(values, tensor_spec(detail)) for values, detail in zip(inputs, sources, strict=True)]
    raw: list[list[NDArray[Any]]] = [[] for _ in sinks]
    for index in range(len(tensors[0])):
        for values, detail in zip(tensors, sources, strict=True):
            interpreter.set_tensor(detail["index"], values[index : index + 1])
        interpreter.invoke()
        for samples, detail in zip(raw, sinks, strict=True):
            samples.append(interpreter.get_tensor(detail["index"]))
    specs = map(tensor_spec, sinks)
    return [to_real(np.concatenate(samples), spec) for samples, spec in zip(raw, specs, strict=True)]


def _as_model_takes(values: NDArray[Any], spec: TensorSpec) -> NDArray[Any]:
    if is_channels_first(spec.shape, values.shape[1:]):
        values = np.moveaxis(values, -1, 1)
    if values.shape[1:] != spec.shape[1:]:
        raise ValueError(f"input {spec.name} takes samples of shape {spec.shape[1:]}, not {values.shape[1:]}")
    return np.ascontiguousarray(to_stored(values, spec))
