"""A convolutional network for signals: (time, channels).

Its layers are 2-D convolutions over maps of height 1, which is what a converter makes of 1-D ones anyway, but
then with a reshape and two transpositions around them.
"""

from __future__ import annotations

import torch
from torch import nn

from edgeloop.core.network import NetworkIO
from edgeloop.models.heads import Heads
from edgeloop.models.sizing import channels, halvings, sole_input

_LAYERS = ((16, 5), (32, 3), (64, 3))
"""Channels and kernel length of each layer."""


class Conv1d(nn.Module):
    """(batch, time, channels) to a tensor for each output. A depth step adds a layer at the end."""

    def __init__(self, width: float, depth: int, io: NetworkIO, channel_multiple: int) -> None:
        super().__init__()
        time, before = sole_input(io, "conv1d", "time", "channels").shape
        halving_count = halvings(time)
        layers = []
        for number, (base, kernel) in enumerate((*_LAYERS, *[(_LAYERS[-1][0], 3)] * depth)):
            size = channels(base, width, channel_multiple)
            stride = 2 if number < min(halving_count, len(_LAYERS)) else 1
            layers += [
                nn.Conv2d(before, size, (1, kernel), (1, stride), (0, kernel // 2), bias=False),
                nn.BatchNorm2d(size),
                nn.ReLU(),
            ]
            before = size
        self.features = nn.Sequential(*layers)
        self.heads = Heads(before, io)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        maps = self.features(x.unsqueeze(1).permute(0, 3, 1, 2))
        heads: tuple[torch.Tensor, ...] = self.heads(maps.mean((2, 3), keepdim=True).flatten(1))
        return heads
