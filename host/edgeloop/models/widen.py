"""A wide network that starts with the function of a trained small one, found on the exported graphs of both.

Net2WiderNet (Chen, Goodfellow, Shlens, arXiv:1511.05641), on graphs and not on module classes.

Every channel that the wide network has more repeats one of the small network's; whatever reads repeated channels gets
its weights divided among them. The shares are uneven and differ from output to output: divided evenly, equal channels
would get equal gradients and stay equal for ever, which the paper breaks with noise. So the function is kept exactly
and the copies part from the first step on.
"""

from __future__ import annotations

import torch

from edgeloop.core.network import NetworkIO
from edgeloop.errors import UserError
from edgeloop.models.channel_last import BuiltNetwork
from edgeloop.models.channel_walk import NEXT, MismatchError, Pair, Walk
from edgeloop.models.describe import export_network

TOLERANCE = 1e-4
"""Of outputs, relative to the largest: float sums in another order differ by less."""


def widen(small: BuiltNetwork, wide: BuiltNetwork, io: NetworkIO, *, seed: int, source: str) -> None:
    """Fill the weights of `wide` so that it computes what `small` computes. `source` names the factory in messages.

    Batch norms keep their statistics. Raises UserError where the two are not the same architecture in two widths, or
    an operator mixes channels in a way that repeating can't keep.
    """
    one, two = export_network(small, io, source), export_network(wide, io, source)
    pairs = _pair_nodes(one, two, source)
    choices: dict[int, torch.Tensor] = {}
    while True:
        walk = Walk(pairs, _tensors(one), choices, torch.Generator().manual_seed(seed), source)
        try:
            walk.run()
            break
        except MismatchError as mismatch:
            choices[mismatch.source] = mismatch.channels
    names = _names(two)
    weights = {names[placeholder]: tensor for placeholder, tensor in walk.weights.items()}
    for name, tensor in wide.state_dict().items():
        # What nothing reads, such as a batch norm's counter, is taken over as it is.
        weight = weights.setdefault(name, small.state_dict().get(name, torch.empty(0)))
        if weight.shape != tensor.shape:
            raise UserError(f"{source}: M1 can't be widened: nothing in it becomes {name}", next_step=NEXT)
    wide.load_state_dict({name: weights[name] for name in wide.state_dict()})
    _check(small, wide, io, source)


def _pair_nodes(one: torch.export.ExportedProgram, two: torch.export.ExportedProgram, source: str) -> list[Pair]:
    """Node by node. Raises UserError where the graphs differ in more than sizes."""
    nodes, others = list(one.graph.nodes), list(two.graph.nodes)
    place_of = {node: i for i, node in enumerate(nodes)} | {node: i for i, node in enumerate(others)}
    for a, b in zip(nodes, others, strict=False):
        alike = a.op == b.op and (a.op != "call_function" or a.target == b.target)
        if not alike or [place_of[n] for n in a.all_input_nodes] != [place_of[n] for n in b.all_input_nodes]:
            raise UserError(
                f"{source}: M1 can't be widened: its {a.name} is {b.name} in the wider network", next_step=NEXT
            )
    if len(nodes) != len(others):
        raise UserError(
            f"{source}: M1 can't be widened: it has {len(nodes)} steps and the wider network {len(others)}",
            next_step=NEXT,
        )
    return [Pair(a, b) for a, b in zip(nodes, others, strict=True)]


def _names(program: torch.export.ExportedProgram) -> dict[str, str]:
    signature = program.graph_signature
    return {**signature.inputs_to_parameters, **signature.inputs_to_buffers}


def _tensors(program: torch.export.ExportedProgram) -> dict[str, torch.Tensor]:
    """Parameters, buffers and constants of a network, by placeholder."""
    tensors = {placeholder: program.state_dict.get(name) for placeholder, name in _names(program).items()}
    constants = {
        **program.graph_signature.inputs_to_lifted_tensor_constants,
        **program.graph_signature.inputs_to_buffers,
    }
    tensors |= {p: program.constants[name] for p, name in constants.items() if tensors.get(p) is None}
    return {placeholder: tensor.detach() for placeholder, tensor in tensors.items() if tensor is not None}


def _check(small: BuiltNetwork, wide: BuiltNetwork, io: NetworkIO, source: str) -> None:
    """Raise UserError where the two networks do not give the same after all."""
    generator = torch.Generator().manual_seed(0)
    shapes = {tensor.name: tensor for tensor in io.inputs}
    inputs = [
        torch.randn(2, *shapes[name].shape, generator=generator)
        if shapes[name].dtype == "float32"
        else torch.zeros(2, *shapes[name].shape, dtype=getattr(torch, shapes[name].dtype))
        for name in small.signature.inputs
    ]
    modes = small.training, wide.training
    with torch.no_grad():
        pairs = zip(small.eval()(*inputs), wide.eval()(*inputs), strict=True)
        apart = max(float((a - b).abs().max() / max(1.0, float(a.abs().max()))) for a, b in pairs)
    small.train(modes[0])
    wide.train(modes[1])
    if not apart <= TOLERANCE:
        raise UserError(
            f"{source}: M1 can't be widened: the outputs of the wider network are {apart:.2g} off", next_step=NEXT
        )
