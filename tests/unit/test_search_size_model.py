"""Degree of lightening and predicted bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.core.lightening import LADDER, Lightening
from edgeloop.core.network import LayerSize, NetworkSizes, NetworkSpec
from edgeloop.search.size_model import Prediction, degree, low_weights, predicted_bytes, weight_bits
from edgeloop.testing.fakes.simulated_board import simulated_sizes

SIZES = simulated_sizes(NetworkSpec(family="ds_cnn", width=2.0))


def two_layers(weights: int, activations: int) -> NetworkSizes:
    layer = LayerSize(name="l", weights=weights, bias=0, out_channels=1, depthwise=False)
    return NetworkSizes(
        parameters=3 * weights,
        macs=1,
        layers=(layer, layer, layer),
        activations=(activations,),
        peak_activation_elements=activations,
    )


def test_the_degree_of_float_is_0_and_of_w8a8_three_quarters() -> None:
    assert degree(SIZES, Lightening.parse("fp32")) == 0.0
    assert degree(SIZES, Lightening.parse("w8a8")) == pytest.approx(0.75)


def test_the_degree_counts_weights_and_activations_by_their_bits() -> None:
    # 3 x 100 weights of 8, 4, 8 bits and 100 activations of 8 bits, over 32 bits each
    assert degree(two_layers(100, 100), Lightening.parse("w4a8")) == pytest.approx(1 - (2000 + 800) / (32 * 400))


def test_a_network_without_weights_or_activations_has_degree_0() -> None:
    empty = NetworkSizes(parameters=0, macs=0, layers=(), activations=(), peak_activation_elements=0)
    assert degree(empty, Lightening.parse("w8a8")) == 0.0


@given(width=st.floats(0.5, 4), depth=st.integers(0, 3))
def test_the_ladder_is_strictly_monotone_in_the_degree(width: float, depth: int) -> None:
    sizes = simulated_sizes(NetworkSpec(family="ds_cnn", width=width, depth=depth))
    degrees = [degree(sizes, rung) for rung in LADDER]
    assert degrees == sorted(degrees)
    assert len(set(degrees)) == len(degrees)


@given(width=st.floats(0.5, 4), kept=st.floats(0.3, 0.95), rung=st.sampled_from(LADDER))
def test_pruning_raises_the_degree_of_every_rung(width: float, kept: float, rung: Lightening) -> None:
    whole = simulated_sizes(NetworkSpec(family="ds_cnn", width=width))
    less = simulated_sizes(NetworkSpec(family="ds_cnn", width=width * kept))
    if less == whole:  # channels are rounded
        return
    assert degree(less, rung, before=whole) > degree(whole, rung)


def test_what_is_pruned_has_0_bits_of_the_network_before_pruning() -> None:
    whole, less = two_layers(100, 100), two_layers(60, 80)
    expected = 1 - (8 * 3 * 60 + 8 * 80) / (32 * 400)
    assert degree(less, Lightening.parse("w8a8-p40"), before=whole) == pytest.approx(expected)
    assert degree(less, Lightening.parse("fp32-p40"), before=whole) == pytest.approx(1 - 260 / 400)


def test_a_share_lies_between_its_neighbours_and_is_exact_once_its_layers_are_known() -> None:
    w8a8, half, w4a8 = map(Lightening.parse, ("w8a8", "w4a8:50", "w4a8"))
    assert degree(SIZES, half) == pytest.approx((degree(SIZES, w8a8) + degree(SIZES, w4a8)) / 2)
    assert predicted_bytes(SIZES, half) == pytest.approx(
        (predicted_bytes(SIZES, w8a8) + predicted_bytes(SIZES, w4a8)) / 2, abs=1
    )
    low = low_weights(SIZES, half)
    assert degree(SIZES, half, low=low) == degree(SIZES, w4a8)
    assert predicted_bytes(SIZES, half, low=low) == predicted_bytes(SIZES, w4a8)
    assert degree(SIZES, half, low=0) == degree(SIZES, w8a8)
    assert predicted_bytes(SIZES, half, low=low // 2) == predicted_bytes(SIZES, w8a8) - low // 4


def test_depthwise_first_and_last_layers_stay_at_8_bits_under_w4a8() -> None:
    bits = weight_bits(SIZES, Lightening.parse("w4a8"))
    expected = [8, *(8 if layer.depthwise else 4 for layer in SIZES.layers[1:-1]), 8]
    assert list(bits) == expected
    assert 4 in bits


def test_fewer_weight_bits_predict_fewer_bytes_for_the_same_activations() -> None:
    assert predicted_bytes(SIZES, Lightening.parse("w4a8")) < predicted_bytes(SIZES, Lightening.parse("w8a8"))
    assert predicted_bytes(SIZES, Lightening.parse("fp16")) < predicted_bytes(SIZES, Lightening.parse("fp32"))


def test_16_bit_activations_cost_wider_biases() -> None:
    biases = sum(layer.bias for layer in SIZES.layers)
    more = predicted_bytes(SIZES, Lightening.parse("w8a16")) - predicted_bytes(SIZES, Lightening.parse("w8a8"))
    assert more == 4 * biases


def test_a_small_network_is_predicted_heavier_than_its_bits() -> None:
    small = simulated_sizes(NetworkSpec(family="ds_cnn"))
    assert predicted_bytes(small, Lightening.parse("w8a8")) > 2 * small.parameters


def test_a_prediction_learns_from_the_files_of_the_run() -> None:
    prediction, rung = Prediction(), Lightening.parse("w8a8")
    real = predicted_bytes(SIZES, rung) + 70 * len(SIZES.layers)
    prediction.learn(SIZES, rung, real)
    assert prediction.bytes_of(SIZES, rung) == real
    wider = simulated_sizes(NetworkSpec(family="ds_cnn", width=3.0))
    assert prediction.bytes_of(wider, rung) == predicted_bytes(wider, rung) + 70 * len(wider.layers)


def test_a_prediction_carries_over_between_rungs_of_the_same_kind_only() -> None:
    prediction = Prediction()
    w8a8, w4a8, fp32 = map(Lightening.parse, ("w8a8", "w4a8", "fp32"))
    prediction.learn(SIZES, w8a8, predicted_bytes(SIZES, w8a8) + 10 * len(SIZES.layers))
    assert prediction.bytes_of(SIZES, w4a8) == predicted_bytes(SIZES, w4a8) + 10 * len(SIZES.layers)
    assert prediction.bytes_of(SIZES, fp32) == predicted_bytes(SIZES, fp32)


def test_of_compiled_files_every_rung_teaches_every_other() -> None:
    prediction = Prediction(is_code=True)
    w8a8, fp32 = map(Lightening.parse, ("w8a8", "fp32"))
    prediction.learn(SIZES, fp32, predicted_bytes(SIZES, fp32) + 9000 * len(SIZES.layers))
    assert prediction.bytes_of(SIZES, w8a8) == predicted_bytes(SIZES, w8a8) + 9000 * len(SIZES.layers)


def sizes_from(
    layers: list[tuple[int, int, bool]],
    activations: tuple[int, ...],
) -> NetworkSizes:
    """(weights, output channels, depthwise) of each layer; every channel has a bias."""
    return NetworkSizes(
        parameters=sum(weights + channels for weights, channels, _ in layers),
        macs=1,
        layers=tuple(
            LayerSize(name=str(n), weights=weights, bias=channels, out_channels=channels, depthwise=depthwise)
            for n, (weights, channels, depthwise) in enumerate(layers)
        ),
        activations=activations,
        peak_activation_elements=max(activations),
    )


MLP = sizes_from([(4096, 64, False), (2048, 32, False), (320, 10, False)], (64, 64, 32, 10))
DS_CNN = sizes_from(
    [
        *((72, 8, False), (72, 8, True), (128, 16, False), (144, 16, True), (512, 32, False)),
        *((288, 32, True), (1024, 32, False), (288, 32, True), (2048, 64, False), (640, 10, False)),
    ],
    (784, 1568, 1568, 3136, 784, 1568, 1568, 1568, 512, 1024, 64, 10),
)


@pytest.mark.parametrize(
    ("sizes", "rung", "built_bytes"),
    [
        *[
            (MLP, *pair)
            for pair in [("fp32", 27220), ("fp16", 14508), ("w8a16", 10168), ("w8a8", 9760), ("w4a8", 8736)]
        ],
        *[(DS_CNN, *p) for p in [("fp32", 24952), ("fp16", 15068), ("w8a16", 14032), ("w8a8", 13048), ("w4a8", 11192)]],
    ],
)
def test_built_files_are_predicted_within_2_and_a_half_percent(
    sizes: NetworkSizes, rung: str, built_bytes: int
) -> None:
    assert predicted_bytes(sizes, Lightening.parse(rung)) == pytest.approx(built_bytes, rel=0.025)
