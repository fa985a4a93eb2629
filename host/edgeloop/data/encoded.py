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


def split_encoded(arrays: object, where: str) -> tuple[object, tuple[bytes, ...] | None, list[Fault]]:
    """Take the encoded samples out of a split's arrays; return the other arrays, the samples, and the faults."""
    if not isinstance(arrays, Mapping) or not any(key in arrays for key in KEYS):
        return arrays, None, []
    rest = {key: value for key, value in arrays.items() if key not in KEYS}
    place = f"{where}: encoded"
    samples, offsets = arrays.get("encoded"), arrays.get("encoded_offsets")
    if offsets is None and isinstance(samples, list | tuple):
        return _of_list(rest, samples, place)
    if not isinstance(samples, np.ndarray) or not isinstance(offsets, np.ndarray):
        form = f"is a {type(samples).__name__} without offsets"
        what = "encoded_offsets without encoded" if samples is None else form
        return rest, None, [Fault(place, what, _FORM)]
    fault = _offsets_fault(samples, offsets)
    if fault is not None:
        return rest, None, [Fault(place, fault, _FORM)]
    whole = samples.tobytes()
    ends = offsets.tolist()
    return rest, tuple(whole[start:end] for start, end in pairwise(ends)), []


def _of_list(
    rest: object, samples: Sequence[object], place: str
) -> tuple[object, tuple[bytes, ...] | None, list[Fault]]:
    strange = next((i for i, sample in enumerate(samples) if not isinstance(sample, bytes)), None)
    if strange is not None:
        return rest, None, [Fault(place, f"sample {strange} is a {type(samples[strange]).__name__}, not bytes", _FORM)]
    if not samples:
        return rest, None, [Fault(place, "empty", _FORM)]
    return rest, tuple(sample for sample in samples if isinstance(sample, bytes)), []


def _offsets_fault(samples: NDArray[Any], offsets: NDArray[Any]) -> str | None:
    if samples.dtype != np.uint8 or samples.ndim != 1:
        return f"{samples.dtype} of shape {samples.shape}"
    if offsets.dtype != np.int64 or offsets.ndim != 1 or len(offsets) < 2:
        return f"encoded_offsets are {offsets.dtype} of shape {offsets.shape}"
    if offsets[0] != 0 or offsets[-1] != len(samples) or (np.diff(offsets) < 0).any():
        return f"encoded_offsets do not divide {len(samples)} bytes: they must rise from 0 to that"
    return None


def join_encoded(samples: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    """Return the two arrays of an .npz that hold encoded samples."""
    offsets = np.zeros(len(samples) + 1, np.int64)
    np.cumsum([len(sample) for sample in samples], out=offsets[1:])
    return {"encoded": np.frombuffer(b"".join(samples), np.uint8), "encoded_offsets": offsets}
