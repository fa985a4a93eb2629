"""A pass of its own, apart from the timed sessions: the time of each operator, and where memory goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeloop.core.frozen import Frozen


class OperatorOutput(Frozen):
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {'x'.join(map(str, self.shape)) or 'scalar'}"


class Operator(Frozen):
    """One operator of a model. Built models have no tensor names: type and shapes tell which one it is."""

    index: int
    """In the model's own order."""
    operator: str
    """As the format names it: CONV_2D; a custom operator by its own code."""
    outputs: tuple[OperatorOutput, ...]
    folded_into: tuple[int, ...] | None = None
    """Of one that works on constants alone: the operators that use what it gives, with which it is timed."""


class Parts(Frozen):
    """A model cut into its operators: a .zip of small models for the board, and what they are."""

    path: str
    sha256: str
    operators: tuple[Operator, ...]
    parts: tuple[tuple[int, ...], ...]
    """The operators in each part, in the order in which they run; two where a runtime may take them for one."""


class MemoryPhase(Frozen):
    phase: Literal["runtime", "load", "first", "runs"]
    """The runtime imported and no model yet, the model loaded, the first inference, many of them."""
    rss_bytes: int = Field(ge=0)
    """When the phase was over."""
    peak_bytes: int | None = Field(ge=0)
    """The most within the phase; None where the kernel does not let us reset it."""


class MemoryPass(Frozen):
    phases: tuple[MemoryPhase, ...] = Field(max_length=4)
    polled: int = Field(ge=0)
    """Readings of memory between inferences."""
    rss_min_bytes: int | None = Field(ge=0)
    rss_max_bytes: int | None = Field(ge=0)
    """Of what was read between inferences."""
    model_mapped_bytes: int | None = Field(ge=0)
    """Of the model's file in the process's address space; None where it is read and not mapped."""
    model_resident_bytes: int | None = Field(ge=0)
    """Of that, in memory."""
    activation_bytes: int | None = Field(ge=0)
    """Of the runtime's activation tensors and scratch buffers, each address counted once; None where the
    runtime does not tell all of them."""
    activation_note: str = Field(max_length=300)
    """Why it is None; empty where it is not."""


@dataclass(frozen=True, slots=True)
class ProfileSamples:
    """A profile session as it was seen, raw."""

    parts: Parts
    times_ns: tuple[tuple[NDArray[np.int64], ...], ...]
    """For each round the single times of the whole model, and then of each part."""
    outputs_equal: bool
    """True where the chained parts gave just the outputs of the whole model."""
    memory: MemoryPass


class OperatorTime(Frozen):
    operator: Operator
    p50_ns: float
    """Median over rounds of the medians in each; 0 where it is timed with another one."""
    share: float
    """Of all operators together."""
    runs: int
    timed_with: tuple[int, ...] = ()
    """The operators whose time holds this one's: the runtime does it once, or takes the two for one."""


class Profile(Frozen):
    """The figures that the pass comes to, for one subject."""

    how: str
    """The way in which operators were timed, and its meaning."""
    whole_ns: float
    """The whole model in the same pass."""
    sum_ns: float
    """Of all operators."""
    rounds: int
    outputs_equal: bool
    operators: tuple[OperatorTime, ...]
    memory: MemoryPass
