"""The shapes that a ready model's inputs take: dynamic dimensions filled, a channel-first input recognised.

Pure: child processes and the controller decide alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from edgeloop.core.frozen import Frozen
from edgeloop.errors import ModelError, UserError
from edgeloop.sentences import Argument, Sentence

DYNAMIC = -1

Shape = tuple[int, ...]


class InputShapes(Frozen):
    """Shapes for the dimensions that a model leaves open."""

    inputs: dict[str, Shape] = {}
    """Whole shapes by the model's own names, batch included."""
    samples: dict[str, Shape] = {}
    """Shapes of one channel-last sample by the names of the data, for inputs that `inputs` lacks."""


NO_SHAPES: Final = InputShapes()


def channels_first(sample: Sequence[int]) -> Shape:
    """The same sample's shape with its last axis moved to the front: (height, width, channels) -> channels first."""
    return (*sample[-1:], *sample[:-1])


def is_channels_first(shape: Sequence[int], sample: Sequence[int]) -> bool:
    """Return whether an input of a shape (with its batch) takes channel-last samples with their channels put first.

    The shapes alone decide: where they are equal as they are, nothing is moved.
    """
    inner = tuple(shape[1:])
    return len(inner) > 1 and inner != tuple(sample) and inner == channels_first(sample)


def resolve_shape(
    name: str, declared_shape: Sequence[int], own: Sequence[int] | None, sample: Sequence[int] | None
) -> Shape:
    """Return an input's whole shape, from what the model declares (DYNAMIC where a dimension is open).

    `own` is a whole shape that a user gives, `sample` the shape of one channel-last sample of the data. A batch that
    neither of them says is 1. Raises UserError for a shape of the user's that the model can't take, ModelError where a
    dimension stays open or the data don't fit.
    """
    if own is not None:
        if not _fits(declared_shape, own):
            raise UserError(f"input {name} takes the shape {format_shape(declared_shape)}, not {format_shape(own)}")
        return tuple(own)
    batch_of_one = [1 if axis == 0 and size == DYNAMIC else size for axis, size in enumerate(declared_shape)]
    if DYNAMIC not in batch_of_one:
        return tuple(batch_of_one)
    if sample is None:
        example = ",".join("32" if size == DYNAMIC else str(size) for size in batch_of_one)
        raise ModelError(
            f"input {name} has the shape {format_shape(declared_shape)}, which leaves dimensions open",
            next_step=Sentence("tell it with {}", Argument("shapes", [f"{name}={example}"])),
        )
    for layout in (tuple(sample), channels_first(sample)):
        if _fits(batch_of_one, (batch_of_one[0], *layout)):
            return (batch_of_one[0], *layout)
    raise ModelError(
        f"input {name} takes the shape {format_shape(declared_shape)}, the data have samples of {format_shape(sample)}"
    )


def resolve_shapes(names: Sequence[str], declared_shapes: Sequence[Sequence[int]], shapes: InputShapes) -> list[Shape]:
    """Return the whole shape of every input. Raises as `resolve_shape` and `match_inputs`."""
    own, samples = match_inputs(names, shapes.inputs, "shapes"), match_inputs(names, shapes.samples, "samples")
    return [
        resolve_shape(name, one, own.get(name), samples.get(name))
        for name, one in zip(names, declared_shapes, strict=True)
    ]


def match_inputs(
    names: Sequence[str], shapes: Mapping[str, Sequence[int]], what: Literal["shapes", "samples"]
) -> dict[str, Shape]:
    """Match shapes by name to a model's inputs: `shapes` by their exact names; of the data's `samples` the only one
    belongs to the only input, whatever its name.

    Raises UserError for a name that no input has.
    """
    if what == "samples" and len(names) == 1 and len(shapes) == 1:
        return {names[0]: tuple(next(iter(shapes.values())))}
    strange = [name for name in shapes if name not in names]
    if strange and what == "samples":
        raise UserError(
            f"its inputs are {', '.join(names)}, those of the data {', '.join(shapes)}",
            next_step="give both the same names",
        )
    if strange:
        raise UserError(f"there is no input {strange[0]!r}", next_step=f"the model's inputs are {', '.join(names)}")
    return {name: tuple(shape) for name, shape in shapes.items()}


def format_shape(shape: Sequence[int]) -> str:
    """A shape as people read it: `(1, ?, ?, 3)`."""
    sizes = ", ".join("?" if size == DYNAMIC else str(size) for size in shape)
    return f"({sizes},)" if len(shape) == 1 else f"({sizes})"


def _fits(declared_shape: Sequence[int], shape: Sequence[int]) -> bool:
    return len(declared_shape) == len(shape) and all(
        d in (DYNAMIC, s) for d, s in zip(declared_shape, shape, strict=True)
    )
