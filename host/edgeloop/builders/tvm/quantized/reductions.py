"""Convolutions, products, pooling and means: sums in int32, brought onto the next grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.builders.tvm.dot import ANNOTATION, GROUP, NEON
from edgeloop.builders.tvm.quantized.graph import (
    GraphValue,
    Network,
    bounds_of,
    inside,
    round_to_grid,
    unsupported_error,
)
from edgeloop.builders.tvm.quantized.layout import view_as
from edgeloop.builders.tvm.quantized.requantize import HIGHEST, LOWEST, Steps, fold_zero_point, multipliers


@dataclass(frozen=True, slots=True)
class _Window:
    """A kernel on its way: positions of the result, steps, and what lies outside."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    top: int = 0
    left: int = 0

    def extent(self, axis: int, count: int) -> int:
        """Return what `count` positions touch along an axis."""
        return (count - 1) * self.strides[axis] + (self.kernel[axis] - 1) * self.dilation[axis] + 1


def _window(options: Any, kernel: tuple[int, int], value: GraphValue, result_shape: tuple[int, ...]) -> _Window:
    top, bottom, left, right = value.pads
    strides = (int(options.strideH), int(options.strideW))
    dilation = (int(getattr(options, "dilationHFactor", 1)), int(getattr(options, "dilationWFactor", 1)))
    bare = _Window(kernel, strides, dilation)
    before = [0, 0]
    if options.padding == 0:  # SAME
        sizes = (value.shape[1] + top + bottom, value.shape[2] + left + right)
        before = [max(bare.extent(axis, result_shape[1 + axis]) - sizes[axis], 0) // 2 for axis in (0, 1)]
    return replace(bare, top=top + before[0], left=left + before[1])


def convolution(net: Network, operator: Any) -> GraphValue:
    weights, value = net.weights(operator), net.value_with_padding(int(operator.inputs[0]))
    if weights.shape[3] != value.shape[3]:
        raise unsupported_error("grouped, but not depthwise")
    window = _window(operator.builtinOptions, weights.shape[1:3], value, net.shape(int(operator.outputs[0])))
    return _sum_products(net, operator, value, weights, window, "conv2d")


def fully_connected(net: Network, operator: Any) -> GraphValue:
    weights, (value, _) = net.weights(operator), net.integer(int(operator.inputs[0]))
    shape = net.shape(int(operator.outputs[0]))
    rows, depth = math.prod(shape[:-1]), weights.shape[1]
    value = view_as(value, (rows, 1, 1, depth))
    product = _sum_products(net, operator, value, weights.reshape(len(weights), 1, 1, depth), _Window((1, 1)), "dense")
    return replace(view_as(replace(product, shape=(rows, 1, 1, shape[-1])), shape), steps=product.steps)


def _sum_products(
    net: Network, operator: Any, value: GraphValue, weights: NDArray[Any], window: _Window, hint: str
) -> GraphValue:
    """A convolution: weights (out, kernel height, width, in)."""
    from tvm import te

    steps, grid = value.steps, net.grid(operator)
    if steps is None:
        raise unsupported_error("works on floats")
    shape = net.shape(int(operator.outputs[0]))
    n, h, w = shape[:3] if len(shape) == 4 else (math.prod(shape[:-1]), 1, 1)
    out, kh, depth = len(weights), window.kernel[0], weights.shape[3]
    width, bounds = net.fill(out), bounds_of(grid, operator.builtinOptions)
    bias, scale = _behind(net, operator, weights, width, steps, grid)
    dot = None if net.core.dot is NEON and weights.min() < -HIGHEST else net.core.dot  # two products fit 16 bits
    rows = dot is not None and value.memory_width % GROUP != 0 and window.dilation[1] == 1
    layout = _pack(weights, width, rows) if dot else _lay_out(weights, width)
    groups = layout.shape[2]
    (sy, sx), (dy, dx) = window.strides, window.dilation

    def compute(x: Any, weight: Any, bias: Any, scale: Any) -> Any:
        if rows:
            data = _as_rows(net, value, x, window, (h, w), GROUP * groups)
        else:
            data = _as_picture(net, value, x, window, (h, w))
        ky, kx = te.reduce_axis((0, kh), "ky"), te.reduce_axis((0, layout.shape[1]), "kx")
        group = te.reduce_axis((0, groups), "group")
        one = te.reduce_axis((0, GROUP), "one")

        def product(n: Any, y: Any, x_: Any, c: Any) -> Any:
            row, k = y * sy + ky * dy, group * GROUP + one
            if rows:
                return _product(data(n, row, x_ * (sx * depth) + k), weight[ky, kx, group, c, one])
            if dot:
                return _product(data(n, row, x_ * sx + kx * dx, k), weight[ky, kx, group, c, one])
            return _product(data(n, row, x_ * sx + kx * dx, group), weight[ky, kx, group, c])

        axes = [ky, kx, group, *([one] if dot else [])]
        sums = te.compute(
            (n, h, w, width),
            lambda *i: te.sum(product(*i), axis=axes),
            name="sums",
            attrs={ANNOTATION: dot.name} if dot else None,
        )
        return _onto_grid(net, sums, bias, scale, grid, bounds)

    expr = net.emit(hint, compute, value.expr, net.constant(layout), net.constant(bias), net.constant(scale))
    return net.new_value(expr, operator)


def _product(a: Any, b: Any) -> Any:
    return a.astype("int32") * b.astype("int32")


def _onto_grid(net: Network, sums: Any, bias: Any, scale: Any, grid: Steps, bounds: tuple[int, int]) -> Any:
    """Return what a layer stores of its sums (n, h, w, channels)."""
    from tvm import te

    return te.compute(
        sums.shape,
        lambda n, y, x, c: net.store(
            round_to_grid((sums[n, y, x, c] + bias[c]).astype("float32") * scale[c], grid, bounds)
        ),
        name="out",
    )


def _behind(
    net: Network, operator: Any, weights: NDArray[Any], width: int, steps: Steps, grid: Steps
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Bias and multiplier of each channel, zeros and ones where a vector is filled up. `weights` are (out, ...)."""
    bias = net.constant_of(int(operator.inputs[2])) if len(operator.inputs) > 2 else None
    whole = np.zeros(len(weights), np.int32) if bias is None else bias
    scale = np.broadcast_to(multipliers(steps.scale, net.scales(int(operator.inputs[1])), grid.scale), len(weights))
    spare = width - len(weights)
    return (
        np.pad(fold_zero_point(whole, weights, net.kept_zero(steps)), (0, spare)),
        np.pad(scale, (0, spare), constant_values=1.0),
    )


def _lay_out(weights: NDArray[Any], width: int) -> NDArray[np.int8]:
    """(out, kh, kw, in) as (kh, kw, in, out)."""
    out = len(weights)
    return np.pad(weights.transpose(1, 2, 3, 0), ((0, 0), (0, 0), (0, 0), (0, width - out)))


def _pack(weights: NDArray[Any], width: int, rows: bool) -> NDArray[np.int8]:
    """(out, kh, kw, in) as (kh, kw, groups, out, 4), a group along the input's channels; `rows`: (kh, 1, ...), along
    a row's pixels and channels together."""
    out, kh, kw, depth = weights.shape
    if rows:
        weights, kw, depth = weights.reshape(out, kh, 1, kw * depth), 1, kw * depth
    groups = -(-depth // GROUP)
    whole = np.pad(weights, ((0, width - out), (0, 0), (0, 0), (0, groups * GROUP - depth)))
    return whole.reshape(width, kh, kw, groups, GROUP).transpose(1, 2, 3, 0, 4)


def _as_picture(net: Network, value: GraphValue, x: Any, window: _Window, size: tuple[int, int]) -> Any:
    """The input with all that a kernel touches, in the form that the network keeps; itself where that is it already."""
    from tvm import te

    n, h, w, _ = value.shape
    high, wide = window.extent(0, size[0]), window.extent(1, size[1])
    ready = (
        value.whole and value.unsigned == net.core.unsigned and (value.memory_width % GROUP == 0 or not net.core.dot)
    )
    if ready and not window.top and not window.left and high <= h and wide <= w:
        return lambda *index: value.at(x, index)
    assert value.steps is not None
    zero = value.steps.zero
    picture = te.compute(
        (n, high, wide, -(-value.memory_width // GROUP) * GROUP),
        lambda n, y, x_, c: net.store(inside(value, x, (n, y - window.top, x_ - window.left, c), zero)),
        name="pad",
    )
    return lambda *index: picture[index]


def _as_rows(net: Network, value: GraphValue, x: Any, window: _Window, size: tuple[int, int], row_length: int) -> Any:
    """The same with pixels and channels of a row as one axis: few channels then fill whole groups."""
    from tvm import te, tirx

    n, h, w, depth = value.shape
    high, wide = window.extent(0, size[0]), (size[1] - 1) * window.strides[1] * depth + row_length
    assert value.steps is not None
    zero = value.steps.zero

    def at(n: Any, y: Any, k: Any) -> Any:
        pixel = tirx.indexdiv(k, depth) - window.left
        inside = tirx.all(y >= window.top, y < window.top + h, pixel >= 0, pixel < w)
        stored_value = value.integer(x, (n, y - window.top, pixel, tirx.indexmod(k, depth)))
        return net.store(tirx.if_then_else(inside, stored_value, zero))

    picture = te.compute((n, high, -(-wide // net.core.lanes) * net.core.lanes), at, name="pad")
    return lambda *index: picture[index]


def depthwise(net: Network, operator: Any) -> GraphValue:
    from tvm import te

    weights, value = net.weights(operator), net.value_with_padding(int(operator.inputs[0]))
    shape, grid, steps = net.shape(int(operator.outputs[0])), net.grid(operator), value.steps
    if steps is None:
        raise unsupported_error("works on floats")
    window = _window(operator.builtinOptions, weights.shape[1:3], value, shape)
    depth, out = value.shape[3], weights.shape[3]
    if depth == 1:
        return _sum_products(net, operator, value, weights.transpose(3, 1, 2, 0), window, "conv2d")
    each = out // depth
    width, bounds = net.fill(out), bounds_of(grid, operator.builtinOptions)
    bias, scale = _behind(net, operator, weights[0].transpose(2, 0, 1), width, steps, grid)
    layout = np.pad(weights[0], ((0, 0), (0, 0), (0, width - out)))
    (kh, kw), (sy, sx), (dy, dx) = window.kernel, window.strides, window.dilation
    n, h, w, _ = shape

    def compute(x: Any, weight: Any, bias: Any, scale: Any) -> Any:
        data = _as_picture(net, value, x, window, (h, w))
        ky, kx = te.reduce_axis((0, kh), "ky"), te.reduce_axis((0, kw), "kx")
        last = value.memory_width - 1

        def product(n: Any, y: Any, x_: Any, c: Any) -> Any:
            channel = c if each == 1 and width <= last + 1 else te.min(c // each, last)
            return _product(data(n, y * sy + ky * dy, x_ * sx + kx * dx, channel), weight[ky, kx, c])

        sums = te.compute((n, h, w, width), lambda *i: te.sum(product(*i), axis=[ky, kx]), name="sums")
        return _onto_grid(net, sums, bias, scale, grid, bounds)

    expr = net.emit("depthwise", compute, value.expr, net.constant(layout), net.constant(bias), net.constant(scale))
    return net.new_value(expr, operator)


def _pool(net: Network, operator: Any, *, mean: bool) -> GraphValue:
    """Sum or maximum of a window; where it leaves the picture, of what is inside."""
    from tvm import te, tirx

    options, grid = operator.builtinOptions, net.grid(operator)
    value, steps = net.integer(int(operator.inputs[0]))
    if steps != grid:
        raise unsupported_error("another grid behind than before")
    kernel = (int(options.filterHeight), int(options.filterWidth))
    shape = net.out_shape(operator)
    window, (low, high) = _window(options, kernel, value, shape), bounds_of(grid, options)
    _, h, w, _ = value.shape

    def compute(x: Any) -> Any:
        ky, kx = te.reduce_axis((0, kernel[0]), "ky"), te.reduce_axis((0, kernel[1]), "kx")

        def place(y: Any, x_: Any) -> tuple[Any, Any]:
            return y * window.strides[0] - window.top, x_ * window.strides[1] - window.left

        def at(n: Any, y: Any, x_: Any, c: Any) -> Any:
            top, left = place(y, x_)
            return inside(value, x, (n, top + ky, left + kx, c), 0 if mean else LOWEST)

        def average(n: Any, y: Any, x_: Any, c: Any) -> Any:
            top, left = place(y, x_)
            high_ = te.min(top + kernel[0], h) - te.max(top, 0)
            wide_ = te.min(left + kernel[1], w) - te.max(left, 0)
            count, total = high_ * wide_, sums[n, y, x_, c]
            half = tirx.if_then_else(total > 0, tirx.truncdiv(count, 2), -tirx.truncdiv(count, 2))
            return tirx.truncdiv(total + half, count)

        reduce = te.sum if mean else te.max
        sums = te.compute(shape, lambda *i: reduce(at(*i), axis=[ky, kx]), name="sums")
        result_of = average if mean else lambda *i: sums[i]
        return te.compute(shape, lambda *i: net.store(te.max(te.min(result_of(*i), high), low)), name="out")

    return net.new_value(net.emit("pool", compute, value.expr), operator)


def average_pool(net: Network, operator: Any) -> GraphValue:
    return _pool(net, operator, mean=True)


def max_pool(net: Network, operator: Any) -> GraphValue:
    return _pool(net, operator, mean=False)


def mean(net: Network, operator: Any) -> GraphValue:
    from tvm import te

    value, steps = net.integer(int(operator.inputs[0]))
    grid, axes_tensor = net.grid(operator), net.constant_of(int(operator.inputs[1]))
    if axes_tensor is None:
        raise unsupported_error("axes that are computed")
    rank = len(value.shape)
    axes = sorted({int(axis) % rank for axis in axes_tensor.ravel()})
    other_axes = [axis for axis in range(rank) if axis not in axes]
    if rank - 1 in axes:
        raise unsupported_error("over channels")
    count = math.prod(value.shape[axis] for axis in axes)
    multiplier = float(np.float32(steps.scale) / np.float32(grid.scale) / np.float32(count))
    shape = (*(value.shape[axis] for axis in other_axes[:-1]), net.fill(value.shape[-1]))

    def compute(x: Any) -> Any:
        reduce_axes = {axis: te.reduce_axis((0, value.shape[axis]), f"r{axis}") for axis in axes}

        def at(*index: Any) -> Any:
            spatial = iter(index)
            return value.over(
                x, tuple(reduce_axes[axis] if axis in reduce_axes else next(spatial) for axis in range(rank))
            )

        sums = te.compute(shape, lambda *i: te.sum(at(*i), axis=list(reduce_axes.values())), name="sums")
        offset = count * steps.zero
        return te.compute(
            shape,
            lambda *i: net.store(
                round_to_grid((sums[i] - offset).astype("float32") * np.float32(multiplier), grid, (LOWEST, HIGHEST))
            ),
            name="out",
        )

    made_value = net.new_value(net.emit("mean", compute, value.expr), operator)
    bare = replace(made_value, shape=tuple(value.shape[axis] for axis in other_axes))
    return view_as(bare, made_value.shape)
