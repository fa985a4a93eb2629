"""The raw samples that a command left on this machine."""

from __future__ import annotations

import numpy as np

from edgeloop.records.samples import AttemptFolder
from edgeloop.testing.virtual_board import VirtualBoardHome


def kept_outputs(home: VirtualBoardHome) -> np.ndarray:
    """What the board gave for each sample of the last measurement, dequantized, out of the raw samples."""
    last = max((home.folder / "state/edgeloop/measure").iterdir(), key=lambda folder: folder.stat().st_mtime_ns)
    return next(iter(AttemptFolder(last / "samples/attempt-0").read().outputs["candidate"].values()))
