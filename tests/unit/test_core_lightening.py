"""Names of rungs, and the order they come in before a network's degree is known."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.core.lightening import LADDER, PRUNED_PCT_MAX, Lightening

NAMES = st.tuples(
    st.sampled_from(["fp32", "fp16", "w8a16", "w8a8", "w4a8", *(f"w4a8:{n}" for n in (1, 25, 50, 99))]),
    st.sampled_from(["", "-p1", "-p25", f"-p{PRUNED_PCT_MAX}"]),
).map("".join)


@given(NAMES)
def test_a_name_is_read_and_written_alike(name: str) -> None:
    rung = Lightening.parse(name)
    assert str(rung) == rung.name == name
    assert Lightening.model_validate(rung.model_dump()) == rung


def test_a_name_says_bits_share_and_pruning() -> None:
    rung = Lightening.parse("w4a8:50-p25")
    assert (rung.base, rung.weight_bits, rung.activation_bits) == ("w4a8", 4, 8)
    assert (rung.share_pct, rung.pruned_pct, rung.is_mixed) == (50, 25, True)
    assert Lightening.parse("w4a8+dw8:50-p25") == rung
    assert Lightening.parse("w4a8+dw8").name == "w4a8"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("w2a8", "unknown lightening 'w2a8'; the ladder is fp32, fp16, w8a16, w8a8, w4a8"),
        ("w8a8+dw8", "unknown lightening"),
        ("w8a8:50", "a share of 1 to 99 percent goes with w4a8, as in w4a8:50"),
        ("w4a8:0", "a share of 1 to 99 percent"),
        ("w4a8:100", "a share of 1 to 99 percent"),
        ("w8a8-p0", f"1 to {PRUNED_PCT_MAX} percent of the channels can be pruned, as in w8a8-p25"),
        ("w8a8-p90", "percent of the channels can be pruned"),
        ("w8a8-25", "unknown lightening"),
        ("", "unknown lightening"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_spelling(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Lightening.parse(name)


def test_a_name_that_does_not_say_the_bits_is_refused() -> None:
    fields = Lightening.parse("w4a8:50").model_dump()
    with pytest.raises(ValueError, match=r"w4a8:25 is not these bit widths, which are w4a8:50"):
        Lightening.model_validate(fields | {"name": "w4a8:25"})
    with pytest.raises(ValueError, match="is no rung of the ladder"):
        Lightening.model_validate(fields | {"activation_bits": 16})


def test_the_ladder_rises_strictly_and_so_does_pruning_on_each_rung() -> None:
    assert [rung.name for rung in LADDER] == [
        *("fp32", "fp16", "w8a16", "w8a8", "w4a8:25", "w4a8:50", "w4a8:75", "w4a8")
    ]
    for one, other in pairwise(LADDER):
        assert one.height < other.height
        assert one.step < other.step
    for rung in LADDER:
        heights = [Lightening.parse(f"{rung.name}-p{n}").height for n in (10, 25, 50)]
        assert [rung.height, *heights] == sorted({rung.height, *heights})


@given(NAMES, NAMES)
def test_bits_and_channels_are_compared_apart(one: str, other: str) -> None:
    a, b = Lightening.parse(one), Lightening.parse(other)
    if a.at_most_as_light(b):
        assert a.height <= b.height
    assert a.at_most_as_light(a)
    assert not (a.at_most_as_light(b) and b.at_most_as_light(a) and a != b)


def test_fewer_channels_at_more_bits_are_neither_more_nor_less_lightened() -> None:
    pruned, bits = Lightening.parse("w8a8-p25"), Lightening.parse("w4a8")
    assert not pruned.at_most_as_light(bits)
    assert not bits.at_most_as_light(pruned)
