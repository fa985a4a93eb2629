"""Element by element: sums and products of two, functions of one from a table, the ends of integer arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.builders.tvm.quantized.graph import SHIFT, GraphValue, Index, Network, bounds_of, round_to_grid
from edgeloop.builders.tvm.quantized.requantize import HIGHEST, LOWEST, addition, regrid_table, table


def _elementwise(net: Network, operator: Any, hint: str, function: Callable[..., Any], *numbers: int) -> GraphValue:
    """`function` of the operands' int8 values as int32, broadcast."""
    from tvm import te

    operands = [net.integer(number)[0] for number in numbers]
    shape = net.out_shape(operator)

    def at(value: GraphValue, tensor: Any, index: Index) -> Any:
        own = index[len(index) - len(value.shape) :]
        place = tuple(0 if size == 1 else i for size, i in zip(value.shape, own, strict=True))
        return value.over(tensor, place)

    def compute(*tensors: Any) -> Any:
        def out(*index: Any) -> Any:
            return net.store(function(*(at(v, x, index) for v, x in zip(operands, tensors, strict=True))))

        return te.compute(shape, out, name="out")

    return net.new_value(net.emit(hint, compute, *(value.expr for value in operands)), operator)


def _sum(net: Network, operator: Any, sign: int) -> GraphValue:
    from tvm import te

    numbers = [int(number) for number in operator.inputs]
    (_, a), (_, b), grid = net.integer(numbers[0]), net.integer(numbers[1]), net.grid(operator)
    how, (low, high) = addition(a, b, grid, sign), bounds_of(grid, operator.builtinOptions)

    def add(x: Any, y: Any) -> Any:
        total = (x * how.by_a + y * how.by_b + how.bias) >> how.shift
        return te.max(te.min(total + grid.zero, high), low)

    return _elementwise(net, operator, "add", add, *numbers)


def add(net: Network, operator: Any) -> GraphValue:
    return _sum(net, operator, 1)


def subtract(net: Network, operator: Any) -> GraphValue:
    return _sum(net, operator, -1)


def multiply(net: Network, operator: Any) -> GraphValue:
    numbers = [int(number) for number in operator.inputs]
    (_, a), (_, b), grid = net.integer(numbers[0]), net.integer(numbers[1]), net.grid(operator)
    multiplier = np.float32(a.scale) * np.float32(b.scale) / np.float32(grid.scale)
    bounds = bounds_of(grid, operator.builtinOptions)

    def multiply(x: Any, y: Any) -> Any:
        return round_to_grid(((x - a.zero) * (y - b.zero)).astype("float32") * multiplier, grid, bounds)

    return _elementwise(net, operator, "multiply", multiply, *numbers)


def map_values(net: Network, operator: Any, function: Callable[[NDArray[Any]], NDArray[Any]]) -> GraphValue:
    """A function of one value."""
    _, steps = net.integer(int(operator.inputs[0]))
    return _look_up(net, operator, table(function, steps, net.grid(operator)))


def _look_up(net: Network, operator: Any, values: NDArray[np.int8]) -> GraphValue:
    from tvm import te

    value, shape = net.value(int(operator.inputs[0])), net.out_shape(operator)

    def compute(x: Any, entries: Any) -> Any:
        return te.compute(shape, lambda *i: net.store(entries[value.over(x, i) + SHIFT].astype("int32")), name="out")

    return net.new_value(net.emit("table", compute, value.expr, net.constant(values)), operator)


def logistic(net: Network, operator: Any) -> GraphValue:
    return map_values(net, operator, lambda x: 1 / (1 + np.exp(-x)))


def tanh(net: Network, operator: Any) -> GraphValue:
    return map_values(net, operator, np.tanh)


def relu(net: Network, operator: Any) -> GraphValue:
    return map_values(net, operator, lambda x: np.maximum(x, 0))


def relu6(net: Network, operator: Any) -> GraphValue:
    return map_values(net, operator, lambda x: np.clip(x, 0, 6))


def hard_swish(net: Network, operator: Any) -> GraphValue:
    return map_values(net, operator, lambda x: x * np.clip(x + 3, 0, 6) / 6)


def leaky_relu(net: Network, operator: Any) -> GraphValue:
    alpha = float(operator.builtinOptions.alpha)
    return map_values(net, operator, lambda x: np.where(x > 0, x, alpha * x))


def softmax(net: Network, operator: Any) -> GraphValue:
    """Over the last axis, with exponentials of every difference from a table."""
    from tvm import te

    value, steps = net.integer(int(operator.inputs[0]))
    grid, shape = net.grid(operator), net.out_shape(operator)
    beta = float(operator.builtinOptions.beta)
    exponentials = np.exp(-np.arange(HIGHEST - LOWEST + 1) * beta * steps.scale).astype(np.float32)
    outer = shape[:-1]

    def compute(x: Any, entries: Any) -> Any:
        first, second = (te.reduce_axis((0, value.shape[-1]), name) for name in ("first", "second"))
        most = te.compute(outer, lambda *i: te.max(value.integer(x, (*i, first)), axis=first), name="most")
        total = te.compute(
            outer,
            lambda *i: te.sum(entries[most[i] - value.integer(x, (*i, second))], axis=second),
            name="total",
        )

        def share(*i: Any) -> Any:
            place = te.max(most[i[:-1]] - value.over(x, i), 0)
            share = entries[place] / total[i[:-1]] * np.float32(1 / np.float32(grid.scale))
            return net.store(round_to_grid(share, grid, (LOWEST, HIGHEST)))

        return te.compute(shape, share, name="out")

    return net.new_value(net.emit("softmax", compute, value.expr, net.constant(exponentials)), operator)


def quantize(net: Network, operator: Any) -> GraphValue:
    from tvm import te

    value, grid, shape = net.value(int(operator.inputs[0])), net.grid(operator), net.out_shape(operator)
    if value.steps is not None:
        return _look_up(net, operator, regrid_table(value.steps, grid))

    def compute(x: Any) -> Any:
        def out(*index: Any) -> Any:
            inside = (*index[:-1], te.min(index[-1], value.shape[-1] - 1))
            return net.store(round_to_grid(value.at(x, inside) / np.float32(grid.scale), grid, (LOWEST, HIGHEST)))

        return te.compute(shape, out, name="out")

    return net.new_value(net.emit("quantize", compute, value.expr), operator)


def dequantize(net: Network, operator: Any) -> GraphValue:
    from tvm import te

    value, steps = net.integer(int(operator.inputs[0]))

    def compute(x: Any) -> Any:
        return te.compute(
            value.shape,
            lambda *i: (value.integer(x, i) - steps.zero).astype("float32") * np.float32(steps.scale),
            name="out",
        )

    return GraphValue(net.emit("dequantize", compute, value.expr), value.shape, None, value.shape[-1])
