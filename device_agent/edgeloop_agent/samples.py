"""Input samples of a session: streamed from a .npz so that memory stays bounded, or random in the tensor's range.

Without a pipeline a sample is one array for each input, as the tensors store them. With one it is what the user's
`load` gets: bytes, or the sample's own arrays by name.
"""

from __future__ import annotations

import random
import tokenize
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any, Callable, Iterable, Iterator, Optional, Union

import numpy as np

from edgeloop_agent.errors import RefusedError
from edgeloop_agent.wire import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

Sample = list[Any]
"""One array for each input, of the tensor's own shape and type."""
Encoded = Union[bytes, dict[str, Any]]
"""A sample as a pipeline's `load` gets it."""
HELD_BYTES_MAX = 4 << 20  # of a latency session: more would show in its peak memory
HELD_SAMPLES_MAX = 64
_RANDOM_SAMPLES = 8


class _Column:
    """One array of a .npz, read sample by sample."""

    def __init__(self, archive: zipfile.ZipFile, key: str) -> None:
        self.key = key
        try:
            self._file = archive.open(key + ".npy")
        except KeyError:
            content = ", ".join(sorted(name[:-4] for name in archive.namelist())[:8])
            message = "the data hold no %s for the model's input; they hold %s" % (key, content or "nothing")
            raise RefusedError(message) from None
        shape, fortran, dtype = _header(self._file, key)
        if fortran and len(shape) > 1:
            raise RefusedError("%s: samples are not contiguous (Fortran order)" % key)
        if not shape or dtype.hasobject:
            raise RefusedError("%s: an array of numbers with the sample first is wanted" % key)
        self.count = shape[0]
        self.shape = shape[1:]
        self.dtype = dtype

    def next(self) -> NDArray[Any]:
        return self.read(1).reshape(self.shape)

    def read(self, count: int) -> NDArray[Any]:
        """The next so many samples, flat."""
        size = count * self.dtype.itemsize * _product(self.shape)
        return np.frombuffer(_exactly(self._file, size, self.key), self.dtype)


class _InputColumn(_Column):
    """One array that goes into one input. Channel-last samples go into a channel-first one where shapes tell it."""

    def __init__(self, archive: zipfile.ZipFile, key: str, tensor: Tensor) -> None:
        super().__init__(archive, key)
        whole = tuple(tensor.shape)
        inner = whole[1:] if whole[:1] == (1,) else whole
        fits = self.shape in (whole, inner)
        self._channel_first = len(inner) > 1 and not fits and inner == self.shape[-1:] + self.shape[:-1]
        if not fits and not self._channel_first:
            raise RefusedError("%s: samples have the shape %s, the model's input takes %s" % (key, self.shape, inner))
        refuse_types(key, self.dtype, tensor)
        self._tensor_shape = tensor.shape
        self._store = storer(tensor, key)

    def next(self) -> NDArray[Any]:
        sample = super().next()
        return self._store((np.moveaxis(sample, -1, 0) if self._channel_first else sample).reshape(self._tensor_shape))


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


def refuse_types(key: str, dtype: np.dtype[Any], tensor: Tensor) -> None:
    """Raise RefusedError where data of a type can't go into a tensor."""
    same = np.dtype(tensor.dtype) == dtype.newbyteorder("=")
    floats = dtype.kind == "f" and (tensor.scale is not None or np.dtype(tensor.dtype).kind == "f")
    if not same and not floats:
        raise RefusedError("%s: the data are %s, the model's input takes %s" % (key, dtype.name, tensor.dtype))


def to_stored(values: NDArray[Any], tensor: Tensor, key: str) -> NDArray[Any]:
    """Return values as a tensor stores them: the same type raw, floats quantized by the tensor's own scale."""
    return storer(tensor, key)(values)


def storer(tensor: Tensor, key: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return `to_stored` for one tensor, ready for many samples.

    The arithmetic is the host's: values / float32(scale), round half to even, add the zero point, clip.
    """
    dtype = np.dtype(tensor.dtype)
    if tensor.scale is None:
        return lambda values: np.ascontiguousarray(values, dtype)
    limits, scale, zero = np.iinfo(dtype), np.float32(tensor.scale), tensor.zero_point

    def quantize(values: NDArray[Any]) -> NDArray[Any]:
        if values.dtype.kind != "f":
            return np.ascontiguousarray(values, dtype)
        if values.dtype.itemsize < 4:
            values = values.astype(np.float32)
        steps = np.rint(values / scale) + zero
        lowest = steps.min()
        if lowest != lowest:  # only NaN differs from itself
            raise RefusedError("%s: a sample holds NaN, which no quantized input can take" % key)
        whole: NDArray[Any] = np.maximum(np.minimum(steps, limits.max), limits.min).astype(dtype)
        return whole

    return quantize


def to_real(values: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Return a tensor's stored values as real ones, float32; integers without a scale stay as they are.

    The arithmetic is the host's: (stored - zero point) * scale in float64, then float32.
    """
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    if tensor.scale is None:
        return values
    return ((values.astype(np.float64) - (tensor.zero_point or 0)) * tensor.scale).astype(np.float32)


def _archive(path: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise RefusedError("the data file can't be read: %s" % error) from error


class SampleData:
    """The samples of a .npz in the order of the model's inputs. Raises RefusedError where they do not fit."""

    def __init__(self, path: str, names: list[str], tensors: list[Tensor]) -> None:
        archive = _archive(path)
        members = set(archive.namelist())
        self._columns = []
        for index, tensor in enumerate(tensors):
            full = "x/" + names[index]
            key = "x" if len(tensors) == 1 and full + ".npy" not in members else full
            self._columns.append(_InputColumn(archive, key, tensor))
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


class EncodedData:
    """The samples of a .npz as a pipeline's `load` gets them. Raises RefusedError where they can't be read.

    Bytes where the file holds `encoded` (uint8, one sample after the other) and `encoded_offsets` (int64, where each
    starts, and the end); else the arrays of `x` or `x/<input>`, as they are, by that name.
    """

    def __init__(self, path: str) -> None:
        archive = _archive(path)
        keys = sorted(name[:-4] for name in archive.namelist() if name.endswith(".npy"))
        self._sizes: Optional[NDArray[Any]] = None
        if "encoded" in keys:
            offsets = _Column(archive, "encoded_offsets")
            if offsets.dtype != np.dtype("<i8") or offsets.shape:
                raise RefusedError("encoded_offsets: int64 of shape (samples + 1,) are wanted")
            self._sizes = np.diff(offsets.read(offsets.count))
            self._columns = {"encoded": _Column(archive, "encoded")}
            column = self._columns["encoded"]
            if column.dtype != np.uint8 or column.shape or (self._sizes < 0).any() or self._sizes.sum() != column.count:
                raise RefusedError("encoded: uint8 of shape (bytes,), divided by encoded_offsets, are wanted")
            self.count = len(self._sizes)
        else:
            inputs = [key for key in keys if key == "x" or key.startswith("x/")]
            self._columns = {key[2:] or "x": _Column(archive, key) for key in inputs}
            counts = {column.count for column in self._columns.values()}
            if len(counts) != 1:
                raise RefusedError("the data hold no encoded and no x of one length")
            self.count = counts.pop()
        if self.count == 0:
            raise RefusedError("the data hold no samples")

    def __iter__(self) -> Iterator[Encoded]:
        """Every sample, once: the files are read from their start to their end."""
        for index in range(self.count):
            if self._sizes is not None:
                yield self._columns["encoded"].read(int(self._sizes[index])).tobytes()
            else:
                yield {name: column.next() for name, column in self._columns.items()}


def for_latency(data: Optional[SampleData], tensors: list[Tensor], seed: int) -> list[Sample]:
    """Return a few samples to cycle through: the first ones of the data, else random ones by the seed."""
    if data is None:
        return _first(random_sample(tensors, seed + i) for i in range(_RANDOM_SAMPLES))
    return _first(data)


def encoded_for_latency(data: EncodedData) -> list[Encoded]:
    """Return a few samples to cycle through: the first ones of the data."""
    return _first(data)


def _first(source: Iterable[Any]) -> list[Any]:
    first: list[Any] = []
    size = 0
    for sample in source:
        size += _bytes_of(sample)
        if first and (size > HELD_BYTES_MAX or len(first) >= HELD_SAMPLES_MAX):
            break
        first.append(sample)
    return first


def _bytes_of(sample: Any) -> int:
    if isinstance(sample, bytes):
        return len(sample)
    arrays = sample.values() if isinstance(sample, dict) else sample
    return sum(int(array.nbytes) for array in arrays)


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
