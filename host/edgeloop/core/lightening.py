"""What is done to shrink a network: bit widths of weights and activations, and pruning, with a readable name.

    w8a8          weights and activations of 8 bit
    w4a8          weights of convolutions and fully connected layers of 4 bit; edges and depthwise layers of 8
    w4a8:50       at least half of the bytes that w4a8 saves over w8a8, from the least sensitive layers on
    w8a8-p25      the same with a quarter of the channels removed before

The ladder of bits is strictly monotone in the degree of lightening G (search.size_model computes G for a network); so
is the ladder of pruning on every rung of it. There is no rung of 2 bit: docs/decisions/0014-what-the-ladder-has.md.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal, Self

from pydantic import Field, model_validator

from edgeloop.core.frozen import Frozen

PRUNED_PCT_MAX = 75
MIXES = (25, 50, 75)
"""Shares, in percent, of the mixed rungs that the ladder has."""

_SPELLING = re.compile(r"(?P<bits>[a-z0-9]+?)(?:\+dw8)?(?::(?P<share>[0-9]{1,3}))?(?:-p(?P<pruned>[0-9]{1,3}))?")
_BITS: dict[str, tuple[int, int, int, int]] = {
    "fp32": (32, 32, 32, 32),
    "fp16": (16, 32, 16, 16),
    "dynamic": (8, 32, 8, 8),
    "w8a16": (8, 16, 8, 8),
    "w8a8": (8, 8, 8, 8),
    "w4a8": (4, 8, 8, 8),
}
"""Bits of weights, activations, depthwise weights, and the weights of the first and the last layer."""
DYNAMIC = "dynamic"
"""Weights of 8 bit, activations float and quantized while it runs (TFLite's dynamic range quantization): a form that a
file given as M1 may be measured in, and no rung, since nothing here trains for it."""

_RUNGS = tuple(name for name in _BITS if name != DYNAMIC)


class Lightening(Frozen):
    """One rung. 32 is float; weights of 16 bit are half floats, activations of 16 bit integers."""

    name: str
    weight_bits: Literal[32, 16, 8, 4]
    activation_bits: Literal[32, 16, 8]
    depthwise_weight_bits: Literal[32, 16, 8]
    edge_weight_bits: Literal[32, 16, 8]
    """Bits of the first and the last layer's weights."""
    share_pct: int = Field(default=100, ge=1, le=100)
    """Of the weight bytes that `weight_bits` saves over 8 bit, so many percent at least are taken; the layers that
    are least sensitive for each byte saved go first, the others stay at 8 bit."""
    pruned_pct: int = Field(default=0, ge=0, le=PRUNED_PCT_MAX)
    """Percent of the channels that are removed before anything is rounded."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        bits = (self.weight_bits, self.activation_bits, self.depthwise_weight_bits, self.edge_weight_bits)
        base = next((name for name, known in _BITS.items() if known == bits), None)
        if base is None or (self.is_mixed and base != "w4a8"):
            raise ValueError(f"{bits} with a share of {self.share_pct} % is no rung of the ladder")
        spelled = _spelled(base, self.share_pct, self.pruned_pct)
        if self.name != spelled:
            raise ValueError(f"{self.name} is not these bit widths, which are {spelled}")
        return self

    @property
    def base(self) -> str:
        """The rung's bits without share and pruning: `w4a8` for `w4a8:50-p25`."""
        return self.name.partition("-")[0].partition(":")[0]

    @property
    def is_float(self) -> bool:
        """True where no activation is quantized and training needs no ranges."""
        return self.activation_bits == 32

    @property
    def is_mixed(self) -> bool:
        """True where only some of the layers take the fewer bits, chosen by their sensitivity."""
        return self.share_pct < 100

    @property
    def unpruned(self) -> Lightening:
        """The same bits, all channels kept."""
        return Lightening.parse(_spelled(self.base, self.share_pct, 0))

    @property
    def step(self) -> float:
        """Place on the ladder of bits, from 0; mixed rungs lie between w8a8 and w4a8."""
        place = list(_BITS).index(self.base)
        return place if not self.is_mixed else place - 1 + self.share_pct / 100

    @property
    def height(self) -> float:
        """G of a network that is half weights and half activations: what rungs are ordered by before G is known.

        Removing a share p of the channels leaves (1-p)^2 of the weights and 1-p of the activations.
        """
        kept = 1 - self.pruned_pct / 100
        weight_bits = self.weight_bits if not self.is_mixed else 8 - (8 - self.weight_bits) * self.share_pct / 100
        return 1 - (kept**2 * weight_bits + kept * self.activation_bits) / 64

    def at_most_as_light(self, other: Lightening) -> bool:
        """Whether neither bits nor channels are lightened further than by `other`."""
        return self.step <= other.step and self.pruned_pct <= other.pruned_pct

    def __str__(self) -> str:
        return self.name

    @classmethod
    @cache
    def parse(cls, name: str) -> Self:
        """Return the rung with this name; `w4a8+dw8` is another spelling of `w4a8`.

        Raises ValueError, saying how names are spelled, where there is none.
        """
        found = _SPELLING.fullmatch(name)
        base = found["bits"] if found else ""
        if found is None or base not in _BITS or ("+dw8" in name and base != "w4a8"):
            raise ValueError(
                f"unknown lightening {name!r}; the ladder is {', '.join(_RUNGS)}, with w4a8:1 to w4a8:99 between the "
                f"last two, each also pruned as in w8a8-p25"
            )
        share, pruned = int(found["share"] or 100), int(found["pruned"] or 0)
        if found["share"] and (base != "w4a8" or not 1 <= share <= 99):
            raise ValueError(f"{name}: a share of 1 to 99 percent goes with w4a8, as in w4a8:50")
        if found["pruned"] and base == DYNAMIC:
            raise ValueError(f"{name}: {DYNAMIC} is a form of a file, and files are not pruned")
        if found["pruned"] and not 1 <= pruned <= PRUNED_PCT_MAX:
            raise ValueError(f"{name}: 1 to {PRUNED_PCT_MAX} percent of the channels can be pruned, as in w8a8-p25")
        weight, activation, depthwise, edge = _BITS[base]
        return cls.model_validate(
            {
                "name": _spelled(base, share, pruned),
                "weight_bits": weight,
                "activation_bits": activation,
                "depthwise_weight_bits": depthwise,
                "edge_weight_bits": edge,
                "share_pct": share,
                "pruned_pct": pruned,
            }
        )


def _spelled(base: str, share_pct: int, pruned_pct: int) -> str:
    return base + (f":{share_pct}" if share_pct < 100 else "") + (f"-p{pruned_pct}" if pruned_pct else "")


LADDER: tuple[Lightening, ...] = tuple(
    Lightening.parse(name) for name in ("fp32", "fp16", "w8a16", "w8a8", *(f"w4a8:{share}" for share in MIXES), "w4a8")
)
"""Nothing pruned, from the lowest degree of lightening to the highest."""
