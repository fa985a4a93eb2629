"""Where elements lie: turned and reshaped without a copy, padded with the next convolution, put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from edgeloop.builders.tvm.quantized.graph import SHIFT, GraphValue, Index, Network, unsupported_error
from edgeloop.builders.tvm.quantized.requantize import HIGHEST, LOWEST, table


def view_as(value: GraphValue, shape: tuple[int, ...]) -> GraphValue:
    """The same elements in another shape."""
    if shape == value.shape:
        return value
    before, inner = value.shape, value.view or (lambda index: index)
    same_axes = 1 if shape[-1] == before[-1] else 0  # the last axis, as it is

    def view(index: Index) -> Index:
        flat: Any = 0
        for i, size in zip(index[: len(index) - same_axes], shape, strict=False):
            flat = flat * size + i
        place: list[Any] = [*index[len(index) - same_axes :]]
        for size in reversed(before[: len(before) - same_axes]):
            place.insert(0, flat % size)
            flat = flat // size
        return inner(tuple(place))

    whole = value.whole and same_axes == 1
    return replace(value, shape=shape, view=view, whole=whole, memory_width=value.memory_width if whole else shape[-1])


def reshape(net: Network, operator: Any) -> GraphValue:
    return view_as(net.value(int(operator.inputs[0])), net.shape(int(operator.outputs[0])))


def transpose(net: Network, operator: Any) -> GraphValue:
    value, order = net.value(int(operator.inputs[0])), net.constant_of(int(operator.inputs[1]))
    if order is None:
        raise unsupported_error("an order that is computed")
    inner, axes = value.view or (lambda index: index), [int(axis) for axis in order]

    def view(index: Index) -> Index:
        return inner(tuple(index[axes.index(axis)] for axis in range(len(axes))))

    whole = value.whole and axes[-1] == len(axes) - 1
    shape = net.shape(int(operator.outputs[0]))
    return replace(value, shape=shape, view=view, whole=whole, memory_width=value.memory_width if whole else shape[-1])


def pad(net: Network, operator: Any) -> GraphValue:
    value, sides = net.value(int(operator.inputs[0])), net.constant_of(int(operator.inputs[1]))
    if sides is None or sides.shape != (4, 2) or sides[0].any() or sides[3].any():
        raise unsupported_error("other than of height and width")
    top, bottom, left, right = (int(side) for side in sides[1:3].ravel())
    return replace(value, pads=(top, bottom, left, right))


def concatenate(net: Network, operator: Any) -> GraphValue:
    from tvm import te, tirx

    grid, shape = net.grid(operator), net.out_shape(operator)
    operands = [net.integer(int(number)) for number in operator.inputs]
    axis = int(operator.builtinOptions.axis) % len(shape)
    tables = [table(lambda x: x, steps, grid) for _, steps in operands]
    tables_differ = [not np.array_equal(one, np.arange(LOWEST, HIGHEST + 1)) for one in tables]

    def compute(*arrays: Any) -> Any:
        tensors, entries = arrays[: len(operands)], arrays[len(operands) :]

        def out(*index: Any) -> Any:
            result: Any = None
            start = sum(value.shape[axis] for value, _ in operands)
            for (value, _), x, to, differs in reversed(
                list(zip(operands, tensors, entries, tables_differ, strict=True))
            ):
                start -= value.shape[axis]
                along = te.max(te.min(index[axis] - start, value.shape[axis] - 1), 0)
                one = value.integer(x, (*index[:axis], along, *index[axis + 1 :]))
                one = to[one + SHIFT].astype("int32") if differs else one
                result = one if result is None else tirx.Select(index[axis] >= start + value.shape[axis], result, one)
            return net.store(result)

        return te.compute(shape, out, name="out")

    constants = [net.constant(one) for one in tables]
    return net.new_value(net.emit("concatenate", compute, *(v.expr for v, _ in operands), *constants), operator)
