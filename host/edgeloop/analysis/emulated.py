"""Limits that may not be judged on an emulated board: absolute times say nothing about hardware there."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.core.board import Board
from edgeloop.core.limits import LimitSet
from edgeloop.errors import Fault
from edgeloop.sentences import Sentence


def refused_when_emulated(limits: LimitSet, boards: Sequence[Board], allow: str) -> list[Fault]:
    """Return a fault for each absolute limit on time or energy where a board is emulated.

    `allow` is how the user permits it. Ratios, sizes, memory and accuracy are judged there like anywhere else.
    """
    emulated = [board.name for board in boards if board.emulated]
    if not emulated:
        return []
    where = f"{', '.join(emulated)} {'is' if len(emulated) == 1 else 'are'} emulated"
    return [
        Fault(
            f"limit {limit.id} ({limit})",
            f"{where}, and times there mean nothing as times",
            Sentence("limit a ratio to the reference, measure on hardware, or allow it with {}", allow),
        )
        for limit in limits.limit
        if limit.is_about_hardware
    ]
