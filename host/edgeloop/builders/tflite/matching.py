"""Tensors of a .tflite matched with those of the trained network, by their values and not by their names.

The converter renames, fuses and reorders; the values that flow through the float model are the same on both sides.
Training writes a fingerprint of each tensor over a few samples, and the same is computed here. Numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.recipe import Fingerprint

TOLERANCE = 1e-3
"""Largest difference of any statistic, as a share of the tensor's range."""


def fingerprint(values: Sequence[NDArray[Any]]) -> Fingerprint:
    """Return the fingerprint over all samples of one tensor; each entry is one sample's array."""
    flat = np.concatenate([np.asarray(v, np.float64).ravel() for v in values])
    return (
        flat.size / len(values),
        float(flat.min()),
        float(flat.max()),
        float(flat.mean()),
        float(np.sqrt((flat**2).mean())),
        float(np.abs(flat).mean()),
    )


def distance(a: Fingerprint, b: Fingerprint) -> float:
    """Return the largest difference of the statistics relative to the range; infinite for another element count."""
    if a[0] != b[0]:
        return float("inf")
    span = max(a[2] - a[1], b[2] - b[1], abs(a[2]), abs(b[2]), 1e-12)
    return max(abs(x - y) for x, y in zip(a[1:], b[1:], strict=True)) / span


def nearest(mark: Fingerprint, candidates: Mapping[str, Fingerprint], tolerance: float = TOLERANCE) -> str | None:
    """Return the name of the nearest candidate within the tolerance; the first of equals."""
    best, best_distance = None, tolerance
    for name, candidate in candidates.items():
        apart = distance(mark, candidate)
        if apart < best_distance or (best is None and apart <= best_distance):
            best, best_distance = name, apart
    return best


@dataclass(frozen=True, slots=True)
class Range:
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Op:
    """One operator of the float model: tensors by index, -1 left out."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


INHERITING = frozenset(
    {
        "AVERAGE_POOL_2D",
        "BROADCAST_TO",
        "EXPAND_DIMS",
        "GATHER",
        "GATHER_ND",
        "MAX_POOL_2D",
        "MIRROR_PAD",
        "PAD",
        "REDUCE_MIN",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "SLICE",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "SQUEEZE",
        "STRIDED_SLICE",
        "TRANSPOSE",
        "UNPACK",
    }
)
"""Operators whose output has its input's scale in the runtime."""

FIXED = frozenset({"LOGISTIC", "SOFTMAX", "TANH"})
"""Operators whose output scale TFLite's kernels fix."""


def assign_ranges(
    ops: Iterable[Op],
    inputs: Sequence[int],
    fingerprints: Mapping[int, Fingerprint],
    learned_ranges: Mapping[str, tuple[Fingerprint, Range]],
) -> tuple[dict[int, Range], set[int]]:
    """Return the trained range of every tensor that has one, and the tensors whose scale the kernels fix.

    `fingerprints` covers all float activations; one that is in neither result has to be calibrated.
    """
    candidates = {name: mark for name, (mark, _) in learned_ranges.items()}
    ranges: dict[int, Range] = {}
    fixed_by_kernel: set[int] = set()

    def find(tensor: int) -> None:
        name = nearest(fingerprints[tensor], candidates) if tensor in fingerprints else None
        if name is not None:
            ranges[tensor] = learned_ranges[name][1]

    for tensor in inputs:
        find(tensor)
    for op in ops:
        for tensor in op.outputs:
            if op.kind in FIXED:
                fixed_by_kernel.add(tensor)
                continue
            source = _source(op) if op.kind in INHERITING else None
            if source in ranges:
                ranges[tensor] = ranges[source]
            elif source in fixed_by_kernel:
                fixed_by_kernel.add(tensor)
            else:
                find(tensor)
    return ranges, fixed_by_kernel


def _source(op: Op) -> int:
    """The tensor that an inheriting operator takes its values from (SPLIT has its axis first)."""
    return op.inputs[1] if op.kind == "SPLIT" else op.inputs[0]


def assign_layers(
    weights: Mapping[int, Fingerprint], learned_bits: Mapping[str, tuple[Fingerprint, int]]
) -> tuple[dict[int, int], list[str]]:
    """Return the bits of every weight tensor that training knows, and the trained layers that match none."""
    candidates = {name: mark for name, (mark, _) in learned_bits.items()}
    bits: dict[int, int] = {}
    matches: set[str] = set()
    for tensor, mark in weights.items():
        name = nearest(mark, candidates)
        if name is not None:
            bits[tensor] = learned_bits[name][1]
            matches.add(name)
    return bits, [name for name in learned_bits if name not in matches]
