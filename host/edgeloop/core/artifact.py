"""A model file that goes to a board: named by its hash, with what is known of it."""

from __future__ import annotations

from edgeloop.core.frozen import Frozen
from edgeloop.core.tensors import TensorSpec


class Parity(Frozen):
    """The built model beside the fake-quantized network, in the real runtime on the host."""

    n: int
    """Inputs compared."""
    rule: str
    """The rule of agreement, in words."""
    agreement: float
    agreement_upper: float
    """Upper end of the interval of the agreement; under 0.99 the build is refused."""
    ties_left_out: int = 0
    steps_mean: float | None = None
    """Mean absolute difference in quantization steps of the output; None for float outputs."""
    steps_max: float | None = None


class Artifact(Frozen):
    """A built model. Equal artifacts have equal `sha256`; `path` is where this machine keeps the file."""

    path: str
    """Absolute path of the model file."""
    sha256: str
    deployed_bytes: int
    bytes_before_strip: int | None = None
    """Bytes before tensor names were stripped; None for a ready model."""
    inputs: tuple[TensorSpec, ...]
    """In the order of the model's own inputs; names are those of the data."""
    outputs: tuple[TensorSpec, ...]
    tools: dict[str, str] = {}
    """Versions of what built it."""
    ranges_matched: tuple[int, int] | None = None
    """Quantized activation tensors that got their trained range, of how many."""
    parity: Parity | None = None
    resized: bool = False
    """True where the runtime resizes the inputs to these shapes, since the file's own leave dimensions open."""
    declared_by: str | None = None
    """The .toml that declares a program of the user's own; None for a model."""
    compiled_operators: int | None = None
    """Operators of the .tflite that a delegate's compiler was given, which may make one of several; None where none
    was."""
    converted_from: str | None = None
    """The user's file that it was converted from, as it is; None for a model that is built or ready."""

    @property
    def resized_to(self) -> list[list[int]] | None:
        """The shapes that a runtime resizes the inputs to; None where the file's own are right."""
        return [list(spec.shape) for spec in self.inputs] if self.resized else None

    @property
    def origin(self) -> str:
        """The file that people know it by."""
        return self.declared_by or self.converted_from or self.path
