"""One pass over the exported graphs of a small and a wide network: which channels repeat, and the weights that follow.

Acts on operators, never on module classes. `widen` says what it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import torch
from torch.fx import Node
from torch.fx.node import Argument

from edgeloop.errors import UserError
from edgeloop.models.channel_maps import Maps, follow_moves, place, repeating
from edgeloop.models.nodes import argument, operator_of, shape_of

SPREAD = 0.5
"""Shares of repeated channels lie within this much of even ones, relatively."""
NEXT = 'set reference.larger = "factory": M2 is then trained from the start'

_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})
_TRANSPOSED = frozenset({"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"})
_POINTWISE = frozenset(
    {
        *("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_min", "clamp_max", "clip", "sigmoid"),
        *("hardsigmoid", "hardswish", "hardswish_", "silu", "silu_", "gelu", "tanh", "elu", "elu_", "leaky_relu"),
        *("leaky_relu_", "softplus", "mish", "exp", "log", "sqrt", "rsqrt", "abs", "neg", "square", "pow", "prelu"),
        *("add", "add_", "sub", "sub_", "rsub", "mul", "mul_", "div", "div_", "maximum", "minimum"),
        *("dropout", "dropout_", "feature_dropout", "clone", "detach", "detach_", "alias", "contiguous", "to"),
        *("_to_copy", "identity", "lift_fresh_copy"),
    }
)
"""Operators that make each value from values at the same place, of activations or of parameters."""
_MOVES = frozenset(
    {
        *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose"),
        *("t", "numpy_T", "movedim", "swapaxes", "expand", "slice", "select", "split", "split_with_sizes", "chunk"),
        *("unbind", "cat", "stack", "concat", "flip", "roll", "repeat", "tile", "pixel_shuffle", "pixel_unshuffle"),
    }
)
"""Operators that only move values."""
_SPATIAL = frozenset(
    {
        *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d"),
        *("adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest1d", "upsample_nearest2d"),
        *("upsample_bilinear2d", "pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d"),
    }
)
"""Operators that work on each channel, axis 1, by itself."""
_REDUCTIONS = frozenset({"mean", "sum", "amax", "amin"})


class MismatchError(Exception):
    """Two tensors that meet repeat different channels; `source` could repeat those of the other, by `channels`."""

    def __init__(self, source: int, channels: torch.Tensor) -> None:
        super().__init__()
        self.source, self.channels = source, channels


@dataclass(frozen=True, slots=True)
class Pair:
    """The same node in both graphs."""

    small: Node
    wide: Node

    @property
    def kind(self) -> str:
        return operator_of(self.small)

    @property
    def what(self) -> str:
        return self.small.name


@dataclass
class Walk:
    """One pass over the pairs: maps of every activation, weights of every layer."""

    pairs: Sequence[Pair]
    tensors: Mapping[str, torch.Tensor]
    """Of the small network, by placeholder."""
    choices: Mapping[int, torch.Tensor]
    """Maps of layers' outputs, by place, that an earlier pass found necessary."""
    generator: torch.Generator
    source: str
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    """Of the wide network, by placeholder."""
    _maps: dict[Node, list[Maps]] = field(default_factory=dict)
    """Of activations, by the small network's node: one for each tensor it gives."""
    _layer: dict[Node, int] = field(default_factory=dict)
    """The layer whose choice of channels an activation's are, while nothing else decided them."""

    def run(self) -> None:
        for number, pair in enumerate(self.pairs):
            if pair.small.op == "placeholder":
                if pair.small.name not in self.tensors:
                    self._maps[pair.small] = [{}]
            elif pair.small.op == "call_function":
                self._maps[pair.small] = self._maps_of(number, pair)
            elif pair.small.op == "output" and any(self._of(n) for n in pair.small.all_input_nodes):
                raise self._error(pair, "an output would have other channels")

    def _maps_of(self, number: int, pair: Pair) -> list[Maps]:
        kind = pair.kind
        if kind in _CONVOLUTIONS | _TRANSPOSED:
            return [self._convolution(number, pair, is_transposed=kind in _TRANSPOSED)]
        if kind == "linear":
            return [self._product(number, pair, 0, 1, 2, (1, 0))]
        if kind in {"matmul", "mm"} and self._is_stored(pair.small.args[1]):
            return [self._product(number, pair, 0, 1, None, (0, 1))]
        if kind == "addmm" and self._is_stored(pair.small.args[2]):
            return [self._product(number, pair, 1, 2, 0, (0, 1))]
        if kind == "embedding":
            return [self._embedding(number, pair)]
        if kind == "getitem":
            index = pair.small.args[1]
            source = pair.small.args[0]
            assert isinstance(index, int)
            assert isinstance(source, Node)
            return [self._maps[source][index]]
        if kind == "batch_norm":
            return [self._batch_norm(pair)]
        if kind in _POINTWISE:
            return [self._pointwise(pair)]
        if kind in _MOVES:
            return self._moving_maps(pair)
        if kind in _SPATIAL:
            return [self._spatial(pair)]
        if kind in _REDUCTIONS:
            return [self._reduction(pair)]
        return self._no_maps(pair)

    # layers

    def _convolution(self, number: int, pair: Pair, *, is_transposed: bool) -> Maps:
        one, two = pair.small, pair.wide
        before = self._axis(pair, one.args[0], 1)
        weight = self._stored_tensor(pair, 1)
        groups = [int(argument(node, 6, "groups", 1)) for node in (one, two)]
        wide_weight = shape_of(argument(two, 1, "weight"))
        if weight.shape[2:] != wide_weight[2:]:
            raise self._error(pair, f"kernels are {tuple(weight.shape[2:])} and {tuple(wide_weight[2:])}")
        if groups == [1, 1]:
            axis_in, axis_out = (0, 1) if is_transposed else (1, 0)
            return self._dense(number, pair, weight, (axis_in, axis_out), before, 1, place_weight=1, place_bias=2)
        channels = [int(shape_of(node.args[0])[1]) for node in (one, two)]
        times = weight.shape[0] // groups[0]
        if groups == channels and not is_transposed and wide_weight[0] == times * channels[1]:
            after = (before.unsqueeze(1) * times + torch.arange(times)).flatten()
            self._fill(pair, 1, weight.index_select(0, after))
            self._fill_bias(pair, 2, after)
            return _unless_same(1, after, weight.shape[0])
        if groups[0] == groups[1] and weight.shape == wide_weight and not self._of(one.args[0]):
            self._fill(pair, 1, weight)
            self._fill_bias(pair, 2, torch.arange(int(shape_of(one)[1])))
            return {}
        raise self._error(pair, "a grouped convolution mixes channels within groups, whose borders would move")

    def _product(
        self,
        number: int,
        pair: Pair,
        place_input: int,
        place_weight: int,
        place_bias: int | None,
        axes: tuple[int, int],
    ) -> Maps:
        source = pair.small.args[place_input]
        last = len(shape_of(source)) - 1
        before = self._axis(pair, source, last)
        weight = self._stored_tensor(pair, place_weight)
        if weight.dim() != 2:
            raise self._error(pair, "only products with a matrix are widened")
        return self._dense(number, pair, weight, axes, before, last, place_weight=place_weight, place_bias=place_bias)

    def _dense(
        self,
        number: int,
        pair: Pair,
        weight: torch.Tensor,
        axes: tuple[int, int],
        before: torch.Tensor,
        axis: int,
        *,
        place_weight: int,
        place_bias: int | None,
    ) -> Maps:
        """Fill a layer that reads all channels; `axes` are those of inputs and of outputs in its weights."""
        axis_in, axis_out = axes
        small_out = weight.shape[axis_out]
        wide_out = int(shape_of(pair.wide.args[place_weight])[axis_out])
        after = self.choices.get(number, repeating(small_out, wide_out))
        if len(after) != wide_out or wide_out < small_out:
            raise self._error(pair, f"{small_out} channels can't become {wide_out}")
        self._layer[pair.small] = number
        shares = self._shares(before, weight.shape[axis_in], wide_out)
        view = [1] * weight.dim()
        view[axis_in], view[axis_out] = len(before), wide_out
        spread = weight.index_select(axis_in, before).index_select(axis_out, after)
        self._fill(pair, place_weight, spread * (shares if axis_in > axis_out else shares.T).reshape(view))
        if place_bias is not None:
            self._fill_bias(pair, place_bias, after)
        return _unless_same(axis, after, small_out)

    def _shares(self, before: torch.Tensor, small: int, outputs: int) -> torch.Tensor:
        """(outputs, inputs): what each repeated input carries of its original's weight; 1 where nothing is repeated."""
        draws = 1 + SPREAD * (2 * torch.rand(outputs, len(before), generator=self.generator) - 1)
        sums = torch.zeros(outputs, small).index_add_(1, before, draws)
        alone = torch.bincount(before, minlength=small)[before] == 1
        return torch.where(alone, torch.ones(()), draws / sums[:, before])

    def _embedding(self, number: int, pair: Pair) -> Maps:
        weight, wide = self._stored_tensor(pair, 0), shape_of(pair.wide.args[0])
        if weight.shape[0] != wide[0]:
            raise self._error(pair, f"{weight.shape[0]} words can't become {wide[0]}")
        after = self.choices.get(number, repeating(weight.shape[1], int(wide[1])))
        self._layer[pair.small] = number
        self._fill(pair, 0, weight.index_select(1, after))
        return _unless_same(len(shape_of(pair.small)) - 1, after, weight.shape[1])

    # what follows layers

    def _batch_norm(self, pair: Pair) -> Maps:
        maps = self._of(pair.small.args[0])
        if set(maps) - {1}:
            raise self._error(pair, "its channels are not where a batch norm looks for them")
        places = self._axis(pair, pair.small.args[0], 1)
        for index in range(1, 5):
            if self._is_stored(pair.small.args[index]):
                self._fill(pair, index, self._stored_tensor(pair, index).index_select(0, places))
        self._inherit(pair, pair.small.args[0])
        return maps

    def _pointwise(self, pair: Pair) -> Maps:
        operands = list(zip(pair.small.all_input_nodes, pair.wide.all_input_nodes, strict=True))
        moving = [node for node, _ in operands if node in self._maps]
        if not moving:
            return self._no_maps(pair)[0]
        maps = self._meeting_maps(pair, operands, moving[0])
        for node, wide in operands:
            if self._is_stored(node):
                self._keep(pair, wide, self._operand(pair, node, wide, maps))
        if len(moving) == 1:
            self._inherit(pair, moving[0])
        size = shape_of(pair.small)
        return {axis: places for axis, places in maps.items() if not _is_identity(places, size[axis])}

    def _meeting_maps(self, pair: Pair, operands: Sequence[tuple[Node, Node]], first: Node) -> dict[int, torch.Tensor]:
        """The maps of a result by its axes: all operands that are not broadcast along an axis have the same there."""
        result, wide_result = shape_of(pair.small), shape_of(pair.wide)
        maps: dict[int, torch.Tensor] = {}
        for node, wide in operands:
            if node not in self._maps:
                continue
            before = len(result) - len(shape_of(node))  # axes that the result has in front of the operand's
            for own in range(max(0, -before), len(shape_of(node))):
                axis = own + before
                if _is_broadcast(node, own, result[axis]) or _is_broadcast(wide, own, wide_result[axis]):
                    continue
                places = self._of(node).get(own, torch.arange(result[axis]))
                earlier = maps.setdefault(axis, places)
                if len(earlier) != len(places) or not torch.equal(earlier, places):
                    self._mismatch(pair, first, node, earlier, places)
        return maps

    def _operand(self, pair: Pair, node: Node, wide: Node, maps: Maps) -> torch.Tensor:
        """A stored operand as the wide network has it."""
        tensor = self.tensors[node.name]
        offset = 1 if pair.kind == "prelu" else len(shape_of(pair.small)) - tensor.dim()
        own_maps = {
            # A single value is repeated wherever the wide network has more of it.
            own: maps[own + offset] if size != 1 else torch.zeros(wide_size, dtype=torch.int64)
            for own, (size, wide_size) in enumerate(zip(tensor.shape, shape_of(wide), strict=False))
            if own + offset in maps
        }
        return place(tensor, own_maps)

    def _moving_maps(self, pair: Pair) -> list[Maps]:
        nodes = pair.small.all_input_nodes
        if not all(n in self._maps for n in nodes):
            return self._no_maps(pair)
        unique = list(dict.fromkeys(nodes))
        partner = dict(zip(nodes, pair.wide.all_input_nodes, strict=True))
        if not any(self._of(n) for n in unique):
            return [{} for _ in range(_count(pair.small))]

        def run(node: Node, order: Sequence[Node]) -> Callable[[list[torch.Tensor]], Any]:
            def call(tensors: list[torch.Tensor]) -> Any:
                values = dict(zip(order, tensors, strict=True))
                args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), lambda n: values[n])
                assert callable(node.target)
                return node.target(*args, **kwargs)

            return call

        inputs = [(shape_of(n), self._of(n)) for n in unique]
        maps = follow_moves(inputs, run(pair.small, unique), run(pair.wide, [partner[n] for n in unique]))
        if maps is None:
            raise self._error(pair, "it moves values between repeated channels")
        return list(maps)

    def _spatial(self, pair: Pair) -> Maps:
        maps = self._of(pair.small.args[0])
        rank = len(shape_of(pair.small))
        padding_axes = set()
        if pair.kind in {"pad", "constant_pad_nd"}:
            amounts = pair.small.args[1]
            assert isinstance(amounts, Sequence)
            padding_axes = {rank - 1 - i // 2 for i, n in enumerate(amounts) if n}
        if maps and (set(maps) & padding_axes or (not padding_axes and set(maps) - {1})):
            raise self._error(pair, "it works across repeated channels")
        self._inherit(pair, pair.small.args[0])
        return maps

    def _reduction(self, pair: Pair) -> Maps:
        source = pair.small.args[0]
        maps, rank = self._of(source), len(shape_of(source))
        axes = argument(pair.small, 1, "dim")
        reduced_axes = {int(a) % rank for a in ([axes] if isinstance(axes, int) else axes or range(rank))}
        if reduced_axes & set(maps):
            raise self._error(pair, "it sums over repeated channels")
        if len(shape_of(pair.small)) == rank:
            self._inherit(pair, source)
            return maps
        return {axis - sum(r < axis for r in reduced_axes): places for axis, places in maps.items()}

    def _no_maps(self, pair: Pair) -> list[Maps]:
        """Any operator, as long as nothing that it reads was widened."""
        for node, wide in zip(pair.small.all_input_nodes, pair.wide.all_input_nodes, strict=True):
            if node in self._maps and any(self._maps[node]):
                raise self._error(pair, f"{pair.kind} of repeated channels is not known")
            if self._is_stored(node):
                if shape_of(node) != shape_of(wide):
                    raise self._error(pair, f"{pair.kind} of a parameter that grows is not known")
                self._keep(pair, wide, self.tensors[node.name])
        return [{} for _ in range(_count(pair.small))]

    # the small things

    def _of(self, node: Argument) -> Maps:
        return self._maps[node][0] if isinstance(node, Node) and node in self._maps else {}

    def _axis(self, pair: Pair, node: Argument, axis: int) -> torch.Tensor:
        maps = self._of(node)
        if pair.kind not in _POINTWISE and set(maps) - {axis}:
            raise self._error(
                pair, f"axis {min(set(maps) - {axis})} of its input was widened, channels are axis {axis}"
            )
        return maps.get(axis, torch.arange(int(shape_of(node)[axis])))

    def _is_stored(self, node: Argument) -> TypeGuard[Node]:
        return isinstance(node, Node) and node.name in self.tensors

    def _stored_tensor(self, pair: Pair, index: int) -> torch.Tensor:
        node = pair.small.args[index]
        if not isinstance(node, Node) or node.name not in self.tensors:
            raise self._error(pair, "its weights are computed, not stored")
        return self.tensors[node.name]

    def _fill_bias(self, pair: Pair, index: int, after: torch.Tensor) -> None:
        if len(pair.small.args) > index and pair.small.args[index] is not None:
            self._fill(pair, index, self._stored_tensor(pair, index).index_select(0, after))

    def _fill(self, pair: Pair, index: int, tensor: torch.Tensor) -> None:
        self._keep(pair, pair.wide.args[index], tensor)

    def _keep(self, pair: Pair, wide: Argument, tensor: torch.Tensor) -> None:
        assert isinstance(wide, Node)
        before = self.weights.get(wide.name)
        if tensor.shape != shape_of(wide):
            raise self._error(pair, f"{tuple(tensor.shape)} does not fit {tuple(shape_of(wide))}")
        if before is not None and not torch.equal(before, tensor):
            raise self._error(pair, "it shares its weights with another layer, which would be divided differently")
        self.weights[wide.name] = tensor

    def _inherit(self, pair: Pair, source: Argument) -> None:
        if isinstance(source, Node) and source in self._layer:
            self._layer[pair.small] = self._layer[source]

    def _mismatch(self, pair: Pair, one: Node, other: Node, maps_one: torch.Tensor, maps_other: torch.Tensor) -> None:
        for node, channels in ((other, maps_one), (one, maps_other)):
            layer = self._layer.get(node)
            if layer is not None and layer not in self.choices:
                raise MismatchError(layer, channels)
        raise self._error(pair, f"{one.name} and {other.name} repeat different channels")

    def _error(self, pair: Pair, why: str) -> UserError:
        return UserError(f"{self.source}: M1 can't be widened at {pair.what}: {why}", next_step=NEXT)


def _is_broadcast(node: Node, axis: int, result: int) -> bool:
    """True where an operand's axis of 1 meets more than that.

    A channel axis of 1 is one in the small network only, a broadcast axis in both.
    """
    return bool(shape_of(node)[axis] == 1 and result != 1)


def _unless_same(axis: int, places: torch.Tensor, small: int) -> Maps:
    return {} if _is_identity(places, small) else {axis: places}


def _is_identity(places: torch.Tensor, size: int) -> bool:
    return places.tolist() == list(range(size))


def _count(node: Node) -> int:
    value = node.meta["val"]
    return len(value) if isinstance(value, tuple | list) else 1
