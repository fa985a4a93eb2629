"""The cost of a .tflite, counted on its own graph as a network's is on the exported one: for child processes.

MACs are those of convolutions, linear layers and matrix products; parameters are all weights and biases, in elements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import prod
from typing import Any

from edgeloop.core.network import LayerSize, NetworkSizes
from edgeloop.errors import ModelError

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D")
_WITH_WEIGHTS = (*_CONVOLUTIONS, "FULLY_CONNECTED", "TRANSPOSE_CONV")
_VIEWS = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
_BITS = {"FLOAT32": 32, "FLOAT16": 16, "INT16": 16, "INT8": 8, "UINT8": 8, "INT4": 4, "INT2": 2}
_STORED = frozenset(_BITS)
"""Types that weights are stored in; shapes and axes are int32, and are no parameters."""


def count(content: bytes, shapes: Mapping[int, tuple[int, ...]]) -> tuple[NetworkSizes, str]:
    """Return what a model costs, and the lightening that most of it is stored in.

    `shapes` are those of the first graph's tensors, for a batch of 1. Raises ModelError for a model without operators.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    return _TfliteCount(flatbuffer_utils.read_model_from_bytearray(bytearray(content)), shapes).result()


class _TfliteCount:
    def __init__(self, model: Any, shapes: Mapping[int, tuple[int, ...]]) -> None:
        from ai_edge_litert.tools import flatbuffer_utils

        self._graph = model.subgraphs[0]
        if not self._graph.operators:
            raise ModelError("has no operators")
        self._operators = [
            (str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex)), op) for op in self._graph.operators
        ]
        self._types = [str(flatbuffer_utils.type_to_name(t.type)) for t in self._graph.tensors]
        self._shapes = shapes
        inputs = {int(t) for t in self._graph.inputs}
        self._source = {
            i: i
            for i, tensor in enumerate(self._graph.tensors)
            if i not in inputs and model.buffers[tensor.buffer].data is not None
        }
        """Stored tensors, and those that are only made of one, by what they are made of."""
        for name, op in self._operators:
            if name in ("DEQUANTIZE", *_VIEWS) and int(op.inputs[0]) in self._source:
                self._source[int(op.outputs[0])] = self._source[int(op.inputs[0])]

    def result(self) -> tuple[NetworkSizes, str]:
        layers, weights, biases, macs = [], set[int](), set[int](), 0
        for place, (name, op) in enumerate(self._operators):
            macs += self._macs(name, op)
            weight = self._constant(op, 1)
            if name not in _WITH_WEIGHTS or weight is None:
                continue
            bias = self._constant(op, 3 if name == "TRANSPOSE_CONV" else 2)
            layers.append(
                LayerSize(
                    name=f"{place} {name}",
                    weights=0 if weight in weights else self._elements(weight),
                    bias=0 if bias is None or bias in biases else self._elements(bias),
                    out_channels=self._shapes[int(op.outputs[0])][-1],
                    depthwise=name == "DEPTHWISE_CONV_2D",
                    linear=name == "FULLY_CONNECTED",
                )
            )
            weights.add(weight)
            biases |= set() if bias is None else {bias}
        read = {self._source[int(t)] for _, op in self._operators for t in op.inputs if int(t) in self._source}
        others = {t for t in read - weights - biases if self._types[t] in _STORED}
        other = sum(map(self._elements, others))
        activations = self._activations()
        sizes = NetworkSizes(
            parameters=sum(map(self._elements, weights | biases)) + other,
            macs=macs,
            layers=tuple(layers),
            other_parameters=other,
            activations=tuple(self._elements(t) for t in activations),
            peak_activation_elements=self._peak(activations),
        )
        return sizes, self._lightening(weights, activations)

    def _constant(self, op: Any, place: int) -> int | None:
        tensor = int(op.inputs[place]) if len(op.inputs) > place else -1
        return self._source.get(tensor)

    def _elements(self, tensor: int) -> int:
        return prod(self._shapes[tensor])

    def _macs(self, name: str, op: Any) -> int:
        """Multiply-accumulates of one operator; 0 of one that is none of the known kinds."""
        out = int(op.outputs[0])
        if name in ("CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D"):
            kernel = self._shapes[int(op.inputs[1])]
            return self._elements(out) * prod(kernel[1:-1] if name == "DEPTHWISE_CONV_2D" else self._taps(name, kernel))
        if name == "TRANSPOSE_CONV":
            kernel = self._shapes[int(op.inputs[1])]
            return self._elements(int(op.inputs[2])) * prod(kernel[:-1])
        if name == "FULLY_CONNECTED":
            return self._elements(out) * self._shapes[int(op.inputs[1])][-1]
        if name == "BATCH_MATMUL":
            first = self._shapes[int(op.inputs[0])]
            return self._elements(out) * first[-2 if op.builtinOptions.adjX else -1]
        return 0

    @staticmethod
    def _taps(name: str, kernel: tuple[int, ...]) -> tuple[int, ...]:
        """Axes that one output element sums over: of [out, h, w, in] or of [d, h, w, in, out]."""
        return kernel[1:] if name == "CONV_2D" else kernel[:-1]

    def _activations(self) -> list[int]:
        """Inputs, and what operators fill; what is made of constants alone is none, and a view is none."""
        outputs = [int(t) for name, op in self._operators if name not in _VIEWS for t in op.outputs]
        return [t for t in dict.fromkeys([*map(int, self._graph.inputs), *outputs]) if t not in self._source]

    def _peak(self, activations: list[int]) -> int:
        """The most elements alive at once, a tensor living from its operator to the last one that reads it."""
        view_of = {
            int(op.outputs[0]): int(op.inputs[0])
            for name, op in self._operators
            if name in _VIEWS and int(op.inputs[0]) not in self._source
        }

        def root(tensor: int) -> int:
            while tensor in view_of:
                tensor = view_of[tensor]
            return tensor

        last = len(self._operators)
        born = {int(t): 0 for t in self._graph.inputs}
        dies = {root(int(t)): last for t in self._graph.outputs}
        for place, (_, op) in enumerate(self._operators):
            for t in op.outputs:
                born.setdefault(root(int(t)), place)
            for t in op.inputs:
                dies[root(int(t))] = max(place, dies.get(root(int(t)), 0))
        alive = [t for t in activations if t in born]
        return max(
            sum(self._elements(t) for t in alive if born[t] <= place <= dies.get(t, born[t]))
            for place in range(len(self._operators))
        )

    def _lightening(self, weights: set[int], activations: list[int]) -> str:
        """The name of the form: by the bits that most of the weights and most of the activations are stored in."""
        weight = self._mostly(weights, 32)
        activation = self._mostly(set(activations), 32)
        if activation == 32 or (activation == 16 and weight >= 16):  # half-float activations too
            return {32: "fp32", 16: "fp16"}.get(weight, "dynamic")
        if activation == 16:
            return "w8a16"
        return "w4a8" if weight < 8 else "w8a8"

    def _mostly(self, tensors: set[int], otherwise: int) -> int:
        elements: Counter[int] = Counter()
        for tensor in tensors:
            if (bits := _BITS.get(self._types[tensor])) is not None:
                elements[bits] += self._elements(tensor)
        return elements.most_common(1)[0][0] if elements else otherwise
