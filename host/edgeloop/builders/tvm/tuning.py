"""Tuning: schedules of a network's functions, measured on the board.

The child enumerates a function's space and compiles candidates, many of all functions into one library; the board times
them; the database keeps what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeloop.builders.store import ArtifactStore
from edgeloop.builders.tvm.jobs import CandidatesAnswer, CandidatesJob, ScheduleCandidate, TimedSchedules
from edgeloop.builders.tvm.processor import this_processor
from edgeloop.builders.tvm.schedule import TileChoice
from edgeloop.builders.tvm.tuning_database import TimingRow, TuningDatabase
from edgeloop.builders.tvm.versions import NATIVE, TvmTarget, tool_versions
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Tuning
from edgeloop.core.frozen import key_of
from edgeloop.errors import BuildError
from edgeloop.ports import Clock, FunctionTimer
from edgeloop.processes.files import sha256_of

LIBRARY = "candidates.so"
BATCH = 96
"""Candidates in one library at most: compiling them takes long, and the budget's minutes are looked at between."""


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
        """The part of an artifact's key that is tuning's: the budget, and the kind of board that measures."""
        return key_of("tuning", self._tuning, self._timer.board.model.name)

    def tune(self, source: Artifact, target: TvmTarget, store: ArtifactStore) -> dict[str, TileChoice]:
        """Measure what the budget allows and nobody has measured of a .tflite's functions; return the best known choice
        of each by workload.

        Raises BuildError, and what the board raises.
        """
        database = self._database(target)
        ends_s = self._clock.monotonic_s() + self._tuning.minutes * 60
        while True:
            workloads, is_last = self._measure_more(source, target, store, database)
            if is_last or self._clock.monotonic_s() >= ends_s:
                return {workload: row.best for workload, row in database.read().items() if workload in workloads}

    def _measure_more(
        self, source: Artifact, target: TvmTarget, store: ArtifactStore, database: TuningDatabase
    ) -> tuple[frozenset[str], bool]:
        """Measure one library of candidates; return the network's workloads, and whether none was to be measured."""
        with store.new_folder() as folder:
            job = CandidatesJob(
                model=Path(source.path),
                target=target,
                timings=database.read(),
                trials=self._tuning.trials,
                candidates_max=BATCH,
                folder=folder.resolve(),
            )
            what = f"candidates of schedules for {target}"
            answer = store.run(source.sha256, what, job, CandidatesAnswer, folder)
            candidates = answer.candidates
            if candidates:
                functions = len({one.workload for one in candidates})
                self._say(f"tuning on {self._timer.board.name}: {len(candidates)} schedules of {functions} functions")
                database.add(self._time(candidates, folder))
            return frozenset(answer.workloads), not candidates

    def _time(self, candidates: Sequence[ScheduleCandidate], folder: Path) -> list[TimingRow]:
        """Time candidates and put together those of one function."""
        symbols = [one.symbol for one in candidates if one.symbol is not None]
        library, times = "", np.empty((0, 1, 1), np.int64)
        if symbols:
            artifact = _library_artifact(folder / LIBRARY)
            library, times = artifact.sha256, self._timer.time(artifact)
        if len(times) != len(symbols):
            raise BuildError(f"tuning: {len(times)} functions were timed of {len(symbols)}")
        ns_of = dict(zip(symbols, medians_ns(times), strict=True))
        by_workload: dict[str, list[ScheduleCandidate]] = {}
        for one in candidates:
            by_workload.setdefault(one.workload, []).append(one)
        return [
            TimingRow(
                workload=workload,
                function=together[0].function,
                choices=tuple(one.choice for one in together),
                median_ns=tuple(None if one.symbol is None else ns_of[one.symbol] for one in together),
                library=library,
            )
            for workload, together in by_workload.items()
        ]

    def _database(self, target: TvmTarget) -> TuningDatabase:
        native = [this_processor()] if target.mcpu == NATIVE else []
        versions = key_of("versions", tool_versions(), *native)[:8]
        name = f"{self._timer.board.model.name}-{target.machine}-{target.mcpu}-{versions}"
        return TuningDatabase(self._folder / f"{''.join(c if c.isalnum() or c in '._-' else '_' for c in name)}.jsonl")


def medians_ns(times: NDArray[np.int64]) -> list[float | None]:
    """Return the median over rounds of each round's median; None for a function that a round lacks."""
    medians: list[float | None] = []
    for function in times:
        rounds = [calls[calls >= 0] for calls in function]
        is_whole = all(len(calls) for calls in rounds)
        medians.append(float(np.median([np.median(calls) for calls in rounds])) if is_whole else None)
    return medians


def plan_candidates(
    space: Mapping[str, Sequence[TileChoice]],
    timings: Mapping[str, TimedSchedules],
    trials: int,
    candidates_max: int,
) -> list[tuple[str, TileChoice]]:
    """Return what to measure next: at most so many choices that nobody measured, the same share of each function.

    The `trials` of a network are shared out evenly; what one function leaves over goes to the others. The best that is
    known of a function goes first and beside them, since times of two sessions are no pair; it is no trial.
    """
    share = _share([len(choices) for choices in space.values()], trials)
    new_choices = {
        workload: [c for c in choices[:share] if workload not in timings or c not in timings[workload].choices]
        for workload, choices in space.items()
    }
    turns = [(turn, workload) for workload, choices in new_choices.items() for turn in range(len(choices))]
    plan: dict[str, list[TileChoice]] = {}
    for turn, workload in sorted(turns)[:candidates_max]:
        plan.setdefault(workload, []).append(new_choices[workload][turn])
    return [
        (workload, choice)
        for workload, choices in plan.items()
        for choice in ([timings[workload].best, *choices] if workload in timings else choices)
    ]


def _share(sizes: Iterable[int], trials: int) -> int:
    """The most choices of each function that are within the trials altogether; at least the rule's own."""
    sizes = list(sizes)
    share = 1
    while share < max(sizes, default=0) and sum(min(share + 1, size) for size in sizes) <= trials:
        share += 1
    return share


def _library_artifact(path: Path) -> Artifact:
    size = path.stat().st_size
    return Artifact(path=str(path.resolve()), sha256=sha256_of(path), deployed_bytes=size, inputs=(), outputs=())
