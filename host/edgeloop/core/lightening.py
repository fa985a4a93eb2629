"""Rungs: bit widths of weights and activations, and pruning, with a readable name; one row for each set of bits.

    w8a8          weights and activations of 8 bit
    w4a8          weights of convolutions and fully connected layers of 4 bit; edges and depthwise layers of 8
    w4a8:50       at least half of the bytes that w4a8 saves over w8a8, from the least sensitive layers on
    w8a8-p25      the same with a quarter of the channels removed before

The ladder of bits is strictly monotone in the degree of lightening G (search.size_model computes G for a network); so
is the ladder of pruning on every rung of it. There is no rung of 2 bit: docs/decisions/0014-what-the-ladder-has.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Self

from pydantic import Field, model_validator

from edgeloop.core.frozen import Frozen

PRUNED_PCT_MAX = 75
MIXES = (25, 50, 75)
"""Shares, in percent, of the mixed rungs that the ladder has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RungBits:
    """One row of the ladder: the bits of a rung before its share and its pruning."""

    name: str
    weight: int
    activation: int
    depthwise_weight: int
    edge_weight: int
    """Of the first and the last layer."""
    mixes_with: str | None = None
    """The rung whose bits a layer keeps that a share of this one leaves out; None where there are no shares, since no
    layer has a choice."""
    suffix: str = ""
    """An ending that the name may have, which says nothing new."""
    is_rung: bool = True
    """False for a form that only a file given as M1 may have."""


DYNAMIC = "dynamic"
"""Weights of 8 bit, activations float and quantized while it runs (TFLite's dynamic range quantization): a form that a
file given as M1 may be measured in, and no rung, since nothing here trains for it."""
_ROWS = (
    RungBits(name="fp32", weight=32, activation=32, depthwise_weight=32, edge_weight=32),
    RungBits(name="fp16", weight=16, activation=32, depthwise_weight=16, edge_weight=16),
    RungBits(name=DYNAMIC, weight=8, activation=32, depthwise_weight=8, edge_weight=8, is_rung=False),
    RungBits(name="w8a16", weight=8, activation=16, depthwise_weight=8, edge_weight=8),
    RungBits(name="w8a8", weight=8, activation=8, depthwise_weight=8, edge_weight=8),
    RungBits(name="w4a8", weight=4, activation=8, depthwise_weight=8, edge_weight=8, mixes_with="w8a8", suffix="+dw8"),
)
RUNG_BITS: dict[str, RungBits] = {row.name: row for row in _ROWS}
"""By name, from the lowest degree of lightening to the highest."""
_MIXED = tuple(row.name for row in _ROWS if row.mixes_with is not None)
_SPELLING = re.compile(
    r"(?P<bits>[a-z0-9]+?)(?P<suffix>\+[a-z0-9]+)?(?::(?P<share>[0-9]{1,3}))?(?:-p(?P<pruned>[0-9]{1,3}))?"
)


class Lightening(Frozen):
    """One rung. 32 is float; weights of 16 bit are half floats, activations of 16 bit integers."""

    name: str
    weight_bits: int
    activation_bits: int
    depthwise_weight_bits: int
    edge_weight_bits: int
    """Bits of the first and the last layer's weights."""
    share_pct: int = Field(default=100, ge=1, le=100)
    """Of the weight bytes that `weight_bits` saves over `kept_bits`, so many percent at least are taken; the layers
    that are least sensitive for each byte saved go first."""
    pruned_pct: int = Field(default=0, ge=0, le=PRUNED_PCT_MAX)
    """Percent of the channels that are removed before anything is rounded."""

    @model_validator(mode="after")
    def _is_on_the_ladder(self) -> Self:
        bits = (self.weight_bits, self.activation_bits, self.depthwise_weight_bits, self.edge_weight_bits)
        rows = (row for row in _ROWS if (row.weight, row.activation, row.depthwise_weight, row.edge_weight) == bits)
        row = next(rows, None)
        if row is None or (self.is_mixed and row.mixes_with is None):
            raise ValueError(f"{bits} with a share of {self.share_pct} % is no rung of the ladder")
        spelling = _spelling(row.name, self.share_pct, self.pruned_pct)
        if self.name != spelling:
            raise ValueError(f"{self.name} is not these bit widths, which are {spelling}")
        return self

    @property
    def base(self) -> str:
        """The rung's bits without share and pruning: `w4a8` for `w4a8:50-p25`."""
        return self.name.partition("-")[0].partition(":")[0]

    @property
    def row(self) -> RungBits:
        """The rung's row on the ladder."""
        return RUNG_BITS[self.base]

    @property
    def is_float(self) -> bool:
        """True where no activation is quantized and training needs no ranges."""
        return self.activation_bits == 32

    @property
    def is_mixed(self) -> bool:
        """True where only some of the layers take the fewer bits, chosen by their sensitivity."""
        return self.share_pct < 100

    @property
    def has_choice(self) -> bool:
        """True where a layer may take the rung's fewer bits or keep those of the rung that it mixes with."""
        return self.row.mixes_with is not None

    @property
    def kept_bits(self) -> int:
        """Bits of a layer's weights that does not take the fewer ones; where no layer has a choice, `weight_bits`."""
        mixes_with = self.row.mixes_with
        return self.weight_bits if mixes_with is None else RUNG_BITS[mixes_with].weight

    @property
    def step(self) -> float:
        """Place on the ladder of bits, from 0; mixed rungs lie between the rung that they mix with and their own."""
        place = list(RUNG_BITS).index(self.base)
        return place if not self.is_mixed else place - 1 + self.share_pct / 100

    @property
    def height(self) -> float:
        """G of a network that is half weights and half activations: what rungs are ordered by before G is known.

        Removing a share p of the channels leaves (1-p)^2 of the weights and 1-p of the activations.
        """
        rest = 1 - self.pruned_pct / 100
        weight_bits = self.kept_bits - (self.kept_bits - self.weight_bits) * self.share_pct / 100
        return 1 - (rest**2 * weight_bits + rest * self.activation_bits) / 64

    def at_most_as_light(self, other: Lightening) -> bool:
        """Return whether neither bits nor channels are lightened further than by `other`."""
        return self.step <= other.step and self.pruned_pct <= other.pruned_pct

    def __str__(self) -> str:
        return self.name

    @classmethod
    @cache
    def parse(cls, name: str) -> Self:
        """Return the rung with this name; `w4a8+dw8` is another spelling of `w4a8`.

        Raises ValueError, saying how names are spelled, where there is none.
        """
        spelling = _SPELLING.fullmatch(name)
        row = RUNG_BITS.get(spelling["bits"]) if spelling else None
        if spelling is None or row is None or spelling["suffix"] not in (None, row.suffix):
            ladder = ", ".join(row.name for row in _ROWS if row.is_rung)
            shares = ", ".join(f"{base}:1 to {base}:99" for base in _MIXED)
            raise ValueError(
                f"unknown lightening {name!r}; the ladder is {ladder}, with {shares} between the last two, each also "
                f"pruned as in w8a8-p25"
            )
        share_pct, pruned_pct = int(spelling["share"] or 100), int(spelling["pruned"] or 0)
        if spelling["share"] and (row.mixes_with is None or not 1 <= share_pct <= 99):
            bases = " or ".join(_MIXED)
            raise ValueError(f"{name}: a share of 1 to 99 percent goes with {bases}, as in {_MIXED[0]}:50")
        if spelling["pruned"] and not row.is_rung:
            raise ValueError(f"{name}: {row.name} is a form of a file, and files are not pruned")
        if spelling["pruned"] and not 1 <= pruned_pct <= PRUNED_PCT_MAX:
            raise ValueError(f"{name}: 1 to {PRUNED_PCT_MAX} percent of the channels can be pruned, as in w8a8-p25")
        return cls(
            name=_spelling(row.name, share_pct, pruned_pct),
            weight_bits=row.weight,
            activation_bits=row.activation,
            depthwise_weight_bits=row.depthwise_weight,
            edge_weight_bits=row.edge_weight,
            share_pct=share_pct,
            pruned_pct=pruned_pct,
        )


def _spelling(base: str, share_pct: int, pruned_pct: int) -> str:
    return base + (f":{share_pct}" if share_pct < 100 else "") + (f"-p{pruned_pct}" if pruned_pct else "")


def _ladder() -> Iterator[Lightening]:
    for row in _ROWS:
        if row.is_rung:
            shares = MIXES if row.mixes_with is not None else ()
            yield from (Lightening.parse(f"{row.name}:{share}") for share in shares)
            yield Lightening.parse(row.name)


LADDER: tuple[Lightening, ...] = tuple(_ladder())
"""Nothing pruned, from the lowest degree of lightening to the highest."""
