"""A dynamic dimension is told by the user, then by the data; a channel-first input is known by its shape alone."""

from __future__ import annotations

import re

import pytest

from edgeloop.errors import EdgeloopError, ModelError, UserError
from edgeloop.host_runtime.shapes import channels_first, format_shape, is_channels_first, match_inputs, resolve_shape


@pytest.mark.parametrize(
    ("declared", "told", "samples", "found"),
    [
        ((-1, 28, 28, 1), None, None, (1, 28, 28, 1)),
        ((4, 28, 28, 1), None, None, (4, 28, 28, 1)),
        ((-1, -1, -1, 1), (1, 32, 16, 1), (8, 8, 1), (1, 32, 16, 1)),
        ((-1, -1, -1, 1), (4, 32, 16, 1), None, (4, 32, 16, 1)),
        ((-1, -1, -1, 1), None, (8, 9, 1), (1, 8, 9, 1)),
        ((-1, 3, -1, -1), None, (8, 9, 3), (1, 3, 8, 9)),
        ((-1, -1), None, (12,), (1, 12)),
    ],
)
def test_a_shape_is_what_is_told_then_what_the_data_have_and_an_untold_batch_is_one(
    declared: tuple[int, ...], told: tuple[int, ...] | None, samples: tuple[int, ...] | None, found: tuple[int, ...]
) -> None:
    assert resolve_shape("x", declared, told, samples) == found


@pytest.mark.parametrize(
    ("declared", "told", "samples", "kind", "said"),
    [
        ((-1, -1, 8, 1), None, None, ModelError, r"\(\?, \?, 8, 1\), .*shapes=\['x=1,32,8,1'\]"),
        ((-1, -1, -1, 1), None, (8, 8, 3), ModelError, r"the data have samples of \(8, 8, 3\)"),
        ((1, 28, 28, 1), (1, 32, 32, 1), None, UserError, r"takes the shape \(1, 28, 28, 1\), not \(1, 32, 32, 1\)"),
        ((-1, -1, 8, 1), (8, 8, 1), None, UserError, r"takes the shape \(\?, \?, 8, 1\), not"),
    ],
)
def test_what_stays_open_or_does_not_fit_is_one_line_with_what_was_found(
    declared: tuple[int, ...],
    told: tuple[int, ...] | None,
    samples: tuple[int, ...] | None,
    kind: type[EdgeloopError],
    said: str,
) -> None:
    with pytest.raises(kind) as caught:
        resolve_shape("x", declared, told, samples)
    (line,) = caught.value.lines()
    assert re.search(said, line), line


def test_channels_are_moved_only_where_the_shapes_tell_it() -> None:
    assert channels_first((28, 30, 3)) == (3, 28, 30)
    assert is_channels_first((1, 3, 28, 30), (28, 30, 3))
    assert is_channels_first((1, 12, 25), (25, 12))
    assert not is_channels_first((1, 28, 30, 3), (28, 30, 3))
    assert not is_channels_first((1, 3, 3, 3), (3, 3, 3)), "equal as it is: nothing is moved"
    assert not is_channels_first((1, 4), (4,))
    assert not is_channels_first((1, 3, 30, 28), (28, 30, 3))


def test_the_only_array_belongs_to_the_only_input_and_a_strange_name_is_refused() -> None:
    assert match_inputs(["image"], {"x": (8, 8, 1)}, "samples") == {"image": (8, 8, 1)}
    with pytest.raises(UserError, match="no input 'x'"):
        match_inputs(["image"], {"x": (1, 8, 8, 1)}, "shapes")
    with pytest.raises(UserError, match="its inputs are left, right, those of the data left, up"):
        match_inputs(["left", "right"], {"left": (4,), "up": (4,)}, "samples")
    assert format_shape((3,)) == "(3,)"
