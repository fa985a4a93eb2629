"""Arrays in .npy and .npz files that come from elsewhere: parsed without pickle, and only where the header fits."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.errors import BoardError, DataError

_DTYPES = {"float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool"}


def load_npy(raw: bytes, what: str) -> NDArray[Any]:
    """Parse a .npy without pickle whose header says just what follows it. Raises BoardError."""
    handle = io.BytesIO(raw)
    try:
        shape, fortran, dtype = _npy_header(handle)
        plain = dtype.name in _DTYPES and dtype.isnative and not fortran and all(n >= 0 for n in shape)
        if not plain or math.prod(shape) * dtype.itemsize != len(raw) - handle.tell():
            raise ValueError(f"header says {dtype} {shape} for {len(raw)} bytes")
    except (ValueError, EOFError, OverflowError) as error:
        raise BoardError(f"{what} is no array that was asked for: {str(error)[:120]}") from error
    return np.frombuffer(raw, dtype, offset=handle.tell()).reshape(shape)


def npy_bytes(array: NDArray[Any]) -> bytes:
    """Return an array as the bytes of a .npy."""
    handle = io.BytesIO()
    np.save(handle, array, allow_pickle=False)
    return handle.getvalue()


def count_samples(data: Path) -> int:
    """Samples in an .npz, from the header of its first array, or of the offsets of encoded ones. Raises DataError."""
    try:
        with zipfile.ZipFile(data) as archive:
            encoded_ones = "encoded_offsets.npy" in archive.namelist()
            with archive.open("encoded_offsets.npy" if encoded_ones else archive.namelist()[0]) as member:
                return int(_npy_header(member)[0][0]) - encoded_ones
    except (OSError, zipfile.BadZipFile, ValueError, IndexError) as error:
        raise DataError(f"{data}: no .npz with arrays: {error}") from error


def _npy_header(handle: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, Fortran order, type) that a .npy claims. Raises ValueError."""
    version = np.lib.format.read_magic(handle)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(handle)
