"""Networks as they are asked for, and what they cost."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from edgeloop.core.frozen import Frozen, OneOf, key_of
from edgeloop.core.lightening import PRUNED_PCT_MAX, Lightening
from edgeloop.engines.registry import DEFAULT, ENGINES, build_engines
from edgeloop.sentences import command_line


def _has_builder(name: object) -> object:
    row = ENGINES.get(name) if isinstance(name, str) else None
    if row is not None and not row.builds:
        command = command_line("measure", engine=row.name)
        raise ValueError(f"{row.name} runs {row.title}, which no builder makes: {command}")
    return name


BoardEngine = Annotated[str, OneOf(lambda: tuple(ENGINES))]
"""Name of the engine that runs a ready model on a board."""
Engine = Annotated[str, OneOf(build_engines), BeforeValidator(_has_builder)]
"""Name of an engine that networks are built for."""
Teacher = Literal["none", "m1", "m1-distilled", "m2"]
"""Who teaches M3: nobody, M1, M1 after M2 was distilled into it, or M2."""


class NetworkSpec(Frozen):
    """A network to be built by a family that ships with edgeloop or by a user's factory, or M1 as a file."""

    family: str | None = None
    factory: str | None = None
    """`/absolute/file.py:function`, called as `function(width=..., depth=...)`."""
    source_sha256: str | None = None
    """Digest of the factory's file, so that an edited file is another network."""
    file: str | None = None
    """Absolute path of a ready model, or of a SavedModel's folder: M1 as it is, neither trained nor resized."""
    file_sha256: str | None = None
    weights: str | None = None
    """Absolute path of a state dict that M1 starts from instead of being trained."""
    weights_sha256: str | None = None
    layout: Literal["channels_first", "channels_last"] | None = None
    """The layout that the network's forward expects, campaign data being channel-last; None: torch's channels_first,
    and channels_last for a Keras model."""
    width: float = Field(default=1.0, gt=0)
    depth: int = Field(default=0, ge=0)
    """Depth steps beyond the reference's own depth."""
    seed: int = 0
    pruned_pct: int = Field(default=0, ge=0, le=PRUNED_PCT_MAX)
    """Percent of the channels that are removed from what the source gives."""
    widened_from: float | None = Field(default=None, gt=0)
    """Width of the network of the same source whose trained weights and function this one starts with."""
    listed: bool = False
    """One of the networks that the user gave as M2: it is told by its factory, not by a width."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if [self.family, self.factory, self.file].count(None) != 2:
            raise ValueError("a network comes from a family, from a factory or from a file, one of the three")
        return self

    def in_size(self, width: float, depth: int) -> Self:
        """The same architecture in another size: weights given for this size do not carry over."""
        return self.model_copy(update={"width": width, "depth": depth, "weights": None, "weights_sha256": None})

    def without_channels(self, pruned_pct: int) -> Self:
        """The same network without so many percent of its channels, as it is asked for before it is trained."""
        return self.model_copy(update={"pruned_pct": pruned_pct})

    @property
    def label(self) -> str:
        """The network's size in words: `width 1.41`, `width 2 depth +1`; `big.py:build`, `m1.tflite` where given."""
        if self.file is not None:
            return PurePath(self.file).name
        if self.listed and self.factory is not None:
            return PurePath(self.factory).name
        return f"width {self.width:g}" + (f" depth +{self.depth}" if self.depth else "")


class TensorShape(Frozen):
    """A named array of the data, or an output that is asked of a network."""

    name: str
    shape: tuple[int, ...]
    """Without the batch; channel-last."""
    dtype: str = "float32"


class NetworkIO(Frozen):
    """The side of a network that the data ask for: its inputs, and what it should give for each."""

    kind: Literal["classification", "regression", "autoencoder", "custom"]
    inputs: tuple[TensorShape, ...] = Field(min_length=1)
    outputs: tuple[TensorShape, ...] = Field(min_length=1)
    """One for each target: `(classes,)` logits for a class label, the target's own shape for values, the
    inputs' shapes for an autoencoder. A custom task's outputs are its own: these are then only names."""


class NetworkSignature(Frozen):
    """Names of the tensors of a built network, in the order of its arguments and of its results."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class LayerSize(Frozen):
    """One layer with weights."""

    name: str
    weights: int
    bias: int
    out_channels: int
    depthwise: bool
    linear: bool = False
    """A fully connected layer."""


class NetworkSizes(Frozen):
    """The cost of a network before it is built: counted once on the exported graph, for one sample."""

    parameters: int
    macs: int
    layers: tuple[LayerSize, ...]
    """In the order of their first use, each once."""
    edges: tuple[int, int] | None = None
    """Places in `layers` of the first and of the last layer, the edges of `Lightening`; None: the list's own ends. Said
    where the last layer is one that was used earlier."""
    other_parameters: int = 0
    """Parameters outside the layers (always stored as float)."""
    activations: tuple[int, ...]
    """Elements of every activation tensor, in forward order."""
    peak_activation_elements: int
    """The most elements alive at once when nodes run in forward order."""

    def is_edge(self, place: int) -> bool:
        """Return True where the layer at a place of `layers` is the network's first or its last."""
        return place in (self.edges or (0, len(self.layers) - 1))

    def peak_activation_bytes(self, lightening: Lightening) -> int:
        """Return the bytes of those elements under a rung."""
        return self.peak_activation_elements * lightening.activation_bits // 8


class Setting(Frozen):
    """The engine, threads and delegate that run a built network on a board."""

    engine: Engine = DEFAULT.name
    threads: int = Field(default=1, ge=1)
    delegate: str | None = None
    """By its name in the board's file; None: only what the engine adds by itself."""

    def __str__(self) -> str:
        with_delegate = f" and the delegate {self.delegate}" if self.delegate is not None else ""
        return f"{self.engine} with {self.threads} thread{'' if self.threads == 1 else 's'}{with_delegate}"


class Candidate(Frozen):
    """Network + lightening + engine + delegate + threads: what a trial is about."""

    network: NetworkSpec
    lightening: str
    teacher: Teacher = "none"
    engine: Engine = DEFAULT.name
    threads: int = Field(default=1, ge=1)
    delegate: str | None = None
    """By its name in the board's file; None: only what the engine adds by itself."""

    @property
    def key(self) -> str:
        return key_of("candidate", self)

    def __str__(self) -> str:
        text = f"{self.network.label} {self.lightening}"
        if self.engine != DEFAULT.name:
            text += f" on {self.engine}"
        if self.delegate is not None:
            text += f" with {self.delegate}"
        if self.threads != 1:
            text += f" x{self.threads}"
        return text
