"""Windows that slide over a map: what Keras's padding adds at the borders, and the pools."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from edgeloop.models.keras_import.call import LayerCall
from edgeloop.models.keras_import.graph import KerasValue

_NO_BORDER = (0, 0)


def one_for_each_axis(size: int | tuple[int, ...] | list[int], rank: int) -> tuple[int, ...]:
    """A number that Keras lets stand for all spatial axes, as one for each of them."""
    return tuple(int(n) for n in size) if isinstance(size, tuple | list) else (int(size),) * rank


def pad_for_convolution(call: LayerCall) -> tuple[KerasValue, list[int]]:
    """Return a convolution's input and the padding, a number an axis, that it does itself; the rest comes before."""
    layer, value = call.layer, call.graph.channel_first(call.value)
    rank = value.rank - 2
    dilation = one_for_each_axis(layer.dilation_rate, rank)
    reach = [(k - 1) * d + 1 for k, d in zip(one_for_each_axis(layer.kernel_size, rank), dilation, strict=True)]
    if layer.padding == "same":
        borders = _same_borders(value, reach, one_for_each_axis(layer.strides, rank))
    elif layer.padding == "causal":
        borders = [(reach[0] - 1, 0)]
    else:
        borders = [_NO_BORDER] * rank
    if all(before == after for before, after in borders):
        return value, [before for before, _ in borders]
    return _pad(call, value, borders), [0] * rank


def zero_padding(call: LayerCall) -> KerasValue:
    """ZeroPadding1D, ZeroPadding2D."""
    padding = call.layer.padding
    borders = padding if isinstance(padding[0], tuple | list) else [padding]
    return _pad(call, call.value, [(int(before), int(after)) for before, after in borders])


def pool(call: LayerCall) -> KerasValue:
    """MaxPooling and AveragePooling."""
    layer, graph = call.layer, call.graph
    value = graph.channel_first(call.value)
    rank = value.rank - 2
    size, strides = one_for_each_axis(layer.pool_size, rank), one_for_each_axis(layer.strides, rank)
    borders = _same_borders(value, size, strides) if layer.padding == "same" else [_NO_BORDER] * rank
    highest = type(layer).__name__.startswith("Max")
    if all(before == after for before, after in borders):
        padding, ceil = [before for before, _ in borders], False
    elif highest and all(before == 0 for before, _ in borders):
        padding, ceil = [0] * rank, True
    else:
        raise call.refusal(
            f'pads {value.shape[:-1]} unevenly with padding="same"', 'pad before it, or use padding="valid"'
        )
    if highest:
        maximum = functional.max_pool1d if rank == 1 else functional.max_pool2d
        return graph.apply(value, call.shape, maximum, value, size, strides, padding, ceil_mode=ceil)
    average = functional.avg_pool1d if rank == 1 else functional.avg_pool2d
    return graph.apply(value, call.shape, average, value, size, strides, padding, False, not any(padding))  # noqa: FBT003


def global_pool(call: LayerCall) -> KerasValue:
    """GlobalAveragePooling and GlobalMaxPooling."""
    value = call.graph.channel_first(call.value)
    reduce = torch.mean if "Average" in type(call.layer).__name__ else torch.amax
    return reduce_axes(call, value, reduce, tuple(range(1, value.rank - 1)), keep=call.layer.keepdims)


def reduce_axes(
    call: LayerCall, value: KerasValue, reduce: Callable[..., torch.Tensor], axes: Sequence[int], *, keep: bool
) -> KerasValue:
    """Reduce along Keras's axes. Over all places of a map, axes are kept at first: the converter likes that better."""
    graph, shape = call.graph, call.shape
    spatial = tuple(range(1, value.rank - 1))
    if value.rank > 2 and tuple(sorted(a % value.rank for a in axes)) == spatial:
        value = graph.channel_first(value)
        ones = (*[1] * len(spatial), shape[-1])
        whole = graph.apply(value, ones, reduce, value, [a + 1 for a in spatial], True)  # noqa: FBT003
        if keep:
            return whole
        node = graph.apply(whole, shape, torch.flatten, whole, 1)
        return KerasValue(node.node, shape)
    value = graph.channel_last(value)
    return graph.apply(value, shape, reduce, value, list(axes), keep)


def _same_borders(value: KerasValue, kernel: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """The cells that Keras's padding "same" adds before and after each axis: the odd one comes after."""
    borders = []
    for size, reach, stride in zip(value.shape[:-1], kernel, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + reach - size)
        borders.append((total // 2, total - total // 2))
    return borders


def _pad(call: LayerCall, value: KerasValue, borders: Sequence[tuple[int, int]]) -> KerasValue:
    """Add zeros before and after each spatial axis."""
    value = call.graph.channel_first(value)
    flat = [n for border in reversed(borders) for n in border]
    shape = [n + before + after for n, (before, after) in zip(value.shape, borders, strict=False)]
    return call.graph.apply(value, (*shape, value.shape[-1]), functional.pad, value, flat, "constant", 0.0)
