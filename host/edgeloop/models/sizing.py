"""Layer sizes of a family, from a width, the data's shapes and the target's channel multiple."""

from __future__ import annotations

import math

from edgeloop.core.network import NetworkIO, TensorShape
from edgeloop.errors import UserError


def channels(base: int, width: float, multiple: int) -> int:
    """Return `base * width` to the nearest multiple (half goes up), at least one multiple."""
    return max(multiple, math.floor(base * width / multiple + 0.5) * multiple)


def halvings(side: int) -> int:
    """Return how often a side is halved, so that about 4 are left: 28 thrice, 8 once, 4 or less never."""
    return max(0, round(math.log2(side / 4))) if side > 0 else 0


def sole_input(io: NetworkIO, family: str, *axes: str) -> TensorShape:
    """Return the data's only input, where it has these axes; no axes: any shape.

    Raises UserError where there are several inputs, another rank, or integers.
    """
    demand = f"one input of shape ({', '.join(axes)})" if axes else "one input"
    listing = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in io.inputs)
    if len(io.inputs) != 1 or (axes and len(io.inputs[0].shape) != len(axes)):
        raise UserError(
            f"family {family!r} takes {demand}, the data have {listing}",
            next_step="choose another family, or bring your own as [reference] factory",
        )
    tensor = io.inputs[0]
    if tensor.dtype != "float32":
        raise UserError(
            f"family {family!r} takes float32, the input {tensor.name} is {tensor.dtype}",
            next_step="scale it to float32 in the data, or bring your own network as [reference] factory",
        )
    return tensor
