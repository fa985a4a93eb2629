"""From the `[data]` table to a data set: the provider's arrays, checked, divided, put in order, and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from edgeloop.core.campaign import Data
from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.data import providers
from edgeloop.data.checks import checked_splits, shared_samples
from edgeloop.data.splits import SPLIT_SEED, Sizes, complete, divide, in_order
from edgeloop.errors import DataError, Fault


def load(data: Data) -> DataSet:
    """Return the data set: x and y by tensor name, float32 or integers, channel-last, the sample first.

    A lone `x` is named `x`, `x/image` is named `image`; y likewise. Equal `data` and equal files give an equal
    data set. The samples of every split stand in a seeded order whose heads hold all classes in proportion.

    Raises DataError (one line a fault, all at once), MissingExtraError where the package that holds the data is
    not installed, UserError where a factory fails.
    """
    source = providers.read(data)
    arrays = checked_splits(source.splits, source.where)
    rng = np.random.default_rng(SPLIT_SEED)
    if set(arrays) == {""}:
        splits = divide(arrays[""], source.sizes or Sizes.of(len(arrays[""])), rng, source.where)
    else:
        splits = complete({name: in_order(split, rng) for name, split in arrays.items()}, source.where)
    faults = shared_samples(splits, source.where)
    with_encoded = [name for name in ("validation", "test") if splits[name].encoded is not None]
    if len(with_encoded) == 1:
        other = "test" if with_encoded == ["validation"] else "validation"
        step = "a board scores both, so give encoded for both"
        faults.append(Fault(f"{source.where}: split {other!r}", f"no encoded, and {with_encoded[0]} has it", step))
    if faults:
        raise DataError("\n".join(map(str, faults)))
    return DataSet(**splits, sha256=_digest(splits))


def _digest(splits: Mapping[str, DataSplit]) -> str:
    """SHA-256 of all arrays with their names, types and shapes; the order of a dictionary does not matter."""
    digest = hashlib.sha256()
    for name, split in sorted(splits.items()):
        for side, arrays in (("x", split.x), ("y", split.y)):
            for key, array in sorted(arrays.items()):
                little = array.astype(array.dtype.newbyteorder("<"), copy=False)
                digest.update(f"{name}/{side}/{key} {little.dtype.str} {little.shape}\n".encode())
                digest.update(np.ascontiguousarray(little).data)
        for sample in split.encoded or ():
            digest.update(f"{name}/encoded {len(sample)}\n".encode())
            digest.update(sample)
    return digest.hexdigest()
