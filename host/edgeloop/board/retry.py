"""Trying again where the board, not the network, went wrong: a reboot, a killed agent. Each attempt is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeloop.board.job import AttemptFolder
from edgeloop.core.board import Board
from edgeloop.core.measurement import Attempt, MeasureRequest
from edgeloop.errors import BoardError, BoardFullError, UnreachableError
from edgeloop.ports import Bench, Watch

ATTEMPTS_MAX = 3


class RetryingBench:
    """A Bench that closes an attempt the board spoilt and begins another, at most three in all.

    A board that does not answer is not tried again here (the bench has waited for it already), nor is a full one.
    Attempts live in `attempt-0`, `attempt-1`, ... of the request's folder and never share samples.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    @property
    def board(self) -> Board:
        return self._bench.board

    def facts(self) -> Mapping[str, Any]:
        return self._bench.facts()

    def close(self) -> None:
        self._bench.close()

    def measure(self, request: MeasureRequest, watch: Watch) -> Attempt:
        """As the port; raises the last attempt's BoardError."""
        attempts = [
            replace(request, attempt=number, folder=request.folder / f"attempt-{number}")
            for number in range(ATTEMPTS_MAX)
        ]
        for attempt in attempts:
            if AttemptFolder(attempt.folder).is_complete():
                return self._bench.measure(attempt, watch)
        for attempt in attempts[:-1]:
            try:
                return self._bench.measure(attempt, watch)
            except (UnreachableError, BoardFullError):
                raise
            except BoardError as error:
                watch(f"attempt {attempt.attempt + 1} closed: {error.message}", 0, len(request.schedule))
        return self._bench.measure(attempts[-1], watch)
