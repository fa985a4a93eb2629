"""Networks of linear layers: a perceptron, and an autoencoder. They take an input of any shape, flattened."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn

from edgeloop.core.network import NetworkIO
from edgeloop.errors import UserError
from edgeloop.models.heads import Heads
from edgeloop.models.sizing import channels, sole_input

_MLP = (64, 32)
_ENCODER = (64, 32)
_CODE = 8


class Mlp(nn.Module):
    """(batch, ...) to a tensor for each output. A depth step adds a hidden layer at the end."""

    def __init__(self, width: float, depth: int, io: NetworkIO, channel_multiple: int) -> None:
        super().__init__()
        values = math.prod(sole_input(io, "mlp").shape)
        sizes = [channels(base, width, channel_multiple) for base in (*_MLP, *[_MLP[-1]] * depth)]
        self.hidden = _layers([values, *sizes])
        self.heads = Heads(sizes[-1], io)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        heads: tuple[torch.Tensor, ...] = self.heads(self.hidden(x.flatten(1)))
        return heads


class Autoencoder(nn.Module):
    """(batch, ...) to the same shape, through a narrow code. A depth step adds a layer on both sides of it."""

    def __init__(self, width: float, depth: int, io: NetworkIO, channel_multiple: int) -> None:
        super().__init__()
        tensor = sole_input(io, "autoencoder")
        if [output.shape for output in io.outputs] != [tensor.shape]:
            listing = ", ".join(f"{output.name} {output.shape}" for output in io.outputs)
            raise UserError(
                f"family 'autoencoder' gives back its input {tensor.shape}, the data ask for {listing}",
                next_step='set [task] kind = "autoencoder", or choose the family mlp',
            )
        self.shape = tensor.shape
        sizes = [channels(base, width, channel_multiple) for base in (*_ENCODER, *[_ENCODER[-1]] * depth)]
        code = channels(_CODE, width, channel_multiple)
        self.encoder = _layers([math.prod(self.shape), *sizes, code])
        self.decoder = _layers([code, *reversed(sizes)])
        self.last = nn.Linear(sizes[0], math.prod(self.shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat: torch.Tensor = self.last(self.decoder(self.encoder(x.flatten(1))))
        return flat if len(self.shape) == 1 else flat.reshape(-1, *self.shape)


def _layers(sizes: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, size in pairwise(sizes):
        layers += [nn.Linear(before, size), nn.ReLU()]
    return nn.Sequential(*layers)
