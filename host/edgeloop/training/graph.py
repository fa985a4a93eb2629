"""A network as a graph of plain operators, brought into the form that the converter will give it.

Everything here acts on the `torch.export` graph and never on module classes, so that a user's network works like a
family's. After `exported_graph`, every layer is one node: `conv1d`, `conv2d`, `conv_transpose2d` or `linear` with a
parameter for its weights, and batch norm, scalings and shifts that follow a layer are part of it. The converter does
the same folding; doing it first means that what is fake-quantized is what the runtime quantizes.
"""

from __future__ import annotations

import copy
import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.fx.node import Argument

from edgeloop.errors import UserError, translated

BATCH_MAX = 1 << 16

_LAYERS = frozenset({"conv1d", "conv2d", "conv_transpose2d", "linear"})
_NORMS = frozenset({"_native_batch_norm_legit_no_training"})
_AFFINE = frozenset({"add", "sub", "rsub", "mul", "div"})
_FOLD_ELEMENTS_MAX = 1 << 24
"""Constants beyond this many elements are left to be computed."""


class Positional(nn.Module):
    """Any module as one of positional arguments, so that every network is exported in the same shape."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.network(*inputs)


@dataclass(frozen=True, slots=True)
class Affine:
    """`source * factor + shift`, with factor and shift for each channel, or one for all."""

    source: Node
    factor: torch.Tensor
    shift: torch.Tensor


def kind_of(node: Node) -> str:
    """The operator's name without overload (`conv2d`), `getitem`, or the node's own kind for what is no operator."""
    if node.op != "call_function":
        return node.op
    if node.target is operator.getitem:
        return "getitem"
    return str(node.target).removeprefix("aten.").partition(".")[0]


def is_layer(node: Node) -> bool:
    """True for a layer with a parameter for its weights."""
    if kind_of(node) not in _LAYERS or not is_constant(node.args[1]):
        return False
    return kind_of(node) != "conv_transpose2d" or _argument(node, 6, 1) == 1


def is_depthwise(node: Node, module: GraphModule) -> bool:
    """True where each output channel of a convolution sees one input channel only."""
    groups = _argument(node, 6, 1) if kind_of(node) in {"conv1d", "conv2d"} else 1
    return bool(groups > 1 and constant(module, node.args[1]).shape[1] == 1)


def channel_axis(node: Node) -> int:
    """The axis of a layer's weights that its output channels lie on."""
    return 1 if kind_of(node) == "conv_transpose2d" else 0


def is_constant(argument: object) -> TypeGuard[Node]:
    """True for a parameter or buffer of the module."""
    return isinstance(argument, Node) and argument.op == "get_attr"


def constant(module: GraphModule, node: Argument) -> torch.Tensor:
    """The parameter or buffer that a get_attr node names."""
    assert isinstance(node, Node)
    owner, _, name = str(node.target).rpartition(".")
    value: torch.Tensor = getattr(module.get_submodule(owner), name)
    return value


def origin(node: Node) -> str:
    """The name that the network's own code gives the parameter that a get_attr node reads, whatever was folded in."""
    name: str = node.meta.get("origin") or str(node.target)
    return name


def example(node: Node) -> torch.Tensor | None:
    """The tensor that export saw at this node (shape and type, no values); None for what is no tensor."""
    value = node.meta.get("val")
    return value if isinstance(value, torch.Tensor) else None


def exported_graph(network: nn.Module, samples: Sequence[torch.Tensor]) -> GraphModule:
    """Return `network` in evaluation mode as a folded graph with a free batch size; `network` itself is not changed.

    `samples` are inputs in the order of forward, with a batch of at least 2. Raises UserError where the network
    can't be exported.
    """
    batch = torch.export.Dim("batch", min=1, max=BATCH_MAX)
    module = Positional(copy.deepcopy(network)).eval()
    with translated(
        UserError,
        "the network can't be exported with a free batch size",
        next_step="keep Python control flow and fixed batch sizes out of forward",
    ):
        program = torch.export.export(module, tuple(samples), dynamic_shapes=(tuple({0: batch} for _ in samples),))
    graph_module = program.run_decompositions(_decompositions()).module(check_guards=False)
    assert isinstance(graph_module, GraphModule)
    _drop_copies(graph_module)
    _view_by_value(graph_module)
    _fold_constants(graph_module)
    _products_to_linear(graph_module)
    _fold_affine(graph_module)
    _part_transposed(graph_module)
    graph_module.graph.eliminate_dead_code()
    _drop_unread(graph_module)
    graph_module.recompile()
    return graph_module


def single_sample_program(module: GraphModule, samples: Sequence[torch.Tensor]) -> torch.export.ExportedProgram:
    """Return the graph as an exported program that takes exactly one sample a call."""
    return torch.export.export(Positional(module), tuple(s[:1] for s in samples))


def _decompositions() -> dict[Any, Any]:
    """Operators that the converter splits in two, split here as well; the others stay whole."""
    aten = torch.ops.aten
    relu6 = functools.partial(torch.nn.functional.hardtanh, min_val=0.0, max_val=6.0)
    return {
        aten.silu.default: lambda x: x * torch.sigmoid(x),
        aten.hardsigmoid.default: lambda x: relu6(x + 3.0) / 6.0,
    }


def _view_by_value(module: GraphModule) -> None:
    """A view asks for strides that hold no longer once copies are dropped; a reshape copies where it must."""
    for node in module.graph.nodes:
        if kind_of(node) in {"view", "_unsafe_view"}:
            node.target = torch.ops.aten.reshape.default


def _drop_copies(module: GraphModule) -> None:
    for node in list(module.graph.nodes):
        if kind_of(node) in {"clone", "alias", "detach", "dropout", "lift_fresh_copy"}:
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)


def _drop_unread(module: GraphModule) -> None:
    """Delete parameters and buffers that folding has left behind, so that they are neither trained nor saved."""
    read = {str(n.target) for n in module.graph.nodes if n.op == "get_attr"}
    for name in [n for n, _ in (*module.named_parameters(), *module.named_buffers()) if n not in read]:
        owner, _, last = name.rpartition(".")
        delattr(module.get_submodule(owner), last)


def _fold_constants(module: GraphModule) -> None:
    """Compute once what depends on parameters alone: reparametrized weights, a Keras batch norm's factors."""
    values: dict[Node, torch.Tensor] = {}
    for node in list(module.graph.nodes):
        constants = [n for n in node.all_input_nodes if is_constant(n)]
        if node.op != "call_function" or not constants or len(constants) != len(node.all_input_nodes):
            continue
        shape = example(node)
        if shape is None or not shape.is_floating_point() or shape.numel() > _FOLD_ELEMENTS_MAX:
            continue
        values.update((n, constant(module, n).detach()) for n in constants)
        arguments = torch.fx.map_arg((node.args, dict(node.kwargs)), lambda n: values[n])
        with torch.no_grad():
            product = node.target(*arguments[0], **arguments[1])
        parameter = add_parameter(module, node, product, f"{node.name}_folded")
        parameter.meta["origin"] = origin(constants[0])
        _replace(module, node, parameter)


def _products_to_linear(module: GraphModule) -> None:
    """Write products with a parameter (a Dense layer's kernel) as `linear`, which is what they become."""
    for node in list(module.graph.nodes):
        kind = kind_of(node)
        if kind in {"matmul", "mm"}:
            source, weight, bias = node.args[0], node.args[1], None
        elif kind == "addmm" and not node.kwargs:
            bias, source, weight = node.args[:3]
        else:
            continue
        if is_constant(source) or not is_constant(weight) or constant(module, weight).dim() != 2:
            continue
        if bias is not None and not (is_constant(bias) and constant(module, bias).dim() == 1):
            continue
        transposed_weight = constant(module, weight).detach().t().contiguous()
        with module.graph.inserting_before(node):
            parameter = add_parameter(module, node, transposed_weight, f"{node.name}_weight")
            parameter.meta["origin"] = origin(weight)
            layer = module.graph.call_function(torch.ops.aten.linear.default, (source, parameter, bias))
        _replace(module, node, layer)


def _fold_affine(module: GraphModule) -> None:
    """Put every scaling and shift that follows a layer into the layer; write other batch norms as arithmetic."""
    for node in list(module.graph.nodes):
        if kind_of(node) == "getitem" and kind_of(node.args[0]) in _NORMS:
            affine = _of_norm(module, node)
            if not _into_layer(module, node, affine):
                _as_arithmetic(module, node, affine)
        elif kind_of(node) in _AFFINE:
            step = _of_arithmetic(module, node)
            if step is not None:
                _into_layer(module, node, step)


def _part_transposed(module: GraphModule) -> None:
    """Give a transposed convolution weights of its own where a plain one reads the same.

    The runtime stores both, with scales along different axes.
    """
    axes: dict[Node, int] = {}
    for node in [n for n in module.graph.nodes if is_layer(n)]:
        source = node.args[1]
        if axes.setdefault(source, channel_axis(node)) != channel_axis(node):
            own = add_parameter(module, node, constant(module, source).detach(), f"{node.name}_weight")
            own.meta["origin"] = origin(source)
            node.args = (node.args[0], own, *node.args[2:])


def _of_norm(module: GraphModule, node: Node) -> Affine:
    norm = node.args[0]
    assert isinstance(norm, Node)
    source, gamma, beta, mean, variance = norm.args[:5]
    assert isinstance(source, Node)
    factor = torch.rsqrt(_double(module, variance) + float(str(norm.args[6])))
    if gamma is not None:
        factor = factor * _double(module, gamma)
    shift = -_double(module, mean) * factor
    if beta is not None:
        shift = shift + _double(module, beta)
    return Affine(source, factor, shift)


def _of_arithmetic(module: GraphModule, node: Node) -> Affine | None:
    """Return an add, sub, mul or div with a number or a value for each channel as an affine step."""
    kind, shape = kind_of(node), example(node)
    if node.kwargs or len(node.args) != 2 or shape is None:
        return None
    first, second = node.args if kind != "rsub" else reversed(node.args)
    constant_first = not isinstance(first, Node) or is_constant(first)
    source, other = (second, first) if constant_first else (first, second)
    if not isinstance(source, Node) or not is_layer(source) or (constant_first and kind == "div"):
        return None
    value = _by_channel(module, other, source, shape)
    if value is None:
        return None
    one, zero = torch.ones_like(value), torch.zeros_like(value)
    match kind:
        case "add":
            return Affine(source, one, value)
        case "sub" | "rsub":
            return Affine(source, -one, value) if constant_first else Affine(source, one, -value)
        case "mul":
            return Affine(source, value, zero)
        case _:
            return Affine(source, 1 / value, zero)


def _by_channel(module: GraphModule, other: Argument, layer: Node, shape: torch.Tensor) -> torch.Tensor | None:
    """Return a number or a constant as one value for each output channel (or a single one); None where it is more."""
    if isinstance(other, bool) or not isinstance(other, int | float | Node):
        return None
    if not isinstance(other, Node):
        return torch.tensor([float(other)], dtype=torch.float64)
    if not is_constant(other):
        return None
    value = constant(module, other).detach().double()
    axis = shape.dim() - 1 if kind_of(layer) == "linear" else 1
    axes = [1] * (shape.dim() - value.dim()) + list(value.shape)
    if len(axes) != shape.dim() or any(n != 1 for i, n in enumerate(axes) if i != axis):
        return None
    return value.reshape(-1)


def _into_layer(module: GraphModule, node: Node, affine: Affine) -> bool:
    """Fold into the layer that `affine.source` is; False where it is none, or where others read it too."""
    layer = affine.source
    producer = node.args[0] if kind_of(node) == "getitem" else node
    if not is_layer(layer) or list(layer.users) != [producer]:
        return False
    weight = constant(module, layer.args[1]).detach()
    axis = channel_axis(layer)
    if kind_of(node) == "getitem" and kind_of(layer) == "linear":
        shape = example(layer)
        if shape is None or shape.dim() != 2:  # channels of a batch norm are axis 1, those of a linear layer the last
            return False
    channels = weight.shape[axis]
    factor, shift = affine.factor.expand(channels), affine.shift.expand(channels)
    column = factor.reshape([-1 if i == axis else 1 for i in range(weight.dim())])
    bias_before = constant(module, layer.args[2]).detach().double() if _argument(layer, 2, None) is not None else 0.0
    with module.graph.inserting_before(layer):
        new_weight = add_parameter(module, layer, (weight.double() * column).float(), f"{layer.name}_weight_folded")
        new_bias = add_parameter(module, layer, (bias_before * factor + shift).float(), f"{layer.name}_bias_folded")
    assert isinstance(layer.args[1], Node)
    new_weight.meta["origin"] = origin(layer.args[1])
    layer.args = (layer.args[0], new_weight, new_bias, *layer.args[3:])
    node.replace_all_uses_with(layer)
    _erase(module, node)
    return True


def _as_arithmetic(module: GraphModule, node: Node, affine: Affine) -> None:
    """Write a batch norm that follows no layer as a multiplication and an addition with constants."""
    shape = example(node)
    assert shape is not None
    view = [1, -1, *[1] * (shape.dim() - 2)]
    aten = torch.ops.aten
    with module.graph.inserting_before(node):
        factor = add_parameter(module, node, affine.factor.float().view(view), f"{node.name}_factor")
        shift = add_parameter(module, node, affine.shift.float().view(view), f"{node.name}_shift")
        product = module.graph.call_function(aten.mul.Tensor, (affine.source, factor))
        sum_node = module.graph.call_function(aten.add.Tensor, (product, shift))
    product.meta["val"] = shape
    sum_node.meta["val"] = shape
    node.replace_all_uses_with(sum_node)
    _erase(module, node)


def add_parameter(module: GraphModule, before: Node, value: torch.Tensor, name: str) -> Node:
    """Register a new trainable parameter under a free name and return the node that reads it."""
    free, number = name, 0
    while hasattr(module, free):
        number += 1
        free = f"{name}_{number}"
    module.register_parameter(free, nn.Parameter(value.clone().contiguous()))
    with module.graph.inserting_before(before):
        return module.graph.get_attr(free)


def _replace(module: GraphModule, node: Node, by: Node) -> None:
    by.meta.update({key: node.meta[key] for key in ("val",) if key in node.meta})
    node.replace_all_uses_with(by)
    module.graph.erase_node(node)


def _double(module: GraphModule, node: Argument) -> torch.Tensor:
    return constant(module, node).detach().double()


def _erase(module: GraphModule, node: Node) -> None:
    """Erase a node that nobody reads, and the batch norm that it took its result from."""
    producer = node.args[0] if kind_of(node) == "getitem" else None
    module.graph.erase_node(node)
    if isinstance(producer, Node) and not producer.users:
        module.graph.erase_node(producer)


def _argument(node: Node, position: int, default: object) -> Any:
    return node.args[position] if len(node.args) > position else default
