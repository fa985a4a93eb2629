"""The float .tflite quantized by a rung of the ladder, with the trained ranges instead of calibrated ones.

Runs in the builder's child process only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.builders.tflite.float_model import FloatModel, watch
from edgeloop.builders.tflite.matching import Range, assign_layers, assign_ranges, fingerprint
from edgeloop.core.recipe import Fingerprint, Recipe
from edgeloop.host_runtime.litert import open_model

_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_FOUR_BIT = ("CONV_2D", "FULLY_CONNECTED")
_CALIBRATION_SAMPLES_MAX = 64


@dataclass(frozen=True, slots=True)
class QuantizedModel:
    """A quantized file, and what of the training was matched in it."""

    content: bytes
    ranges_matched: tuple[int, int] | None
    """Quantized activation tensors that got their trained range (or the one that a kernel fixes), of how many."""
    calibrated_tensors: tuple[str, ...]
    """Activation tensors with a calibrated range, as the converter called them."""
    missing_layers: tuple[str, ...]
    """Trained layers with other than 8 bits that the converted model does not have."""


def quantize(
    model: FloatModel,
    recipe: Recipe,
    probe: Sequence[NDArray[Any]],
    parity: Sequence[NDArray[Any]],
) -> QuantizedModel:
    """Return the quantized file; `probe` holds the fingerprint's samples, `parity` inputs to fall back on.

    Raises BuildError where the quantizer fails.
    """
    lightening = recipe.lightening
    if lightening.base == "fp32":
        return QuantizedModel(model.content, None, (), ())
    from ai_edge_quantizer import quantizer

    tool = quantizer.Quantizer(bytearray(model.content))
    missing: list[str] = []
    if lightening.is_float:
        _float_weights(tool)
        return QuantizedModel(bytes(tool.quantize(enable_progress_report=False).quantized_model), None, (), ())
    tool.add_static_config(".*", _all_ops(), lightening.activation_bits, 8)
    if lightening.weight_bits < 8:
        missing = _low_bits(tool, model, recipe)
    marks, extremes = watch(model, probe, [p[:_CALIBRATION_SAMPLES_MAX] for p in parity])
    learned_ranges = {
        activation.name: (activation.fingerprint, Range(activation.low, activation.high))
        for activation in recipe.activations
        if not activation.fixed
    }
    ranges, fixed_by_kernel = assign_ranges(model.ops, model.inputs, marks, learned_ranges)
    statistics = _statistics(tool, model, ranges, extremes)
    content = bytes(tool.quantize(statistics, enable_progress_report=False).quantized_model)
    activations = _quantized_activations(content, model)
    fallen_back = [t for t in activations if t not in ranges and t not in fixed_by_kernel]
    return QuantizedModel(
        content,
        (len(activations) - len(fallen_back), len(activations)),
        tuple(f"{model.origins[t]} ({_maker(model, t)})" for t in fallen_back),
        tuple(missing),
    )


def _all_ops() -> Any:
    from ai_edge_quantizer import qtyping

    return qtyping.TFLOperationName.ALL_SUPPORTED


def _float_weights(tool: Any) -> None:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    names = qtyping.TFLOperationName
    for op in (names.CONV_2D, names.DEPTHWISE_CONV_2D, names.FULLY_CONNECTED, names.CONV_2D_TRANSPOSE):
        tool.add_weight_only_config(".*", op, 16, algorithm_key=AlgorithmName.FLOAT_CASTING)


def _low_bits(tool: Any, model: FloatModel, recipe: Recipe) -> list[str]:
    """Give each layer the bits it was trained with; return the trained low-bit layers that the model lacks."""
    from ai_edge_quantizer import qtyping

    weights: dict[int, Fingerprint] = {}
    reads: list[tuple[str, int, int]] = []
    for op in model.ops:
        if op.kind in _WEIGHTED and len(op.inputs) > 1 and op.inputs[1] in model.constants:
            weights[op.inputs[1]] = fingerprint([model.constants[op.inputs[1]]])
            reads.append((op.kind, op.inputs[1], op.outputs[0]))
    learned_bits = {layer.name: (layer.fingerprint, layer.bits) for layer in recipe.layers}
    bits, missing = assign_layers(weights, learned_bits)
    for kind, weight, output in reads:
        if kind in _FOUR_BIT and bits.get(weight, 8) < 8:
            tool.add_static_config(
                f"^t{output};?$", qtyping.TFLOperationName(kind), recipe.lightening.activation_bits, bits[weight]
            )
    return [name for name in missing if learned_bits[name][1] < 8]


def _statistics(
    tool: Any, model: FloatModel, ranges: Mapping[int, Range], extremes: Mapping[int, tuple[float, float]]
) -> dict[str, Any]:
    """The calibration that the quantizer would have made, with our ranges in it."""
    interpreter = open_model(model.content)
    (key,) = interpreter.get_signature_list()
    details = interpreter.get_signature_runner(key).get_input_details()
    zeros = {name: np.zeros(d["shape"], d["dtype"]) for name, d in details.items()}
    statistics: dict[str, Any] = tool.calibrate({key: [zeros]}, num_threads=1)
    for name, entry in statistics.items():
        number = re.fullmatch(r"t(\d+)", name)
        tensor = int(number[1]) if number else -1
        if tensor not in extremes or "min" not in entry:
            continue
        low, high = (ranges[tensor].low, ranges[tensor].high) if tensor in ranges else extremes[tensor]
        entry["min"], entry["max"] = np.full_like(entry["min"], low), np.full_like(entry["max"], high)
    return statistics


def _quantized_activations(content: bytes, model: FloatModel) -> list[int]:
    """The float model's activation tensors that are integers in the quantized file."""
    from ai_edge_litert.tools import flatbuffer_utils

    quantized_model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    names = {
        (t.name or b"").decode()
        for t in quantized_model.subgraphs[0].tensors
        if t.quantization is not None and t.quantization.scale is not None and len(t.quantization.scale) == 1
    }
    return [t for t in model.activations if f"t{t}" in names]


def _maker(model: FloatModel, tensor: int) -> str:
    return next((op.kind for op in model.ops if tensor in op.outputs), "input")
