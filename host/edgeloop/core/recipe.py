"""`recipe.json`: what a training tells the builders of a network, beside its graph and its probes."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from edgeloop.core.frozen import Frozen
from edgeloop.core.lightening import Lightening

Fingerprint = tuple[float, float, float, float, float, float]
"""Elements a sample, min, max, mean, root mean square, mean magnitude: the layout does not matter."""


class _Entry(Frozen):
    model_config = ConfigDict(allow_inf_nan=True)  # a training may have diverged: the parity gate says so


class RecipeInput(_Entry):
    name: str
    shape: tuple[int, ...]
    """With the batch, which is 1."""
    dtype: str
    layout: Literal["channels_last", "flat"] | None = None
    """None in files of earlier versions."""


class RecipeOutput(_Entry):
    name: str
    shape: tuple[int, ...]


class RecipeActivation(_Entry):
    """A tensor with the range that training learned for it."""

    name: str
    low: float
    high: float
    fixed: bool
    """True where the runtime's kernels fix its scale."""
    fingerprint: Fingerprint


class RecipeLayer(_Entry):
    """A layer's weights, in the bits that it was trained with."""

    name: str
    bits: int
    depthwise: bool
    fingerprint: Fingerprint


class Recipe(_Entry):
    """Directions for making a file of a trained network. Tensors are known by their fingerprints."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    lightening: Lightening
    inputs: tuple[RecipeInput, ...]
    outputs: tuple[RecipeOutput, ...]
    activations: tuple[RecipeActivation, ...]
    layers: tuple[RecipeLayer, ...]
    n_validation: int
    """The first so many of the probe's samples are validation data."""
