"""The part that all strategies share: the points that were asked, and what built files teach about bytes."""

from __future__ import annotations

from edgeloop.core.events import Trial
from edgeloop.core.network import Candidate
from edgeloop.core.verdict import Direction
from edgeloop.search.space import Point, SearchSpace


class VisitedPoints:
    """A search space, and the points of it that were visited."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self._past: set[Point] = set()

    def rating(self, candidate: Candidate) -> tuple[float | None, int | None]:
        """Return E (None where M1 itself is lightened) and the predicted deployed bytes of a candidate.

        Both None for a candidate that is not of this search.
        """
        point = self.space.by_key.get(candidate.key)
        return (None, None) if point is None else (self.space.evaluation(point), self.space.predicted_bytes(point))

    def _new_points(self) -> list[Point]:
        """The points that were never asked, in the order of the space."""
        return [point for point in self.space.points if point not in self._past]

    def _file_of(self, trial: Trial, here: Point) -> int | None:
        """Deployed bytes of a trial's file; None where none was built. The space learns of it and of its layers."""
        if trial.training is not None:
            self.space.learn_layers(here, trial.training.layers)
        if trial.build is None:
            return None
        file_bytes = trial.build.artifact.deployed_bytes
        self.space.learn_file(here, file_bytes)
        return file_bytes

    def _name(self, point: Point, here: Point | None = None) -> str:
        """A point in words; engine, threads and delegate are named where they differ from those of `here`."""
        text = f"{self.space.rungs[point.rung].name} at {self.space.label(point)}"
        same = len(self.space.settings) == 1 if here is None else point.setting == here.setting
        return text if same else f"{text} on {self.space.setting_label(point)}"

    @staticmethod
    def _direction(here: Point, to: Point) -> Direction:
        if to.network != here.network:
            return "larger" if to.network > here.network else "smaller"
        if to.rung != here.rung:
            return "raise_degree" if to.rung > here.rung else "lower_degree"
        return "other_engine"
