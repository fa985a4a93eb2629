"""Keras layers with weights in torch: weights turned to torch's order, frozen where they are not trainable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import keras
import torch
from torch import nn

from edgeloop.models.keras_import.call import LayerCall, tensor_of
from edgeloop.models.keras_import.graph import KerasValue
from edgeloop.models.keras_import.windows import one_for_each_axis, pad_for_convolution

_Weighted = TypeVar("_Weighted", nn.Conv1d, nn.Conv2d, nn.Linear, nn.Embedding, nn.PReLU)


def convolution(call: LayerCall) -> KerasValue:
    """Conv1D, Conv2D."""
    layer = call.layer

    def make() -> nn.Module:
        return _convolution(_dense_kernel(layer.kernel), layer.bias, layer, layer.groups, padding)

    value, padding = pad_for_convolution(call)
    return call.activate(call.graph.module(layer, "", value, call.shape, make))


def depthwise(call: LayerCall) -> KerasValue:
    """DepthwiseConv1D, DepthwiseConv2D."""
    layer = call.layer

    def make() -> nn.Module:
        return _convolution(_depthwise_kernel(layer.kernel), layer.bias, layer, int(value.shape[-1]), padding)

    value, padding = pad_for_convolution(call)
    return call.activate(call.graph.module(layer, "", value, call.shape, make))


def separable(call: LayerCall) -> KerasValue:
    """SeparableConv1D, SeparableConv2D: a depthwise convolution and a pointwise one."""
    layer = call.layer
    value, padding = pad_for_convolution(call)
    kernel = _depthwise_kernel(layer.depthwise_kernel)

    def first() -> nn.Module:
        return _convolution(kernel, None, layer, int(value.shape[-1]), padding)

    def second() -> nn.Module:
        pointwise = _dense_kernel(layer.pointwise_kernel)
        return _convolution(pointwise, layer.bias, None, 1, [0] * (pointwise.dim() - 2))

    between = call.graph.module(layer, "depthwise", value, (*call.shape[:-1], len(kernel)), first)
    return call.activate(call.graph.module(layer, "pointwise", between, call.shape, second))


def dense(call: LayerCall) -> KerasValue:
    """Dense."""
    layer = call.layer

    def make() -> nn.Module:
        kernel = tensor_of(layer.kernel).t()
        linear = nn.Linear(kernel.shape[1], kernel.shape[0], bias=layer.bias is not None)
        return _with_weights(linear, layer, weight=kernel, bias=layer.bias)

    value = call.graph.channel_last(call.value)
    return call.activate(call.graph.module(layer, "", value, call.shape, make))


def batch_norm(call: LayerCall) -> KerasValue:
    """BatchNormalization; without trainable, or called with training=False, it keeps its statistics."""
    layer, value = call.layer, call.graph.channel_first(call.value)
    if layer.axis not in {-1, value.rank - 1} or value.rank > 4:
        raise call.refusal("has an axis that is not the channels', the last")
    is_frozen = not layer.trainable or call.kwargs.get("training") is False

    def make() -> nn.Module:
        flat = value.rank < 4
        kinds = (_FrozenNorm1d, _FrozenNorm2d) if is_frozen else (nn.BatchNorm1d, nn.BatchNorm2d)
        norm = kinds[0 if flat else 1](call.shape[-1], eps=layer.epsilon, momentum=1 - layer.momentum)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.no_grad():
            norm.running_mean.copy_(tensor_of(layer.moving_mean))
            norm.running_var.copy_(tensor_of(layer.moving_variance))
            for parameter, variable in ((norm.weight, layer.gamma), (norm.bias, layer.beta)):
                if variable is not None:
                    parameter.copy_(tensor_of(variable))
                parameter.requires_grad_(variable is not None and layer.trainable)
        return norm

    part = "frozen" if is_frozen and layer.trainable else ""
    return call.graph.module(layer, part, value, call.shape, make)


def embedding(call: LayerCall) -> KerasValue:
    """Embedding, without a mask."""
    layer = call.layer
    if layer.mask_zero:
        raise call.refusal("masks zeros")

    def make() -> nn.Module:
        weights = tensor_of(layer.embeddings)
        return _with_weights(nn.Embedding(*weights.shape), layer, weight=weights, bias=None)

    return call.graph.module(layer, "", call.graph.channel_last(call.value), call.shape, make)


def prelu(call: LayerCall) -> KerasValue:
    """PReLU with a slope for each channel."""
    layer, value = call.layer, call.graph.channel_first(call.value)
    slopes = tensor_of(layer.alpha)
    if any(n != 1 for n in slopes.shape[:-1]):
        raise call.refusal("has a slope for each place", "set shared_axes to the axes between batch and channels")

    def make() -> nn.Module:
        return _with_weights(nn.PReLU(slopes.shape[-1]), layer, weight=slopes.reshape(-1), bias=None)

    return call.graph.module(layer, "", value, call.shape, make)


class _FrozenNorm1d(nn.BatchNorm1d):
    """A batch norm that keeps its statistics in training too: Keras's with trainable=False."""

    def train(self, mode: bool = True) -> _FrozenNorm1d:  # noqa: ARG002, FBT001, FBT002 -- torch's own signature
        return super().train(mode=False)


class _FrozenNorm2d(nn.BatchNorm2d):
    """The same for images."""

    def train(self, mode: bool = True) -> _FrozenNorm2d:  # noqa: ARG002, FBT001, FBT002 -- torch's own signature
        return super().train(mode=False)


def _dense_kernel(variable: object) -> torch.Tensor:
    """(kernel..., in, out) as (out, in, kernel...)."""
    kernel = tensor_of(variable)
    return kernel.permute(-1, -2, *range(kernel.dim() - 2))


def _depthwise_kernel(variable: object) -> torch.Tensor:
    """(kernel..., in, multiplier) as (in * multiplier, 1, kernel...)."""
    tensor = tensor_of(variable)
    spatial = tensor.dim() - 2
    return tensor.permute(-2, -1, *range(spatial)).reshape(-1, 1, *tensor.shape[:spatial])


def _convolution(
    kernel: torch.Tensor, bias: object, layer: keras.Layer | None, groups: int, padding: Sequence[int]
) -> nn.Module:
    """A torch convolution with weights (out, in / groups, kernel...); strides and dilation are the Keras layer's."""
    rank = kernel.dim() - 2
    kind: Any = nn.Conv1d if rank == 1 else nn.Conv2d  # the two take tuples of different lengths
    module = kind(
        kernel.shape[1] * groups,
        kernel.shape[0],
        tuple(kernel.shape[2:]),
        stride=one_for_each_axis(layer.strides, rank) if layer is not None else 1,
        padding=tuple(padding),
        dilation=one_for_each_axis(layer.dilation_rate, rank) if layer is not None else 1,
        groups=groups,
        bias=bias is not None,
    )
    filled_module: nn.Module = _with_weights(module, layer, weight=kernel, bias=bias)
    return filled_module


def _with_weights(module: _Weighted, layer: keras.Layer | None, *, weight: torch.Tensor, bias: object) -> _Weighted:
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            assert isinstance(module.bias, torch.Tensor)
            module.bias.copy_(tensor_of(bias))
    if layer is not None and not layer.trainable:
        module.requires_grad_(requires_grad=False)
    return module
