"""A network of one's own: residual additions, squeeze-and-excitation, and a second input beside the image.

`build` is what `[reference] factory` names. Forward's arguments are named as the data's inputs are (`x/image` and
`x/metadata`); inside, images are channel-first as torch likes them, outside they are channel-last.
"""

import torch
from torch import nn
from torch.nn import functional


class SqueezeExcite(nn.Module):
    """Weigh each channel by what the whole map shows."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, max(4, channels // 4), 1)
        self.excite = nn.Conv2d(max(4, channels // 4), channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.excite(functional.relu(self.squeeze(pooled))))


class Block(nn.Module):
    """Two convolutions, weighed channels, and the input added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels)
        self.attention = SqueezeExcite(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(x + self.attention(self.second_norm(self.second(inner))))


class DigitNet(nn.Module):
    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.blocks = nn.Sequential(*[Block(channels) for _ in range(blocks)])
        self.metadata = nn.Linear(4, 8)
        self.classifier = nn.Linear(channels + 8, 10)

    def forward(self, image: torch.Tensor, metadata: torch.Tensor) -> torch.Tensor:
        seen = self.blocks(self.stem(image)).mean((2, 3), keepdim=True).flatten(1)
        told = functional.relu(self.metadata(metadata))
        return self.classifier(torch.cat([seen, told], 1))


def build(width: float, depth: int) -> nn.Module:
    """The same architecture in any size: channels to a multiple of 4, one block for each step of depth."""
    return DigitNet(channels=max(4, round(12 * width / 4) * 4), blocks=2 + depth)
