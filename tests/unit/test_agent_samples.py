"""Inputs of a session: types and shapes by one rule, streamed from a .npz, or random in the tensor's range."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop_agent.errors import RefusedError
from edgeloop_agent.samples import HELD_SAMPLES_MAX, SampleData, for_latency, random_sample, to_stored
from edgeloop_agent.wire import Tensor

FLOAT = Tensor("in", "float32", [1, 2, 3], None, None)
INT8 = Tensor("in", "int8", [1, 2, 3], 0.5, 3)


def npz(path: Path, *, compressed: bool = False, **arrays: Any) -> str:
    named = {name.replace("__", "/"): array for name, array in arrays.items()}
    (np.savez_compressed if compressed else np.savez)(path, **named)
    return str(path)


def rows(data: SampleData) -> list[Any]:
    return [np.array(column) for column in zip(*data, strict=True)]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("shape", [(5, 2, 3), (5, 1, 2, 3)])
def test_samples_come_in_order_with_or_without_their_batch(
    tmp_path: Path, shape: tuple[int, ...], compressed: bool
) -> None:
    x = np.arange(30, dtype=np.float32).reshape(shape)
    data = SampleData(npz(tmp_path / "d.npz", compressed=compressed, x=x), ["image"], [FLOAT])
    assert data.count == 5
    np.testing.assert_array_equal(rows(data)[0].reshape(shape), x)


def test_float_data_are_quantized_half_to_even_and_clipped() -> None:
    values = np.array([0.25, 0.75, -0.25, 1e9, -np.inf, 0.0], np.float32).reshape(1, 2, 3)
    assert to_stored(values, INT8, "x").ravel().tolist() == [3, 5, 3, 127, -128, 3]
    assert to_stored(values.astype(np.float64), INT8, "x").dtype == np.int8


def test_the_same_type_goes_in_raw() -> None:
    stored = np.arange(6, dtype=np.int8).reshape(1, 2, 3)
    np.testing.assert_array_equal(to_stored(stored, INT8, "x"), stored)


def test_inputs_are_found_by_name_and_in_order(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", x__b=np.ones((2, 2, 3), np.float32), x__a=np.zeros((2, 2, 3), np.int8))
    first, second = rows(SampleData(path, ["a", "b"], [INT8, FLOAT]))
    assert (first.max(), second.min()) == (0, 1)


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"x": np.zeros((4, 3, 3), np.float32)}, "x: samples have the shape (3, 3), the model's input takes (2, 3)"),
        ({"x": np.zeros((4, 2, 3), np.int32)}, "x: the data are int32, the model's input takes int8"),
        ({"x": np.zeros((4, 2, 3), np.uint8)}, "the data are uint8"),
        ({"x": np.zeros((0, 2, 3), np.float32)}, "the data hold no samples"),
        ({"x": np.float32(1)}, "with the sample first"),
        ({"y": np.zeros((4, 2, 3), np.float32)}, "the data hold no x for the model's input; they hold y"),
        ({"x": np.asfortranarray(np.zeros((4, 2, 3), np.float32))}, "Fortran order"),
        ({"x": np.full((1, 2, 3), np.nan, np.float32)}, "a sample holds NaN"),
    ],
)
def test_what_does_not_fit_is_refused_with_one_line(tmp_path: Path, arrays: dict[str, Any], line: str) -> None:
    with pytest.raises(RefusedError, match=re.escape(line)):
        rows(SampleData(npz(tmp_path / "d.npz", **arrays), ["image"], [INT8]))


def test_two_inputs_of_different_lengths_are_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", x__a=np.zeros((2, 2, 3), np.float32), x__b=np.zeros((3, 2, 3), np.float32))
    with pytest.raises(RefusedError, match="different numbers of samples: 2, 3"):
        SampleData(path, ["a", "b"], [FLOAT, FLOAT])


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(b"not a zip")
    with pytest.raises(RefusedError, match="can't be read"):
        SampleData(str(path), ["a"], [FLOAT])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"rubbish")
    with pytest.raises(RefusedError, match=r"not an \.npy array"):
        SampleData(str(path), ["a"], [FLOAT])
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (9, 2, 3)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(30))
    with pytest.raises(RefusedError, match="cut short"):
        rows(SampleData(str(path), ["a"], [FLOAT]))


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    path = npz(tmp_path / "d.npz", x=np.array([{"a": 1}] * 3, object))
    with pytest.raises(RefusedError, match="an array of numbers"):
        SampleData(path, ["a"], [FLOAT])


def test_a_latency_session_holds_a_bounded_number_of_the_first_samples(tmp_path: Path) -> None:
    small = SampleData(npz(tmp_path / "s.npz", x=np.arange(600, dtype=np.float32).reshape(100, 2, 3)), ["a"], [FLOAT])
    held = for_latency(small, [FLOAT], 0)
    assert len(held) == HELD_SAMPLES_MAX
    assert held[1][0].ravel().tolist() == [6, 7, 8, 9, 10, 11]
    big = Tensor("in", "float32", [1, 3_000_000], None, None)
    large = SampleData(npz(tmp_path / "l.npz", x=np.zeros((2, 3_000_000), np.float32)), ["a"], [big])
    assert len(for_latency(large, [big], 0)) == 1


@pytest.mark.parametrize(
    ("tensor", "low", "high"),
    [
        (Tensor("t", "float32", [1, 500], None, None), 0.0, 1.0),
        (Tensor("t", "int8", [1, 500], 0.1, 0), -128, 127),
        (Tensor("t", "uint8", [1, 500], None, None), 0, 255),
        (Tensor("t", "int32", [1, 500], None, None), 0, 1),
        (Tensor("t", "bool", [1, 500], None, None), 0, 1),
    ],
)
def test_random_inputs_fill_the_tensors_type_and_range_by_their_seed(tensor: Tensor, low: float, high: float) -> None:
    (first,), (same,), (other,) = (random_sample([tensor], seed) for seed in (1, 1, 2))
    assert first.dtype == np.dtype(tensor.dtype)
    assert first.shape == (1, 500)
    assert low <= first.min() < first.max() <= high
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_an_input_of_text_needs_data() -> None:
    with pytest.raises(RefusedError, match="give data"):
        random_sample([Tensor("t", "bytes", [1], None, None)], 0)
