"""A board's own words, read one by one: a value of another type counts as absent, texts are bounded and printable.

For advice to people, where one strange value shall not hide the others. Records that rules rest on are refused whole
instead: see `core.conditions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeloop.core.check import printable

_WORDS_MAX = 8


@dataclass(frozen=True, slots=True)
class BoardWords:
    """One JSON object of a board."""

    plain: Mapping[str, Any]

    @classmethod
    def of(cls, value: object) -> BoardWords:
        """Empty for anything but an object."""
        return cls(value if isinstance(value, Mapping) else {})

    def part(self, key: str) -> BoardWords:
        return BoardWords.of(self.plain.get(key))

    def text(self, key: str) -> str | None:
        value = self.plain.get(key)
        return (printable(value) or None) if isinstance(value, str) else None

    def number(self, key: str) -> float | None:
        value = self.plain.get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def flag(self, key: str) -> bool | None:
        value = self.plain.get(key)
        return value if isinstance(value, bool) else None

    def words(self, key: str) -> list[str]:
        """The texts of a list, the first few."""
        return _texts(self.plain.get(key))

    def integers(self, key: str) -> list[int] | None:
        """The whole numbers of a list; None where there is no list."""
        value = self.plain.get(key)
        return [item for item in value if isinstance(item, int)] if isinstance(value, list) else None

    def values(self) -> list[str]:
        """The texts among its values, the first few."""
        return _texts(list(self.plain.values()))

    def numbers(self) -> list[float]:
        """The numbers among its values."""
        return [number for key in self.plain if (number := self.number(key)) is not None]


def _texts(values: object) -> list[str]:
    return (
        [printable(item) for item in values if isinstance(item, str)][:_WORDS_MAX] if isinstance(values, list) else []
    )
