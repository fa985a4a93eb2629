"""What each layer and operation of Keras is in torch: weights turned to torch's order, padding worked out."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import torch
from torch import nn
from torch.nn import functional

from edgeloop.models.keras_graph import KerasValue, TorchGraph

if TYPE_CHECKING:
    from edgeloop.models.keras_translator import Translator

Layer = Callable[["Translator", Any, tuple[Any, ...], Mapping[str, Any], tuple[int, ...]], KerasValue]
"""(translator, layer or operation, arguments, shape of the result) -> the result."""


def tensor_of(variable: Any) -> torch.Tensor:
    """A Keras variable's value, or an array of numbers, on the processor, float32."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    return torch.as_tensor(value, dtype=torch.float32, device="cpu").detach().clone()


# layers with weights


def _conv(t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]) -> KerasValue:
    def make() -> nn.Module:
        kernel = tensor_of(layer.kernel)
        kernel = kernel.permute(-1, -2, *range(kernel.dim() - 2))
        return _convolution(kernel, layer.bias, layer, layer.groups, at_once)

    value, at_once = _padded(t, t.graph.channel_first(args[0]), layer, 0.0)
    return t.activated(t.graph.module(layer, "", value, shape, make), layer, layer.activation)


def _depthwise(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    def make() -> nn.Module:
        return _convolution(_depthwise_weights(layer.kernel), layer.bias, layer, int(value.shape[-1]), at_once)

    value, at_once = _padded(t, t.graph.channel_first(args[0]), layer, 0.0)
    return t.activated(t.graph.module(layer, "", value, shape, make), layer, layer.activation)


def _separable(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    value, at_once = _padded(t, t.graph.channel_first(args[0]), layer, 0.0)
    depthwise = _depthwise_weights(layer.depthwise_kernel)

    def pointwise() -> nn.Module:
        kernel = tensor_of(layer.pointwise_kernel)
        kernel = kernel.permute(-1, -2, *range(kernel.dim() - 2))
        return _convolution(kernel, layer.bias, None, 1, [0] * (kernel.dim() - 2))

    between = t.graph.module(
        layer,
        "depthwise",
        value,
        (*shape[:-1], len(depthwise)),
        lambda: _convolution(depthwise, None, layer, int(value.shape[-1]), at_once),
    )
    return t.activated(t.graph.module(layer, "pointwise", between, shape, pointwise), layer, layer.activation)


def _depthwise_weights(kernel: Any) -> torch.Tensor:
    """(kernel..., in, multiplier) as (in * multiplier, 1, kernel...)."""
    tensor = tensor_of(kernel)
    spatial = tensor.dim() - 2
    return tensor.permute(-2, -1, *range(spatial)).reshape(-1, 1, *tensor.shape[:spatial])


def _convolution(kernel: torch.Tensor, bias: Any, layer: Any, groups: int, padding: Sequence[int]) -> nn.Module:
    """A torch convolution with weights (out, in / groups, kernel...); strides and dilation are the Keras layer's."""
    rank = kernel.dim() - 2
    kind: Any = nn.Conv1d if rank == 1 else nn.Conv2d
    made = kind(
        kernel.shape[1] * groups,
        kernel.shape[0],
        tuple(kernel.shape[2:]),
        stride=_tuple(layer.strides, rank) if layer is not None else 1,
        padding=tuple(padding),
        dilation=_tuple(layer.dilation_rate, rank) if layer is not None else 1,
        groups=groups,
        bias=bias is not None,
    )
    return _filled(made, layer, weight=kernel, bias=bias)


def _filled(made: Any, layer: Any, *, weight: torch.Tensor, bias: Any) -> nn.Module:
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(tensor_of(bias))
    if layer is not None and not layer.trainable:
        made.requires_grad_(requires_grad=False)
    module: nn.Module = made
    return module


def _dense(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    def make() -> nn.Module:
        kernel = tensor_of(layer.kernel).t()
        made = nn.Linear(kernel.shape[1], kernel.shape[0], bias=layer.bias is not None)
        return _filled(made, layer, weight=kernel, bias=layer.bias)

    value = t.graph.channel_last(args[0])
    return t.activated(t.graph.module(layer, "", value, shape, make), layer, layer.activation)


class _FrozenNorm1d(nn.BatchNorm1d):
    """A batch norm that keeps its statistics in training too: Keras's with trainable=False."""

    def train(self, mode: bool = True) -> _FrozenNorm1d:  # noqa: ARG002 -- torch's own signature
        return super().train(mode=False)


class _FrozenNorm2d(nn.BatchNorm2d):
    """The same for images."""

    def train(self, mode: bool = True) -> _FrozenNorm2d:  # noqa: ARG002 -- torch's own signature
        return super().train(mode=False)


def _batch_norm(
    t: Translator, layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    value = t.graph.channel_first(args[0])
    if layer.axis not in {-1, value.rank - 1} or value.rank > 4:
        raise t.refused(layer, "has an axis that is not the channels', the last")
    frozen = not layer.trainable or kwargs.get("training") is False

    def make() -> nn.Module:
        flat = value.rank < 4
        kind: Any = (
            (_FrozenNorm1d if flat else _FrozenNorm2d) if frozen else (nn.BatchNorm1d if flat else nn.BatchNorm2d)
        )
        made = kind(shape[-1], eps=layer.epsilon, momentum=1 - layer.momentum)
        with torch.no_grad():
            made.running_mean.copy_(tensor_of(layer.moving_mean))
            made.running_var.copy_(tensor_of(layer.moving_variance))
            for parameter, stored in ((made.weight, layer.gamma), (made.bias, layer.beta)):
                if stored is not None:
                    parameter.copy_(tensor_of(stored))
                parameter.requires_grad_(stored is not None and layer.trainable)
        module: nn.Module = made
        return module

    return t.graph.module(layer, "frozen" if frozen and layer.trainable else "", value, shape, make)


def _embedding(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    if layer.mask_zero:
        raise t.refused(layer, "masks zeros")

    def make() -> nn.Module:
        weights = tensor_of(layer.embeddings)
        return _filled(nn.Embedding(*weights.shape), layer, weight=weights, bias=None)

    return t.graph.module(layer, "", t.graph.channel_last(args[0]), shape, make)


# padding and pools


def _tuple(size: Any, rank: int) -> tuple[int, ...]:
    return tuple(int(n) for n in size) if isinstance(size, tuple | list) else (int(size),) * rank


def _same(value: KerasValue, kernel: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """What Keras's padding "same" adds before and after each axis: the odd cell comes after."""
    found = []
    for size, reach, stride in zip(value.shape[:-1], kernel, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + reach - size)
        found.append((total // 2, total - total // 2))
    return found


def _padded(t: Translator, value: KerasValue, layer: Any, fill: float) -> tuple[KerasValue, list[int]]:
    """Return a convolution's input and the padding, a number an axis, that it does itself; the rest comes before."""
    rank = value.rank - 2
    dilation = _tuple(layer.dilation_rate, rank)
    reach = [(k - 1) * d + 1 for k, d in zip(_tuple(layer.kernel_size, rank), dilation, strict=True)]
    if layer.padding == "same":
        around = _same(value, reach, _tuple(layer.strides, rank))
    elif layer.padding == "causal":
        around = [(reach[0] - 1, 0)]
    else:
        around = [(0, 0)] * rank
    if all(before == after for before, after in around):
        return value, [before for before, _ in around]
    return _surrounded(t, value, around, fill), [0] * rank


def _surrounded(t: Translator, value: KerasValue, around: Sequence[tuple[int, int]], fill: float = 0.0) -> KerasValue:
    """Pad each spatial axis before and after it."""
    value = t.graph.channel_first(value)
    flat = [n for pair in reversed(around) for n in pair]
    shape = [n + before + after for n, (before, after) in zip(value.shape, around, strict=False)]
    return t.graph.apply(value, (*shape, value.shape[-1]), functional.pad, value, flat, "constant", fill)


def _zero_padding(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], __: tuple[int, ...]
) -> KerasValue:
    around = layer.padding if isinstance(layer.padding[0], tuple | list) else [layer.padding]
    return _surrounded(t, args[0], [(int(before), int(after)) for before, after in around])


def _pool(t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]) -> KerasValue:
    value = t.graph.channel_first(args[0])
    rank = value.rank - 2
    size, strides = _tuple(layer.pool_size, rank), _tuple(layer.strides, rank)
    around = _same(value, size, strides) if layer.padding == "same" else [(0, 0)] * rank
    highest = type(layer).__name__.startswith("Max")
    if all(before == after for before, after in around):
        padding, ceil = [before for before, _ in around], False
    elif highest and all(before == 0 for before, _ in around):
        padding, ceil = [0] * rank, True
    else:
        raise t.refused(
            layer, f'pads {value.shape[:-1]} unevenly with padding="same"', 'pad before it, or use padding="valid"'
        )
    if highest:
        pool: Any = functional.max_pool1d if rank == 1 else functional.max_pool2d
        return t.graph.apply(value, shape, pool, value, size, strides, padding, ceil_mode=ceil)
    average: Any = functional.avg_pool1d if rank == 1 else functional.avg_pool2d
    return t.graph.apply(value, shape, average, value, size, strides, padding, False, not any(padding))  # noqa: FBT003


def _global_pool(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    value = t.graph.channel_first(args[0])
    reduce = torch.mean if "Average" in type(layer).__name__ else torch.amax
    return _reduced(t, value, reduce, tuple(range(1, value.rank - 1)), shape, keep=layer.keepdims)


def _reduced(
    t: Translator, value: KerasValue, reduce: Any, axes: Sequence[int], shape: tuple[int, ...], *, keep: bool
) -> KerasValue:
    """Reduce along Keras's axes. Over all places of a map, axes are kept at first: the converter likes that better."""
    spatial = tuple(range(1, value.rank - 1))
    if value.rank > 2 and tuple(sorted(a % value.rank for a in axes)) == spatial:
        value = t.graph.channel_first(value)
        kept = t.graph.apply(value, (*[1] * len(spatial), shape[-1]), reduce, value, [a + 1 for a in spatial], True)  # noqa: FBT003
        if keep:
            return kept
        node = t.graph.apply(kept, shape, torch.flatten, kept, 1)
        return KerasValue(node.node, shape)
    value = t.graph.channel_last(value)
    return t.graph.apply(value, shape, reduce, value, list(axes), keep)


# shapes


def _flatten(t: Translator, _: Any, args: tuple[Any, ...], __: Mapping[str, Any], shape: tuple[int, ...]) -> KerasValue:
    value: KerasValue = args[0]
    if value.rank == 2:
        return value
    if any(n != 1 for n in value.shape[:-1]):  # in Keras's order: place by place
        value = t.graph.channel_last(value)
    return KerasValue(t.graph.apply(value, shape, torch.flatten, value, 1).node, shape, value.dtype)


def _reshape(t: Translator, _: Any, args: tuple[Any, ...], __: Mapping[str, Any], shape: tuple[int, ...]) -> KerasValue:
    value = t.graph.channel_last(args[0])
    return value if value.shape == shape else t.graph.apply(value, shape, torch.reshape, value, (-1, *shape))


def _permute(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    value = t.graph.channel_last(args[0])
    order = (0, *layer.dims) if hasattr(layer, "dims") else tuple(layer.axes or ())
    if not order or order[0] != 0:
        raise t.refused(layer, "moves the batch")
    return t.graph.apply(value, shape, torch.permute, value, order)


def _same_tensor(
    _: Translator, __: Any, args: tuple[Any, ...], ___: Mapping[str, Any], ____: tuple[int, ...]
) -> KerasValue:
    value: KerasValue = args[0]
    return value


def _cast(t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]) -> KerasValue:
    value: KerasValue = args[0]
    wanted = keras.backend.standardize_dtype(layer.dtype) if layer.dtype is not None else value.dtype
    if wanted == value.dtype:
        return value
    if wanted != "float32":
        raise t.error(f"the model casts to {wanted}", "compute in float32; rungs lighten it")
    made = t.graph.apply(value, shape, torch.Tensor.float, value)
    return KerasValue(made.node, shape, "float32", value.first)


def _upsampling(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    if layer.interpolation != "nearest":
        raise t.refused(layer, f'has interpolation="{layer.interpolation}", known is "nearest"')
    value = t.graph.channel_first(args[0])
    scale = [float(n) for n in _tuple(layer.size, value.rank - 2)]
    return t.graph.apply(value, shape, functional.interpolate, value, scale_factor=scale)


# dropout, activations, arithmetic


def _dropout(
    t: Translator, layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    value: KerasValue = args[0]
    if kwargs.get("training") is False or not layer.rate:
        return value
    whole = type(layer).__name__.removeprefix("Spatial")  # whole channels at once
    kind: Any = {"Dropout": nn.Dropout, "Dropout1D": nn.Dropout1d, "Dropout2D": nn.Dropout2d}[whole]
    if kind is nn.Dropout:
        if layer.noise_shape is not None:
            raise t.refused(layer, "has a noise_shape", "use SpatialDropout2D to drop whole channels")
    else:
        value = t.graph.channel_first(value)
    return t.graph.module(layer, "", value, shape, lambda: kind(layer.rate))


def _activation(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], __: tuple[int, ...]
) -> KerasValue:
    return t.activated(args[0], layer, layer.activation)


def _relu(t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]) -> KerasValue:
    value: KerasValue = args[0]
    if layer.threshold or (layer.negative_slope and layer.max_value is not None):
        raise t.refused(layer, "has a threshold, or a slope and a max_value at once")
    if layer.negative_slope:
        return t.graph.apply(value, shape, functional.leaky_relu, value, float(layer.negative_slope))
    if layer.max_value is None:
        return t.graph.apply(value, shape, torch.relu, value)
    return t.graph.apply(value, shape, functional.hardtanh, value, 0.0, float(layer.max_value))


def _leaky_relu(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    return t.graph.apply(args[0], shape, functional.leaky_relu, args[0], float(layer.negative_slope))


def _elu(t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]) -> KerasValue:
    return t.graph.apply(args[0], shape, functional.elu, args[0], float(layer.alpha))


def _prelu(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    value = t.graph.channel_first(args[0])
    slopes = tensor_of(layer.alpha)
    if any(n != 1 for n in slopes.shape[:-1]):
        raise t.refused(layer, "has a slope for each place", "set shared_axes to the axes between batch and channels")

    def make() -> nn.Module:
        return _filled(nn.PReLU(slopes.shape[-1]), layer, weight=slopes.reshape(-1), bias=None)

    return t.graph.module(layer, "", value, shape, make)


def _softmax(t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], __: tuple[int, ...]) -> KerasValue:
    value: KerasValue = args[0]
    if layer.axis not in {-1, value.rank - 1}:
        raise t.refused(layer, "is along another axis than the last")
    return _last_softmax(t.graph, value)


def _last_softmax(graph: TorchGraph, value: KerasValue) -> KerasValue:
    return graph.apply(value, value.shape, torch.softmax, value, value.axis(-1))


def _rescaling(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    value: KerasValue = args[0]
    if value.dtype != "float32":
        value = KerasValue(t.graph.apply(value, shape, torch.Tensor.float, value).node, shape, "float32", value.first)
    if not all(isinstance(n, int | float) for n in (layer.scale, layer.offset)):
        raise t.refused(layer, "has a scale or an offset that is not one number")
    value = t.graph.apply(value, shape, operator.mul, value, float(layer.scale))
    return t.graph.apply(value, shape, operator.add, value, float(layer.offset)) if layer.offset else value


def _concatenate(
    t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
) -> KerasValue:
    values = t.graph.alike(list(args[0]))
    if layer.axis % values[0].rank == 0:
        raise t.refused(layer, "joins along the batch")
    return t.graph.apply(values[0], shape, torch.cat, tuple(values), values[0].axis(layer.axis))


def _merged(function: Any) -> Layer:
    """A layer that folds a list of tensors by a function of two."""

    def translate(
        t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
    ) -> KerasValue:
        values = list(args[0])
        if len({value.rank for value in values}) > 1:
            raise t.refused(layer, "joins tensors with different numbers of axes", "reshape the smaller one first")
        first, *rest = t.graph.alike(values)
        for value in rest:
            first = t.graph.apply(first, _broadcast(first.shape, value.shape), function, first, value)
        if type(layer).__name__ == "Average":
            first = t.graph.apply(first, shape, operator.mul, first, 1 / len(values))
        return first

    return translate


def _arithmetic(function: Any) -> Layer:
    """An operation of two: values, weights, or numbers."""

    def translate(
        t: Translator, _: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], shape: tuple[int, ...]
    ) -> KerasValue:
        operands = [*args, *kwargs.values()]
        like = next(operand for operand in operands if isinstance(operand, KerasValue))
        if all(isinstance(operand, KerasValue | int | float) for operand in operands):
            values = iter(t.graph.alike([operand for operand in operands if isinstance(operand, KerasValue)]))
            meeting = [next(values) if isinstance(operand, KerasValue) else operand for operand in operands]
        else:
            meeting = [_operand(t, operand, like) for operand in operands]
        # A value of fewer axes meets the last ones, as numpy has it.
        held = max((m for m in meeting if isinstance(m, KerasValue)), key=lambda v: v.rank)
        return t.graph.apply(held, shape, function, *meeting)

    return translate


def _operand(t: Translator, operand: Any, like: KerasValue) -> Any:
    if isinstance(operand, KerasValue):
        return t.graph.channel_last(operand)
    if isinstance(operand, int | float):
        return operand
    trained = isinstance(operand, keras.Variable) and bool(operand.trainable)
    return t.graph.constant(tensor_of(operand), trained=trained, like=like)


def _maximum(one: Any, other: Any) -> torch.Tensor:
    """Of two tensors, or of one and a number."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.maximum(one, other)
    return torch.clamp_min(one, other) if isinstance(one, torch.Tensor) else torch.clamp_min(other, one)


def _minimum(one: Any, other: Any) -> torch.Tensor:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.minimum(one, other)
    return torch.clamp_max(one, other) if isinstance(one, torch.Tensor) else torch.clamp_max(other, one)


def _broadcast(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(max(a, b) for a, b in zip(one, other, strict=True))


def _pointwise(function: Any) -> Layer:
    """An operation that makes each value from the value at its place."""

    def translate(
        t: Translator, _: Any, args: tuple[Any, ...], __: Mapping[str, Any], shape: tuple[int, ...]
    ) -> KerasValue:
        return t.graph.apply(args[0], shape, function, args[0])

    return translate


def _reduction(function: Any) -> Layer:
    def translate(
        t: Translator, layer: Any, args: tuple[Any, ...], _: Mapping[str, Any], shape: tuple[int, ...]
    ) -> KerasValue:
        value: KerasValue = args[0]
        axes = layer.axis if isinstance(layer.axis, tuple | list) else [layer.axis]
        if None in axes or any(axis % value.rank == 0 for axis in axes):
            raise t.refused(layer, "reduces along the batch", "name the axes, without 0")
        return _reduced(t, value, function, [int(axis) for axis in axes], shape, keep=bool(layer.keepdims))

    return translate


def _function(function: Any, *args: Any, **kwargs: Any) -> Callable[[TorchGraph, KerasValue], KerasValue]:
    return lambda graph, value: graph.apply(value, value.shape, function, value, *args, **kwargs)


ACTIVATIONS: Mapping[str, Callable[[TorchGraph, KerasValue], KerasValue]] = {
    "linear": lambda _, value: value,
    "relu": _function(torch.relu),
    "relu6": _function(functional.relu6),
    "sigmoid": _function(torch.sigmoid),
    "tanh": _function(torch.tanh),
    "softmax": _last_softmax,
    "silu": _function(functional.silu),
    "hard_sigmoid": _function(functional.hardsigmoid),
    "hard_silu": _function(functional.hardswish),
    "gelu": _function(functional.gelu),
    "elu": _function(functional.elu),
    "leaky_relu": _function(functional.leaky_relu, 0.2),
    "selu": _function(functional.selu),
    "softplus": _function(functional.softplus),
    "exponential": _function(torch.exp),
}
"""Functions of keras.activations with their defaults."""


def _by_function(name: str) -> Layer:
    return lambda t, _, args, __, ___: ACTIVATIONS[name](t.graph, args[0])


LAYERS: Mapping[str, Layer] = {
    **dict.fromkeys(("Conv1D", "Conv2D"), _conv),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "Embedding": _embedding,
    **dict.fromkeys(("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D"), _pool),
    **dict.fromkeys(("GlobalAveragePooling1D", "GlobalAveragePooling2D"), _global_pool),
    **dict.fromkeys(("GlobalMaxPooling1D", "GlobalMaxPooling2D"), _global_pool),
    **dict.fromkeys(("ZeroPadding1D", "ZeroPadding2D"), _zero_padding),
    **dict.fromkeys(("UpSampling2D",), _upsampling),
    "Flatten": _flatten,
    "Reshape": _reshape,
    **dict.fromkeys(("Permute", "Transpose"), _permute),
    **dict.fromkeys(("Squeeze", "ExpandDims"), _reshape),
    **dict.fromkeys(("Dropout", "SpatialDropout1D", "SpatialDropout2D"), _dropout),
    "Identity": _same_tensor,
    **dict.fromkeys(("Cast", "ConvertToTensor"), _cast),
    "Activation": _activation,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "PReLU": _prelu,
    "Softmax": _softmax,
    "Rescaling": _rescaling,
    "Concatenate": lambda t, layer, args, kwargs, shape: _concatenate(
        t, layer, (args[0] if len(args) == 1 else args,), kwargs, shape
    ),
    "Average": _merged(operator.add),
    "Add": lambda *call: (_merged if _is_list(call[2]) else _arithmetic)(operator.add)(*call),
    "Subtract": lambda *call: (_merged if _is_list(call[2]) else _arithmetic)(operator.sub)(*call),
    "Multiply": lambda *call: (_merged if _is_list(call[2]) else _arithmetic)(operator.mul)(*call),
    "Maximum": lambda *call: (_merged if _is_list(call[2]) else _arithmetic)(_maximum)(*call),
    "Minimum": lambda *call: (_merged if _is_list(call[2]) else _arithmetic)(_minimum)(*call),
    **dict.fromkeys(("Divide", "TrueDivide"), _arithmetic(operator.truediv)),
    "Negative": _pointwise(operator.neg),
    "Absolute": _pointwise(torch.abs),
    "Square": _pointwise(torch.square),
    "Sqrt": _pointwise(torch.sqrt),
    "Exp": _pointwise(torch.exp),
    "Mean": _reduction(torch.mean),
    "Sum": _reduction(torch.sum),
    "Max": _reduction(torch.amax),
    "Min": _reduction(torch.amin),
    "Relu": _by_function("relu"),
    "Relu6": _by_function("relu6"),
    "Sigmoid": _by_function("sigmoid"),
    "Tanh": _by_function("tanh"),
    "Silu": _by_function("silu"),
    "HardSigmoid": _by_function("hard_sigmoid"),
    "HardSilu": _by_function("hard_silu"),
}
"""Layers of keras.layers and operations of keras.ops, by the names of their classes; several share theirs."""


def _is_list(args: tuple[Any, ...]) -> bool:
    """Whether the arguments are a layer's list of tensors, not the two of an operation."""
    return len(args) == 1 and isinstance(args[0], tuple | list)
