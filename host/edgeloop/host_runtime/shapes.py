"""The shapes that a ready model's inputs take: dynamic dimensions told, a channel-first input recognised.

Pure: child processes and the controller decide alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from edgeloop.errors import ModelError, UserError
from edgeloop.sentences import Argument, Sentence

DYNAMIC = -1

Shape = tuple[int, ...]


def channels_first(sample: Sequence[int]) -> Shape:
    """The same sample's shape with its last axis moved to the front: (height, width, channels) -> channels first."""
    return (*sample[-1:], *sample[:-1])


def is_channels_first(wanted: Sequence[int], sample: Sequence[int]) -> bool:
    """Whether an input of a shape (with its batch) takes channel-last samples with the channels moved to the front.

    Told by the shapes alone: where they are equal as they are, nothing is moved.
    """
    inner = tuple(wanted[1:])
    return len(inner) > 1 and inner != tuple(sample) and inner == channels_first(sample)


def concrete(name: str, declared: Sequence[int], told: Sequence[int] | None, samples: Sequence[int] | None) -> Shape:
    """Return an input's whole shape, from what the model declares (DYNAMIC where a dimension is open).

    `told` is a whole shape that a user gives, `samples` the shape of one channel-last sample of the data. A batch that
    nobody tells is 1. Raises UserError for a told shape that the model can't take, ModelError where a dimension stays
    open or the data don't fit.
    """
    if told is not None:
        if not _fits(declared, told):
            raise UserError(f"input {name} takes the shape {shown(declared)}, not {shown(told)}")
        return tuple(told)
    batched = [1 if axis == 0 and size == DYNAMIC else size for axis, size in enumerate(declared)]
    if DYNAMIC not in batched:
        return tuple(batched)
    if samples is None:
        example = ",".join("32" if size == DYNAMIC else str(size) for size in batched)
        raise ModelError(
            f"input {name} has the shape {shown(declared)}, which leaves dimensions open",
            next_step=Sentence("tell it with {}", Argument("shapes", [f"{name}={example}"])),
        )
    for sample in (tuple(samples), channels_first(samples)):
        if _fits(batched, (batched[0], *sample)):
            return (batched[0], *sample)
    raise ModelError(f"input {name} takes the shape {shown(declared)}, the data have samples of {shown(samples)}")


def settled(
    names: Sequence[str],
    declared: Sequence[Sequence[int]],
    told: Mapping[str, Sequence[int]],
    samples: Mapping[str, Sequence[int]],
) -> list[Shape]:
    """The whole shape of every input: `told` by the model's names, `samples` by those of the data. Raises as `concrete`
    and `by_input`."""
    by_name, sampled = by_input(names, told, "shapes"), by_input(names, samples, "samples")
    return [
        concrete(name, one, by_name.get(name), sampled.get(name)) for name, one in zip(names, declared, strict=True)
    ]


def by_input(
    names: Sequence[str], given: Mapping[str, Sequence[int]], what: Literal["shapes", "samples"]
) -> dict[str, tuple[int, ...]]:
    """Match what is given by name to a model's inputs: `shapes` by their exact names; of the data's `samples` the only
    one belongs to the only input, whatever its name.

    Raises UserError for a name that no input has.
    """
    if what == "samples" and len(names) == 1 and len(given) == 1:
        return {names[0]: tuple(next(iter(given.values())))}
    strange = [name for name in given if name not in names]
    if strange and what == "samples":
        raise UserError(
            f"its inputs are {', '.join(names)}, those of the data {', '.join(given)}",
            next_step="give both the same names",
        )
    if strange:
        raise UserError(f"there is no input {strange[0]!r}", next_step=f"the model's inputs are {', '.join(names)}")
    return {name: tuple(shape) for name, shape in given.items()}


def shown(shape: Sequence[int]) -> str:
    """A shape as people read it: `(1, ?, ?, 3)`."""
    sizes = ", ".join("?" if size == DYNAMIC else str(size) for size in shape)
    return f"({sizes},)" if len(shape) == 1 else f"({sizes})"


def _fits(declared: Sequence[int], shape: Sequence[int]) -> bool:
    return len(declared) == len(shape) and all(d in (DYNAMIC, s) for d, s in zip(declared, shape, strict=True))
