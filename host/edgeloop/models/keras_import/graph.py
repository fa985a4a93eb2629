"""A torch graph that grows value by value while a Keras model is read.

Keras speaks channel-last, torch channel-first. Each value says which of the two its node holds, and is turned only
where an operator needs the other one, so that a chain of convolutions is turned once at its start. Shapes are always
Keras's: channel-last, without the batch. No Keras here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node


@dataclass(frozen=True, slots=True)
class KerasValue:
    """A tensor of the network."""

    node: Node
    shape: tuple[int, ...]
    dtype: str = "float32"
    first: bool = False
    """True where the node holds it channel-first."""

    @property
    def rank(self) -> int:
        """Axes, the batch among them."""
        return len(self.shape) + 1

    def axis(self, axis: int) -> int:
        """An axis of Keras's, the batch being 0, as one of the node's tensor."""
        axis %= self.rank
        if not self.first or axis == 0:
            return axis
        return 1 if axis == self.rank - 1 else axis + 1


class TorchGraph:
    """Nodes and modules of the network; `to_module` gives it as one module."""

    def __init__(self) -> None:
        self._graph = Graph()
        self._root = nn.Module()
        self._modules: dict[tuple[int, str], str] = {}
        self._owners: list[object] = []
        self._permutations: dict[Node, Node] = {}

    def input(self, name: str, shape: Sequence[int], dtype: str) -> KerasValue:
        """Add an argument of forward: channel-last."""
        return KerasValue(self._graph.placeholder(name), tuple(shape), dtype)

    def apply(
        self, like: KerasValue, shape: Sequence[int], function: Callable[..., Any], *args: object, **kwargs: object
    ) -> KerasValue:
        """Call a torch function; its result is held as `like` is. Values among the arguments may stand in tuples."""
        node = self._graph.call_function(function, _nodes(args), _nodes(kwargs))
        return KerasValue(node, tuple(shape), like.dtype, like.first)

    def module(
        self, owner: object, part: str, value: KerasValue, shape: Sequence[int], make: Callable[[], nn.Module]
    ) -> KerasValue:
        """Call the module that stands for `part` of a Keras layer; `make` builds it where the layer is new."""
        key = id(owner), part
        if key not in self._modules:
            self._modules[key] = self._name_for(owner, part)
            self._owners.append(owner)  # an id is an object's own only while the object lives
            self._root.add_module(self._modules[key], make())
        node = self._graph.call_module(self._modules[key], (value.node,))
        return KerasValue(node, tuple(shape), "float32", value.first)

    def constant(self, tensor: torch.Tensor, *, trainable: bool, like: KerasValue) -> KerasValue:
        """Add a tensor that is stored: a weight, or a number that the model's code has in it."""
        name = self._free("weight" if trainable else "constant")
        if trainable:
            self._root.register_parameter(name, nn.Parameter(tensor))
        else:
            self._root.register_buffer(name, tensor)
        return KerasValue(self._graph.get_attr(name), tuple(tensor.shape)[1:], like.dtype)

    def channel_first(self, value: KerasValue) -> KerasValue:
        """Turn (batch, ..., channels) to (batch, channels, ...), where there are axes between."""
        if value.first or value.rank < 3:
            return value
        return self._turn(value, (0, value.rank - 1, *range(1, value.rank - 1)))

    def channel_last(self, value: KerasValue) -> KerasValue:
        """Turn (batch, channels, ...) to (batch, ..., channels)."""
        return self._turn(value, (0, *range(2, value.rank), 1)) if value.first else value

    def alike(self, values: Sequence[KerasValue]) -> list[KerasValue]:
        """Hold values that meet in one operator in the same way: channel-first where one is and all have its axes."""
        ranks = {value.rank for value in values}
        if len(ranks) == 1 and any(value.first for value in values):
            return [self.channel_first(value) for value in values]
        return [self.channel_last(value) for value in values]

    def to_module(self, outputs: Any) -> GraphModule:
        """Return the whole network; `outputs` is a node, or nodes in a tuple or a dictionary, as torch.fx has it."""
        self._graph.output(outputs)
        module = GraphModule(self._root, self._graph, "KerasNetwork")
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()
        return module

    def _turn(self, value: KerasValue, order: tuple[int, ...]) -> KerasValue:
        node = self._permutations.get(value.node)
        if node is None:
            node = self._graph.call_function(torch.permute, (value.node, order))
            self._permutations[value.node], self._permutations[node] = node, value.node
        return KerasValue(node, value.shape, value.dtype, not value.first)

    def _name_for(self, owner: object, part: str) -> str:
        """The layer's name; where Keras numbered it over all models of the process, numbered in this model alone."""
        own = re.sub(r"\W", "_", str(getattr(owner, "name", "")))
        kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(owner).__name__).lower()
        automatic = re.fullmatch(r"(.*?)_\d+", own)
        if automatic and automatic[1].replace("_", "") == kind.replace("_", ""):
            own = automatic[1]
        return self._free(f"{own}_{part}" if part else own)

    def _free(self, name: str) -> str:
        free, number = name, 0
        while hasattr(self._root, free):
            number += 1
            free = f"{name}_{number}"
        return free


def _nodes(arguments: Any) -> Any:
    """Arguments with the nodes of the values among them."""
    if isinstance(arguments, KerasValue):
        return arguments.node
    if isinstance(arguments, tuple | list):
        return tuple(_nodes(a) for a in arguments)
    if isinstance(arguments, dict):
        return {key: _nodes(a) for key, a in arguments.items()}
    return arguments
