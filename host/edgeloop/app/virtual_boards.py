"""`edgeloop board`: the user's virtual boards, started and stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass

from edgeloop.board.virtual.boards import VirtualBoards


@dataclass(frozen=True, slots=True)
class BoardStart:
    """Where a board answers, and after how long."""

    port: int
    seconds: float


def boards() -> VirtualBoards:
    """The user's virtual boards, in the user's own folders."""
    return VirtualBoards()


def start(name: str) -> BoardStart:
    """Start a board. Raises UserError, or LabError where it does not come up."""
    began_s = time.monotonic()
    port = boards().start(name)
    return BoardStart(port, time.monotonic() - began_s)


def stop(name: str) -> str:
    """Stop a board; say in words what that took."""
    before, by_itself = boards().stop(name)
    if before == "stopped":
        return "was not running"
    if before == "stale":
        return "was gone already; its traces are removed"
    return "powered off" if by_itself else "did not power off in time and was ended"
