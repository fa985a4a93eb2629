"""Dividing samples into train, validation, calibration and test, the classes in proportion in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.dataset import DataSplit
from edgeloop.errors import DataError

SPLIT_SEED = 20250101
"""Of every division: a fixed one, so that a campaign's training seed never moves a sample between splits."""

_SAMPLES_MIN = 20


@dataclass(frozen=True, slots=True)
class Sizes:
    """Samples for each split; what is left over trains."""

    validation: int
    calibration: int
    test: int

    @classmethod
    def of(cls, samples: int) -> Self:
        """A fifth each for validation and test (at most 10,000: beyond, limits gain little), the rest trains."""
        size = min(samples // 5, 10_000)
        return cls(validation=size, calibration=calibration_size(samples - 2 * size), test=size)


def calibration_size(train: int) -> int:
    """A tenth of the training samples, at most 500: ranges settle long before accuracies do."""
    return max(1, min(500, train // 10))


def divide(whole: DataSplit, sizes: Sizes, rng: np.random.Generator, where: str) -> dict[str, DataSplit]:
    """Divide one set of samples into four. Raises DataError where there are too few."""
    if len(whole) < _SAMPLES_MIN:
        raise DataError(
            f"{where}: {len(whole)} samples are too few to divide into train, validation, calibration and test",
            next_step=f"give at least {_SAMPLES_MIN}, or the splits yourself as train/x, validation/x, test/x",
        )
    source = in_order(whole, rng)
    splits, start = {}, 0
    for name, size in (("test", sizes.test), ("validation", sizes.validation), ("calibration", sizes.calibration)):
        splits[name] = source.part(start, start + size)
        start += size
    splits["train"] = source.part(start, len(source))
    return splits


def complete(splits: Mapping[str, DataSplit], where: str) -> dict[str, DataSplit]:
    """Carve validation (a tenth) and calibration out of train, which is in order, where they were not given."""
    full = dict(splits)
    for name in ("validation", "calibration"):
        if name not in full:
            train = full["train"]
            if len(train) < _SAMPLES_MIN:
                raise DataError(
                    f"{where}: {len(train)} training samples are too few to take {name} samples from",
                    next_step=f"give the split {name!r}, or at least {_SAMPLES_MIN} samples in train",
                )
            size = max(1, min(10_000, len(train) // 10)) if name == "validation" else calibration_size(len(train))
            # Both parts stay in order, since a head and a tail of an ordered split hold all classes in proportion.
            full[name], full["train"] = train.part(0, size), train.part(size, len(train))
    return full


def in_order(split: DataSplit, rng: np.random.Generator) -> DataSplit:
    """The samples in a seeded order whose every stretch holds the classes in proportion.

    Data sets come sorted by class often enough that the first n of a split, which go to a board, would otherwise
    be one digit only.
    """
    return split.in_order(_order(split, rng))


def _order(split: DataSplit, rng: np.random.Generator) -> NDArray[np.int64]:
    permutation = rng.permutation(len(split))
    labels = class_labels(split)
    if labels is None:
        return permutation
    place = np.empty(len(split))
    for label in np.unique(labels):
        own = permutation[labels[permutation] == label]
        place[own] = (np.arange(len(own)) + rng.random()) / len(own)
    return np.argsort(place, kind="stable").astype(np.int64)


def class_labels(split: DataSplit) -> NDArray[Any] | None:
    """The labels of a split with one target of class numbers, (n,), or None."""
    targets = list(split.y.values())
    if len(targets) == 1 and targets[0].ndim == 1 and np.issubdtype(targets[0].dtype, np.integer):
        return targets[0]
    return None
