"""A network as the data see it: inputs and outputs by name and channel-last, whatever is inside."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgeloop.core.network import NetworkIO, NetworkSignature
from edgeloop.errors import UserError
from edgeloop.user_code.functions import call_function


@dataclass(frozen=True, slots=True)
class ChannelLast:
    """The layout of the inner network's own inputs and outputs: True where they are channel-last already."""

    inputs: bool
    outputs: bool


class BuiltNetwork(nn.Module):
    """`forward(*inputs)` -> tuple of outputs, both channel-last, in the order of `signature`."""

    def __init__(
        self, network: nn.Module, arguments: Sequence[str], layout: ChannelLast, signature: NetworkSignature
    ) -> None:
        super().__init__()
        self.network = network
        self.signature = signature
        self._arguments = tuple(arguments)
        self._layout = layout

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.results(*inputs).values())

    def results(self, *inputs: torch.Tensor) -> dict[Any, torch.Tensor]:
        """The inner network's outputs, channel-last, under its own names, or numbered where it has none."""
        inner = [tensor if self._layout.inputs else _channel_first(tensor) for tensor in inputs]
        by_name = dict(zip(self._arguments, inner, strict=True))
        results = self.network(*inner) if "" in by_name else self.network(**by_name)
        by_own_name = dict(results) if isinstance(results, Mapping) else dict(enumerate(_as_list(results)))
        return {name: value if self._layout.outputs else _channel_last(value) for name, value in by_own_name.items()}


def adapt(network: nn.Module, io: NetworkIO, layout: ChannelLast, source: str) -> BuiltNetwork:
    """Wrap a network, having called it once with zeros. `source` is `file.py:name`, or a family in words.

    Raises UserError where its arguments or its outputs are not those of the data.
    """
    inputs, arguments = _match_inputs(network, io, source)
    by_name = {tensor.name: tensor for tensor in io.inputs}
    zeros = [torch.zeros(2, *by_name[name].shape, dtype=getattr(torch, by_name[name].dtype)) for name in inputs]
    whole = BuiltNetwork(network, arguments, layout, NetworkSignature(inputs=inputs, outputs=()))
    whole.eval()
    with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
        results = call_function(whole.results, source, *zeros)
    outputs = _output_names(results, io, source)
    whole.signature = NetworkSignature(inputs=inputs, outputs=outputs)
    whole.train()
    return whole


def _match_inputs(network: nn.Module, io: NetworkIO, source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the data's names in the order of forward's arguments, and the names to call it by ("": by position)."""
    data = [tensor.name for tensor in io.inputs]
    parameters = list(inspect.signature(network.forward).parameters.values())
    nameable = [p for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    needs = [p.name for p in parameters if p.default is p.empty and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]
    if len(data) == 1 and len(needs) == 1:
        return tuple(data), tuple(p.name for p in nameable if p.name in needs) or ("",)
    names = tuple(p.name for p in nameable if p.name in data)
    if set(names) != set(data) or not set(needs) <= set(data):
        raise UserError(
            f"{source}: forward takes {', '.join(str(p).partition(':')[0] for p in parameters) or 'nothing'}, "
            f"the data have the inputs {', '.join(data)}",
            next_step="give forward's arguments the names that follow x/ in the data",
        )
    return names, names


def _output_names(results: Mapping[Any, Any], io: NetworkIO, source: str) -> tuple[str, ...]:
    """Return the outputs' names: those of the targets, or a custom task's own."""
    strange = [value for value in results.values() if not isinstance(value, torch.Tensor)]
    if strange or not results:
        raise UserError(
            f"{source}: forward returned {f'a {type(strange[0]).__name__}' if strange else 'nothing'}",
            next_step="return a tensor, a tuple of tensors, or a dictionary of tensors",
        )
    for name, value in results.items():
        if value.ndim == 0 or value.shape[0] != 2:
            raise UserError(
                f"{source}: output {name} has shape {tuple(value.shape)} for 2 samples",
                next_step="keep the batch as the first axis of every output",
            )
    targets = [output.name for output in io.outputs]
    own = [name for name in results if isinstance(name, str)]
    if len(results) == len(targets) and (len(targets) == 1 or not own):
        names = targets if io.kind != "custom" or not own else own
    elif own:
        names = own
    else:
        names = [f"output_{number}" for number in range(len(results))]
    if io.kind != "custom":
        _check_outputs(dict(zip(names, results.values(), strict=True)), io, source)
    return tuple(names)


def _check_outputs(outputs: Mapping[str, torch.Tensor], io: NetworkIO, source: str) -> None:
    targets = {output.name: output.shape for output in io.outputs}
    if outputs.keys() != targets.keys():
        raise UserError(
            f"{source}: forward returns {', '.join(outputs)}, the targets are {', '.join(targets)}",
            next_step="return one tensor for each target, or a dictionary by the targets' names",
        )
    for name, value in outputs.items():
        if tuple(value.shape[1:]) != targets[name]:
            raise UserError(
                f"{source}: output {name} has the shape {tuple(value.shape[1:])} for a sample, "
                f"the data ask for {targets[name]}",
                next_step="a classifier gives one logit for each class" if io.kind == "classification" else None,
            )
        if value.dtype != torch.float32:
            raise UserError(f"{source}: output {name} is {value.dtype}", next_step="return float32")


def _as_list(results: object) -> Sequence[Any]:
    return results if isinstance(results, tuple | list) else [results]


def _channel_first(tensor: torch.Tensor) -> torch.Tensor:
    """(batch, ..., channels) to (batch, channels, ...)."""
    return tensor.permute(0, -1, *range(1, tensor.ndim - 1)) if tensor.ndim >= 3 else tensor


def _channel_last(value: Any) -> Any:
    """(batch, channels, ...) to (batch, ..., channels); what is no tensor is left for `adapt` to name."""
    if not isinstance(value, torch.Tensor) or value.ndim < 3:
        return value
    return value.permute(0, *range(2, value.ndim), 1)
