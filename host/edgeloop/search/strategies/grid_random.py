"""Searches that do not listen: every point once, in an order that is stated before the first measurement.

They are what a cleverer search is compared with, and what to take where every point shall be measured anyway.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from edgeloop.core.events import Trial
from edgeloop.core.network import Candidate
from edgeloop.core.verdict import Direction
from edgeloop.search.moves import result_in_figures, result_of
from edgeloop.search.space import Point, SearchSpace
from edgeloop.search.strategies.base import VisitedPoints

AHEAD = 3
"""So many of the next points are named by `likely`."""

Ordering = Callable[[SearchSpace], Sequence[Point]]


def grid_order(space: SearchSpace) -> list[Point]:
    """Return every point: networks from the smallest, for each the rungs from the least lightened, then settings."""
    return sorted(space.points)


def random_order(space: SearchSpace) -> list[Point]:
    """Return every point in an order drawn by `search.seed`, without replacement.

    The order is that of SHA-256 digests over the seed and the point's own words: the same on every machine and
    version of Python, and a rung that is added to the space leaves the others in their order.
    """

    def digest(point: Point) -> str:
        network = space.networks[point.network]
        setting = space.settings[point.setting]
        run_by = f"{setting.engine}/{setting.threads}" + (f"/{setting.delegate}" if setting.delegate else "")
        words = f"{space.search.seed or 0}/{network.label}/{space.rungs[point.rung].name}/{run_by}"
        return hashlib.sha256(words.encode()).hexdigest()

    return sorted(space.points, key=digest)


class SweepStrategy(VisitedPoints):
    """ports.Strategy that walks an ordering of the space."""

    def __init__(self, space: SearchSpace, ordering: Ordering) -> None:
        super().__init__(space)
        self._ordering = ordering
        self._order: Sequence[Point] | None = None

    def ask(self) -> tuple[Candidate, str] | None:
        """Return the next candidate and its place in the order. Raises ConfigError as `SearchSpace.networks` does."""
        rest = self._rest()
        if not rest:
            return None
        place = f"{len(self._past) + 1} of {len(self._past) + len(rest)}"
        self._past.add(rest[0])
        return self.space.candidate(rest[0]), f"{place} in the order of a {self.space.search.strategy} search"

    def tell(self, trial: Trial) -> tuple[Direction, str]:
        """Learn the size of a trial's file; what was measured moves nothing."""
        here = self.space.by_key.get(trial.candidate.key)
        if here is None:
            return "none", f"{trial.candidate} is not of this search: nothing moves"
        self._past.add(here)
        self._file_of(trial, here)
        points = self._rest()
        rest = f"the sweep goes on with {self._name(points[0])}" if points else "nothing untried is left"
        return "none", f"{result_in_figures(result_of(trial))}; {rest}"

    def likely(self) -> list[Candidate]:
        """Return what will be asked next, in order."""
        return [self.space.candidate(point) for point in self._rest()[:AHEAD]]

    def _rest(self) -> list[Point]:
        if self._order is None:
            self._order = self._ordering(self.space)
        new = frozenset(self._new_points())  # points may turn out to be the same network, and go
        return [point for point in self._order if point in new]
