"""Where a rung of the ladder rounds: fake quantizers put into a folded graph, and taken out again.

Every tensor that the runtime quantizes gets one, and no other: what is fused in the runtime is rounded once, what
keeps its input's grid in the runtime keeps it here (constraints as in ai-edge-quantizer's `common_quantize`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from edgeloop.core.lightening import Lightening
from edgeloop.errors import HarnessError
from edgeloop.training.graph import (
    add_parameter,
    channel_axis,
    constant,
    example,
    is_constant,
    is_depthwise,
    is_layer,
    kind_of,
    origin,
)
from edgeloop.training.quantizers import (
    BiasQuantizer,
    ConstantQuantizer,
    HalfQuantizer,
    LearnedStepQuantizer,
    QuantizerPhase,
    RangeQuantizer,
    SameRange,
    WeightQuantizer,
)

_MOVES = frozenset(
    {
        *("view", "_unsafe_view", "unsafe_view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "expand"),
        *("permute", "transpose", "t", "movedim", "flip", "roll", "repeat", "tile", "contiguous", "_to_copy"),
        *("slice", "select", "split", "split_with_sizes", "chunk", "unbind", "getitem", "gather", "index_select"),
        *("pixel_shuffle", "pixel_unshuffle", "upsample_nearest1d", "upsample_nearest2d"),
        *("max_pool1d", "max_pool2d", "amax", "amin"),
    }
)
"""Operators that move or choose values and make none: their result is on their input's grid already."""
_SAME_GRID = frozenset(
    {"avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "upsample_bilinear2d"}
)
"""Arithmetic whose result the runtime keeps on its input's grid."""
_JOINS = frozenset({"cat", "stack"})
"""Operators whose inputs take the grid of their result."""
_FUSING = frozenset({"conv1d", "conv2d", "conv_transpose2d", "linear", "add", "sub", "rsub", "mul", "div"})
"""Operators that an activation straight after them is fused into."""
_POOLS = frozenset({"max_pool2d", "avg_pool2d"})
_FIXED = {
    "sigmoid": {8: (0.0, 255 / 256), 16: (-32767 / 32768, 32767 / 32768)},
    "softmax": {8: (0.0, 255 / 256), 16: (-32767 / 32768, 32767 / 32768)},
    "_softmax": {8: (0.0, 255 / 256), 16: (-32767 / 32768, 32767 / 32768)},
    "tanh": {8: (-1.0, 127 / 128), 16: (-32767 / 32768, 32767 / 32768)},
}
"""Ranges that TFLite's kernels fix: steps of 1/256, 1/128 and, for 16 bit, 1/32768."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer's weights, however often it is used; `node` reads the parameter."""

    name: str
    bits: int
    depthwise: bool
    node: Node
    origin: str
    """As the network's own code names it; told apart by a number where folding made several layers of one."""
    weights: int
    quantizer: torch.nn.Module | None
    axis: int
    """Of the output channels in the weights."""
    has_choice: bool
    """True where a mixed rung may give it 4 bit or 8."""


@dataclass(frozen=True, slots=True)
class Activation:
    """A tensor that the runtime quantizes: the node that makes it, and the range it has."""

    name: str
    quantizer: RangeQuantizer


class FakeQuantized:
    """A graph with fake quantizers in it. `module` trains like any module; ranges are learned in phases."""

    def __init__(self, module: GraphModule, lightening: Lightening, fewer_bits: Collection[str] = ()) -> None:
        """`fewer_bits`: of a mixed rung the layers, by their origin, that take the fewer bits; the others stay at 8."""
        self.module = module
        self.lightening = lightening
        self.layers: tuple[Layer, ...] = ()
        self.activations: tuple[Activation, ...] = ()
        self._ranges: list[RangeQuantizer] = []
        self._ranges_by_node: dict[Node, RangeQuantizer] = {}
        self._step_quantizers: list[tuple[Node, LearnedStepQuantizer]] = []
        nodes = list(module.graph.nodes)
        if not lightening.is_float:
            self._quantize_activations(nodes)
        self._quantize_layers([n for n in nodes if is_layer(n)], frozenset(fewer_bits))
        module.graph.lint()
        module.recompile()

    def enter(self, phase: QuantizerPhase) -> None:
        """Calibrate, learn or freeze all ranges."""
        for quantizer in self._ranges:
            if phase is QuantizerPhase.FROZEN:
                quantizer.freeze()
            else:
                quantizer.phase = phase

    def master(self) -> dict[str, torch.Tensor]:
        """The graph's own parameters before rounding, by name; the parameters of quantizers are not among them."""
        return {name: value.detach().clone() for name, value in self._own()}

    def start_from(self, master: Mapping[str, torch.Tensor]) -> None:
        """Take over parameters of the same graph at another rung. Raises HarnessError where they are of another one."""
        mine = dict(self._own())
        shapes = {name: value.shape for name, value in mine.items()}
        if shapes != {name: value.shape for name, value in master.items()}:
            raise HarnessError("the weights to go on from are those of another network")
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(master[name])
        for weights, quantizer in self._step_quantizers:
            quantizer.start(constant(self.module, weights).detach())

    def _own(self) -> list[tuple[str, torch.nn.Parameter]]:
        with_steps = {id(parameter) for _, quantizer in self._step_quantizers for parameter in quantizer.parameters()}
        return [(name, value) for name, value in self.module.named_parameters() if id(value) not in with_steps]

    @contextlib.contextmanager
    def ranges_held(self) -> Iterator[None]:
        """A block in which data pass and ranges that are being learned stay as they are."""
        learning = [quantizer for quantizer in self._ranges if quantizer.phase is QuantizerPhase.LEARN]
        for quantizer in learning:
            quantizer.phase = QuantizerPhase.FROZEN
        yield
        for quantizer in learning:
            quantizer.phase = QuantizerPhase.LEARN

    @contextlib.contextmanager
    def trial_bits(self, layer: Layer, bits: int) -> Iterator[None]:
        """A block in which one layer's weights have so many bits, each channel by the step that fits it best."""
        weight = constant(self.module, layer.node).detach()
        trial = _weight_quantizer(bits, layer.axis, weight)
        usual = layer.quantizer
        self._replace(usual, trial)
        yield
        self._replace(trial, usual)

    def _replace(self, one: torch.nn.Module | None, other: torch.nn.Module | None) -> None:
        """Put another quantizer in a quantizer's place, where its bias takes the scale from as well."""
        for parent in self.module.modules():
            for name in [name for name, child in parent.named_children() if child is one]:
                setattr(parent, name, other)

    def to_float(self) -> GraphModule:
        """Put weights and constants on their grids and return the graph as plain arithmetic, without quantizers."""
        graph = self.module.graph
        with torch.no_grad():
            for node in list(graph.nodes):
                if node.op != "call_module":
                    continue
                source = node.args[0]
                assert isinstance(source, Node)
                if is_constant(source):
                    quantizer = self.module.get_submodule(str(node.target))
                    value = quantizer(constant(self.module, source))
                    if isinstance(quantizer, BiasQuantizer) and len(source.users) > 1:
                        # The runtime's integers of a bias are those of one input's scale: each use has its own.
                        source = add_parameter(self.module, node, value, f"{node.name}_written")
                    else:
                        constant(self.module, source).copy_(value)
                node.replace_all_uses_with(source)
                graph.erase_node(node)
        self.module.delete_all_unused_submodules()
        self.module.recompile()
        return self.module

    def _quantize_layers(self, nodes: list[Node], fewer_bits: frozenset[str]) -> None:
        """One quantizer for each layer's weights: the runtime stores them once, whoever uses them."""
        edges = {*nodes[:1], *nodes[-1:]}
        layers: list[Layer] = []
        for source, uses in _by_weights(nodes).items():
            weight = constant(self.module, source)
            depthwise = any(is_depthwise(node, self.module) for node in uses)
            bits = self._bits(depthwise=depthwise, edge=not edges.isdisjoint(uses))
            name, has_choice = _free_name(_module_name(source), layers), self.lightening.is_mixed and bits < 8
            if has_choice and name not in fewer_bits:
                bits = 8
            axis = channel_axis(uses[0])
            quantizer = _weight_quantizer(bits, axis, weight) if bits < 32 else None
            layers.append(
                Layer(str(source.target), bits, depthwise, source, name, weight.numel(), quantizer, axis, has_choice)
            )
            if quantizer is None:
                continue
            if isinstance(quantizer, LearnedStepQuantizer):
                self._step_quantizers.append((source, quantizer))
            self._round_argument(uses, 1, quantizer, f"weights_{uses[0].name}")
            for node in uses:
                grid = self._grid_of(node)
                if (
                    isinstance(quantizer, WeightQuantizer)
                    and grid is not None
                    and len(node.args) > 2
                    and is_constant(node.args[2])
                ):
                    self._round_argument([node], 2, BiasQuantizer(quantizer, grid), f"bias_{node.name}")
        self.layers = tuple(layers)

    def _round_argument(self, nodes: Sequence[Node], position: int, quantizer: torch.nn.Module, name: str) -> None:
        """Round once what all `nodes`, which are in forward order, have at this position."""
        with self.module.graph.inserting_before(nodes[0]):
            call = self.module.graph.call_module(self._add(quantizer, name), (nodes[0].args[position],))
        for node in nodes:
            node.args = (*node.args[:position], call, *node.args[position + 1 :])

    def _bits(self, *, depthwise: bool, edge: bool) -> int:
        rung = self.lightening
        if depthwise:
            return rung.depthwise_weight_bits
        return rung.edge_weight_bits if edge else rung.weight_bits

    def _quantize_activations(self, nodes: list[Node]) -> None:
        bits = self.lightening.activation_bits
        floats = [n for n in nodes if _is_float(n) and n.op in {"placeholder", "call_function"}]
        # All decided before the first quantizer changes who reads what.
        results = [n for n in floats if not _is_on_a_grid(n)]
        joins = {member: join for join in floats if kind_of(join) in _JOINS for member in _members(join)}
        for node in results:
            self._quantize_constants(node)
            if node in joins:  # the join rounds its result, and so what it joins
                continue
            source = self._grid_of(node) if _keeps_grid(node) else None
            if source is not None:
                self._ranges_by_node[node] = source
                self._insert(node, SameRange(source))
            else:
                quantizer = RangeQuantizer(bits, fixed_range=_FIXED.get(kind_of(node), {}).get(bits))
                self._ranges.append(quantizer)
                self._ranges_by_node[node] = quantizer
                self._insert(node, quantizer)
        self.activations = tuple(Activation(n.name, self._ranges_by_node[joins.get(n, n)]) for n in results)

    def _quantize_constants(self, node: Node) -> None:
        """Round constant operands of arithmetic, as the runtime stores them."""
        if is_layer(node) or kind_of(node) not in {"add", "sub", "mul", "div"}:
            return
        for operand in node.all_input_nodes:
            if is_constant(operand):
                name = self._add(ConstantQuantizer(self.lightening.activation_bits), f"operand_{operand.name}")
                with self.module.graph.inserting_before(node):
                    node.replace_input_with(operand, self.module.graph.call_module(name, (operand,)))

    def _grid_of(self, node: Node) -> RangeQuantizer | None:
        """The quantizer whose grid a node's input is on; None where nothing rounds it."""
        source = node.args[0]
        while isinstance(source, Node):
            if source in self._ranges_by_node:
                return self._ranges_by_node[source]
            source = source.args[0] if source.args else None
        return None

    def _insert(self, node: Node, quantizer: torch.nn.Module) -> None:
        name = self._add(quantizer, f"range_{node.name}")
        users = list(node.users)
        with self.module.graph.inserting_after(node):
            call = self.module.graph.call_module(name, (node,))
        for user in users:
            user.replace_input_with(node, call)

    def _add(self, quantizer: torch.nn.Module, name: str) -> str:
        free, number = name, 0
        while hasattr(self.module, free):
            number += 1
            free = f"{name}_{number}"
        self.module.add_submodule(free, quantizer)
        return free


def _by_weights(nodes: Sequence[Node]) -> dict[Node, list[Node]]:
    """The layers' nodes by what reads their weights, both in forward order; a shared layer has several."""
    uses: dict[Node, list[Node]] = {}
    for node in nodes:
        source = node.args[1]
        assert isinstance(source, Node)
        uses.setdefault(source, []).append(node)
    return uses


def _weight_quantizer(bits: int, axis: int, weight: torch.Tensor) -> HalfQuantizer | WeightQuantizer:
    """A quantizer on the weights' device, its steps, where they are learned, begun from these weights."""
    if bits == 16:
        return HalfQuantizer()
    if bits == 8:
        return WeightQuantizer(bits, axis, weight.dim(), weight.shape[axis]).to(weight.device)
    with_steps = LearnedStepQuantizer(bits, axis, weight.dim(), weight.shape[axis]).to(weight.device)
    with_steps.start(weight.detach())
    return with_steps


def _module_name(parameter: Node) -> str:
    """`features.0.0` for the weight of that module; the wrapper that made all arguments positional is not named."""
    return origin(parameter).removeprefix("network.").removesuffix(".weight")


def _free_name(name: str, layers: Sequence[Layer]) -> str:
    count = sum(layer.origin.partition("#")[0] == name for layer in layers)
    return f"{name}#{count + 1}" if count else name


def _is_float(node: Node) -> bool:
    value = example(node)
    return value is not None and value.is_floating_point()


def _moves_zeros_in(node: Node) -> bool:
    """A padding with zeros: zero is on every grid."""
    if kind_of(node) not in {"pad", "constant_pad_nd"}:
        return False
    rest = [a for a in (*node.args[2:], *node.kwargs.values()) if a not in {"constant", None}]
    return all(a == 0 for a in rest)


def _keeps_grid(node: Node) -> bool:
    if kind_of(node) not in _SAME_GRID:
        return False
    value = example(node)
    pooled_away = value is not None and all(n == 1 for n in value.shape[2:])
    return not (kind_of(node).startswith("adaptive") and pooled_away)  # becomes MEAN, which has a scale of its own


def _is_on_a_grid(node: Node) -> bool:
    """True for a tensor that needs no rounding of its own: moved, or not a tensor of its own in the runtime."""
    return kind_of(node) in _MOVES or _moves_zeros_in(node) or _fused_into_user(node) or _fused_into_pool(node)


def _is_activation(node: Node) -> bool:
    """True where the runtime can fuse it: relu, relu6, or a clamp to 0..6 or -1..1."""
    kind, bounds = kind_of(node), tuple(node.args[1:3])
    if kind == "hardtanh":
        return bounds + (-1.0, 1.0)[len(bounds) :] in {(0.0, 6.0), (-1.0, 1.0)}
    if kind in {"clamp", "clamp_min"}:
        return bounds + (None, None)[len(bounds) :] in {(0, 6), (-1, 1), (0, None)}
    return kind in {"relu", "relu6"}


def _fused_into_user(node: Node) -> bool:
    users = list(node.users)
    return kind_of(node) in _FUSING and len(users) == 1 and _is_activation(users[0])


def _fused_into_pool(node: Node) -> bool:
    """An activation after a pool becomes part of the pool, which keeps its input's grid."""
    if not _is_activation(node):
        return False
    source = node.args[0]
    return isinstance(source, Node) and kind_of(source) in _POOLS and list(source.users) == [node]


def _members(join: Node) -> Iterator[Node]:
    """Tensors that only this join reads and that have no grid of their own: they take the join's."""
    for source in join.all_input_nodes:
        reader, node = join, source
        while kind_of(node) in _MOVES and list(node.users) == [reader] and isinstance(node.args[0], Node):
            reader, node = node, node.args[0]
        own = (
            node.op != "call_function" or kind_of(node) in _FIXED | dict.fromkeys(_JOINS | _MOVES) or _keeps_grid(node)
        )
        if list(node.users) == [reader] and not own and not _fused_into_pool(node):
            yield node
