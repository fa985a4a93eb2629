"""What is done to shrink a network: bit widths of weights and activations, with a readable name.

The ladder is strictly monotone in the degree of lightening G (method.lighten computes G for a network).
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from edgeloop.core.frozen import Frozen


class Lightening(Frozen):
    """Bit widths of one rung. 32 is float; weights of 16 bit are half floats, activations of 16 bit integers."""

    name: str
    weight_bits: Literal[32, 16, 8, 4]
    activation_bits: Literal[32, 16, 8]
    depthwise_weight_bits: Literal[32, 16, 8]
    edge_weight_bits: Literal[32, 16, 8]
    """Bits of the first and the last layer's weights."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        rung = _RUNGS.get(self.name)
        if rung is not None and rung != (
            self.weight_bits,
            self.activation_bits,
            self.depthwise_weight_bits,
            self.edge_weight_bits,
        ):
            raise ValueError(f"{self.name} is not these bit widths")
        return self

    @property
    def is_float(self) -> bool:
        """True where no activation is quantized and training needs no ranges."""
        return self.activation_bits == 32

    def __str__(self) -> str:
        return self.name

    @classmethod
    def parse(cls, name: str) -> Self:
        """Return the rung with this name; `w4a8+dw8` is another spelling of `w4a8`.

        Raises ValueError, listing the ladder, where there is none.
        """
        plain = name.removesuffix("+dw8")
        if plain not in _RUNGS:
            raise ValueError(f"unknown lightening {name!r}; the ladder is {', '.join(_RUNGS)}")
        weight, activation, depthwise, edge = _RUNGS[plain]
        return cls.model_validate(
            {
                "name": plain,
                "weight_bits": weight,
                "activation_bits": activation,
                "depthwise_weight_bits": depthwise,
                "edge_weight_bits": edge,
            }
        )


_RUNGS: dict[str, tuple[int, int, int, int]] = {
    "fp32": (32, 32, 32, 32),
    "fp16": (16, 32, 16, 16),
    "w8a16": (8, 16, 8, 8),
    "w8a8": (8, 8, 8, 8),
    "w4a8": (4, 8, 8, 8),
}

LADDER: tuple[Lightening, ...] = tuple(Lightening.parse(name) for name in _RUNGS)
"""From the lowest degree of lightening to the highest."""
