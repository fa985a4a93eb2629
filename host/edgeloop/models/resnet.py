"""A residual network in the shape of the CIFAR ResNet-8 of MLPerf Tiny."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from edgeloop.core.network import NetworkIO
from edgeloop.models.heads import Heads
from edgeloop.models.sizing import channels, sole_input

_STACKS = (16, 32, 64)
_SIDE_MIN = 8
"""A stack halves the sides of its maps while they are at least this long."""


class _Block(nn.Module):
    """Two 3x3 convolutions, and the input added; a 1x1 convolution brings the input to their shape."""

    def __init__(self, before: int, size: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, size, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(size)
        self.second = nn.Conv2d(size, size, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(size)
        self.shortcut = nn.Conv2d(before, size, 1, stride) if before != size or stride != 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


class ResNet(nn.Module):
    """(batch, channels, height, width) to a tensor for each output. A depth step adds a block to every stack."""

    def __init__(self, width: float, depth: int, io: NetworkIO, channel_multiple: int) -> None:
        super().__init__()
        height, breadth, planes = sole_input(io, "resnet", "height", "width", "channels").shape
        side = min(height, breadth)
        before = channels(_STACKS[0], width, channel_multiple)
        self.stem = nn.Sequential(nn.Conv2d(planes, before, 3, 1, 1, bias=False), nn.BatchNorm2d(before), nn.ReLU())
        blocks = []
        for number, base in enumerate(_STACKS):
            size = channels(base, width, channel_multiple)
            stride = 2 if number and side >= _SIDE_MIN else 1
            side = -(-side // stride)
            blocks.append(_Block(before, size, stride))
            blocks += [_Block(size, size, 1) for _ in range(depth)]
            before = size
        self.blocks = nn.Sequential(*blocks)
        self.heads = Heads(before, io)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # keepdim: without it the converter leaves a TRANSPOSE before the mean
        features_mean = self.blocks(self.stem(x)).mean((2, 3), keepdim=True).flatten(1)
        heads: tuple[torch.Tensor, ...] = self.heads(features_mean)
        return heads
