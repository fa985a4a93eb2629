"""M1 as the caller measured it, kept beside the ledger: a study that goes on judges its candidates beside it.

Scores and bytes only: times of another hour are no pairs (`loop.controller`). What it was judged as is in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.events import Split
from edgeloop.data.files import read_npz, write_npz
from edgeloop.errors import DataError, UserError, kept_on_disk
from edgeloop.loop.external_measurements import ExternalMeasurement

FILE = "own-m1.npz"
_BYTES, _SCORES, _AGREEMENT = "deployed_bytes", "scores/", "agreement"


def write(measurements: Mapping[Split, ExternalMeasurement], folder: Path) -> None:
    """Write M1's figures by split. Raises StationError where this machine has no room for them."""
    arrays: dict[str, NDArray[Any]] = {}
    for split, figures in measurements.items():
        arrays[f"{split}/{_BYTES}"] = np.array([figures.deployed_bytes])
        arrays |= {f"{split}/{_SCORES}{name}": np.asarray(scores) for name, scores in figures.scores.items()}
        if figures.agreement is not None:
            arrays[f"{split}/{_AGREEMENT}"] = np.asarray(figures.agreement)
    with kept_on_disk(folder / FILE):
        write_npz(arrays, folder / FILE)


def read(folder: Path) -> dict[Split, ExternalMeasurement]:
    """Read them again; empty where none were told. Raises UserError where the file is damaged."""
    if not (folder / FILE).exists():
        return {}
    try:
        arrays = read_npz(folder / FILE)
    except DataError as error:
        step = "put it back, or begin another study with out="  # of Study.tell: no command comes here
        raise UserError(f"{folder / FILE}: what was told of M1 can't be read again", next_step=step) from error
    return {split: _of(arrays, split) for split in get_args(Split) if f"{split}/{_BYTES}" in arrays}


def _of(arrays: Mapping[str, NDArray[Any]], split: Split) -> ExternalMeasurement:
    own = {name.removeprefix(f"{split}/"): array for name, array in arrays.items() if name.startswith(f"{split}/")}
    return ExternalMeasurement(
        deployed_bytes=int(own[_BYTES][0]),
        scores={name.removeprefix(_SCORES): array for name, array in own.items() if name.startswith(_SCORES)},
        agreement=own.get(_AGREEMENT),
    )
