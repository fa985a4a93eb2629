"""A depthwise-separable convolutional network for images of any size, after DS-CNN ("Hello Edge", 2017)."""

from __future__ import annotations

import torch
from torch import nn

from edgeloop.core.network import NetworkIO
from edgeloop.models.heads import Heads
from edgeloop.models.sizing import channels, halvings, sole_input

_STEM = 8
_BLOCKS = (16, 32, 32, 64)
_STRIDED_FIRST = (1, 3, 2, 0)
"""Blocks in the order in which they get a stride, after the stem has one: spread out first."""


class DsCnn(nn.Module):
    """(batch, channels, height, width) to a tensor for each output."""

    def __init__(self, width: float, depth: int, io: NetworkIO, channel_multiple: int) -> None:
        super().__init__()
        height, breadth, planes = sole_input(io, "ds_cnn", "height", "width", "channels").shape
        halving_count = halvings(min(height, breadth))
        strided_blocks = set(_STRIDED_FIRST[: max(0, halving_count - 1)])
        stem = channels(_STEM, width, channel_multiple)
        sizes = [channels(base, width, channel_multiple) for base in _BLOCKS]
        # Sides over 180 are halved a sixth time, in the stem: the blocks have no place left for it.
        stem_stride = 4 if halving_count > len(_BLOCKS) + 1 else 2 if halving_count else 1
        blocks = [_convolution(planes, stem, 3, stem_stride)]
        before = stem
        for index, size in enumerate([*sizes, *[sizes[-1]] * depth]):
            blocks.append(_convolution(before, before, 3, 2 if index in strided_blocks else 1, groups=before))
            blocks.append(_convolution(before, size, 1))
            before = size
        self.features = nn.Sequential(*blocks)
        self.heads = Heads(before, io)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # keepdim: without it the converter leaves a TRANSPOSE before the mean
        features_mean = self.features(x).mean((2, 3), keepdim=True).flatten(1)
        heads: tuple[torch.Tensor, ...] = self.heads(features_mean)
        return heads


def _convolution(planes: int, size: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(planes, size, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(size), nn.ReLU()
    )
