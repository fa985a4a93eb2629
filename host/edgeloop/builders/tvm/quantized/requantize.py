"""The numbers of integer arithmetic, as LiteRT's kernels (XNNPACK) compute them: prepared here, used by compiled code.

real = scale * (stored - zero point). Sums are int32; what a kernel does to them is in `integer`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = -128, 127
_RELU6 = 6.0


@dataclass(frozen=True, slots=True)
class Steps:
    """The grid of a tensor of int8."""

    scale: float
    zero: int

    def quantize(self, real: NDArray[Any]) -> NDArray[np.int8]:
        """Real values on the grid, half to even, the ends kept."""
        steps = np.rint(np.asarray(real, np.float32) / np.float32(self.scale)) + self.zero
        return np.asarray(np.clip(steps, LOWEST, HIGHEST), np.int8)

    def real(self, steps: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray((steps.astype(np.float32) - self.zero) * np.float32(self.scale), np.float32)

    def bounds(self, activation: str) -> tuple[int, int]:
        """Lowest and highest stored value behind a fused activation. Raises KeyError for one that is not known."""
        low, high = {"NONE": (None, None), "RELU": (0.0, None), "RELU6": (0.0, _RELU6), "RELU_N1_TO_1": (-1.0, 1.0)}[
            activation
        ]
        return (
            LOWEST if low is None else int(self.quantize(np.asarray(low))),
            HIGHEST if high is None else int(self.quantize(np.asarray(high))),
        )


def multipliers(scale: float, weights: NDArray[Any], result_scale: float) -> NDArray[np.float32]:
    """Return the factor of each channel's sum: float32, in the kernels' own order."""
    return np.float32(scale) * np.asarray(weights, np.float32) / np.float32(result_scale)


def fold_zero_point(bias: NDArray[Any], weights: NDArray[Any], zero: int) -> NDArray[np.int32]:
    """Biases with the activations' zero point taken off: sum w (x - zero) + bias = sum w x + folded.

    `weights` are (channels, ...). Padding must be by the zero point then.
    """
    sums = weights.astype(np.int64).reshape(len(weights), -1).sum(1)
    return np.asarray(bias.astype(np.int64) - zero * sums, np.int32)


@dataclass(frozen=True, slots=True)
class Addition:
    """a + b in fixed point: (bias + a * by_a + b * by_b) >> shift, half up, and then the zero point."""

    by_a: int
    by_b: int
    bias: int
    shift: int


def addition(a: Steps, b: Steps, grid: Steps, sign: int) -> Addition:
    """Return a + sign * b onto a grid. The larger multiplier has 21 bits, as in XNNPACK's xnn_init_qs8_add."""
    ratios = np.float32(a.scale) / np.float32(grid.scale), np.float32(b.scale) / np.float32(grid.scale)
    exponent = int(np.frexp(max(ratios))[1]) - 1
    shift = 20 - exponent
    by_a, by_b = (int(np.rint(np.ldexp(np.float64(ratio), shift))) for ratio in ratios)
    by_b *= sign
    return Addition(by_a, by_b, (1 << (shift - 1)) - by_a * a.zero - by_b * b.zero, shift)


def table(function: Callable[[NDArray[Any]], NDArray[Any]], steps: Steps, grid: Steps) -> NDArray[np.int8]:
    """Return what a function of one value makes of each stored one, from the lowest on."""
    return grid.quantize(function(steps.real(np.arange(LOWEST, HIGHEST + 1))))


def regrid_table(steps: Steps, grid: Steps) -> NDArray[np.int8]:
    """The same as a table from one grid to another, with the 8 fractional bits of XNNPACK's xnn_init_qs8_cvt."""
    multiplier = int(np.rint(np.float32(256) * (np.float32(steps.scale) / np.float32(grid.scale))))
    values = (np.arange(LOWEST, HIGHEST + 1) - steps.zero) * multiplier + (1 << 7) >> 8
    return np.asarray(np.clip(values + grid.zero, LOWEST, HIGHEST), np.int8)
