"""Measurements of schedules, kept by what a function computes: a network with the same layers measures nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from edgeloop.builders.tvm.jobs import TimedSchedules
from edgeloop.builders.tvm.schedule import TileChoice
from edgeloop.core.frozen import Frozen
from edgeloop.errors import HarnessError, kept_on_disk

GAIN_MIN = 0.03
"""A choice takes the place of another where it is faster by this share; less is noise."""


class TimingRow(Frozen):
    """Choices of one function that were timed in one session, the best so far among them and first."""

    workload: str
    function: str
    """The name it had in the network that it was tuned for."""
    choices: tuple[TileChoice, ...]
    median_ns: tuple[float | None, ...]
    """None for a choice that gives no schedule, crashed or hung."""
    library: str
    """Digest of the library that they were timed in; its raw samples go by it."""

    @property
    def best(self) -> TileChoice:
        """The fastest choice, if it is clearly faster than the first; else the first."""
        timings = [(ns, choice) for ns, choice in zip(self.median_ns, self.choices, strict=True) if ns is not None]
        first_ns = self.median_ns[0]
        if not timings:
            return self.choices[0]
        fastest_ns, fastest = min(timings, key=lambda pair: pair[0])
        return fastest if first_ns is None or fastest_ns <= (1 - GAIN_MIN) * first_ns else self.choices[0]


class TuningDatabase:
    """One file of rows for a kind of board, a processor and the versions of what compiles. Rows are only added."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, TimedSchedules]:
        """Return what is known, by workload. Raises HarnessError for a file with a damaged row."""
        timings: dict[str, TimedSchedules] = {}
        for row in self._rows():
            before = timings.get(row.workload)
            choices = dict.fromkeys([*(before.choices if before else ()), *row.choices])
            timings[row.workload] = TimedSchedules(best=row.best, choices=tuple(choices))
        return timings

    def add(self, rows: Sequence[TimingRow]) -> None:
        """Raises StationError for this machine's disk."""
        with kept_on_disk(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                for row in rows:
                    file.write(row.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def _rows(self) -> Iterator[TimingRow]:
        with contextlib.suppress(FileNotFoundError):
            whole, _, torn = self._path.read_bytes().rpartition(b"\n")
            if torn:  # a controller was killed while it wrote: what it measured is read again from its samples
                with self._path.open("r+b") as file:
                    file.truncate(len(whole) + bool(whole))
            for number, line in enumerate(whole.splitlines(), 1):
                try:
                    yield TimingRow.model_validate_json(line)
                except ValidationError as error:
                    raise HarnessError(
                        f"{self._path}: line {number} is no row of a tuning database",
                        next_step="move the file away: what it knew is measured again",
                    ) from error
