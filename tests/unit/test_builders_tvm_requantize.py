"""The numbers of integer arithmetic against exact arithmetic on real values."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.builders.tvm.dot import NEON, SDOT, VNNI
from edgeloop.builders.tvm.quantized.graph import core_for
from edgeloop.builders.tvm.quantized.requantize import (
    HIGHEST,
    LOWEST,
    Addition,
    Steps,
    addition,
    fold_zero_point,
    multipliers,
    regrid_table,
    table,
)

stored = st.integers(LOWEST, HIGHEST)
grids = st.builds(Steps, st.floats(1e-4, 10.0).map(lambda x: float(np.float32(x))), stored)


def exact(grid: Steps, value: int) -> Fraction:
    return (value - grid.zero) * Fraction(grid.scale)


def steps_apart(grid: Steps, found: int, wanted: Fraction) -> Fraction:
    """How far a stored value is from a real one that may lie beyond the grid's ends, in steps."""
    ends = [exact(grid, end) for end in (LOWEST, HIGHEST)]
    return abs(exact(grid, found) - min(max(wanted, ends[0]), ends[1])) / Fraction(grid.scale)


@given(st.data(), stored)
def test_a_zero_point_folded_into_the_bias_gives_the_same_sum(data: st.DataObject, zero: int) -> None:
    channels, depth = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 9))
    random = np.random.default_rng(data.draw(st.integers(0, 1 << 16)))
    weights = random.integers(LOWEST, HIGHEST + 1, (channels, depth)).astype(np.int8)
    x = random.integers(LOWEST, HIGHEST + 1, depth)
    bias = random.integers(-(1 << 20), 1 << 20, channels).astype(np.int32)
    wanted = weights.astype(np.int64) @ (x - zero) + bias
    assert (weights.astype(np.int64) @ x + fold_zero_point(bias, weights, zero) == wanted).all()


def sum_of(how: Addition, made: Steps, a: int, b: int) -> int:
    total = a * how.by_a + b * how.by_b + how.bias
    assert -(1 << 31) <= total < 1 << 31  # as compiled code has it
    return min(max((total >> how.shift) + made.zero, LOWEST), HIGHEST)


@given(grids, st.floats(0.05, 1.0), st.floats(0.5, 4.0), stored, stored, stored, stored, st.sampled_from([1, -1]))
def test_fixed_point_addition_is_within_a_step_of_the_real_sum(
    first: Steps, ratio: float, wider: float, zero_b: int, zero: int, a: int, b: int, sign: int
) -> None:
    second = Steps(float(np.float32(first.scale * ratio)), zero_b)
    made = Steps(float(np.float32(first.scale * wider)), zero)
    found = sum_of(addition(first, second, made, sign), made, a, b)
    assert steps_apart(made, found, exact(first, a) + sign * exact(second, b)) < Fraction(501, 1000)


@given(grids, grids)
def test_a_table_says_what_the_function_says_of_every_stored_value(before: Steps, behind: Steps) -> None:
    found = table(lambda x: x, before, behind)
    assert len(found) == HIGHEST - LOWEST + 1
    for value in (LOWEST, -1, 0, 1, HIGHEST):
        wanted = exact(before, value)
        assert steps_apart(behind, int(found[value - LOWEST]), wanted) < Fraction(51, 100)


def test_multipliers_are_those_of_the_kernels_to_the_bit() -> None:
    one = multipliers(0.1, np.asarray([0.3], np.float32), 0.7)
    assert one.dtype == np.float32
    assert one[0] == np.float32(np.float32(0.1) * np.float32(0.3)) / np.float32(0.7)


@pytest.mark.parametrize(
    ("activation", "bounds"),
    [("NONE", (-128, 127)), ("RELU", (-28, 127)), ("RELU6", (-28, 92)), ("RELU_N1_TO_1", (-48, -8))],
)
def test_a_fused_activation_is_a_bound_on_what_is_stored(activation: str, bounds: tuple[int, int]) -> None:
    assert Steps(0.05, -28).bounds(activation) == bounds


def test_a_core_takes_the_best_instruction_that_llvm_knows_of_it() -> None:
    assert core_for("x86_64", {"avx512vnni"}.__contains__).dot is VNNI
    assert core_for("x86_64", lambda _: False).dot is None
    assert core_for("aarch64", {"dotprod"}.__contains__).dot is SDOT
    assert core_for("aarch64", lambda _: False).dot is NEON


@given(grids, st.floats(0.3, 3.0), stored)
def test_from_one_grid_to_another_is_within_a_step(before: Steps, ratio: float, zero: int) -> None:
    behind = Steps(float(np.float32(before.scale / ratio)), zero)
    found = regrid_table(before, behind)
    for value in (LOWEST, before.zero, HIGHEST):
        # 8 fractional bits of the ratio, over up to 255 steps
        assert steps_apart(behind, int(found[value - LOWEST]), exact(before, value)) < Fraction(105, 100)
