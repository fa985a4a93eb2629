"""The board's CLOCK_MONOTONIC on this host's: a few timed exchanges, and how far they leave it open.

The board's clock is read at some moment between a question and its answer, so each exchange bounds the difference; the
one with the shortest round trip bounds it best, to half of that trip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

EXCHANGES = 5


@dataclass(frozen=True, slots=True)
class Exchange:
    """Question and answer on this host's clock, and what the board's clock showed in between; seconds."""

    asked_s: float
    board_s: float
    answered_s: float

    @property
    def round_trip_s(self) -> float:
        return self.answered_s - self.asked_s


@dataclass(frozen=True, slots=True)
class ClockFit:
    """`host = board + offset_s`, to `uncertainty_s` on either side."""

    offset_s: float
    uncertainty_s: float

    @classmethod
    def of(cls, exchanges: Sequence[Exchange]) -> ClockFit:
        """By the exchange with the shortest round trip; at least one is wanted."""
        best = min(exchanges, key=lambda exchange: exchange.round_trip_s)
        middle_s = (best.asked_s + best.answered_s) / 2
        return cls(middle_s - best.board_s, best.round_trip_s / 2)


def fit(ask_board_ns: Callable[[], int], now_s: Callable[[], float], exchanges: int = EXCHANGES) -> ClockFit:
    """Ask the board's clock a few times. What asking raises goes through."""
    answers = []
    for _ in range(exchanges):
        asked_s = now_s()
        board_ns = ask_board_ns()
        answers.append(Exchange(asked_s, board_ns / 1e9, now_s()))
    return ClockFit.of(answers)
