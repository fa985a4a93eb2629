"""Which networks are larger, and the size difference evaluation function."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.core.campaign import Search
from edgeloop.core.network import NetworkSizes, NetworkSpec
from edgeloop.errors import UserError
from edgeloop.search.larger_networks import (
    SHAPES,
    PredictBytes,
    bytes_curve,
    determine,
    larger,
    parity_delta,
    score_j,
    shape_of,
    size_evaluation,
    tent,
)
from edgeloop.testing.fakes.simulated_board import simulated_sizes

M1 = NetworkSpec(family="ds_cnn")
M1_SIZES = simulated_sizes(M1)


def sizes(parameters: int, macs: int) -> NetworkSizes:
    return NetworkSizes(parameters=parameters, macs=macs, layers=(), activations=(), peak_activation_elements=0)


@pytest.mark.parametrize(
    ("parameters", "macs", "expected"),
    [(11, 11, True), (11, 10, False), (10, 11, False), (10, 10, False), (9, 20, False)],
)
def test_larger_means_parameters_and_macs_both_strictly(parameters: int, macs: int, expected: bool) -> None:
    assert larger(sizes(10, 10), sizes(parameters, macs)) is expected


def test_networks_come_from_the_smallest_and_what_is_not_larger_is_said() -> None:
    search = Search(widths=(2.0, 1.0, 1.41, 1.45))
    networks, left_out = determine(M1, M1_SIZES, search, simulated_sizes)
    assert [network.label for network in networks] == ["width 1.41", "width 2"]
    assert any("width 1 is left out" in sentence and "not both more" in sentence for sentence in left_out)
    assert any("width 1.45" in sentence and "width 1.41" in sentence for sentence in left_out)


def test_widths_multiply_the_references_own_width_and_depth_steps_add_to_its_depth() -> None:
    m1 = NetworkSpec(family="ds_cnn", width=0.5, depth=1, weights="/m1.pt", weights_sha256="0")
    networks, _ = determine(m1, simulated_sizes(m1), Search(widths=(2.0,), depths=(0, 2)), simulated_sizes)
    assert [(n.spec.width, n.spec.depth) for n in networks] == [(1.0, 1), (1.0, 3)]
    assert all(n.spec.weights is None for n in networks)


def test_widened_networks_say_what_they_are_widened_from() -> None:
    m1 = NetworkSpec(family="ds_cnn", width=0.5)
    networks, _ = determine(m1, simulated_sizes(m1), Search(widths=(4.0,)), simulated_sizes, "widen")
    assert [(n.spec.width, n.spec.widened_from) for n in networks] == [(2.0, 0.5)]


def test_networks_of_a_list_have_no_width_and_come_from_the_smallest() -> None:
    given = [
        NetworkSpec(factory=f"/somewhere/big.py:{name}", source_sha256="0", width=w, listed=True)
        for name, w in (("huge", 3.0), ("large", 2.0), ("tiny", 0.5))
    ]
    networks, left_out = determine(M1, M1_SIZES, Search(), simulated_sizes, tuple(given))
    assert [n.label for n in networks] == ["big.py:large", "big.py:huge"]
    assert left_out[0].startswith("big.py:tiny is left out: ")


def evaluation(params_m1: int, params_m2: int, bytes_m1: int, predict: PredictBytes) -> float:
    return size_evaluation(tent, params_m1, params_m2, parity_delta(bytes_m1, predict))


def test_the_tent_rises_to_parity_and_halves_with_each_doubling_beyond() -> None:
    def predict(delta: float) -> float:  # parity where the parameters have doubled twice
        return 1000 * 2 ** (delta - 2)

    assert evaluation(100, 200, 1000, predict) == pytest.approx(0.5)
    assert evaluation(100, 400, 1000, predict) == pytest.approx(1.0)
    assert evaluation(100, 800, 1000, predict) == pytest.approx(0.5)
    assert evaluation(100, 1600, 1000, predict) == pytest.approx(0.25)


def test_a_network_that_is_not_larger_evaluates_to_0() -> None:
    assert evaluation(100, 100, 1000, lambda _: 1.0) == 0.0
    assert evaluation(100, 50, 1000, lambda _: 1.0) == 0.0


def test_where_even_m1s_own_size_is_over_the_budget_the_smallest_larger_network_is_best() -> None:
    values = [evaluation(100, parameters, 1000, lambda delta: 2000 * 2**delta) for parameters in (120, 200, 400)]
    assert values == sorted(values, reverse=True)
    assert values[0] < 1


@pytest.mark.parametrize(
    ("name", "below", "at", "beyond"),
    [("tent", 0.5, 1.0, 0.5), ("saturating", 0.5, 1.0, 1.0), ("parity", 0.5, 1.0, 0.5), ("off", 1.0, 1.0, 1.0)],
)
def test_each_shape_has_its_own_form_around_parity(name: str, below: float, at: float, beyond: float) -> None:
    shape = shape_of(name)
    found = [size_evaluation(shape, 100, parameters, 2.0) for parameters in (200, 400, 800)]
    assert found == pytest.approx([below, at, beyond])
    assert size_evaluation(shape, 100, 100, 2.0) == 0.0


def test_parity_punishes_a_small_network_where_the_tent_rises_in_a_line() -> None:
    assert SHAPES["parity"](1.0, 4.0) == pytest.approx(2**-3)
    assert SHAPES["tent"](1.0, 4.0) == pytest.approx(1 / 4)


@pytest.mark.parametrize("name", sorted(SHAPES))
@given(delta=st.floats(1e-6, 24), parity=st.floats(1e-6, 24))
def test_every_shape_gives_a_share(name: str, delta: float, parity: float) -> None:
    assert 0 <= SHAPES[name](delta, parity) <= 1


def test_a_users_own_shape_is_called_and_checked(tmp_path: Path) -> None:
    file = tmp_path / "shape.py"
    file.write_text("def half(delta, parity):\n    return 0.5\ndef wrong(delta, parity):\n    return 2\n")
    assert size_evaluation(shape_of(f"{file}:half"), 100, 200, 2.0) == 0.5
    with pytest.raises(UserError, match=r"shape\.py:wrong: gave 2 for delta 1"):
        size_evaluation(shape_of(f"{file}:wrong"), 100, 200, 2.0)


def test_parity_lies_on_the_interpolated_curve_through_real_networks() -> None:
    curve = bytes_curve([(0.0, 500.0), (1.0, 800.0), (2.0, 1400.0)])
    assert curve(1.0) == pytest.approx(800)
    assert curve(parity_delta(1000, curve)) == pytest.approx(1000)
    assert curve(3.0) == pytest.approx(2800)


@given(
    st.lists(st.tuples(st.floats(0, 6), st.floats(1, 1e7)), min_size=1, max_size=6), st.floats(0, 8), st.floats(0, 8)
)
def test_predicted_bytes_never_fall_with_delta(points: list[tuple[float, float]], one: float, other: float) -> None:
    curve = bytes_curve(points)
    low, high = sorted((one, other))
    assert curve(low) <= curve(high) * (1 + 1e-9)


@given(st.integers(101, 10**6), st.integers(200, 10**6))
def test_the_evaluation_is_a_share(parameters: int, budget: int) -> None:
    assert 0 < evaluation(100, parameters, budget, lambda delta: 150 + 50 * 2**delta) <= 1


def test_interpolating_between_no_networks_is_an_error() -> None:
    with pytest.raises(ValueError, match="no network"):
        bytes_curve([])


def test_the_score_falls_with_latency_by_mnasnets_exponent_and_refuses_none() -> None:
    assert score_j(0.9, 10, 10, 1.0) == pytest.approx(0.9)
    assert score_j(0.9, 20, 10, 1.0) == pytest.approx(0.9 * math.pow(2, -0.07))
    assert score_j(0.9, 10, 10, 0.5) == pytest.approx(0.9 * math.pow(0.5, 0.07))
    with pytest.raises(ValueError, match="positive"):
        score_j(0.9, 0, 10, 1.0)


def test_given_networks_of_equal_size_are_different_networks() -> None:
    given = tuple(NetworkSpec(factory=f"/net.py:{name}", source_sha256="0" * 64, listed=True) for name in ("a", "b"))
    found, left_out = determine(M1, sizes(100, 100), Search(), lambda _: sizes(200, 200), given)
    assert [one.label for one in found] == ["net.py:a", "net.py:b"]
    assert not left_out
