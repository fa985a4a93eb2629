"""A quantized .tflite on its way into Relax: what the file says, and how activations lie in memory.

Every operator becomes an integer function, from the scales that are stored with its tensors; TVM's own importer makes
such a network float. Inside the network the last axis of a tensor is filled up to whole vectors; what lies there is
never used. What each operator computes is in `sums`, `elements` and `layout`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.builders.tvm.dot import NEON, SDOT, VNNI, Dot
from edgeloop.builders.tvm.quantized.requantize import Steps
from edgeloop.errors import BuildError

SHIFT = 128
"""Between int8 and uint8, which VNNI wants of activations."""
_NEXT = "leave w8a8 or tvm out for this network"

Index = tuple[Any, ...]
Convert = Callable[["Network", Any], "GraphValue"]
"""An operator of the file to what it makes."""


@dataclass(frozen=True, slots=True)
class Core:
    """The way in which a processor multiplies bytes."""

    lanes: int
    """Channels that the last axis is filled up to a multiple of."""
    dot: Dot | None = None
    """None: plain products, which LLVM widens."""
    unsigned: bool = False
    """Activations are uint8 for it."""


def core_for(machine: str, has: Callable[[str], bool]) -> Core:
    """Return the best that a processor has; `has` says whether LLVM knows a feature of it."""
    if machine == "aarch64":
        return Core(16, SDOT if has("dotprod") else NEON)
    return Core(16, VNNI, unsigned=True) if has("avx512vnni") else Core(8)


@dataclass(frozen=True, slots=True)
class GraphValue:
    """An activation, or a stored tensor that is used as one."""

    expr: Any
    shape: tuple[int, ...]
    steps: Steps | None
    """None: float."""
    memory_width: int
    """Of the last axis, what may be read: its own, and what it is filled up with in memory."""
    unsigned: bool = False
    view: Callable[[Index], Index] | None = None
    """From an index of `shape` to one in memory: layouts turned, and nothing copied."""
    whole: bool = True
    """True where the last axis is the one in memory, what it is filled up with included."""
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, bottom, left, right, not in memory: a convolution pads itself. `shape` is without them."""

    def at(self, tensor: Any, index: Index) -> Any:
        """Return what is stored there; what is beyond the last axis is anything."""
        from tvm import tirx

        if not self.whole:
            index = (*index[:-1], tirx.min(index[-1], self.shape[-1] - 1))
        return tensor[index if self.view is None else self.view(index)]

    def integer(self, tensor: Any, index: Index) -> Any:
        """The int8 value as int32."""
        return self.at(tensor, index).astype("int32") - (SHIFT if self.unsigned else 0)

    def over(self, tensor: Any, index: Index) -> Any:
        """The same for an index that goes over whole vectors, where memory may hold no more than the last axis."""
        from tvm import tirx

        if self.whole and self.memory_width == self.shape[-1]:
            index = (*index[:-1], tirx.min(index[-1], self.shape[-1] - 1))
        return self.integer(tensor, index)


class Network:
    """Goes through the operators in their order, and keeps what each made."""

    def __init__(self, model: Any, core: Core, converters: Mapping[str, Convert]) -> None:
        from tvm import relax

        self.model, self.graph, self.core, self._converters = model, model.subgraphs[0], core, converters
        self.builder = relax.BlockBuilder()
        self.values: dict[int, GraphValue] = {}
        self._names = (f"v{i}" for i in itertools.count())

    def module(self) -> Any:
        from tvm import relax

        parameters = []
        for number in self.graph.inputs:
            shape = self.shape(number)
            dtype = self.dtype(number)
            parameters.append(relax.Var(next(self._names), relax.TensorType(shape, dtype)))
            self.values[int(number)] = GraphValue(parameters[-1], shape, self.steps(number), shape[-1])
        with self.builder.function("main", parameters):
            with self.builder.dataflow():
                for operator in self.graph.operators:
                    self._convert(operator)
                results = [self._result(int(number)) for number in self.graph.outputs]
                result = self.builder.emit_output(results[0] if len(results) == 1 else relax.Tuple(results))
            self.builder.emit_func_output(result)
        return self.builder.get()

    # what the file says

    def shape(self, number: int) -> tuple[int, ...]:
        return tuple(int(size) for size in self.graph.tensors[number].shape)

    def dtype(self, number: int) -> str:
        from ai_edge_litert.tools import flatbuffer_utils

        return str(flatbuffer_utils.type_to_name(self.graph.tensors[number].type)).lower()

    def steps(self, number: int) -> Steps | None:
        quantization = self.graph.tensors[number].quantization
        if quantization is None or quantization.scale is None:
            return None
        if len(quantization.scale) != 1 or self.dtype(number) != "int8":
            raise unsupported_error(f"an activation of {self.dtype(number)} with {len(quantization.scale)} scales")
        return Steps(float(quantization.scale[0]), int(quantization.zeroPoint[0]))

    def constant_of(self, number: int) -> NDArray[Any] | None:
        """A constant's values, in its shape; None for what is computed."""
        if number < 0:
            return None
        data = self.model.buffers[self.graph.tensors[number].buffer].data
        if data is None or not len(data):
            return None
        dtype = {"int8": np.int8, "int32": np.int32, "int64": np.int64, "float32": np.float32}.get(self.dtype(number))
        if dtype is None:
            raise unsupported_error(f"a stored tensor of {self.dtype(number)}")
        return np.frombuffer(bytes(data), dtype).reshape(self.shape(number))

    def scales(self, number: int) -> NDArray[np.float32]:
        quantization = self.graph.tensors[number].quantization
        if any(quantization.zeroPoint):
            raise unsupported_error("weights with a zero point")
        return np.asarray(quantization.scale, np.float32)

    # operators

    def _convert(self, operator: Any) -> None:
        from ai_edge_litert.tools import flatbuffer_utils

        name = str(flatbuffer_utils.opcode_to_name(self.model, operator.opcodeIndex))
        convert = self._converters.get(name)
        if convert is None:
            raise unsupported_error(f"no integer arithmetic here for {name}")
        try:
            self.values[int(operator.outputs[0])] = convert(self, operator)
        except BuildError as error:
            raise unsupported_error(f"{name}: {error.message}") from error

    def value_with_padding(self, number: int) -> GraphValue:
        """An operand whose padding the caller does."""
        return self.values[number] if number in self.values else self.value(number)

    def weights(self, operator: Any) -> NDArray[Any]:
        values = self.constant_of(int(operator.inputs[1]))
        if values is None:
            raise unsupported_error("weights that are computed")
        return values

    def value(self, number: int) -> GraphValue:
        """An operand without padding that is still to be done."""
        value = self.values.get(number)
        if value is None:
            constant, steps = self.constant_of(number), self.steps(number)
            if constant is None or steps is None:
                raise unsupported_error("an operand that is no integer")
            shape = self.shape(number) or (1,)
            value = GraphValue(self.constant(constant.reshape(shape)), shape, steps, shape[-1])
        return self._pad(value) if any(value.pads) else value

    def integer(self, number: int) -> tuple[GraphValue, Steps]:
        value = self.value(number)
        if value.steps is None:
            raise unsupported_error("works on floats")
        return value, value.steps

    def grid(self, operator: Any) -> Steps:
        """That of an operator's result."""
        steps = self.steps(int(operator.outputs[0]))
        if steps is None:
            raise unsupported_error("gives floats")
        return steps

    def constant(self, values: NDArray[Any]) -> Any:
        from tvm import relax

        return relax.const(np.ascontiguousarray(values))

    def emit(self, hint: str, function: Callable[..., Any], *operands: Any) -> Any:
        return self.builder.emit_te(function, *operands, primfunc_name_hint=hint)

    def fill(self, channels: int) -> int:
        return -(-channels // self.core.lanes) * self.core.lanes

    def new_value(self, expr: Any, operator: Any) -> GraphValue:
        """A new activation as this network keeps them."""
        shape = self.shape(int(operator.outputs[0]))
        return GraphValue(expr, shape, self.grid(operator), self.fill(shape[-1]), unsigned=self.core.unsigned)

    def out_shape(self, operator: Any) -> tuple[int, ...]:
        shape = self.shape(int(operator.outputs[0]))
        return (*shape[:-1], self.fill(shape[-1]))

    def store(self, value: Any) -> Any:
        """An int32 that fits int8, as activations are kept."""
        return (value + SHIFT).astype("uint8") if self.core.unsigned else value.astype("int8")

    def kept_zero(self, steps: Steps) -> int:
        return steps.zero + (SHIFT if self.core.unsigned else 0)

    def _result(self, number: int) -> Any:
        """A result as the file has it."""
        from tvm import te

        value = self.value(number)
        if value.steps is None:
            return value.expr
        if (value.memory_width, value.unsigned, value.view) == (value.shape[-1], False, None):
            return value.expr
        return self.emit(
            "result",
            lambda x: te.compute(value.shape, lambda *i: value.integer(x, i).astype("int8"), name="result"),
            value.expr,
        )

    def _pad(self, value: GraphValue) -> GraphValue:
        from tvm import te

        (top, bottom, left, right), (n, h, w, c) = value.pads, value.shape
        assert value.steps is not None
        zero, bare = value.steps.zero, replace(value, pads=(0, 0, 0, 0))
        shape = (n, top + h + bottom, left + w + right, self.fill(c))

        def pad(x: Any) -> Any:
            return te.compute(
                shape,
                lambda n, y, x_, c_: self.store(inside(bare, x, (n, y - top, x_ - left, c_), zero)),
                name="pad",
            )

        new_value = self.emit("pad", pad, value.expr)
        return GraphValue(new_value, (*shape[:-1], c), value.steps, shape[-1], unsigned=self.core.unsigned)


def inside(value: GraphValue, tensor: Any, index: Index, zero: int) -> Any:
    """The int8 value as int32, and the zero point outside of the picture."""
    from tvm import tirx

    _, y, x, c = index
    _, h, w, channels = value.shape
    within = [y >= 0, y < h, x >= 0, x < w, *([c < channels] if value.memory_width == channels else [])]
    return tirx.if_then_else(tirx.all(*within), value.integer(tensor, index), zero)


def unsupported_error(what: str) -> BuildError:
    return BuildError(what, next_step=_NEXT)


def _activation(options: Any) -> str:
    return {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}.get(options.fusedActivationFunction, "another")


def bounds_of(steps: Steps, options: Any) -> tuple[int, int]:
    try:
        return steps.bounds(_activation(options))
    except KeyError as error:
        raise unsupported_error(f"a fused activation ({options.fusedActivationFunction})") from error


def round_to_grid(real: Any, steps: Steps, bounds: tuple[int, int]) -> Any:
    """A float in steps from the zero point as int32: half to even, as both XNNPACK's magic bias and cvtps2dq."""
    from tvm import tirx

    low, high = (tirx.const(float(limit - steps.zero), "float32") for limit in bounds)
    return tirx.nearbyint(tirx.max(tirx.min(real, high), low)).astype("int32") + steps.zero
