"""Encoded samples: bytes as a pipeline's `load` gets them, and how they travel in a .npz without pickle.

In an .npz they are `encoded`, uint8 of shape (bytes,), one sample after the other, and `encoded_offsets`, int64 of
shape (samples + 1,): where each starts, and the end. A factory gives a list of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.errors import Fault

KEYS = ("encoded", "encoded_offsets")
_FORM = "give a list of bytes, or in an .npz encoded (uint8) with encoded_offsets (int64)"


def without_encoded(arrays: Any, where: str) -> tuple[Any, tuple[bytes, ...] | None, list[Fault]]:
    """Take the encoded samples out of a split's arrays; return what is left, the samples, and the faults found."""
    if not isinstance(arrays, Mapping) or not any(key in arrays for key in KEYS):
        return arrays, None, []
    rest = {key: value for key, value in arrays.items() if key not in KEYS}
    place = f"{where}: encoded"
    given, offsets = arrays.get("encoded"), arrays.get("encoded_offsets")
    if offsets is None and isinstance(given, list | tuple):
        return _listed(rest, given, place)
    if not isinstance(given, np.ndarray) or not isinstance(offsets, np.ndarray):
        what = "encoded_offsets without encoded" if given is None else f"is a {type(given).__name__} without offsets"
        return rest, None, [Fault(place, what, _FORM)]
    fault = _offsets_fault(given, offsets)
    if fault is not None:
        return rest, None, [Fault(place, fault, _FORM)]
    whole = given.tobytes()
    ends = offsets.tolist()
    return rest, tuple(whole[start:end] for start, end in pairwise(ends)), []


def _listed(rest: Any, given: Sequence[Any], place: str) -> tuple[Any, tuple[bytes, ...] | None, list[Fault]]:
    strange = next((i for i, sample in enumerate(given) if not isinstance(sample, bytes)), None)
    if strange is not None:
        return rest, None, [Fault(place, f"sample {strange} is a {type(given[strange]).__name__}, not bytes", _FORM)]
    if not given:
        return rest, None, [Fault(place, "empty", _FORM)]
    return rest, tuple(given), []


def _offsets_fault(given: NDArray[Any], offsets: NDArray[Any]) -> str | None:
    if given.dtype != np.uint8 or given.ndim != 1:
        return f"{given.dtype} of shape {given.shape}"
    if offsets.dtype != np.int64 or offsets.ndim != 1 or len(offsets) < 2:
        return f"encoded_offsets are {offsets.dtype} of shape {offsets.shape}"
    if offsets[0] != 0 or offsets[-1] != len(given) or (np.diff(offsets) < 0).any():
        return f"encoded_offsets do not divide {len(given)} bytes: they must rise from 0 to that"
    return None


def joined(samples: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    """Return the two arrays of an .npz."""
    offsets = np.zeros(len(samples) + 1, np.int64)
    np.cumsum([len(sample) for sample in samples], out=offsets[1:])
    return {"encoded": np.frombuffer(b"".join(samples), np.uint8), "encoded_offsets": offsets}
