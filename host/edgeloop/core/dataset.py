"""Data sets: named arrays in splits that share no sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DataSplit:
    """Arrays by tensor name, the sample first, channel-last. `y` may be empty (autoencoder)."""

    x: Mapping[str, NDArray[Any]]
    y: Mapping[str, NDArray[Any]]
    encoded: tuple[bytes, ...] | None = None
    """The same samples as a pipeline's `load` gets them."""

    def __post_init__(self) -> None:
        lengths = {len(a) for a in (*self.x.values(), *self.y.values())}
        lengths |= set() if self.encoded is None else {len(self.encoded)}
        if (not self.x and self.encoded is None) or len(lengths) != 1:
            raise ValueError(f"arrays of a split have one length, here {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.encoded) if self.encoded is not None else len(next(iter(self.x.values())))

    def head(self, n: int) -> DataSplit:
        """The first n samples."""
        return self.part(0, n)

    def part(self, start: int, end: int) -> DataSplit:
        """The samples from start up to end."""
        encoded = None if self.encoded is None else self.encoded[start:end]
        cut = slice(start, end)
        return DataSplit({k: v[cut] for k, v in self.x.items()}, {k: v[cut] for k, v in self.y.items()}, encoded)

    def in_order(self, order: NDArray[np.int64]) -> DataSplit:
        """The samples in another order."""
        encoded = None if self.encoded is None else tuple(self.encoded[int(i)] for i in order)
        return DataSplit({k: v[order] for k, v in self.x.items()}, {k: v[order] for k, v in self.y.items()}, encoded)


@dataclass(frozen=True, slots=True)
class DataSet:
    """train, validation (selection), calibration (activation ranges) and test (one look) share no sample."""

    train: DataSplit
    validation: DataSplit
    calibration: DataSplit
    test: DataSplit
    sha256: str
    """Digest of all arrays."""
    unlabelled: DataSplit | None = None
    """Inputs alone, to distil on; may hold training samples, and none of the other splits'."""
