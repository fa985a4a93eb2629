"""Keras layers and operations without weights in torch: shapes, dropout, activations, arithmetic."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import keras
import torch
from torch import nn
from torch.nn import functional

from edgeloop.models.keras_import.call import LayerCall, LayerTranslation, tensor_of
from edgeloop.models.keras_import.graph import KerasValue, TorchGraph
from edgeloop.models.keras_import.windows import one_for_each_axis, reduce_axes

# shapes


def flatten(call: LayerCall) -> KerasValue:
    """Flatten."""
    value, graph = call.value, call.graph
    if value.rank == 2:
        return value
    if any(n != 1 for n in value.shape[:-1]):  # in Keras's order: place by place
        value = graph.channel_last(value)
    return KerasValue(graph.apply(value, call.shape, torch.flatten, value, 1).node, call.shape, value.dtype)


def reshape(call: LayerCall) -> KerasValue:
    """Reshape, Squeeze, ExpandDims."""
    value, shape = call.graph.channel_last(call.value), call.shape
    return value if value.shape == shape else call.graph.apply(value, shape, torch.reshape, value, (-1, *shape))


def permute(call: LayerCall) -> KerasValue:
    """Permute, Transpose."""
    layer, value = call.layer, call.graph.channel_last(call.value)
    order = (0, *layer.dims) if hasattr(layer, "dims") else tuple(layer.axes or ())
    if not order or order[0] != 0:
        raise call.refusal("moves the batch")
    return call.graph.apply(value, call.shape, torch.permute, value, order)


def identity(call: LayerCall) -> KerasValue:
    """Identity."""
    return call.value


def cast(call: LayerCall) -> KerasValue:
    """Cast and ConvertToTensor: integers to float32, and nothing else."""
    layer, value = call.layer, call.value
    dtype = keras.backend.standardize_dtype(layer.dtype) if layer.dtype is not None else value.dtype
    if dtype == value.dtype:
        return value
    if dtype != "float32":
        raise call.translation.error(f"the model casts to {dtype}", "compute in float32; rungs lighten it")
    return _as_float(call, value)


def upsampling(call: LayerCall) -> KerasValue:
    """UpSampling2D, nearest neighbours."""
    layer = call.layer
    if layer.interpolation != "nearest":
        raise call.refusal(f'has interpolation="{layer.interpolation}", known is "nearest"')
    value = call.graph.channel_first(call.value)
    scale = [float(n) for n in one_for_each_axis(layer.size, value.rank - 2)]
    return call.graph.apply(value, call.shape, functional.interpolate, value, scale_factor=scale)


# dropout, activations


def dropout(call: LayerCall) -> KerasValue:
    """Dropout, and SpatialDropout of whole channels."""
    layer, value = call.layer, call.value
    if call.kwargs.get("training") is False or not layer.rate:
        return value
    name = type(layer).__name__.removeprefix("Spatial")
    kind = {"Dropout": nn.Dropout, "Dropout1D": nn.Dropout1d, "Dropout2D": nn.Dropout2d}[name]
    if kind is nn.Dropout:
        if layer.noise_shape is not None:
            raise call.refusal("has a noise_shape", "use SpatialDropout2D to drop whole channels")
    else:
        value = call.graph.channel_first(value)
    return call.graph.module(layer, "", value, call.shape, lambda: kind(layer.rate))


def activation(call: LayerCall) -> KerasValue:
    """Activation."""
    return call.activate(call.value)


def relu(call: LayerCall) -> KerasValue:
    """ReLU, with a slope or a maximum."""
    layer, value = call.layer, call.value
    if layer.threshold or (layer.negative_slope and layer.max_value is not None):
        raise call.refusal("has a threshold, or a slope and a max_value at once")
    if layer.negative_slope:
        return leaky_relu(call)
    if layer.max_value is None:
        return call.graph.apply(value, call.shape, torch.relu, value)
    return call.graph.apply(value, call.shape, functional.hardtanh, value, 0.0, float(layer.max_value))


def leaky_relu(call: LayerCall) -> KerasValue:
    """LeakyReLU."""
    slope = float(call.layer.negative_slope)
    return call.graph.apply(call.value, call.shape, functional.leaky_relu, call.value, slope)


def elu(call: LayerCall) -> KerasValue:
    """ELU."""
    return call.graph.apply(call.value, call.shape, functional.elu, call.value, float(call.layer.alpha))


def softmax(call: LayerCall) -> KerasValue:
    """Softmax along the last axis."""
    if call.layer.axis not in {-1, call.value.rank - 1}:
        raise call.refusal("is along another axis than the last")
    return _last_softmax(call.graph, call.value)


def _last_softmax(graph: TorchGraph, value: KerasValue) -> KerasValue:
    return graph.apply(value, value.shape, torch.softmax, value, value.axis(-1))


def _pointwise_function(
    function: Callable[..., torch.Tensor], *args: float
) -> Callable[[TorchGraph, KerasValue], KerasValue]:
    return lambda graph, value: graph.apply(value, value.shape, function, value, *args)


ACTIVATIONS: Mapping[str, Callable[[TorchGraph, KerasValue], KerasValue]] = {
    "linear": lambda _, value: value,
    "relu": _pointwise_function(torch.relu),
    "relu6": _pointwise_function(functional.relu6),
    "sigmoid": _pointwise_function(torch.sigmoid),
    "tanh": _pointwise_function(torch.tanh),
    "softmax": _last_softmax,
    "silu": _pointwise_function(functional.silu),
    "hard_sigmoid": _pointwise_function(functional.hardsigmoid),
    "hard_silu": _pointwise_function(functional.hardswish),
    "gelu": _pointwise_function(functional.gelu),
    "elu": _pointwise_function(functional.elu),
    "leaky_relu": _pointwise_function(functional.leaky_relu, 0.2),
    "selu": _pointwise_function(functional.selu),
    "softplus": _pointwise_function(functional.softplus),
    "exponential": _pointwise_function(torch.exp),
}
"""Functions of keras.activations with their defaults."""


def activation_operation(name: str) -> LayerTranslation:
    """An operation of keras.ops that is one of the activations."""
    return lambda call: ACTIVATIONS[name](call.graph, call.value)


# arithmetic


def rescaling(call: LayerCall) -> KerasValue:
    """Rescaling by two numbers."""
    layer, value, graph = call.layer, call.value, call.graph
    if value.dtype != "float32":
        value = _as_float(call, value)
    if not all(isinstance(n, int | float) for n in (layer.scale, layer.offset)):
        raise call.refusal("has a scale or an offset that is not one number")
    value = graph.apply(value, call.shape, operator.mul, value, float(layer.scale))
    return graph.apply(value, call.shape, operator.add, value, float(layer.offset)) if layer.offset else value


def concatenate(call: LayerCall) -> KerasValue:
    """Concatenate, of a list of tensors or of several arguments."""
    values = call.graph.alike(list(call.args[0] if len(call.args) == 1 else call.args))
    if call.layer.axis % values[0].rank == 0:
        raise call.refusal("joins along the batch")
    return call.graph.apply(values[0], call.shape, torch.cat, tuple(values), values[0].axis(call.layer.axis))


def merge(function: Callable[..., torch.Tensor]) -> LayerTranslation:
    """A layer that folds a list of tensors by a function of two."""

    def translate(call: LayerCall) -> KerasValue:
        values = list(call.args[0])
        if len({value.rank for value in values}) > 1:
            raise call.refusal("joins tensors with different numbers of axes", "reshape the smaller one first")
        result, *rest = call.graph.alike(values)
        for value in rest:
            result = call.graph.apply(result, _broadcast(result.shape, value.shape), function, result, value)
        if type(call.layer).__name__ == "Average":
            result = call.graph.apply(result, call.shape, operator.mul, result, 1 / len(values))
        return result

    return translate


def arithmetic(function: Callable[..., torch.Tensor]) -> LayerTranslation:
    """An operation of two: values, weights, or numbers."""

    def translate(call: LayerCall) -> KerasValue:
        operands = [*call.args, *call.kwargs.values()]
        values = [operand for operand in operands if isinstance(operand, KerasValue)]
        meeting: list[Any]
        if all(isinstance(operand, KerasValue | int | float) for operand in operands):
            alike = iter(call.graph.alike(values))
            meeting = [next(alike) if isinstance(operand, KerasValue) else operand for operand in operands]
        else:
            meeting = [_operand(call, operand, values[0]) for operand in operands]
        # A value of fewer axes meets the last ones, as numpy has it.
        widest = max((m for m in meeting if isinstance(m, KerasValue)), key=lambda v: v.rank)
        return call.graph.apply(widest, call.shape, function, *meeting)

    return translate


def merge_or_arithmetic(function: Callable[..., torch.Tensor]) -> LayerTranslation:
    """A name that Keras gives both to a layer of a list and to an operation of two."""
    of_list, of_two = merge(function), arithmetic(function)
    return lambda call: of_list(call) if call.is_of_list else of_two(call)


def pointwise(function: Callable[..., torch.Tensor]) -> LayerTranslation:
    """An operation that makes each value from the value at its place."""
    return lambda call: call.graph.apply(call.value, call.shape, function, call.value)


def reduction(function: Callable[..., torch.Tensor]) -> LayerTranslation:
    """An operation that reduces axes, the batch not among them."""

    def translate(call: LayerCall) -> KerasValue:
        layer, value = call.layer, call.value
        axes = layer.axis if isinstance(layer.axis, tuple | list) else [layer.axis]
        if None in axes or any(axis % value.rank == 0 for axis in axes):
            raise call.refusal("reduces along the batch", "name the axes, without 0")
        return reduce_axes(call, value, function, [int(axis) for axis in axes], keep=bool(layer.keepdims))

    return translate


def maximum(one: torch.Tensor | float, other: torch.Tensor | float) -> torch.Tensor:
    """Of two tensors, or of one and a number."""
    if not isinstance(one, torch.Tensor):
        one, other = other, one
    assert isinstance(one, torch.Tensor)
    return torch.maximum(one, other) if isinstance(other, torch.Tensor) else torch.clamp_min(one, other)


def minimum(one: torch.Tensor | float, other: torch.Tensor | float) -> torch.Tensor:
    """Of two tensors, or of one and a number."""
    if not isinstance(one, torch.Tensor):
        one, other = other, one
    assert isinstance(one, torch.Tensor)
    return torch.minimum(one, other) if isinstance(other, torch.Tensor) else torch.clamp_max(one, other)


def _as_float(call: LayerCall, value: KerasValue) -> KerasValue:
    node = call.graph.apply(value, call.shape, torch.Tensor.float, value).node
    return KerasValue(node, call.shape, "float32", value.first)


def _operand(call: LayerCall, operand: object, like: KerasValue) -> KerasValue | float:
    if isinstance(operand, KerasValue):
        return call.graph.channel_last(operand)
    if isinstance(operand, int | float):
        return operand
    trainable = isinstance(operand, keras.Variable) and bool(operand.trainable)
    return call.graph.constant(tensor_of(operand), trainable=trainable, like=like)


def _broadcast(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(a, b) for a, b in zip(one, other, strict=True))
