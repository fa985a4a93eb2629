"""Arrays on their way to a child process and back: one .npz in, one out, by their places."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.frozen import Frozen


class SampleFiles(Frozen):
    """Arrays (n, ...) in the model's own order, as `0`, `1`, ... of an .npz."""

    inputs: Path
    outputs: Path
    """Written by the child."""


def write_samples(path: Path, arrays: Sequence[NDArray[Any]]) -> None:
    """Write arrays by their places."""
    np.savez(path, **{str(place): array for place, array in enumerate(arrays)})  # type: ignore[arg-type]


def read_samples(path: Path) -> list[NDArray[Any]]:
    """Return the arrays of a file that `write_samples` wrote."""
    with np.load(path) as arrays:
        return [arrays[str(place)] for place in range(len(arrays.files))]
