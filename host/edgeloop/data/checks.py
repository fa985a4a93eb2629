"""Faults of arrays, reported all at once, each with its split and array."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.dataset import DataSplit
from edgeloop.data.encoded import split_encoded
from edgeloop.errors import DataError, Fault

SPLITS = ("train", "validation", "calibration", "test")
UNLABELLED = "unlabelled"
"""Inputs alone, which a network may be distilled on."""

_SHARED_MAX_FRACTION = 0.01
"""A few exact copies are found in honest data sets; more than this and a score is partly memory."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")


class Sides(NamedTuple):
    """Inputs and targets by tensor name."""

    x: dict[str, NDArray[Any]]
    y: dict[str, NDArray[Any]]


def checked_splits(splits: Mapping[str, object], where: str) -> dict[str, DataSplit]:
    """Return the splits with plain tensor names, floats as float32 and wide integers narrowed.

    `splits` maps a split's name, or "" for samples that are still to be divided, to a dictionary of arrays by the
    keys `x`, `y`, `x/<input>`, `y/<name>`, with `encoded` beside them or not. Raises DataError with a line for each
    fault.
    """
    faults = list(_split_name_faults(splits, where))
    sides: dict[str, Sides] = {}
    encoded_samples: dict[str, tuple[bytes, ...] | None] = {}
    for name in (name for name in ("", *SPLITS, UNLABELLED) if name in splits):
        place = f"{where}: split {name!r}" if name else where
        arrays, encoded_samples[name], own = split_encoded(splits[name], place)
        faults += own
        sides[name], own = sides_of(arrays, place)
        faults += own
        faults += _length_faults(sides[name], encoded_samples[name], place)
    if "train" in sides:
        train = sides["train"]
        for name, other in sides.items():
            if name != "train":
                model = Sides(train.x, {} if name == UNLABELLED else train.y)
                faults += _difference_faults(model, other, f"{where}: split {name!r}")
    if faults:
        raise DataError("\n".join(map(str, faults)))
    return {name: DataSplit(x, y, encoded_samples[name]) for name, (x, y) in sides.items()}


def sides_of(arrays: object, where: str, *, needs_x: bool = True) -> tuple[Sides, list[Fault]]:
    """Sort arrays by key into x and y, each array checked by itself; return them with their faults."""
    x: dict[str, NDArray[Any]] = {}
    y: dict[str, NDArray[Any]] = {}
    if not isinstance(arrays, Mapping):
        return Sides(x, y), [Fault(where, f"is a {type(arrays).__name__}", "give a dictionary of arrays, x and y")]
    faults: list[Fault] = []
    for key, value in arrays.items():
        side, slash, name = str(key).partition("/")
        place = f"{where}: {key}"
        if side not in {"x", "y"} or (slash and not _NAME.match(name)):
            faults.append(Fault(place, "unknown key", "arrays are named x, y, x/<input> or y/<name>"))
            continue
        array, own = _array(value, side, place)
        faults += own
        if array is not None:
            (x if side == "x" else y)[name or side] = array
    for side, names in (("x", x), ("y", y)):
        if side in map(str, arrays) and len(names) > 1:
            faults.append(Fault(where, f"has both {side} and {side}/<name>", f"name every one {side}/<name>"))
    if needs_x and not any(str(key).partition("/")[0] == "x" for key in arrays):
        keys = ", ".join(map(str, arrays)) or "nothing"
        faults.append(Fault(where, f"no x, only {keys}", "inputs are named x, or x/<input>"))
    return Sides(x, y), faults


def _split_name_faults(splits: Mapping[str, object], where: str) -> Iterator[Fault]:
    if "" in splits and len(splits) > 1:
        loose_arrays = splits[""]
        loose = ", ".join(map(str, loose_arrays if isinstance(loose_arrays, Mapping) else ()))
        yield Fault(where, f"has splits and, beside them, {loose}", "name every array SPLIT/x and SPLIT/y, or none")
    for name in splits:
        if name not in {"", *SPLITS, UNLABELLED}:
            yield Fault(where, f"unknown split {name!r}", f"splits are {', '.join((*SPLITS, UNLABELLED))}")
    if "" not in splits:
        for name in ("train", "test"):
            if name not in splits:
                yield Fault(where, f"split {name!r} is missing", "train and test are needed, the others may be absent")


def _array(value: object, side: str, where: str) -> tuple[NDArray[Any] | None, list[Fault]]:
    if not isinstance(value, np.ndarray):
        return None, [Fault(where, f"is a {type(value).__name__}, not an array", "give a numpy array")]
    if value.dtype.kind not in "fiu":
        kind = "of objects" if value.dtype.kind == "O" else f"of {value.dtype}"
        return None, [Fault(where, f"an array {kind}", "give floats or integers")]
    if value.ndim == 0:
        return None, [Fault(where, "a single number", "the first axis is the sample")]
    if value.size == 0:
        return None, [Fault(where, f"empty: shape {value.shape}")]
    if side == "x" and value.ndim == 1:
        return None, [Fault(where, f"shape {value.shape} has no feature axis", "give (samples, 1)")]
    if value.dtype.kind == "f":
        return _floats(value, side, where)
    dtype = np.dtype(np.int64) if side == "y" else np.dtype(np.int32) if value.dtype.itemsize > 4 else value.dtype
    if value.dtype == np.uint32 and side == "x":
        dtype = np.dtype(np.int32)
    span = np.iinfo(dtype)
    if int(value.min()) < span.min or int(value.max()) > span.max:
        return None, [Fault(where, f"integers from {value.min()} to {value.max()} go beyond {dtype}")]
    return value.astype(dtype), []


def _floats(value: NDArray[Any], side: str, where: str) -> tuple[NDArray[Any] | None, list[Fault]]:
    bad = int(np.count_nonzero(~np.isfinite(value)))
    if bad:
        first = int(np.argwhere(~np.isfinite(value))[0][0])
        return None, [Fault(where, f"{bad} values are NaN or infinite, the first in sample {first}", "remove them")]
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(value, dtype=np.float32)
    if not np.isfinite(narrow).all():
        return None, [Fault(where, f"values up to {np.abs(value).max():.3g} go beyond float32", "scale them")]
    # A loss between (n, 1) outputs and (n,) targets would broadcast to (n, n) and train on nonsense.
    return (narrow[:, None] if side == "y" and narrow.ndim == 1 else narrow), []


def _length_faults(sides: Sides, encoded_samples: tuple[bytes, ...] | None, where: str) -> Iterator[Fault]:
    lengths = {
        f"{side}/{name}": len(array) for side, arrays in zip("xy", sides, strict=True) for name, array in arrays.items()
    }
    lengths |= {} if encoded_samples is None else {"encoded": len(encoded_samples)}
    if len(set(lengths.values())) > 1:
        yield Fault(where, "arrays of different lengths: " + ", ".join(f"{k} {n}" for k, n in lengths.items()))
    elif set(lengths.values()) == {1}:
        yield Fault(where, "one sample only", "give at least two")


def _difference_faults(train: Sides, other: Sides, where: str) -> Iterator[Fault]:
    for side, theirs, own in zip("xy", train, other, strict=True):
        for name in sorted(theirs.keys() | own.keys()):
            if name not in own:
                yield Fault(f"{where}: {side}/{name}", "missing or unusable, but in train")
            elif name not in theirs:
                yield Fault(f"{where}: {side}/{name}", "not in train, or unusable there")
            elif own[name].shape[1:] != theirs[name].shape[1:]:
                yield Fault(
                    f"{where}: {side}/{name}",
                    f"samples of shape {own[name].shape[1:]}, but {theirs[name].shape[1:]} in train",
                )
            elif own[name].dtype != theirs[name].dtype:
                yield Fault(f"{where}: {side}/{name}", f"{own[name].dtype}, but {theirs[name].dtype} in train")


def shared_samples(splits: Mapping[str, DataSplit], where: str) -> list[Fault]:
    """Return a fault for each two splits that share more than 1 % of the second one's inputs, as exact copies."""
    prints = {name: _prints(split) for name, split in splits.items()}
    faults = []
    pairs = [*combinations(SPLITS, 2), *((UNLABELLED, name) for name in SPLITS[1:] if UNLABELLED in splits)]
    for one, other in pairs:
        # counted in the split that is judged: test before calibration before validation before train
        earlier = set(prints[one])
        count = sum(print_ in earlier for print_ in prints[other])
        if count > _SHARED_MAX_FRACTION * len(prints[other]):
            faults.append(
                Fault(
                    f"{where}: split {other!r}",
                    f"{count} of {len(prints[other])} samples are exact copies of samples in {one!r}",
                    "remove the copies: a score on them measures memory",
                )
            )
    return faults


def _prints(split: DataSplit) -> list[bytes]:
    rows = [np.ascontiguousarray(array) for _, array in sorted(split.x.items())]
    return [
        hashlib.blake2b(b"".join(row[i].tobytes() for row in rows), digest_size=16).digest() for i in range(len(split))
    ]
