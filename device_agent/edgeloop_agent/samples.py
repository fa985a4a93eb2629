"""Input samples of a session: streamed from a .npz so that memory stays bounded, or random in the tensor's range."""

from __future__ import annotations

import random
import tokenize
import zipfile
import zlib
from typing import IO, Any, Iterator, Optional

import numpy as np

from edgeloop_agent.engines.interpreter import RefusedError
from edgeloop_agent.wire import Tensor

Sample = list[Any]
"""One array for each input, of the tensor's own shape and type."""
HELD_BYTES_MAX = 4 << 20  # what a latency session keeps: more would show in its peak memory
HELD_SAMPLES_MAX = 64
_RANDOM_SAMPLES = 8


class _Column:
    """One array of a .npz, read sample by sample."""

    def __init__(self, archive: zipfile.ZipFile, key: str, tensor: Tensor) -> None:
        self._key, self._tensor = key, tensor
        try:
            self._file: Any = archive.open(key + ".npy")
        except KeyError:
            held = ", ".join(sorted(name[:-4] for name in archive.namelist())[:8])
            message = "the data hold no %s for the model's input; they hold %s" % (key, held or "nothing")
            raise RefusedError(message) from None
        shape, fortran, dtype = _header(self._file, key)
        if fortran and len(shape) > 1:
            raise RefusedError("%s: samples are not contiguous (Fortran order)" % key)
        if not shape or dtype.hasobject:
            raise RefusedError("%s: an array of numbers with the sample first is wanted" % key)
        wanted = tuple(tensor.shape)
        inner = wanted[1:] if wanted[:1] == (1,) else wanted
        if shape[1:] not in (wanted, inner):
            raise RefusedError("%s: samples have the shape %s, the model's input takes %s" % (key, shape[1:], inner))
        self.count = shape[0]
        self._dtype = dtype
        self._bytes = dtype.itemsize * _product(shape[1:])
        refuse_types(key, dtype, tensor)

    def next(self) -> Any:
        raw = _exactly(self._file, self._bytes, self._key)
        values = np.frombuffer(raw, self._dtype).reshape(self._tensor.shape)
        return to_stored(values, self._tensor, self._key)


def _header(handle: IO[bytes], key: str) -> tuple[tuple[int, ...], bool, Any]:
    try:
        version = np.lib.format.read_magic(handle)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(handle)
        return np.lib.format.read_array_header_2_0(handle)
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise RefusedError("%s: not an .npy array" % key) from error


def _exactly(handle: IO[bytes], size: int, key: str) -> bytes:
    try:
        raw = handle.read(size)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise RefusedError("%s: the data file is damaged" % key) from error
    if len(raw) != size:
        raise RefusedError("%s: the data file is cut short" % key)
    return raw


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def refuse_types(key: str, dtype: Any, tensor: Tensor) -> None:
    """Raise RefusedError where data of a type can't go into a tensor."""
    same = np.dtype(tensor.dtype) == dtype.newbyteorder("=")
    floats = dtype.kind == "f" and (tensor.scale is not None or np.dtype(tensor.dtype).kind == "f")
    if not same and not floats:
        raise RefusedError("%s: the data are %s, the model's input takes %s" % (key, dtype.name, tensor.dtype))


def to_stored(values: Any, tensor: Tensor, key: str) -> Any:
    """Return values as a tensor stores them: the same type goes in raw, float is quantized by the tensor's own scale.

    The arithmetic is the host's: values / float32(scale), round half to even, add the zero point, clip.
    """
    dtype = np.dtype(tensor.dtype)
    if values.dtype == dtype or tensor.scale is None or values.dtype.kind != "f":
        return np.ascontiguousarray(values, dtype)
    if values.dtype.itemsize < 4:
        values = values.astype(np.float32)
    if np.isnan(values).any():
        raise RefusedError("%s: a sample holds NaN, which no quantized input can take" % key)
    limits = np.iinfo(dtype)
    steps = np.rint(values / np.float32(tensor.scale)) + tensor.zero_point
    return np.clip(steps, limits.min, limits.max).astype(dtype)


class Data:
    """The samples of a .npz in the order of the model's inputs. Raises RefusedError where they do not fit."""

    def __init__(self, path: str, names: list[str], tensors: list[Tensor]) -> None:
        try:
            archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise RefusedError("the data file can't be read: %s" % error) from error
        held = set(archive.namelist())
        self._columns = []
        for index, tensor in enumerate(tensors):
            named = "x/" + names[index]
            key = "x" if len(tensors) == 1 and named + ".npy" not in held else named
            self._columns.append(_Column(archive, key, tensor))
        counts = sorted({column.count for column in self._columns})
        if len(counts) > 1:
            raise RefusedError("the inputs' arrays hold different numbers of samples: %s" % ", ".join(map(str, counts)))
        self.count = counts[0]
        if self.count == 0:
            raise RefusedError("the data hold no samples")

    def __iter__(self) -> Iterator[Sample]:
        """Every sample, once: the files are read from their start to their end."""
        for _ in range(self.count):
            yield [column.next() for column in self._columns]


def for_latency(data: Optional[Data], tensors: list[Tensor], seed: int) -> list[Sample]:
    """Return a few samples to cycle through: the first ones of the data, else random ones by the seed."""
    held: list[Sample] = []
    size = 0
    source = iter(data) if data is not None else (random_sample(tensors, seed + i) for i in range(_RANDOM_SAMPLES))
    for sample in source:
        size += sum(array.nbytes for array in sample)
        if held and (size > HELD_BYTES_MAX or len(held) >= HELD_SAMPLES_MAX):
            break
        held.append(sample)
    return held


def random_sample(tensors: list[Tensor], seed: int) -> Sample:
    """Random arrays in the tensor's type and range.

    Floats in [0, 1); quantized integers over their whole range; other integers 0 or 1, since they may be indices.
    """
    source = random.Random(seed)
    sample = []
    for tensor in tensors:
        dtype = np.dtype(tensor.dtype)
        if dtype.kind not in "fiub":
            raise RefusedError("an input of type %s can't be filled with random numbers; give data" % tensor.dtype)
        count = _product(tuple(tensor.shape))
        if dtype.kind == "f":
            bits = np.frombuffer(source.randbytes(count * 4), np.uint32)
            array = ((bits >> 8).astype(np.float32) * np.float32(2**-24)).astype(dtype)
        elif tensor.scale is not None or dtype == np.uint8:
            array = np.frombuffer(source.randbytes(count * dtype.itemsize), dtype)
        else:
            array = (np.frombuffer(source.randbytes(count), np.uint8) & 1).astype(dtype)
        sample.append(np.ascontiguousarray(array.reshape(tensor.shape)))
    return sample
