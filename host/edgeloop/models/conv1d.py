"""A convolutional network for signals: (time, channels)."""

from __future__ import annotations

import torch
from torch import nn

from edgeloop.core.network import NetworkIO
from edgeloop.models.heads import Heads
from edgeloop.models.sizing import channels, halvings, sole_input

_LAYERS = ((16, 5), (32, 3), (64, 3))
"""Channels and kernel length of each layer."""


class Conv1d(nn.Module):
    """(batch, channels, time) to a tensor for each output. A depth step adds a layer at the end."""

    def __init__(self, width: float, depth: int, io: NetworkIO, channel_multiple: int) -> None:
        super().__init__()
        time, before = sole_input(io, "conv1d", "time", "channels").shape
        halved = halvings(time)
        layers = []
        for number, (base, kernel) in enumerate((*_LAYERS, *[(_LAYERS[-1][0], 3)] * depth)):
            size = channels(base, width, channel_multiple)
            stride = 2 if number < min(halved, len(_LAYERS)) else 1
            layers += [
                nn.Conv1d(before, size, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm1d(size),
                nn.ReLU(),
            ]
            before = size
        self.features = nn.Sequential(*layers)
        self.heads = Heads(before, io)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        heads: tuple[torch.Tensor, ...] = self.heads(self.features(x).mean(2))
        return heads
