"""The inputs and outputs of a model."""

from __future__ import annotations

from typing import Literal

from edgeloop.core.frozen import Frozen


class TensorSpec(Frozen):
    """One input or output of a built model. `shape` has the batch first, as the model is built (1)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: Literal["channels_last", "channels_first", "flat"] = "flat"
    scale: float | None = None
    """real = scale * (stored - zero_point); None where the tensor is not quantized."""
    zero_point: int | None = None

    def agent_form(self) -> dict[str, object]:
        """Return it as a board's agent reads it, where a program or a library declares its own tensors."""
        return self.model_dump(mode="json", include={"name", "dtype", "shape", "scale", "zero_point"})
