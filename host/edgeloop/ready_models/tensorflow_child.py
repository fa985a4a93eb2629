"""The child process that converts with TensorFlow, one job on stdin.

In: a .keras or .h5 file or a SavedModel folder, the form that is wanted, shapes for dynamic dimensions, calibration
samples for the forms that need them. Out: a .tflite, and the names of its inputs and outputs in their order.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.errors import ModelError
from edgeloop.host_runtime import shapes
from edgeloop.host_runtime.tflite_pack import stripped
from edgeloop.processes import json_child

_DEFAULT_SIGNATURE = "serving_default"
_NEEDED = re.compile(r"(?:Custom|Flex) ops: ([^\n]+)")
_EXPORT = "save it as a SavedModel with model.export(FOLDER)"


@dataclass(frozen=True, slots=True)
class _Function:
    """What is converted: flat tensors in, flat tensors out."""

    call: Callable[..., Sequence[Any]]
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]
    """Name, declared shape and dtype of each."""
    outputs: tuple[str, ...]
    keeps: Any
    """The loaded model, whose variables must live as long."""


def _prepare() -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import keras
    import tensorflow as tf

    _ = (keras, tf)


def _work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Convert one model. Raises ModelError, UserError."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    source = Path(job["source"])
    function = _saved_model(source) if source.is_dir() else _keras(source)
    names = [name for name, _, _ in function.inputs]
    wanted = shapes.settled(names, [declared for _, declared, _ in function.inputs], job["shapes"], job["samples"])
    specs = [
        tf.TensorSpec(shape, dtype, name=f"input_{place}")
        for place, (shape, (_, _, dtype)) in enumerate(zip(wanted, function.inputs, strict=True))
    ]
    try:
        concrete = tf.function(lambda *tensors: list(function.call(*tensors))).get_concrete_function(*specs)
        # Frozen first: with variables left in, calibration fails on the first one that is read.
        frozen = convert_variables_to_constants_v2(concrete)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        calibration = _calibration(job["calibration"], names, wanted)
        _as_form(tf, converter, job["form"], calibration)
        content = converter.convert()
    except ModelError:
        raise
    except Exception as error:
        raise _unconvertible(error, job["form"]) from error
    Path(job["target"]).write_bytes(stripped(content))
    return {"inputs": names, "outputs": list(function.outputs), "bytes_before_strip": len(content)}


def _keras(source: Path) -> _Function:
    import keras
    import tensorflow as tf

    try:
        model = keras.saving.load_model(source, compile=False)
    except Exception as error:
        if "Lambda" in str(error) and "unsafe" in str(error):
            raise ModelError(
                "holds a Lambda layer, which is Python code that edgeloop does not run", next_step=_EXPORT
            ) from error
        raise ModelError(
            f"Keras can't load it: {json_child.one_line(error)}",
            next_step=_EXPORT if "Could not locate" in str(error) else None,
        ) from error
    structure, results = _ends(model)
    if structure is None:
        raise ModelError("the model tells no inputs (a subclass of keras.Model)", next_step=_EXPORT)
    flat = tf.nest.flatten(structure)
    names = _named(structure, [str(tensor.name) for tensor in flat])
    outputs = _named(results, [f"output_{place}" for place in range(len(tf.nest.flatten(results)))])

    def call(*tensors: Any) -> Sequence[Any]:
        result = model(tf.nest.pack_sequence_as(structure, list(tensors)), training=False)
        flattened: Sequence[Any] = tf.nest.flatten(result)
        return flattened

    described = tuple(
        (name, tuple(shapes.DYNAMIC if size is None else int(size) for size in tensor.shape), str(tensor.dtype))
        for name, tensor in zip(names, flat, strict=True)
    )
    return _Function(call, described, tuple(outputs), model)


def _ends(model: Any) -> tuple[Any, Any]:
    """What the model takes and gives, as it is nested; (None, None) of one that does not tell."""
    try:
        return model.input, model.output
    except (AttributeError, ValueError):
        pass
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)  # a Sequential has these alone
    if not inputs or not outputs:
        return None, None
    return (inputs[0] if len(inputs) == 1 else inputs), (outputs[0] if len(outputs) == 1 else outputs)


def _named(structure: Any, names: list[str]) -> list[str]:
    """A dictionary's own keys, in the order in which it is flattened; else the names of the tensors."""
    return sorted(structure) if isinstance(structure, dict) else names


def _saved_model(source: Path) -> _Function:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(source))
    except Exception as error:
        raise ModelError(f"TensorFlow can't load it: {json_child.one_line(error)}") from error
    signature = loaded.signatures[_signature(sorted(loaded.signatures))]
    given = signature.structured_input_signature[1]
    outputs = sorted(signature.structured_outputs)
    names = sorted(given)

    def call(*tensors: Any) -> Sequence[Any]:
        result = signature(**dict(zip(names, tensors, strict=True)))
        return [result[name] for name in outputs]

    described = []
    for name in names:
        rank = given[name].shape.rank
        if rank is None:
            raise ModelError(f"input {name} has no number of dimensions", next_step="export it with fixed ones")
        sizes = tuple(shapes.DYNAMIC if size is None else int(size) for size in given[name].shape)
        described.append((name, sizes, str(given[name].dtype.name)))
    return _Function(call, tuple(described), tuple(outputs), loaded)


def _signature(found: list[str]) -> str:
    """The signature that is converted. Raises ModelError where it is not clear which."""
    if _DEFAULT_SIGNATURE in found:
        return _DEFAULT_SIGNATURE
    if len(found) == 1:
        return found[0]
    told = f"has the signatures {', '.join(found)}, and none is {_DEFAULT_SIGNATURE}" if found else "has no signature"
    raise ModelError(told, next_step=f"export it with one, called {_DEFAULT_SIGNATURE}")


def _calibration(
    path: str | None, names: Sequence[str], wanted: Sequence[tuple[int, ...]]
) -> Callable[[], Iterator[list[NDArray[Any]]]] | None:
    """The representative data set: one sample at a time, in the order of the inputs."""
    if path is None:
        return None
    with np.load(path) as arrays:
        held = dict(arrays)
    columns = [next(iter(held.values()))] if len(names) == 1 else [held[name] for name in names]

    def each() -> Iterator[list[NDArray[Any]]]:
        for index in range(len(columns[0])):
            yield [
                np.ascontiguousarray(
                    np.moveaxis(column[index], -1, 0)
                    if shapes.is_channels_first(shape, column.shape[1:])
                    else column[index]
                ).reshape(shape)
                for column, shape in zip(columns, wanted, strict=True)
            ]

    return each


def _as_form(tf: Any, converter: Any, form: str, calibration: Any) -> None:
    """Set the converter up for one form: fp32, fp16, dynamic, w8a16 or w8a8."""
    if form == "fp32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if form in ("w8a8", "w8a16"):
        converter.representative_dataset = calibration
        stored = tf.int8 if form == "w8a8" else tf.int16
        kernels = (
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8
            if form == "w8a8"
            else tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        )
        converter.target_spec.supported_ops = [kernels]
        converter.inference_input_type = converter.inference_output_type = stored


def _unconvertible(error: Exception, form: str) -> ModelError:
    text = str(error)
    if needed := _NEEDED.search(text):
        return ModelError(
            f"needs operators that TFLite does not have: {needed[1].strip()}",
            next_step="build the model without them",
        )
    return ModelError(f"TensorFlow can't make {form} of it: {json_child.one_line(error)}")


if __name__ == "__main__":
    json_child.serve(_work, prepare=_prepare)
