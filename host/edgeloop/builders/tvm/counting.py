"""The cost of an imported network, counted on TVM's graph of it by the rules of a network's own: for child processes.

The graph is folded and still as it was imported, channels first.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from edgeloop.core.network import LayerSize, NetworkSizes
from edgeloop.errors import ModelError

_CONVOLUTIONS = ("relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d")
_TRANSPOSED = ("relax.nn.conv1d_transpose", "relax.nn.conv2d_transpose", "relax.nn.conv3d_transpose")
_PRODUCT = "relax.matmul"
_BIAS = "relax.add"
_VIEWS = ("relax.reshape", "relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.nn.batch_flatten")
_ACTIVATIONS = ("relax.nn.relu", "relax.nn.relu6", "relax.clip", "relax.tanh", "relax.sigmoid", "relax.nn.leakyrelu")
"""Done by a runtime in the layer before it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One call of the graph: the values that it reads, and the one that it gives."""

    operator: str
    gives: int
    elements: int
    reads: tuple[int, ...]
    call: Any

    @property
    def constants(self) -> list[Any]:
        return [argument for argument in self.call.args if type(argument).__name__ == "GenericConst"]


def count(module: Any) -> NetworkSizes:
    """Return what a graph costs. Raises ModelError for one without operators."""
    return _TvmCount(module["main"]).sizes()


class _TvmCount:
    def __init__(self, main: Any) -> None:
        self._inputs = {hash(p): _elements(p) for p in main.params}
        self._steps: list[_Step] = []
        parts: dict[int, tuple[int, ...]] = {}
        for block in main.body.blocks:
            for binding in block.bindings:
                value_id, value = hash(binding.var), binding.value
                if getattr(getattr(value, "op", None), "name", "").startswith("relax."):
                    reads = tuple(read for argument in value.args for read in _read(argument, parts))
                    self._steps.append(_Step(value.op.name, value_id, _elements(binding.var), reads, value))
                else:  # a tuple, a part of one, or another name
                    parts[value_id] = _read(value, parts)
        self._results = list(_read(main.body.body, parts))
        if not self._steps:
            raise ModelError("has no operators")
        self._readers = [read for step in self._steps for read in step.reads] + self._results
        self._of = {value_id: value_id for value_id in self._inputs}
        """The tensor that a value lies in."""
        made_by: dict[int, _Step] = {}
        self._bias: dict[int, _Step] = {}
        """By what the layer itself gives."""
        for step in self._steps:
            before = made_by.get(step.reads[0]) if step.reads else None
            if before is not None and self._is_bias(step, before):
                self._bias[before.gives] = step
            is_in_layer = before is not None and (step in self._bias.values() or self._is_activation(step, before))
            self._of[step.gives] = self._of[step.reads[0]] if is_in_layer or self._is_view(step) else step.gives
            made_by[step.gives] = step

    def sizes(self) -> NetworkSizes:
        layers, in_layers = [], 0
        for place, step in enumerate(self._steps):
            if not _is_layer(step) or not step.constants:
                continue
            weights, bias = _elements(step.constants[0]), self._bias.get(step.gives)
            offsets = _elements(bias.constants[0]) if bias is not None else 0
            shape = _shape(step.constants[0])
            groups = int(getattr(step.call.attrs, "groups", 1))
            linear = step.operator == _PRODUCT
            channels = shape[-1] if linear else shape[1] * groups if step.operator in _TRANSPOSED else shape[0]
            layers.append(
                LayerSize(
                    name=f"{place} {step.operator.removeprefix('relax.').removeprefix('nn.')}",
                    weights=weights,
                    bias=offsets,
                    out_channels=channels,
                    depthwise=groups > 1 and groups == channels and not linear,
                    linear=linear,
                )
            )
            in_layers += weights + offsets
        parameters = sum(_elements(c) for s in self._steps for c in s.constants if _is_parameter(c))
        tensors = self._tensors()
        return NetworkSizes(
            parameters=parameters,
            macs=sum(map(_macs, self._steps)),
            layers=tuple(layers),
            other_parameters=parameters - in_layers,
            activations=tuple(tensors.values()),
            peak_activation_elements=self._peak(tensors),
        )

    def _read_once(self, value: int) -> bool:
        return self._readers.count(value) == 1

    def _is_bias(self, step: _Step, before: _Step) -> bool:
        return (
            step.operator == _BIAS
            and _is_layer(before)
            and len(step.reads) == len(step.constants) == 1
            and before.elements == step.elements
            and self._read_once(before.gives)
        )

    def _is_activation(self, step: _Step, before: _Step) -> bool:
        """True where it stands right after a layer, or after a layer's bias, and nothing else reads that."""
        after_layer = _is_layer(before) or before in self._bias.values()
        return step.operator in _ACTIVATIONS and after_layer and self._read_once(before.gives)

    @staticmethod
    def _is_view(step: _Step) -> bool:
        return step.operator in _VIEWS and len(step.reads) == 1

    def _tensors(self) -> dict[int, int]:
        """Elements of inputs and of what operators fill."""
        outputs = {step.gives: step.elements for step in self._steps if self._of[step.gives] == step.gives}
        return self._inputs | outputs

    def _peak(self, tensors: dict[int, int]) -> int:
        """The most elements alive at once, a tensor living from its operator to the last one that reads it."""
        born, dies = dict.fromkeys(self._inputs, 0), dict.fromkeys(self._inputs, 0)
        for place, step in enumerate(self._steps):
            born.setdefault(self._of[step.gives], place)
            for read in (step.gives, *step.reads):
                dies[self._of[read]] = place
        dies |= {self._of[result]: len(self._steps) for result in self._results}
        return max(
            sum(elements for tensor, elements in tensors.items() if born[tensor] <= place <= dies[tensor])
            for place in range(len(self._steps))
        )


def _is_layer(step: _Step) -> bool:
    return step.operator in (*_CONVOLUTIONS, *_TRANSPOSED, _PRODUCT)


def _macs(step: _Step) -> int:
    """Multiply-accumulates of one operator; 0 of one that is none of the known kinds."""
    if step.operator in _CONVOLUTIONS:
        return step.elements * prod(_shape(step.call.args[1])[1:])
    if step.operator in _TRANSPOSED:
        return _elements(step.call.args[0]) * prod(_shape(step.call.args[1])[1:])
    if step.operator == _PRODUCT:
        return step.elements * _shape(step.call.args[0])[-1]
    return 0


def _is_parameter(constant: Any) -> bool:
    """Numbers that were learned: shapes and axes are integers, and a single number is a part of an operator."""
    return str(constant.ty.dtype).startswith("float") and bool(_shape(constant))


def _read(value: Any, parts: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    """The tensors that an argument stands for, those of a tuple each."""
    if hasattr(value, "fields"):
        return tuple(value_id for one in value.fields for value_id in _read(one, parts))
    if hasattr(value, "tuple_value"):
        return _read(value.tuple_value, parts)[value.index : value.index + 1]
    value_id = _identity(value)
    return () if value_id is None else parts.get(value_id, (value_id,))


def _identity(value: Any) -> int | None:
    """Of a variable, whose name may be another's too; None of anything else."""
    return hash(value) if type(value).__name__ in ("Var", "DataflowVar") else None


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value.ty.shape.values))


def _elements(value: Any) -> int:
    """Of one tensor, or of all of a tuple."""
    fields = getattr(value.ty, "fields", None)
    return sum(prod(map(int, f.shape.values)) for f in fields) if fields is not None else prod(_shape(value))
