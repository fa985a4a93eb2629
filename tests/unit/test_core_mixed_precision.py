"""Which layers of a mixed rung take 4 bit."""

from hypothesis import given
from hypothesis import strategies as st

from edgeloop.core.mixed_precision import LayerChoice, Sensitivity, least_sensitive, sensitivities

LAYERS = st.lists(
    st.builds(
        Sensitivity,
        name=st.uuids().map(str),
        weights=st.integers(1, 10_000),
        loss_rise=st.floats(-0.1, 2.0, allow_nan=False),
    ),
    min_size=1,
    max_size=8,
)


def test_the_least_sensitive_for_each_byte_saved_go_first() -> None:
    small = Sensitivity(name="small", weights=10, loss_rise=0.010)
    large = Sensitivity(name="large", weights=100, loss_rise=0.020)  # more in all, less for each byte
    assert [layer.name for layer in least_sensitive([small, large], 1)] == ["large"]
    assert [layer.name for layer in least_sensitive([small, large], 100)] == ["large", "small"]


def test_of_equally_sensitive_layers_the_earlier_goes_first() -> None:
    layers = [Sensitivity(name=name, weights=10, loss_rise=0.1) for name in ("a", "b", "c")]
    assert [layer.name for layer in least_sensitive(layers, 50)] == ["a", "b"]


@given(LAYERS, st.integers(1, 100))
def test_at_least_the_share_is_saved_by_the_fewest_layers(layers: list[Sensitivity], share: int) -> None:
    taken = least_sensitive(layers, share)
    whole = sum(layer.weights for layer in layers)
    assert sum(layer.weights for layer in taken) >= share / 100 * whole
    assert sum(layer.weights for layer in taken[:-1]) < share / 100 * whole


@given(LAYERS, st.integers(1, 100), st.integers(1, 100))
def test_what_a_larger_share_takes_holds_what_a_smaller_one_takes(layers: list[Sensitivity], a: int, b: int) -> None:
    fewer, more = (least_sensitive(layers, share) for share in sorted((a, b)))
    assert more[: len(fewer)] == fewer
    # so lowering the share gives back the most sensitive: none that stays minds more than one that goes back
    for kept in fewer:
        for back in more[len(fewer) :]:
            assert kept.per_weight <= back.per_weight


def test_layers_without_a_choice_have_no_sensitivity() -> None:
    chosen = LayerChoice(name="a", weights=4, bits=4, loss_rise=0.5)
    assert sensitivities([LayerChoice(name="stem", weights=9, bits=8), chosen]) == (
        Sensitivity(name="a", weights=4, loss_rise=0.5),
    )
