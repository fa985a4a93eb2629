"""Data sets: named arrays in splits that share no sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DataSplit:
    """Arrays by tensor name, the sample first, channel-last. `y` may be empty (autoencoder)."""

    x: Mapping[str, NDArray[Any]]
    y: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        lengths = {len(a) for a in (*self.x.values(), *self.y.values())}
        if not self.x or len(lengths) != 1:
            raise ValueError(f"arrays of a split have one length, here {sorted(lengths)}")

    def __len__(self) -> int:
        return len(next(iter(self.x.values())))

    def head(self, n: int) -> DataSplit:
        """The first n samples."""
        return DataSplit({k: v[:n] for k, v in self.x.items()}, {k: v[:n] for k, v in self.y.items()})


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
