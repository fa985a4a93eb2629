"""Which networks and rungs are asked at all, and what trials teach about them."""

from __future__ import annotations

import pytest

from edgeloop.core.campaign import Search
from edgeloop.core.lightening import Lightening
from edgeloop.core.limits import parse_limits
from edgeloop.core.mixed_precision import LayerChoice
from edgeloop.core.network import LayerSize, NetworkSizes, NetworkSpec
from edgeloop.errors import ConfigError, ModelError
from edgeloop.search.size_model import predicted_bytes
from edgeloop.search.space import Point, SearchSpace
from edgeloop.testing.fakes.simulated_board import simulated_sizes

M1 = NetworkSpec(family="ds_cnn")
START = Lightening.parse("w8a8")


def space(sizes_of=simulated_sizes, limits=("top1=0.9",), **search) -> SearchSpace:
    return SearchSpace(
        search=Search(**{"widths": (1.5, 2.0), **search}),
        m1=M1,
        m1_sizes=sizes_of(M1),
        m1_lightening="w8a8",
        m1_bytes=predicted_bytes(sizes_of(M1), START),
        larger="factory",
        teacher="none",
        limits=parse_limits(list(limits)),
        sizes_of=sizes_of,
    )


def perceptron(network: NetworkSpec) -> NetworkSizes:
    wide = round(32 * network.width * (1 - network.pruned_pct / 100))
    shapes = [(64 * wide, wide), (wide * wide, wide), (10 * wide, 10)]
    return NetworkSizes(
        parameters=sum(w + n for w, n in shapes),
        macs=sum(w for w, _ in shapes),
        layers=tuple(
            LayerSize(name=f"l{i}", weights=w, bias=n, out_channels=n, depthwise=False, linear=True)
            for i, (w, n) in enumerate(shapes)
        ),
        activations=(64, wide, wide, 10),
        peak_activation_elements=64 + wide,
    )


def names(of: SearchSpace, network: int = 0) -> list[str]:
    return [of.rungs[p.rung].name for p in of.points if p.network == network]


def test_rungs_are_offered_from_the_least_lightened_pruned_ones_among_them() -> None:
    found = space(lightenings=("w4a8", "w8a8-p25", "w8a8", "fp32-p25", "w4a8:50", "w4a8+dw8"))
    assert [rung.name for rung in found.rungs] == ["fp32-p25", "w8a8", "w4a8:50", "w4a8", "w8a8-p25"]
    assert found.rungs[found.start_rung].name == "w8a8"


def test_the_search_begins_at_a_rung_that_keeps_all_channels() -> None:
    found = space(lightenings=("w8a8-p25", "w4a8"))
    assert found.rungs[found.start_rung].name == "w4a8"


def test_a_pruned_rung_has_the_sizes_of_the_pruned_network() -> None:
    found = space(perceptron, lightenings=("w8a8", "w8a8-p50"))
    whole, less = found.points[:2]
    assert found.sizes(less) == perceptron(found.networks[0].spec.without_channels(50))
    assert found.predicted_bytes(less) < found.predicted_bytes(whole)
    assert found.networks[0].sizes == found.sizes(whole)


def test_a_rung_that_its_engine_cannot_run_is_left_out_with_a_sentence() -> None:
    found = space(perceptron, lightenings=("w8a8", "w4a8"), engines=("tflite-runtime", "litert"))
    refused = [p for p in found.points if found.settings[p.setting].engine == "tflite-runtime"]
    assert {found.rungs[p.rung].name for p in refused} == {"w8a8"}
    assert found.left_out == [
        "w4a8 is left out at width 1.5, width 2: tflite-runtime has no 4-bit kernel for the fully connected layer l1"
    ]


def test_a_rung_that_changes_nothing_is_left_out_with_a_sentence() -> None:
    def two_layers(network: NetworkSpec) -> NetworkSizes:
        sizes = perceptron(network)
        return sizes.model_copy(update={"layers": (sizes.layers[0], sizes.layers[2])})

    found = space(two_layers, lightenings=("w8a8", "w4a8", "w8a8-p25"))
    assert names(found) == ["w8a8", "w8a8-p25"]
    assert "no layer can take 4 bit" in found.left_out[0]
    kept = space(simulated_sizes, lightenings=("w8a8", "w8a8-p25"))  # these sizes know nothing of pruning
    assert names(kept) == ["w8a8"]
    assert "25 % of its channels is less than the multiple" in kept.left_out[0]


def test_what_cannot_be_pruned_is_left_out_and_nothing_left_is_a_fault_of_the_campaign() -> None:
    def stubborn(network: NetworkSpec) -> NetworkSizes:
        if network.pruned_pct:
            raise ModelError("channels can't be pruned: a reason")
        return perceptron(network)

    found = space(stubborn, lightenings=("w8a8", "w8a8-p25"))
    assert names(found) == ["w8a8"]
    assert found.left_out == ["w8a8-p25 is left out at width 1.5, width 2: channels can't be pruned: a reason"]
    with pytest.raises(ConfigError, match=r"search\.lightenings: w8a8-p25 is left out .* channels can't be pruned"):
        _ = space(stubborn, lightenings=("w8a8-p25",)).points


CHOICES = (
    LayerChoice(name="stem", weights=144, bits=8),
    LayerChoice(name="pw0", weights=576, bits=4, loss_rise=0.001),
    LayerChoice(name="pw1", weights=576, bits=4, loss_rise=0.010),
    LayerChoice(name="pw2", weights=576, bits=8, loss_rise=0.100),
)


def test_one_mixed_training_teaches_which_layers_every_share_takes() -> None:
    found = space(lightenings=("w8a8", "w4a8:25", "w4a8:50", "w4a8:75", "w4a8"))
    at = {name: Point(0, i, 0) for i, name in enumerate(rung.name for rung in found.rungs)}
    before = found.predicted_bytes(at["w4a8:25"])
    assert found.given_back(at["w4a8"], at["w4a8:50"]) is None
    found.learn_layers(at["w4a8:50"], CHOICES)
    # 25 % takes one layer of three and not a quarter of them
    assert found.predicted_bytes(at["w4a8:25"]) == pytest.approx(before - (576 - 0.25 * 3 * 576) / 2, abs=1)
    assert found.given_back(at["w4a8"], at["w4a8:50"]) == ["pw2"]
    assert found.given_back(at["w4a8"], at["w8a8"]) == ["pw2", "pw1", "pw0"]
    assert found.given_back(at["w4a8"], Point(1, 0, 0)) is None


def test_shares_that_take_the_same_layers_are_asked_once() -> None:
    found = space(lightenings=("w8a8", "w4a8:50", "w4a8:60", "w4a8:75", "w4a8"))
    at = {rung.name: Point(0, i, 0) for i, rung in enumerate(found.rungs)}
    found.learn_layers(at["w4a8:60"], CHOICES)  # two layers of three
    assert names(found) == ["w8a8", "w4a8:60", "w4a8"]
    assert found.left_out == [
        "w4a8:50 is left out at width 1.5: it takes the layers of w4a8:60, so that it is the same network",
        "w4a8:75 is left out at width 1.5: it takes the layers of w4a8, so that it is the same network",
    ]
    assert len(names(found, network=1)) == 5  # nothing is known of the other network


def test_a_pruned_network_has_an_order_of_its_own() -> None:
    found = space(perceptron, lightenings=("w4a8:50-p25", "w4a8:50", "w4a8"))
    at = {rung.name: Point(0, i, 0) for i, rung in enumerate(found.rungs)}
    found.learn_layers(at["w4a8:50-p25"], (LayerChoice(name="l1", weights=100, bits=4, loss_rise=0.1),))
    assert found.given_back(at["w4a8"], at["w4a8:50"]) is None


def test_where_m1_is_a_file_the_evaluation_of_pruned_rungs_is_that_of_networks_that_can_be_pruned() -> None:

    def under(m1: NetworkSpec) -> list[float | None]:
        def sizes_of(network: NetworkSpec) -> NetworkSizes:
            if network.file is not None and network.pruned_pct:
                raise ModelError("a file keeps its channels")
            return perceptron(network)

        found = SearchSpace(
            search=Search(widths=(1.19, 1.41, 2.0), lightenings=("w8a8-p25",)),
            m1=m1,
            m1_sizes=sizes_of(m1),
            m1_lightening="w8a8",
            m1_bytes=predicted_bytes(sizes_of(m1), START),
            larger=tuple(M1.in_size(width, 0) for width in (1.19, 1.41, 2.0)),
            teacher="none",
            limits=parse_limits(["top1=0.9"]),
            sizes_of=sizes_of,
        )
        return [found.evaluation(point) for point in found.points]

    assert under(NetworkSpec(file="/m1.tflite", file_sha256="0" * 64)) == pytest.approx(under(M1), abs=0.05)
