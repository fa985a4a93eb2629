"""The last layer of a family: one linear map for each output that the data ask for."""

from __future__ import annotations

import math

import torch
from torch import nn

from edgeloop.core.network import NetworkIO


class Heads(nn.Module):
    """Features (batch, n) to a tensor for each output, in the data's order."""

    def __init__(self, features: int, io: NetworkIO) -> None:
        super().__init__()
        self.shapes = tuple(output.shape for output in io.outputs)
        self.linear = nn.ModuleList(nn.Linear(features, math.prod(shape)) for shape in self.shapes)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        flat = [linear(features) for linear in self.linear]
        return tuple(
            tensor if len(shape) == 1 else tensor.reshape(-1, *shape)
            for tensor, shape in zip(flat, self.shapes, strict=True)
        )
