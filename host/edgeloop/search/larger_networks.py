"""The determiner (S701, S702): which networks are larger than M1, and in which order they are worth asking.

The size difference evaluation function and the score J are reconstructions: the claims name the function
and leave its form open.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edgeloop.core.campaign import Search
from edgeloop.core.network import NetworkSizes, NetworkSpec
from edgeloop.errors import UserError
from edgeloop.user_code.functions import call_function, load_function

SCORE_EXPONENT = 0.07
"""MnasNet's exponent for latency over its target."""
_DELTA_MAX = 24.0
"""No search doubles the parameters more often than this."""

PredictBytes = Callable[[float], float]
"""delta = log2(parameters over M1's parameters) -> predicted deployed bytes of M3."""


@dataclass(frozen=True, slots=True)
class Larger:
    """An M2: a network that is larger than M1 (or M1 itself where `larger = none`)."""

    spec: NetworkSpec
    sizes: NetworkSizes
    label: str
    """`width 1.41`, `width 2 depth +1`: as the user reads it."""


def larger(m1: NetworkSizes, m2: NetworkSizes) -> bool:
    """Return whether M2 is larger than M1: parameters and MACs both strictly larger."""
    return m2.parameters > m1.parameters and m2.macs > m1.macs


Origin = Literal["factory", "widen", "none"] | tuple[NetworkSpec, ...]
"""Where M2 comes from: `reference.larger`, a list as networks."""


def grid(m1: NetworkSpec, search: Search, origin: Origin) -> list[NetworkSpec]:
    """Return the networks that may be M2: those of a list, or width multipliers and depth steps over M1.

    With `none` it is M1 itself; with `widen` they start with M1's function.
    """
    if isinstance(origin, tuple):
        return list(origin)
    if origin == "none":
        return [m1]
    networks = [
        m1.in_size(round(m1.width * width, 6), m1.depth + depth)
        for depth in dict.fromkeys(search.depths)
        for width in dict.fromkeys(search.widths)
    ]
    if origin == "widen":
        return [network.model_copy(update={"widened_from": m1.width}) for network in networks]
    return networks


def determine(
    m1: NetworkSpec,
    m1_sizes: NetworkSizes,
    search: Search,
    sizes_of: Callable[[NetworkSpec], NetworkSizes],
    origin: Origin = "factory",
) -> tuple[list[Larger], list[str]]:
    """Return every M2 from the smallest to the largest, and a sentence for each network left out.

    Left out is what is not larger than M1, and what channel rounding made equal to another network of the same source.
    """
    networks: dict[tuple[int, int, str], Larger] = {}
    left_out = []
    for spec in grid(m1, search, origin):
        sizes = sizes_of(spec)
        same = (sizes.parameters, sizes.macs, (spec.factory or "") if spec.listed else "")
        if not larger(m1_sizes, sizes):
            left_out.append(
                f"{spec.label} is left out: {sizes.parameters} parameters and {sizes.macs} MACs are not both "
                f"more than M1's {m1_sizes.parameters} and {m1_sizes.macs}"
            )
        elif same in networks:
            left_out.append(f"{spec.label} is left out: it has the size of {networks[same].label}")
        else:
            networks[same] = Larger(spec, sizes, spec.label)
    return [networks[same] for same in sorted(networks)], left_out


def bytes_curve(points: Sequence[tuple[float, float]]) -> PredictBytes:
    """Return predicted bytes as a never-falling function of delta, through (delta, bytes) of real networks.

    Between networks log2(bytes) is linear in delta; beyond the last one it goes on with slope 1, bytes in
    proportion to parameters. Raises ValueError without points.
    """
    if not points:
        raise ValueError("no network to interpolate between")
    knots: list[tuple[float, float]] = []
    for delta, size in sorted(points):
        log_bytes = max(math.log2(size), knots[-1][1] if knots else 0.0)
        if knots and delta == knots[-1][0]:
            knots[-1] = (delta, log_bytes)
        else:
            knots.append((delta, log_bytes))

    def predict(delta: float) -> float:
        if delta <= knots[0][0]:
            return math.exp2(knots[0][1] + delta - knots[0][0])
        for (d0, b0), (d1, b1) in itertools.pairwise(knots):
            if delta <= d1:
                return math.exp2(b0 + (b1 - b0) * (delta - d0) / (d1 - d0))
        return math.exp2(knots[-1][1] + delta - knots[-1][0])

    return predict


def parity_delta(bytes_m1: int, predict: PredictBytes) -> float:
    """Return delta*, at which M3's predicted bytes equal M1's measured bytes, by bisection; 0 if already over."""
    low, high = 0.0, _DELTA_MAX
    if predict(low) >= bytes_m1:
        return low
    if predict(high) <= bytes_m1:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if predict(middle) < bytes_m1 else (low, middle)
    return (low + high) / 2


def tent(delta: float, parity: float) -> float:
    """Return delta/parity up to parity, 2^-(delta - parity) beyond: the largest network that costs no more."""
    return delta / parity if delta <= parity else math.exp2(parity - delta)


def saturating(delta: float, parity: float) -> float:
    """Return delta/parity up to parity, 1 beyond: larger is never worse."""
    return delta / parity if delta <= parity else 1.0


def at_parity(delta: float, parity: float) -> float:
    """Return 2^-|delta - parity|: only being near M1's own bytes counts, from either side."""
    return math.exp2(-abs(delta - parity))


def off(delta: float, parity: float) -> float:  # noqa: ARG001 -- the shape of a shape
    """Return 1 for every larger network: the size difference says nothing."""
    return 1.0


Shape = Callable[[float, float], float]
"""(delta, delta*) -> E, for delta > 0; delta is log2 of M2's parameters over M1's."""
SHAPES: Mapping[str, Shape] = {"tent": tent, "saturating": saturating, "parity": at_parity, "off": off}


def shape_of(name: str) -> Shape:
    """Return the shape of that name, or the user's function that `file.py:name` names.

    Raises UserError where the function can't be loaded, and where it gives no number from 0 to 1.
    """
    if name in SHAPES:
        return SHAPES[name]
    function = load_function(name)

    def own(delta: float, parity: float) -> float:
        value = call_function(function, name, delta, parity)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(
                f"{name}: gave {value!r} for delta {delta:.4g} and delta* {parity:.4g}",
                next_step="return a number from 0 to 1",
            )
        return float(value)

    return own


def size_evaluation(shape: Shape, params_m1: int, params_m2: int, parity: float) -> float:
    """Return the size difference evaluation function E, from 0 to 1; 0 for a network that is not larger than M1.

    delta = log2(params_m2 / params_m1); `parity` is delta*, from `parity_delta`.
    """
    delta = math.log2(params_m2 / params_m1)
    return shape(delta, parity) if delta > 0 else 0.0


def score_j(accuracy: float, latency: float, target: float, evaluation: float) -> float:
    """Return J = A (L/T)^-0.07 E^0.07; `latency` and `target` in the same unit.

    Raises ValueError where latency or target is not positive.
    """
    if latency <= 0 or target <= 0:
        raise ValueError(f"latency {latency} and target {target} must be positive")
    return accuracy * math.pow(latency / target, -SCORE_EXPONENT) * math.pow(evaluation, SCORE_EXPONENT)
