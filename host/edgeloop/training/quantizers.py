"""Fake quantization: floats rounded to what the runtime's integers can hold, with the gradient passed straight through.

Scales are those of ai-edge-quantizer (`uniform_quantize_tensor.tensor_zp_scale_from_min_max`), so that the file that
is built holds the same grids. Straight-through estimator: Bengio, Leonard, Courville, arXiv:1308.3432. Ranges by
moving averages, frozen late: Jacob et al., arXiv:1712.05877, section 3.1.
"""

from __future__ import annotations

import math
from enum import IntEnum

import torch
from torch import nn

from edgeloop.errors import UserError

_BOUND_MIN = 1e-9
"""The quantizer's own floor: a tensor of zeros gets a scale all the same."""
_HALF_MAX = 65504.0


class Phase(IntEnum):
    """What a quantizer of activations does with a batch."""

    CALIBRATE = 0
    """Average the batches' extremes; round nothing."""
    LEARN = 1
    """Move the range slowly after the batches' extremes, and round."""
    FROZEN = 2
    """Round."""


class WeightQuantizer(nn.Module):
    """Weights symmetric by output channel: scale = max|w| / (2^(bits-1) - 1), zero point 0."""

    def __init__(self, bits: int, axis: int, dimensions: int, channels: int) -> None:
        super().__init__()
        self.bits = bits
        self.axis = axis
        self.top = 2 ** (bits - 1) - 1
        self._others = [d for d in range(dimensions) if d != axis]
        self._zero = torch.zeros(channels, dtype=torch.int32)

        self.scale = torch.ones(channels)
        """Of each channel, as of the last call."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        self.scale = weight.detach().abs().amax(self._others).clamp_min_(_BOUND_MIN).div_(self.top)
        rounded: torch.Tensor = torch.fake_quantize_per_channel_affine(
            weight, self.scale, self._zero, self.axis, -self.top, self.top
        )
        return rounded


class HalfQuantizer(nn.Module):
    """Weights stored as half floats."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        clipped = weight.clamp(-_HALF_MAX, _HALF_MAX)
        # The difference of neighbours is exact, so the sum is the half float itself.
        return clipped + (clipped.half().float() - clipped).detach()


class ConstantQuantizer(nn.Module):
    """A constant operand of arithmetic: one scale for the tensor, from its own extremes."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        low, high = torch.aminmax(value.detach())
        return rounded(value, float(low), float(high), self.bits)


class RangeQuantizer(nn.Module):
    """An activation: asymmetric int8 or symmetric int16, one range for the tensor, zero always inside it."""

    def __init__(self, bits: int, *, momentum: float = 0.01, fixed: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.bits = bits
        self.momentum = momentum
        self.fixed = fixed is not None
        self.low, self.high = fixed or (0.0, 0.0)
        self.phase = Phase.CALIBRATE
        self._batches = 0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        if self.phase != Phase.FROZEN and not self.fixed:
            self._observe(value)
        if self.phase == Phase.CALIBRATE:
            return value
        return rounded(value, self.low, self.high, self.bits)

    def freeze(self) -> None:
        """Keep the range from now on, moved (by less than half a step) so that zero lies exactly on the grid.

        The quantizer then finds the same zero point from it, whatever precision it computes in.
        """
        self.phase = Phase.FROZEN
        if self.fixed:
            return
        scale, zero = grid(self.low, self.high, self.bits)
        bottom, top = (-128, 127) if self.bits == 8 else (-32767, 32767)
        self.low, self.high = (bottom - zero) * scale, (top - zero) * scale

    def _observe(self, value: torch.Tensor) -> None:
        least, most = torch.aminmax(value.detach())
        low, high = min(float(least), 0.0), max(float(most), 0.0)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError(
                "training diverged: an activation is not finite",
                next_step="lower training.lightened_learning_rate",
            )
        if self.phase == Phase.CALIBRATE:
            self._batches += 1
            share = 1 / self._batches
        else:
            share = self.momentum
        self.low += share * (low - self.low)
        self.high += share * (high - self.high)


class SameRange(nn.Module):
    """The result of arithmetic that the runtime keeps on its input's grid, such as an average pool."""

    def __init__(self, source: RangeQuantizer) -> None:
        super().__init__()
        self.source = source

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        if self.source.phase == Phase.CALIBRATE:
            return value
        return rounded(value, self.source.low, self.source.high, self.source.bits)


class BiasQuantizer(nn.Module):
    """A layer's bias: integers in steps of the input's scale times the weights' scale, so coarse where weights are.

    Called after the layer's weight quantizer, in forward order.
    """

    def __init__(self, weights: WeightQuantizer, source: RangeQuantizer) -> None:
        super().__init__()
        self.weights = weights
        self.source = source

    def forward(self, bias: torch.Tensor) -> torch.Tensor:
        if self.source.phase == Phase.CALIBRATE:
            return bias
        scale = self.weights.scale * grid(self.source.low, self.source.high, self.source.bits)[0]
        return bias + (torch.round(bias.detach() / scale) * scale - bias.detach())


def grid(low: float, high: float, bits: int) -> tuple[float, int]:
    """Return scale and zero point of the range low..high, widened to hold 0.

    8 bit: scale (high - low) / 255, zero point round(-128 - low / scale). 16 bit: scale max(|low|, |high|) / 32767.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if bits == 16:
        return max(-low, high, _BOUND_MIN) / 32767, 0
    scale = max(high - low, _BOUND_MIN) / 255
    return scale, round(-128 - low / scale)


def rounded(value: torch.Tensor, low: float, high: float, bits: int) -> torch.Tensor:
    """Return `value` on the grid that the range gives at so many bits, clipped to it."""
    scale, zero = grid(low, high, bits)
    bottom, top = (-128, 127) if bits == 8 else (-32768, 32767)
    result: torch.Tensor = torch.fake_quantize_per_tensor_affine(value, scale, zero, bottom, top)
    return result
