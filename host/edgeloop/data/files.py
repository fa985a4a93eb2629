"""Reading a user's .npz, and writing the one that a board gets. No pickle, either way."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.dataset import DataSplit
from edgeloop.data.checks import sides_of
from edgeloop.data.encoded import join_encoded, split_encoded
from edgeloop.errors import DataError, Fault
from edgeloop.processes.files import whole_file


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return all arrays of a .npz by key. Raises DataError: missing, cut short, not an .npz, arrays of objects."""
    if not path.is_file():
        raise DataError(f"{path}: no such file", next_step="give an .npz written with numpy.savez")
    arrays: dict[str, NDArray[Any]] = {}
    faults: list[Fault] = []
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, Mapping):
                raise DataError(f"{path}: a single .npy array, not an .npz", next_step="write it with numpy.savez")
            for key in archive:
                try:
                    arrays[key] = archive[key]
                except ValueError as error:
                    text = "an array of objects" if "allow_pickle" in str(error) else f"can't be read: {error}"
                    faults.append(Fault(f"{path}: {key}", text, "give arrays of floats or integers"))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: not an .npz, or cut short", next_step="write it again with numpy.savez(FILE, x=..., y=...)"
        ) from error
    if faults:
        raise DataError("\n".join(map(str, faults)))
    return arrays


class MeasureData(NamedTuple):
    """Samples of a ready model: inputs and targets by tensor name, and the encoded samples; x may be empty then."""

    x: dict[str, NDArray[Any]]
    y: dict[str, NDArray[Any]]
    encoded: tuple[bytes, ...] | None


def read_measure_npz(path: Path) -> MeasureData:
    """Return the samples of an .npz that is given to `measure` or `compare`.

    Floats come as float32 and labels as int64; targets may be absent (latency on real inputs). All samples are
    kept, in the file's order. Raises DataError with a line for each fault.
    """
    arrays, encoded_samples, faults = split_encoded(read_npz(path), str(path))
    (x, y), own = sides_of(arrays, str(path), needs_x=encoded_samples is None and not faults)
    faults += own
    lengths = {name: len(array) for name, array in (*x.items(), *y.items())}
    lengths |= {} if encoded_samples is None else {"encoded": len(encoded_samples)}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{name} {length}" for name, length in lengths.items())
        faults.append(Fault(str(path), f"arrays of different lengths: {listing}"))
    if faults:
        raise DataError("\n".join(map(str, faults)))
    return MeasureData(x, y, encoded_samples)


def write_board_npz(split: DataSplit, n: int, path: Path, *, for_pipeline: bool = False) -> None:
    """Write the inputs of the first n samples as `x` or `x/<input>`: the same samples give the same bytes.

    `for_pipeline` writes the encoded samples instead, where the split has them. Stored, not compressed: a board reads
    it faster, and bytes do not depend on a zlib version. Written to a temporary name first.
    """
    head = split.head(n)
    if for_pipeline and head.encoded is not None:
        arrays: dict[str, NDArray[Any]] = join_encoded(head.encoded)
    else:
        alone = len(head.x) == 1
        arrays = {"x" if name == "x" and alone else f"x/{name}": array for name, array in sorted(head.x.items())}
    write_npz(arrays, path)


def write_npz(arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write arrays under a name that is there whole or not at all; equal arrays give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for key, array in arrays.items():
            entry = zipfile.ZipInfo(f"{key}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as out:
                np.lib.format.write_array(out, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
