"""The child process that converts a .keras or .h5 file or a SavedModel with TensorFlow, one job on stdin."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.errors import ModelError, one_line, translated
from edgeloop.host_runtime.shapes import DYNAMIC, Shape, is_channels_first, resolve_shapes
from edgeloop.host_runtime.tflite_pack import strip
from edgeloop.processes import json_child
from edgeloop.ready_models.jobs import ConvertAnswer, ConvertJob

_DEFAULT_SIGNATURE = "serving_default"
_NEEDED = re.compile(r"(?:Custom|Flex) ops: ([^\n]+)")
_EXPORT = "save it as a SavedModel with model.export(FOLDER)"


@dataclass(frozen=True, slots=True)
class _Function:
    """A model as a function: flat tensors in, flat tensors out."""

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


def _work(job: ConvertJob) -> ConvertAnswer:
    """Convert one model. Raises ModelError, UserError."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = _saved_model(job.source) if job.source.is_dir() else _keras(job.source)
    names = [name for name, _, _ in function.inputs]
    shapes = resolve_shapes(names, [shape for _, shape, _ in function.inputs], job.shapes)
    specs = [
        tf.TensorSpec(shape, dtype, name=f"input_{place}")
        for place, (shape, (_, _, dtype)) in enumerate(zip(shapes, function.inputs, strict=True))
    ]
    with translated(ModelError, f"TensorFlow can't make {job.form} of it", explain=_missing_operators):
        concrete = tf.function(lambda *tensors: list(function.call(*tensors))).get_concrete_function(*specs)
        # Frozen first: with variables left in, calibration fails on the first one that is read.
        constant_function = convert_variables_to_constants_v2(concrete)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([constant_function])
        calibration = _calibration(job.calibration, names, shapes)
        _set_form(tf, converter, job.form, calibration)
        content = converter.convert()
    job.model.write_bytes(strip(content))
    return ConvertAnswer(inputs=tuple(names), outputs=function.outputs, bytes_before_strip=len(content))


def _keras(source: Path) -> _Function:
    import keras
    import tensorflow as tf

    with translated(ModelError, "Keras can't load it", explain=_keras_refusal):
        model = keras.saving.load_model(source, compile=False)
    structure, results = _ends(model)
    if structure is None:
        raise ModelError("the model tells no inputs (a subclass of keras.Model)", next_step=_EXPORT)
    flat = tf.nest.flatten(structure)
    names = _names(structure, [str(tensor.name) for tensor in flat])
    outputs = _names(results, [f"output_{place}" for place in range(len(tf.nest.flatten(results)))])

    def call(*tensors: Any) -> Sequence[Any]:
        result = model(tf.nest.pack_sequence_as(structure, list(tensors)), training=False)
        outputs: Sequence[Any] = tf.nest.flatten(result)
        return outputs

    inputs = tuple(
        (name, tuple(DYNAMIC if size is None else int(size) for size in tensor.shape), str(tensor.dtype))
        for name, tensor in zip(names, flat, strict=True)
    )
    return _Function(call, inputs, tuple(outputs), model)


def _keras_refusal(error: Exception) -> ModelError | None:
    """The error for what Keras does not load, and a SavedModel would have."""
    text = str(error)
    if "Lambda" in text and "unsafe" in text:
        return ModelError("holds a Lambda layer, which is Python code that edgeloop does not run", next_step=_EXPORT)
    if "Could not locate" in text:
        return ModelError(f"Keras can't load it: {one_line(error)}", next_step=_EXPORT)
    return None


def _ends(model: Any) -> tuple[Any, Any]:
    """Inputs and outputs of a model, as they are nested; (None, None) of one that does not say."""
    try:
        return model.input, model.output
    except (AttributeError, ValueError):
        pass
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)  # a Sequential has these alone
    if not inputs or not outputs:
        return None, None
    return (inputs[0] if len(inputs) == 1 else inputs), (outputs[0] if len(outputs) == 1 else outputs)


def _names(structure: Any, names: list[str]) -> list[str]:
    """A dictionary's own keys, in the order in which it is flattened; else the names of the tensors."""
    return sorted(structure) if isinstance(structure, dict) else names


def _saved_model(source: Path) -> _Function:
    import tensorflow as tf

    with translated(ModelError, "TensorFlow can't load it"):
        model = tf.saved_model.load(str(source))
    signature = model.signatures[_signature(sorted(model.signatures))]
    tensors = signature.structured_input_signature[1]
    outputs = sorted(signature.structured_outputs)
    names = sorted(tensors)

    def call(*tensors: Any) -> Sequence[Any]:
        result = signature(**dict(zip(names, tensors, strict=True)))
        return [result[name] for name in outputs]

    inputs = []
    for name in names:
        rank = tensors[name].shape.rank
        if rank is None:
            raise ModelError(f"input {name} has no number of dimensions", next_step="export it with fixed ones")
        sizes = tuple(DYNAMIC if size is None else int(size) for size in tensors[name].shape)
        inputs.append((name, sizes, str(tensors[name].dtype.name)))
    return _Function(call, tuple(inputs), tuple(outputs), model)


def _signature(names: list[str]) -> str:
    """The signature that is converted. Raises ModelError where it is not clear which."""
    if _DEFAULT_SIGNATURE in names:
        return _DEFAULT_SIGNATURE
    if len(names) == 1:
        return names[0]
    what = f"has the signatures {', '.join(names)}, and none is {_DEFAULT_SIGNATURE}" if names else "has no signature"
    raise ModelError(what, next_step=f"export it with one, called {_DEFAULT_SIGNATURE}")


def _calibration(
    path: Path | None, names: Sequence[str], shapes: Sequence[Shape]
) -> Callable[[], Iterator[list[NDArray[Any]]]] | None:
    """The representative data set: one sample at a time, in the order of the inputs."""
    if path is None:
        return None
    with np.load(path) as arrays:
        samples = dict(arrays)
    columns = [next(iter(samples.values()))] if len(names) == 1 else [samples[name] for name in names]

    def each() -> Iterator[list[NDArray[Any]]]:
        for index in range(len(columns[0])):
            yield [
                np.ascontiguousarray(
                    np.moveaxis(column[index], -1, 0) if is_channels_first(shape, column.shape[1:]) else column[index]
                ).reshape(shape)
                for column, shape in zip(columns, shapes, strict=True)
            ]

    return each


def _set_form(tf: Any, converter: Any, form: str, calibration: Any) -> None:
    """Set the converter up for one form: fp32, fp16, dynamic, w8a16 or w8a8."""
    if form == "fp32":
        return
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if form in ("w8a8", "w8a16"):
        converter.representative_dataset = calibration
        dtype = tf.int8 if form == "w8a8" else tf.int16
        kernels = (
            tf.lite.OpsSet.TFLITE_BUILTINS_INT8
            if form == "w8a8"
            else tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        )
        converter.target_spec.supported_ops = [kernels]
        converter.inference_input_type = converter.inference_output_type = dtype


def _missing_operators(error: Exception) -> ModelError | None:
    match = _NEEDED.search(str(error))
    if match is None:
        return None
    return ModelError(
        f"needs operators that TFLite does not have: {match[1].strip()}", next_step="build the model without them"
    )


if __name__ == "__main__":
    json_child.serve(_work, ConvertJob, prepare=_prepare)
