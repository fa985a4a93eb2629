"""JapaneseVowels as a data factory: 12 channels, 25 steps, nine speakers, out of the package aeon's own files.

The package is read without importing it, since its dependencies pin other versions of numpy than ours:
`pip install --no-deps --target runs/study/packages aeon==1.6.0`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parents[2] / "runs/study/packages/aeon/datasets/data/JapaneseVowels"


def splits() -> dict[str, dict[str, NDArray[Any]]]:
    if not FOLDER.is_dir():
        raise FileNotFoundError(f"{FOLDER}: pip install --no-deps --target runs/study/packages aeon==1.6.0")
    read = {name: _read(FOLDER / f"JapaneseVowels_eq_{name.upper()}.ts") for name in ("train", "test")}
    mean, deviation = read["train"][0].mean((0, 1)), read["train"][0].std((0, 1))
    return {name: {"x": ((x - mean) / deviation).astype(np.float32), "y": y} for name, (x, y) in read.items()}


def _read(file: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """One sample a line: channels parted by colons, then the speaker."""
    lines = [line for line in file.read_text().splitlines() if line and line[0] not in "#@"]
    fields = [line.split(":") for line in lines]
    x = np.array([[channel.split(",") for channel in row[:-1]] for row in fields], np.float32)
    return x.transpose(0, 2, 1), np.array([int(row[-1]) - 1 for row in fields], np.int64)
