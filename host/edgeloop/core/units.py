"""Numbers as people read them, with their units."""

from __future__ import annotations

from dataclasses import dataclass

MIB_BYTES = 2**20


def number(value: float | None, unit: str = "") -> str:
    """Return a number with its unit; `-` for none."""
    if value is None:
        return "-"
    if unit == "bytes":
        return f"{value:,.0f} bytes"
    return f"{value:.4g}{' ' + unit if unit else ''}"


@dataclass(frozen=True, slots=True)
class DisplayUnit:
    """The unit that people read a figure in, which may be another one than it is kept in."""

    symbol: str
    """Empty for a figure without a unit."""
    factor: float = 1.0
    """Of the unit that the figure is kept in: 2**20 for bytes that are told in MiB."""
    spec: str = ".4g"

    def bare(self, value: float | None) -> str:
        """Return the number alone, for a table whose heading has the unit; `-` for none."""
        return "-" if value is None else f"{value / self.factor:{self.spec}}"

    def text(self, value: float | None) -> str:
        """Return the number with its unit."""
        return f"{self.bare(value)} {self.symbol}".rstrip()

    def difference(self, value: float | None) -> str:
        """Return a signed difference with its unit; `-` for none."""
        return "-" if value is None else f"{value / self.factor:+{self.spec}} {self.symbol}".rstrip()


PLAIN = DisplayUnit("")
MIB = DisplayUnit("MiB", MIB_BYTES, ".1f")
