"""Trying again where the board, not the network, went wrong: a reboot, a killed agent. Each attempt is kept."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgeloop.core.board import Board
from edgeloop.core.measurement import Attempt, MeasureRequest
from edgeloop.errors import BoardError, BoardFullError, UnreachableError
from edgeloop.ports import Bench, Progress, Watch
from edgeloop.records.samples import AttemptFolder

ATTEMPTS_MAX = 3
CLOSED = "closed"
"""A file in an attempt's folder: why nothing more comes of it."""


class RetryingBench:
    """A Bench that closes an attempt the board spoilt and begins another, at most three in all.

    A board that does not answer is not tried again here (the bench has waited for it already), nor is a full one.
    Attempts live in `attempt-0`, `attempt-1`, ... of the request's folder and never share samples. One that was closed
    is marked, so that a resumed run begins another instead of finding its cancelled job on the board.
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
        first = next(n for n in itertools.count() if not (request.folder / f"attempt-{n}" / CLOSED).exists())
        attempts = [
            replace(request, attempt=number, folder=request.folder / f"attempt-{number}")
            for number in range(first, first + ATTEMPTS_MAX)
        ]
        for attempt in attempts:
            if AttemptFolder(attempt.folder).is_complete():
                return self._bench.measure(attempt, watch)
        for attempt in attempts:
            try:
                return self._bench.measure(attempt, watch)
            except (UnreachableError, BoardFullError):
                raise
            except BoardError as error:
                if attempt.folder.is_dir():
                    (attempt.folder / CLOSED).write_text(error.message + "\n", encoding="utf-8")
                if attempt is attempts[-1]:
                    raise
                watch(Progress(f"attempt {attempt.attempt + 1} closed: {error.message}", total=len(request.schedule)))
        raise AssertionError("the last attempt returns or raises")
