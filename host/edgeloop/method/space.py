"""The search space as a grid of points, and what is predicted of each before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import log2
from typing import Literal

from edgeloop.core.campaign import Search
from edgeloop.core.lightening import LADDER, Lightening
from edgeloop.core.limits import LimitSet
from edgeloop.core.network import Candidate, Engine, NetworkSizes, NetworkSpec, Teacher
from edgeloop.core.verdict import Family
from edgeloop.errors import ConfigError, Fault
from edgeloop.method.determine import Larger, determine, evaluated, interpolated, label_of, parity_delta, shape_of
from edgeloop.method.lighten import Prediction

START_RUNG = "w8a8"
OVERSIZED = 1.15
"""A candidate that is predicted this far over the size limit is asked last, not never."""


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A candidate as indices: networks from the smallest, rungs from the least lightened."""

    network: int
    rung: int
    setting: int
    """Engine and thread count."""


class SearchSpace:
    """Networks x rungs x settings. `sizes_of` may be slow: it is called late, once for each network."""

    def __init__(
        self,
        *,
        search: Search,
        m1: NetworkSpec,
        m1_sizes: NetworkSizes,
        m1_lightening: str,
        m1_bytes: int,
        larger: Literal["factory", "none"],
        teacher: Teacher,
        limits: LimitSet,
        sizes_of: Callable[[NetworkSpec], NetworkSizes],
    ) -> None:
        self.search, self._larger, self._teacher = search, larger, teacher
        self._m1, self._m1_sizes, self._m1_bytes = m1, m1_sizes, m1_bytes
        self._sizes_of = sizes_of
        self._shape = shape_of(search.evaluation)
        offered = {Lightening.parse(name).name for name in search.lightenings}
        self.rungs = [rung for rung in LADDER if rung.name in offered]
        names = [rung.name for rung in LADDER]
        self.start_rung = min(
            range(len(self.rungs)),
            key=lambda i: (abs(names.index(self.rungs[i].name) - names.index(START_RUNG)), i),
        )
        self.settings: list[tuple[Engine, int]] = [
            (engine, threads) for engine in dict.fromkeys(search.engines) for threads in dict.fromkeys(search.threads)
        ]
        self.prediction = Prediction()
        self.prediction.learn(m1_sizes, Lightening.parse(m1_lightening), m1_bytes)
        self._parities: dict[int, tuple[int, float]] = {}
        self.families = frozenset(limit.family for limit in limits.limit)
        factors: dict[str, float] = {"max_mib": 2**20, "max_ratio_to_reference": m1_bytes}
        self._bytes_max = min(
            (lim.bound * factors.get(lim.bound_name, 1) for lim in limits.limit if lim.family is Family.SIZE),
            default=float("inf"),
        )

    @cached_property
    def _determined(self) -> tuple[list[Larger], list[str]]:
        if self._larger == "none":
            return [Larger(self._m1, self._m1_sizes, label_of(self._m1))], []
        networks, left_out = determine(self._m1, self._m1_sizes, self.search, self._sizes_of)
        if not networks:
            step = "raise the width, or set reference.larger = 'none'"
            raise ConfigError([Fault("search.widths", sentence, step) for sentence in left_out])
        return networks, left_out

    @property
    def networks(self) -> list[Larger]:
        """Every M2, from the smallest. Raises ConfigError where no network of the grid is larger than M1."""
        return self._determined[0]

    @property
    def left_out(self) -> list[str]:
        """A sentence for each network of the grid that is no candidate."""
        return self._determined[1]

    @cached_property
    def points(self) -> list[Point]:
        return [
            Point(network, rung, setting)
            for network in range(len(self.networks))
            for rung in range(len(self.rungs))
            for setting in range(len(self.settings))
        ]

    @cached_property
    def by_key(self) -> dict[str, Point]:
        """Points by the key of their candidate."""
        return {self.candidate(point).key: point for point in self.points}

    def candidate(self, point: Point) -> Candidate:
        engine, threads = self.settings[point.setting]
        return Candidate(
            network=self.networks[point.network].spec,
            lightening=self.rungs[point.rung].name,
            teacher=self._teacher,
            engine=engine,
            threads=threads,
        )

    def label(self, point: Point) -> str:
        """The network of a point, in words."""
        return self.networks[point.network].label

    def setting_label(self, point: Point) -> str:
        engine, threads = self.settings[point.setting]
        return f"{engine} with {threads} thread{'' if threads == 1 else 's'}"

    def predicted(self, point: Point) -> int:
        """Deployed bytes to expect."""
        return self.prediction.bytes_of(self.networks[point.network].sizes, self.rungs[point.rung])

    def oversized(self, point: Point) -> bool:
        """Whether a point is predicted far over the size limit."""
        return self.predicted(point) > OVERSIZED * self._bytes_max

    def evaluation(self, point: Point) -> float | None:
        """E of a point's network under its rung; None where M1 itself is lightened.

        delta* is found between the real networks of the grid, M1 included, as this rung would build them.
        """
        if self._larger == "none":
            return None
        parameters = self.networks[point.network].sizes.parameters
        return evaluated(self._shape, self._m1_sizes.parameters, parameters, self._parity(point.rung))

    def _parity(self, rung: int) -> float:
        """delta* of a rung; kept until another file teaches the prediction."""
        learnt, parity = self._parities.get(rung, (-1, 0.0))
        if learnt != self.prediction.learnt:
            base = self._m1_sizes.parameters
            sizes = [self._m1_sizes, *(network.sizes for network in self.networks)]
            curve = interpolated(
                [
                    (log2(size.parameters / base), float(self.prediction.bytes_of(size, self.rungs[rung])))
                    for size in sizes
                ]
            )
            parity = parity_delta(self._m1_bytes, curve)
            self._parities[rung] = (self.prediction.learnt, parity)
        return parity
