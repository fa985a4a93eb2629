"""Tuning: schedules of a network's functions, measured on the board, and what was measured of them kept.

The child enumerates a function's space and compiles candidates, many of all functions into one library; the board times
them; the database keeps what came of it, by what a function computes. A network with the same layers measures nothing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from edgeloop.builders.store import ArtifactStore
from edgeloop.builders.tvm.processor import this_processor
from edgeloop.builders.tvm.schedule import Choice
from edgeloop.builders.tvm.versions import NATIVE, TvmTarget, tool_versions
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Tuning
from edgeloop.core.frozen import Frozen, key_of
from edgeloop.errors import BuildError, HarnessError, kept_on_disk
from edgeloop.host_runtime.model_files import digest
from edgeloop.ports import Clock, FunctionTimer

LIBRARY = "candidates.so"
BATCH = 96
"""Candidates in one library at most: compiling them takes long, and the budget's minutes are looked at between."""
GAIN_MIN = 0.03
"""A choice takes the place of another where it is faster by this share; less is noise."""


class TimedSchedules(Frozen):
    """What the database knows of one function."""

    best: Choice
    seen: tuple[Choice, ...]


class Row(Frozen):
    """Choices of one function that were timed in one session, the best so far among them and first."""

    workload: str
    function: str
    """The name it had in the network that it was tuned for."""
    choices: tuple[Choice, ...]
    median_ns: tuple[float | None, ...]
    """None for a choice that gives no schedule, crashed or hung."""
    library: str
    """Digest of the library that they were timed in; its raw samples go by it."""


class Database:
    """One file of rows for a kind of board, a processor and the versions of what compiles. Rows are only added."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def measured(self) -> dict[str, TimedSchedules]:
        """What is known, by workload. Raises HarnessError for a file with a damaged row."""
        found: dict[str, TimedSchedules] = {}
        for row in self._rows():
            before = found.get(row.workload)
            seen = dict.fromkeys([*(before.seen if before else ()), *row.choices])
            found[row.workload] = TimedSchedules(best=best_of(row), seen=tuple(seen))
        return found

    def add(self, rows: Sequence[Row]) -> None:
        """Raises StationError for this machine's disk."""
        with kept_on_disk(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                for row in rows:
                    file.write(row.model_dump_json().encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())

    def _rows(self) -> Iterator[Row]:
        with contextlib.suppress(FileNotFoundError):
            whole, _, torn = self._path.read_bytes().rpartition(b"\n")
            if torn:  # a controller was killed while it wrote: what it measured is read again from its samples
                with self._path.open("r+b") as file:
                    file.truncate(len(whole) + bool(whole))
            for number, line in enumerate(whole.splitlines(), 1):
                try:
                    yield Row.model_validate_json(line)
                except ValidationError as error:
                    raise HarnessError(
                        f"{self._path}: line {number} is no row of a tuning database",
                        next_step="move the file away: what it knew is measured again",
                    ) from error


class Tuner:
    """Tunes networks for one board; what holds for it holds for all boards of its model."""

    def __init__(
        self,
        tuning: Tuning,
        timer: FunctionTimer,
        folder: Path,
        clock: Clock,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._tuning = tuning
        self._timer = timer
        self._folder = folder
        self._clock = clock
        self._say = say

    @property
    def key(self) -> str:
        """What an artifact's key needs: the budget, and the kind of board that measures."""
        return key_of("tuning", self._tuning, self._timer.board.model.name)

    def tuned(self, imported: Artifact, target: TvmTarget, store: ArtifactStore) -> dict[str, Choice]:
        """The best known choice by workload, after measuring what the budget allows and nobody has measured.

        Raises BuildError, and what the board raises.
        """
        database = self._database(target)
        ends_s = self._clock.monotonic_s() + self._tuning.minutes * 60
        while True:
            measured = database.measured()
            own, any_left = self._measure_more(measured, imported, target, store, database)
            if not any_left or self._clock.monotonic_s() >= ends_s:
                return {workload: known.best for workload, known in database.measured().items() if workload in own}

    def _measure_more(
        self,
        measured: Mapping[str, TimedSchedules],
        imported: Artifact,
        target: TvmTarget,
        store: ArtifactStore,
        database: Database,
    ) -> tuple[frozenset[str], bool]:
        """Measure one library of candidates; return the network's workloads, and whether there was one to measure."""
        with store.building() as folder:
            job = {
                "do": "candidates",
                "model": imported.path,
                "processor": target.model_dump(),
                "measured": {workload: known.model_dump() for workload, known in measured.items()},
                "trials": self._tuning.trials,
                "most": BATCH,
                "target": str(folder.resolve()),
            }
            answer = store.run(imported.sha256, f"candidates of schedules for {target}", job, folder)
            asked, own = answer["candidates"], frozenset(answer["workloads"])
            if asked:
                functions = len({one["workload"] for one in asked})
                self._say(f"tuning on {self._timer.board.name}: {len(asked)} schedules of {functions} functions")
                database.add(self._rows(asked, folder))
            return own, bool(asked)

    def _rows(self, asked: Sequence[Mapping[str, Any]], folder: Path) -> list[Row]:
        """Time candidates and put together those of one function."""
        compiled = [one["symbol"] for one in asked if one["symbol"] is not None]
        library, times = "", np.empty((0, 1, 1), np.int64)
        if compiled:
            artifact = _described(folder / LIBRARY)
            library, times = artifact.sha256, self._timer.time(artifact)
        if len(times) != len(compiled):
            raise BuildError(f"tuning: {len(times)} functions were timed of {len(compiled)}")
        by_symbol = dict(zip(compiled, medians_ns(times), strict=True))
        found: dict[str, list[tuple[str, Choice, float | None]]] = {}
        for one in asked:
            timed = (one["function"], Choice.model_validate(one["choice"]), by_symbol.get(one["symbol"]))
            found.setdefault(one["workload"], []).append(timed)
        return [
            Row(
                workload=workload,
                function=timed[0][0],
                choices=tuple(choice for _, choice, _ in timed),
                median_ns=tuple(ns for _, _, ns in timed),
                library=library,
            )
            for workload, timed in found.items()
        ]

    def _database(self, target: TvmTarget) -> Database:
        native = [this_processor()] if target.mcpu == NATIVE else []
        versions = key_of("versions", tool_versions(), *native)[:8]
        name = f"{self._timer.board.model.name}-{target.machine}-{target.mcpu}-{versions}"
        return Database(self._folder / f"{''.join(c if c.isalnum() or c in '._-' else '_' for c in name)}.jsonl")


def best_of(row: Row) -> Choice:
    """The fastest choice of a row, if it is clearly faster than the first; else the first."""
    timed = [(ns, choice) for ns, choice in zip(row.median_ns, row.choices, strict=True) if ns is not None]
    first_ns = row.median_ns[0]
    if not timed:
        return row.choices[0]
    fastest_ns, fastest = min(timed, key=lambda pair: pair[0])
    return fastest if first_ns is None or fastest_ns <= (1 - GAIN_MIN) * first_ns else row.choices[0]


def medians_ns(times: NDArray[np.int64]) -> list[float | None]:
    """The median over rounds of each round's median; None for a function that a round lacks."""
    found: list[float | None] = []
    for function in times:
        rounds = [called[called >= 0] for called in function]
        whole = all(len(called) for called in rounds)
        found.append(float(np.median([np.median(called) for called in rounds])) if whole else None)
    return found


def planned(
    space: Mapping[str, Sequence[Choice]], measured: Mapping[str, TimedSchedules], trials: int, most: int
) -> list[tuple[str, Choice]]:
    """What is to be measured next: at most `most` choices that nobody measured, the same share of each function.

    The `trials` of a network are shared out evenly; what one function leaves over goes to the others. The best that is
    known of a function goes first and beside them, since times of two sessions are no pair; it is no trial.
    """
    share = _share([len(choices) for choices in space.values()], trials)
    open_ = {
        workload: [c for c in choices[:share] if workload not in measured or c not in measured[workload].seen]
        for workload, choices in space.items()
    }
    turns = [(turn, workload) for workload, left in open_.items() for turn in range(len(left))]
    taken: dict[str, list[Choice]] = {}
    for turn, workload in sorted(turns)[:most]:
        taken.setdefault(workload, []).append(open_[workload][turn])
    return [
        (workload, choice)
        for workload, asked in taken.items()
        for choice in ([measured[workload].best, *asked] if workload in measured else asked)
    ]


def _share(sizes: Iterable[int], trials: int) -> int:
    """The most choices of each function that are within the trials altogether; at least the rule's own."""
    sizes = list(sizes)
    share = 1
    while share < max(sizes, default=0) and sum(min(share + 1, size) for size in sizes) <= trials:
        share += 1
    return share


def _described(path: Path) -> Artifact:
    size = path.stat().st_size
    return Artifact(path=str(path.resolve()), sha256=digest(path), deployed_bytes=size, inputs=(), outputs=())
