"""Fake quantization: floats rounded to what the runtime's integers can hold, with the gradient passed straight through.

Scales are those of ai-edge-quantizer (`uniform_quantize_tensor.tensor_zp_scale_from_min_max`), so that the file that
is built holds the same grids. Straight-through estimator: Bengio, Leonard, Courville, arXiv:1308.3432. Ranges by
moving averages, frozen late: Jacob et al., arXiv:1712.05877, section 3.1. Learned step sizes: Esser et al.,
arXiv:1902.08153.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeloop.errors import UserError

_BOUND_MIN = 1e-9
"""The quantizer's own floor: a tensor of zeros gets a scale all the same."""
_HALF_MAX = 65504.0
_STEPS_TRIED = tuple(1 - 0.05 * i for i in range(13))
"""Shares of the largest step that a learned one may start from."""


class QuantizerPhase(IntEnum):
    """The way in which a quantizer of activations treats a batch."""

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
        self._zero: torch.Tensor
        self.register_buffer("_zero", torch.zeros(channels, dtype=torch.int32), persistent=False)
        self.scale = torch.ones(channels)
        """Of each channel, as of the last call."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        self.scale = weight.detach().abs().amax(self._others).clamp_min_(_BOUND_MIN).div_(self.top)
        on_grid: torch.Tensor = torch.fake_quantize_per_channel_affine(
            weight, self.scale, self._zero, self.axis, -self.top, self.top
        )
        return on_grid


class LearnedStepQuantizer(WeightQuantizer):
    """Weights below 8 bit: the step of each channel is learned together with the weights (LSQ).

    The step never exceeds max|w| / (2^(bits-1) - 1), so the largest weight of a channel lands on the last level:
    a quantizer that reads the step off the rounded weights finds this very one. Its logarithm is what is learned,
    since one optimizer step should mean as much to a large step as to a small one.
    """

    def __init__(self, bits: int, axis: int, dimensions: int, channels: int) -> None:
        super().__init__(bits, axis, dimensions, channels)
        self.log_step = nn.Parameter(torch.zeros(channels))
        self._view = [-1 if d == axis else 1 for d in range(dimensions)]

    def start(self, weight: torch.Tensor) -> None:
        """Set each channel's step to the one of a few that rounds the weights with the least squared error."""
        with torch.no_grad():
            largest = self._largest(weight)
            best = torch.full_like(largest, math.inf)
            for share in _STEPS_TRIED:
                step = largest * share
                error = (_on_levels(weight, step.view(self._view), self.top) - weight).square().sum(self._others)
                better = error < best
                best = torch.where(better, error, best)
                self.log_step.copy_(torch.where(better, step.log(), self.log_step))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        largest = self._largest(weight)
        step = torch.minimum(self.log_step.exp(), largest)
        self.scale = step.detach()
        # Gradients of step sizes are scaled down by the number of weights that share one (LSQ, section 2.2).
        share = 1 / math.sqrt(weight.numel() / len(largest) * self.top)
        slow_step: torch.Tensor = (step * share + (step * (1 - share)).detach()).view(self._view)
        levels = (weight / slow_step).clamp(-self.top, self.top)
        on_grid: torch.Tensor = (levels + (levels.round() - levels).detach()) * slow_step
        return on_grid

    def _largest(self, weight: torch.Tensor) -> torch.Tensor:
        largest: torch.Tensor = weight.detach().abs().amax(self._others).clamp_min(_BOUND_MIN) / self.top
        return largest


def _on_levels(weight: torch.Tensor, step: torch.Tensor, top: int) -> torch.Tensor:
    return (weight / step).round().clamp(-top, top) * step


class HalfQuantizer(nn.Module):
    """Weights stored as half floats."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        inside = weight.clamp(-_HALF_MAX, _HALF_MAX)
        # The difference of neighbours is exact, so the sum is the half float itself.
        return inside + (inside.half().float() - inside).detach()


class ConstantQuantizer(nn.Module):
    """A constant operand of arithmetic: one scale for the tensor, from its own extremes."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        low, high = torch.aminmax(value.detach())
        return round_to_grid(value, float(low), float(high), self.bits)


class RangeQuantizer(nn.Module):
    """An activation: asymmetric int8 or symmetric int16, one range for the tensor, zero always inside it."""

    def __init__(self, bits: int, *, momentum: float = 0.01, fixed_range: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.bits = bits
        self.momentum = momentum
        self.is_fixed = fixed_range is not None
        self.low, self.high = fixed_range or (0.0, 0.0)
        self.phase = QuantizerPhase.CALIBRATE
        self._batches = 0

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        if self.phase != QuantizerPhase.FROZEN and not self.is_fixed:
            self._observe(value)
        if self.phase == QuantizerPhase.CALIBRATE:
            return value
        return round_to_grid(value, self.low, self.high, self.bits)

    def get_extra_state(self) -> tuple[float, float]:
        """The range, so that it is kept and put back with the weights that it belongs to."""
        return self.low, self.high

    def set_extra_state(self, state: tuple[float, float]) -> None:
        self.low, self.high = state

    def freeze(self) -> None:
        """Keep the range from now on, moved (by less than half a step) so that zero lies exactly on the grid.

        The quantizer then finds the same zero point from it, whatever precision it computes in.
        """
        self.phase = QuantizerPhase.FROZEN
        if self.is_fixed:
            return
        scale, zero = grid(self.low, self.high, self.bits)
        bottom, top = (-128, 127) if self.bits == 8 else (-32767, 32767)
        self.low, self.high = (bottom - zero) * scale, (top - zero) * scale

    def _observe(self, value: torch.Tensor) -> None:
        data = value.detach()
        # Not aminmax, which copies what lies with channels last.
        low, high = min(float(data.amin()), 0.0), max(float(data.amax()), 0.0)
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UserError(
                "training diverged: an activation is not finite",
                next_step="lower training.lightened_learning_rate",
            )
        if self.phase == QuantizerPhase.CALIBRATE:
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
        if self.source.phase == QuantizerPhase.CALIBRATE:
            return value
        return round_to_grid(value, self.source.low, self.source.high, self.source.bits)


class BiasQuantizer(nn.Module):
    """A layer's bias: integers in steps of the input's scale times the weights' scale, so coarse where weights are.

    Called after the layer's weight quantizer, in forward order.
    """

    def __init__(self, weights: WeightQuantizer, source: RangeQuantizer) -> None:
        super().__init__()
        self.weights = weights
        self.source = source

    def forward(self, bias: torch.Tensor) -> torch.Tensor:
        if self.source.phase == QuantizerPhase.CALIBRATE:
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


def round_to_grid(value: torch.Tensor, low: float, high: float, bits: int) -> torch.Tensor:
    """Return `value` on the grid that the range gives at so many bits, clipped to it."""
    scale, zero = grid(low, high, bits)
    bottom, top = (-128, 127) if bits == 8 else (-32768, 32767)
    result: torch.Tensor = _Rounding.apply(value, scale, bottom - zero, top - zero)  # type: ignore[no-untyped-call]
    return result


class _Rounding(torch.autograd.Function):
    """`torch.fake_quantize_per_tensor_affine`, forward and gradient bit for bit, in vector operations.

    torch's own goes one value after the other on a processor, and took a large part of such a training.
    """

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, scale: float, least: int, most: int) -> torch.Tensor:
        """`least` and `most`: steps from zero."""
        ctx.save_for_backward(value)
        ctx.inside = (least - 0.5) * scale, (most + 0.5) * scale
        steps = value.float() * float(np.float32(1) / np.float32(scale))
        return steps.round_().clamp_(least, most).mul_(scale).to(value.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Straight through where the value was inside the grid, nothing where it was clipped."""
        return torch.ops.aten.hardtanh_backward(grads[0], ctx.saved_tensors[0], *ctx.inside), None, None, None
