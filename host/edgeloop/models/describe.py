"""The cost of a network before it is trained: counted on its exported graph, with no word about module classes.

Counting follows the built file: batch norm after a layer is folded into it, an activation function that only one
layer feeds is part of that layer's tensor, and a change of view is no tensor of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.fx import Node
from torch.fx.node import Argument

from edgeloop.core.network import LayerSize, NetworkIO, NetworkSizes, NetworkSpec
from edgeloop.errors import UserError, translated
from edgeloop.models.build import build_network
from edgeloop.models.channel_last import BuiltNetwork
from edgeloop.models.nodes import argument, operator_name, operator_of, shape_of

_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_PRODUCTS = {"matmul": 1, "mm": 1, "bmm": 1, "addmm": 2, "baddbmm": 2}
"""Matrix products and the place of their second factor."""

_FUSED = {"relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_min", "clip"}
"""Activation functions that a runtime folds into the operator before them."""

_VIEWS = {
    *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "movedim", "squeeze", "unsqueeze"),
    *("expand", "expand_as", "detach", "detach_", "alias", "dropout", "dropout_", "feature_dropout", "contiguous"),
    *("clone", "to", "_to_copy", "identity", "lift_fresh_copy", "numpy_T", "view_as", "reshape_as", "swapaxes"),
}
"""Operators whose result is their input in another shape, or the input itself once training is over."""

_COMPOSED = ("einsum", "scaled_dot_product_attention", "lstm", "gru", "rnn_tanh", "rnn_relu", "multi_head_attention")
"""Operators that hide their matrix products; they are decomposed before anything is counted."""


def describe(
    spec: NetworkSpec,
    io: NetworkIO,
    channel_multiple: int,
    change: Callable[[BuiltNetwork], BuiltNetwork] = lambda network: network,
) -> NetworkSizes:
    """Return the sizes of a network, for one sample. `io` and `channel_multiple` as in `build_network`.

    `change` is done to the network before it is counted. Raises UserError where the network can't be built or can't
    be exported.
    """
    network = change(build_network(spec, io, channel_multiple))
    return sizes_of(export_network(network, io, spec.factory or f"family {spec.family!r}"))


def export_network(network: BuiltNetwork, io: NetworkIO, source: str) -> torch.export.ExportedProgram:
    """Export a network for one sample, in evaluation mode, composed operators taken apart.

    Raises UserError, with the begin of the exporter's message, where its forward is not a graph.
    """
    shapes = {tensor.name: tensor for tensor in io.inputs}
    zeros = tuple(
        torch.zeros(1, *shapes[name].shape, dtype=getattr(torch, shapes[name].dtype))
        for name in network.signature.inputs
    )
    network.eval()
    with translated(
        UserError,
        f"{source}: torch.export can't follow its forward",
        next_step="keep Python branches on values of tensors out of forward",
    ):
        program = torch.export.export(network, zeros)
        operators = {str(n.target).split(".")[1] for n in program.graph.nodes if n.op == "call_function"}
        if any(name.startswith(_COMPOSED) for name in operators):
            table = torch.export.default_decompositions()
            decompositions = {op: table[op] for op in table if operator_name(op).startswith(_COMPOSED)}
            program = program.run_decompositions(decompositions)
    return program


def sizes_of(program: torch.export.ExportedProgram) -> NetworkSizes:
    """Count layers, weights, multiply-accumulates and activations of an exported network with a batch of one."""
    graph = _GraphWalk.of(program)
    layers: list[LayerSize] = []
    places: dict[str, int] = {}
    last_place = -1
    counted_names: set[str] = set()
    macs = 0
    for node in program.graph.nodes:
        layer = graph.layer(node)
        if layer is None:
            continue
        macs += layer.macs
        if layer.weight is None:
            continue
        if layer.weight in counted_names:
            last_place = places.get(layer.weight, last_place)
            continue
        last_place = places[layer.weight] = len(layers)
        norm = graph.folded_norm(node)
        bias = layer.out_channels if norm is not None or layer.bias is not None else 0
        layers.append(
            LayerSize(
                name=graph.names[layer.weight].removeprefix("network.").removesuffix(".weight"),
                weights=_numel(graph.node(layer.weight)),
                bias=bias,
                out_channels=layer.out_channels,
                depthwise=layer.depthwise,
                linear=layer.linear,
            )
        )
        counted_names |= {layer.weight, *([layer.bias] if layer.bias else []), *graph.norm_state(norm)}
    loose_norms = [n for n in program.graph.nodes if operator_of(n) == "batch_norm" and not graph.is_folded(n)]
    for norm in loose_norms:
        counted_names |= graph.norm_state(norm)
    # A batch norm that no layer precedes becomes a factor and an offset for each channel.
    other = sum(2 * int(shape_of(norm.args[0])[1]) for norm in loose_norms)
    other += sum(_numel(node) for node in graph.state() if node.users and node.name not in counted_names)
    activations, peak = _activations(graph)
    return NetworkSizes(
        parameters=sum(layer.weights + layer.bias for layer in layers) + other,
        macs=macs,
        layers=tuple(layers),
        edges=None if last_place == len(layers) - 1 else (0, last_place),
        other_parameters=other,
        activations=tuple(activations),
        peak_activation_elements=peak,
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    """A node that multiplies: `weight` and `bias` are placeholder names, None where they are activations."""

    macs: int
    out_channels: int
    weight: str | None
    bias: str | None = None
    depthwise: bool = False
    linear: bool = False


@dataclass(frozen=True, slots=True)
class _GraphWalk:
    """An exported graph with what follows from the user's inputs told apart from weights."""

    nodes: tuple[Node, ...]
    names: dict[str, str]
    """Placeholder of a parameter, buffer or constant -> its name in the module."""
    moving: frozenset[str]
    """Nodes that depend on an input."""

    @classmethod
    def of(cls, program: torch.export.ExportedProgram) -> _GraphWalk:
        signature = program.graph_signature
        names = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **signature.inputs_to_lifted_tensor_constants,
        }
        moving: set[str] = set()
        for node in program.graph.nodes:
            if (node.op == "placeholder" and node.name in signature.user_inputs) or (
                node.op == "call_function" and any(i.name in moving for i in node.all_input_nodes)
            ):
                moving.add(node.name)
        return cls(tuple(program.graph.nodes), names, frozenset(moving))

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def state(self) -> Iterator[Node]:
        return (node for node in self.nodes if node.name in self.names)

    def layer(self, node: Node) -> _Layer | None:
        """The layer that the node is, or None where it is no convolution, linear map or matrix product."""
        operator = operator_of(node)
        if operator in _CONVOLUTIONS | _TRANSPOSED:
            return self._convolution(node, is_transposed=operator in _TRANSPOSED)
        if operator == "linear":
            weight = argument(node, 1, "weight")
            return _Layer(
                macs=_numel(node) * int(shape_of(weight)[-1]),
                out_channels=int(shape_of(weight)[0]),
                weight=self._parameter_of(weight),
                bias=self._parameter_of(argument(node, 2, "bias")),
                linear=True,
            )
        if operator in _PRODUCTS:
            second = _PRODUCTS[operator]
            first_factor, second_factor = argument(node, second - 1, "mat1"), argument(node, second, "mat2")
            return _Layer(
                macs=_numel(node) * int(shape_of(first_factor)[-1]),
                out_channels=int(shape_of(node)[-1]),
                weight=self._parameter_of(second_factor) or self._parameter_of(first_factor),
                bias=self._parameter_of(node.args[0]) if second == 2 else None,
                linear=True,
            )
        return None

    def _convolution(self, node: Node, *, is_transposed: bool) -> _Layer:
        source, weight = argument(node, 0, "input"), argument(node, 1, "weight")
        groups = int(argument(node, 6, "groups", 1))
        # Weights are (out, in / groups, kernel...), transposed ones (in, out / groups, kernel...): each output
        # element of the one, and each input element of the other, meets that many weights.
        meetings = math.prod(shape_of(weight)[1:])
        return _Layer(
            macs=_numel(source if is_transposed else node) * meetings,
            out_channels=int(shape_of(weight)[1] * groups if is_transposed else shape_of(weight)[0]),
            weight=self._parameter_of(weight),
            bias=self._parameter_of(argument(node, 2, "bias")),
            depthwise=groups == shape_of(source)[1] > 1,
        )

    def _parameter_of(self, node: Argument) -> str | None:
        """The parameter that a factor comes from, through changes of view; None where it is an activation."""
        while isinstance(node, Node) and node.name not in self.moving:
            if node.name in self.names:
                return node.name
            if not node.all_input_nodes:
                return None
            node = node.all_input_nodes[0]
        return None

    def folded_norm(self, node: Node) -> Node | None:
        """The batch norm that is this layer's only user."""
        users = list(node.users)
        return users[0] if len(users) == 1 and operator_of(users[0]) == "batch_norm" else None

    def is_folded(self, norm: Node) -> bool:
        source = norm.args[0]
        return isinstance(source, Node) and self.layer(source) is not None and self.folded_norm(source) is norm

    def norm_state(self, norm: Node | None) -> set[str]:
        return set() if norm is None else {node.name for node in norm.all_input_nodes if node.name in self.names}


def _activations(graph: _GraphWalk) -> tuple[list[int], int]:
    """Elements of every activation tensor, and the most alive at once, each from its making to its last use."""
    tensor_of: dict[str, str] = {}
    """Node -> the node that stands for the tensor it shows: a view's is its source's."""
    size: dict[str, int] = {}
    birth: dict[str, int] = {}
    last_use: dict[str, int] = {}
    for place, node in enumerate(graph.nodes):
        sources = [tensor_of[i.name] for i in node.all_input_nodes if i.name in tensor_of]
        for source in sources:
            last_use[source] = place
        if node.name not in graph.moving:
            continue
        if sources and (_is_view(node) or (_is_fused(node) and len(node.all_input_nodes[0].users) == 1)):
            tensor_of[node.name] = sources[0]
            continue
        tensor_of[node.name] = node.name
        size[node.name], birth[node.name], last_use[node.name] = _numel(node), place, place
    places = range(len(graph.nodes))
    alive = (sum(size[t] for t in size if birth[t] <= place <= last_use[t]) for place in places)
    return [*size.values()], max(alive, default=0)


def _is_view(node: Node) -> bool:
    return operator_of(node) in _VIEWS or operator_of(node) == "getitem"


def _is_fused(node: Node) -> bool:
    """An activation function or batch norm right after what computes its argument."""
    source = node.all_input_nodes[0]
    if source.op != "call_function" or _is_view(source):
        return False
    if operator_of(node) == "batch_norm":
        return operator_of(source) in _CONVOLUTIONS | _TRANSPOSED | set(_PRODUCTS) | {"linear"}
    return operator_of(node) in _FUSED


def _numel(node: Node) -> int:
    value = node.meta["val"]
    parts = value if isinstance(value, tuple | list) else [value]
    return sum(int(part.numel()) for part in parts if isinstance(part, torch.Tensor))
