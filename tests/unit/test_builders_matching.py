"""Tensors are found again by their values."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.builders.tflite.matching import Op, Range, assign_layers, assign_ranges, distance, fingerprint, nearest


def _values(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_fingerprint_does_not_know_the_layout() -> None:
    values = _values(0, 1, 4, 6, 3)
    turned = values.transpose(0, 3, 1, 2)
    assert distance(fingerprint([values]), fingerprint([turned])) < 1e-12


def test_a_fingerprint_counts_the_elements_of_one_sample() -> None:
    assert fingerprint([_values(0, 1, 5), _values(1, 1, 5)])[0] == 5


def test_another_element_count_never_matches() -> None:
    padded = np.pad(_values(0, 1, 4, 4), ((0, 0), (1, 1), (1, 1)))
    assert nearest(fingerprint([padded]), {"a": fingerprint([_values(0, 1, 4, 4)])}) is None


def test_the_nearest_of_two_that_are_within_tolerance_wins() -> None:
    values = _values(0, 1, 100)
    known = {"near": fingerprint([values * 1.0002]), "exact": fingerprint([values * 1.00001])}
    assert nearest(fingerprint([values]), known) == "exact"


def test_what_differs_by_more_than_a_thousandth_of_the_range_does_not_match() -> None:
    values = _values(0, 1, 100)
    assert nearest(fingerprint([values]), {"a": fingerprint([values * 1.01])}) is None


@pytest.fixture
def marks() -> dict[int, tuple[float, float, float, float, float, float]]:
    return {
        0: fingerprint([_values(0, 1, 16)]),
        1: fingerprint([np.pad(_values(0, 1, 16), ((0, 0), (2, 2)))]),
        2: fingerprint([_values(2, 1, 8)]),
        3: fingerprint([1 / (1 + np.exp(-_values(2, 1, 8)))]),
        4: fingerprint([_values(4, 1, 7)]),
    }


def test_a_padded_tensor_takes_its_sources_range_and_a_logistic_keeps_the_kernels(marks) -> None:
    ops = [Op("PAD", (0,), (1,)), Op("CONV_2D", (1,), (2,)), Op("LOGISTIC", (2,), (3,)), Op("ADD", (3, 2), (4,))]
    trained = {"x": (marks[0], Range(-1, 2)), "conv": (marks[2], Range(0, 5))}
    ranges, fixed = assign_ranges(ops, [0], marks, trained)
    assert ranges == {0: Range(-1, 2), 1: Range(-1, 2), 2: Range(0, 5)}
    assert fixed == {3}


def test_a_reshape_of_a_fixed_tensor_is_fixed_too(marks) -> None:
    ops = [Op("LOGISTIC", (2,), (3,)), Op("RESHAPE", (3,), (4,))]
    assert assign_ranges(ops, [2], marks, {})[1] == {3, 4}


def test_a_split_takes_the_range_of_its_second_operand_since_the_first_is_the_axis(marks) -> None:
    ops = [Op("SPLIT", (9, 0), (2, 4))]
    ranges, _ = assign_ranges(ops, [0], marks, {"x": (marks[0], Range(-3, 3))})
    assert ranges[2] == ranges[4] == Range(-3, 3)


def test_trained_layers_that_are_not_found_are_named() -> None:
    found, lost = _values(1, 8, 4), _values(2, 8, 4)
    trained = {"found": (fingerprint([found]), 4), "lost": (fingerprint([lost]), 4)}
    bits, missing = assign_layers({7: fingerprint([found.T])}, trained)
    assert bits == {7: 4}
    assert missing == ["lost"]
