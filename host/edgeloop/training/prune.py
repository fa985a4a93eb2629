"""Whole channels removed from a network, the least important first: the second axis of lightening.

On the user's own module, before it is exported: which layers share channels (residual sums, concatenations, depthwise
layers, a flatten before a linear layer) is found by torch-pruning's dependency graph (Fang et al., DepGraph,
arXiv:2301.12900). Importance is the L2 norm of a channel's weights over all layers that share it. Every group of layers
loses the same share of its channels, so that what is left depends on the percentage alone, not on the weights: an
untrained network pruned by the same percentage has the same sizes.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import nn

from edgeloop.errors import MissingExtraError, ModelError, translated

_Network = TypeVar("_Network", bound=nn.Module)
_Graph: TypeAlias = Any
_Group: TypeAlias = Any
"""torch_pruning's dependency graph and a group of it; the package has no types."""


class _Marked(nn.Module):
    """A network whose outputs differ from every tensor inside it, also where one of them is read further on."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(output * 1.0 for output in _outputs(self.network, inputs))


def prune(network: _Network, inputs: Sequence[torch.Tensor], percent: int, multiple: int) -> _Network:
    """Return a copy of `network`, in evaluation mode, without `percent` of the channels of each group of layers.

    `inputs` are samples in the order of forward. What is left of a group is rounded to a multiple of `multiple`, at
    least one; outputs keep their shapes, and layers in several groups of channels stay as they are.

    Raises ModelError where its channels can't be told apart or nothing is left that could be removed,
    MissingExtraError without torch-pruning.
    """
    if importlib.util.find_spec("torch_pruning") is None:
        raise MissingExtraError("torch-pruning", "train", f"a lightening with -p{percent}")
    smaller = copy.deepcopy(network).eval()
    before = _shapes(smaller, inputs)
    parameters = sum(p.numel() for p in smaller.parameters())
    twin = copy.deepcopy(smaller) if _turns_channels(smaller, inputs) else None
    with translated(
        ModelError,
        "channels can't be pruned",
        next_step="leave out the lightenings that end in -p, or use nn.Conv and nn.Linear modules",
    ):
        marked_twin = _Marked(twin) if twin is not None else None
        groups = _remove(_Marked(smaller), [x.clone() for x in inputs], percent, multiple, marked_twin)
        after = _shapes(smaller, inputs)
    if after != before:
        raise ModelError(
            f"channels can't be pruned: the outputs would turn from {before} to {after}",
            next_step="leave out the lightenings that end in -p",
        )
    if groups == 0 and parameters:
        raise ModelError(
            "channels can't be pruned: no layer's channels can be removed without changing the outputs",
            next_step="leave out the lightenings that end in -p",
        )
    if twin is not None and not _agree(smaller, twin, inputs):
        raise ModelError(
            "channels can't be pruned: axes are turned and flattened, and which channel went where can't be followed",
            next_step="leave out the lightenings that end in -p, or pool maps to one value before a flatten",
        )
    return smaller


def _turns_channels(network: nn.Module, inputs: Sequence[torch.Tensor]) -> bool:
    """True where axes of an activation are permuted, which torch-pruning does not follow through a flatten.

    False where norms count the channels of a sample: with zeros in place of channels they would give something else.
    """
    if any(isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.GroupNorm) for module in network.modules()):
        return False
    waiting = [output.grad_fn for output in _outputs(network, inputs)]
    steps_before: set[Any] = set()
    while waiting:
        step = waiting.pop()
        if step is None or step in steps_before:
            continue
        if step.name().startswith("Permute"):
            return True
        steps_before.add(step)
        waiting += [before for before, _ in step.next_functions]
    return False


def _agree(network: nn.Module, twin: nn.Module, inputs: Sequence[torch.Tensor]) -> bool:
    """True where a network without channels gives what it gives with zeros in their place."""
    draw = torch.Generator().manual_seed(0)
    samples = [torch.randn(x.shape, generator=draw) if x.is_floating_point() else x for x in inputs]
    with torch.no_grad():
        one, other = _outputs(network, samples), _outputs(twin, samples)
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(one, other, strict=True))


def _mask(graph: _Graph, network: nn.Module, twin: nn.Module, group: _Group) -> None:
    """Put zeros in the place of what pruning a group will take away."""
    names = {module: name for name, module in network.named_modules()}
    for dependency, channels in group:
        module = dependency.target.module
        if module not in names or getattr(module, "weight", None) is None:
            continue
        double: Any = twin.get_submodule(names[module])
        outgoing = graph.is_out_channel_pruning_fn(dependency.handler)
        is_transposed = getattr(module, "transposed", False)
        with torch.no_grad():
            if double.weight.dim() == 1 or outgoing != is_transposed:
                double.weight[channels] = 0
            else:
                double.weight[:, channels] = 0
            if outgoing and getattr(double, "bias", None) is not None:
                double.bias[channels] = 0


def _remove(network: nn.Module, inputs: list[torch.Tensor], percent: int, multiple: int, twin: nn.Module | None) -> int:
    """Prune in place; return how many groups of layers could be pruned, whether or not rounding left any of them.

    `twin`, a copy, gets zeros where channels are taken away.
    """
    import torch_pruning

    with warnings.catch_warnings():  # of parameters outside modules, which it prunes along with what they meet
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(network, inputs)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2, group_reduction="mean", normalizer="mean")
    removals: list[tuple[Any, Any, list[int]]] = []
    count = 0
    for group in graph.get_all_groups(root_module_types=(torch_pruning.ops.TORCH_CONV, torch_pruning.ops.TORCH_LINEAR)):
        if _is_fixed(graph, group):
            continue
        count += 1
        channels = len(group[0].idxs)
        remaining = kept_channels(channels, percent, multiple)
        if remaining < channels:
            order = torch.argsort(importance(group), stable=True)
            removals.append(
                (group[0].dep.target.module, group[0].dep.handler, sorted(order[: channels - remaining].tolist()))
            )
    if twin is not None:
        for module, handler, channels_out in removals:
            _mask(graph, network, twin, graph.get_pruning_group(module, handler, channels_out))
    for module, handler, channels_out in removals:
        graph.get_pruning_group(module, handler, channels_out).prune()
    return count


def settle(network: nn.Module, batches: Iterable[Sequence[torch.Tensor]]) -> None:
    """Take the statistics of batch norms anew, over all `batches`; the network is left in evaluation mode.

    Those of a network before pruning are wrong for sums that lack channels: much of what a network loses at once by
    pruning comes back by this, before any training.
    """
    norms: list[Any] = [m for m in network.eval().modules() if getattr(m, "running_mean", None) is not None]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.no_grad():
        for batch in batches:
            network(*batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def kept_channels(channels: int, percent: int, multiple: int) -> int:
    """Return how many channels are left: to the nearest multiple, half goes up; never more than there were."""
    remaining = int(channels * (100 - percent) / 100 / multiple + 0.5) * multiple
    return min(channels, max(multiple, remaining))


def _is_fixed(graph: _Graph, group: _Group) -> bool:
    """True for a group that reaches an output, or a layer that mixes several groups of channels."""
    for dependency, _ in group:
        node, module = dependency.target, dependency.target.module
        if graph.is_out_channel_pruning_fn(dependency.handler) and not node.outputs:
            return True
        groups = getattr(module, "groups", getattr(module, "num_groups", 1))
        if groups > 1 and groups != getattr(module, "out_channels", None):
            return True
        if groups > 1 and module.in_channels != module.out_channels:  # each input feeds several outputs
            return True
    return False


def _outputs(network: nn.Module, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    outputs = network(*inputs)
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def _shapes(network: nn.Module, inputs: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
    with torch.no_grad():
        return [tuple(output.shape) for output in _outputs(network, inputs)]
