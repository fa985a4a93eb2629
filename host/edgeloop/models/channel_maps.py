"""Maps that say which channel of the small network each channel of the wide one repeats, axis by axis of a tensor.

A map is a vector as long as the wide axis, of places on the small axis; an axis without a map is the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

Maps = Mapping[int, torch.Tensor]
"""Axis -> map, for the axes that differ."""


def repeating(small: int, wide: int) -> torch.Tensor:
    """Return the map that keeps every channel and repeats the first ones, round and round."""
    return torch.arange(wide) % small


def place(tensor: torch.Tensor, maps: Maps) -> torch.Tensor:
    """Return a tensor of the small network as the wide one has it."""
    for axis, places in maps.items():
        tensor = tensor.index_select(axis, places)
    return tensor


def equal(one: Maps, other: Maps) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[axis], other[axis]) for axis in one)


def follow_moves(
    inputs: Sequence[tuple[Sequence[int], Maps]],
    small: Callable[[list[torch.Tensor]], Any],
    wide: Callable[[list[torch.Tensor]], Any],
) -> list[dict[int, torch.Tensor]] | None:
    """Return the maps of what an operator that only moves values makes of its inputs; None where they mix axes.

    `inputs` are shapes in the small network and maps; `small` and `wide` apply each network's own operator. Values are
    numbered in the small network, the numbers are moved in both, and read off: whatever is done, reshaped, turned or
    joined, is seen.
    """
    of_inputs, start = [], 0
    for shape, _ in inputs:
        count = 1
        for size in shape:
            count *= size
        of_inputs.append(torch.arange(start, start + count).reshape(*shape))
        start += count
    ones = small(list(of_inputs))
    twos = wide([place(numbers, maps) for numbers, (_, maps) in zip(of_inputs, inputs, strict=True)])
    results = zip(*(x if isinstance(x, tuple | list) else [x] for x in (ones, twos)), strict=True)
    readings = [_read_off(one, two) for one, two in results]
    return None if any(maps is None for maps in readings) else [maps for maps in readings if maps is not None]


def _read_off(small: torch.Tensor, wide: torch.Tensor) -> dict[int, torch.Tensor] | None:
    """The maps by which `small` becomes `wide`; None where it does not."""
    if small.dim() != wide.dim() or 0 in (*small.shape, *wide.shape):
        return None
    maps: dict[int, torch.Tensor] = {}
    for axis in range(small.dim()):
        # Along each axis the numbers at the origin of all others tell which place is which.
        origin = [0] * small.dim()
        small_line = _line(small, axis, origin)
        places = []
        for value in _line(wide, axis, origin).tolist():
            hits = (small_line == value).nonzero()
            if not len(hits):
                return None
            places.append(int(hits[0]))
        if small.shape[axis] != wide.shape[axis] or places != list(range(len(places))):
            maps[axis] = torch.tensor(places)
    return maps if torch.equal(place(small, maps), wide) else None


def _line(tensor: torch.Tensor, axis: int, origin: list[int]) -> torch.Tensor:
    return tensor[tuple(slice(None) if i == axis else at for i, at in enumerate(origin))]
