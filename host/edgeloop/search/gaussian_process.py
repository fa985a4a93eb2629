"""Expectations of a candidate, from what was measured of others: a reconstruction, which only orders.

For each limit a Gaussian process over the points of the search (Rasmussen and Williams, Gaussian Processes for Machine
Learning, 2006, algorithm 2.1): its mean is a power of the network's work or size, and points are alike by network, rung
and setting. Nothing is excluded by it, and no verdict knows of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.verdict import Family, Finding
from edgeloop.search.moves import OF_WORK
from edgeloop.search.space import Point, SearchSpace

_LEAST = 1e-3
"""An error of 0 counts as this share of its limit."""


@dataclass(frozen=True, slots=True)
class _Prior:
    """The belief about the natural logarithm of a figure over its limit before anything was measured.

    Standard deviations of its parts, but for `slope`, which is a mean.
    """

    slope: float
    """Exponent of the MACs for what an engine computes, of the parameters for everything else."""
    slope_sd: float
    level: float
    network: float
    rung: float
    setting: float
    rung_at_setting: float
    noise: float


_PRIORS = {
    Family.ACCURACY: _Prior(-0.25, 0.25, 1.0, network=0.1, rung=0.1, setting=0.01, rung_at_setting=0.02, noise=0.03),
    Family.SPEED: _Prior(0.9, 0.3, 3.0, network=0.1, rung=0.4, setting=0.4, rung_at_setting=0.7, noise=0.03),
    Family.ENERGY: _Prior(0.9, 0.3, 3.0, network=0.1, rung=0.4, setting=0.4, rung_at_setting=0.7, noise=0.05),
    Family.MEMORY: _Prior(0.2, 0.2, 1.0, network=0.02, rung=0.1, setting=0.2, rung_at_setting=0.1, noise=0.02),
}
"""Bytes have a model of their own (size_model.Prediction)."""


@dataclass
class LimitModel:
    """Learns findings, and says how likely a point is outside each limit."""

    space: SearchSpace
    _log_shares: dict[tuple[Family, str], dict[Point, float]] = field(default_factory=dict)
    _chances: dict[tuple[Family, str], dict[Point, float]] = field(default_factory=dict)

    def learn(self, point: Point, finding: Finding) -> None:
        """Learn how far inside or outside its limit a figure was; a later measurement of the point replaces it."""
        value = _log_share(finding)
        if value is None or finding.family not in _PRIORS:
            return
        self._log_shares.setdefault((finding.family, finding.limit_id), {})[point] = value
        self._chances.clear()

    def outside(self, point: Point) -> dict[Family, float]:
        """By family, the chance that a point is outside the limit that it is likeliest outside of."""
        worst: dict[Family, float] = {}
        for of in self._log_shares:
            if of not in self._chances:
                self._chances[of] = self._chances_of(*of)
            worst[of[0]] = max(worst.get(of[0], 0.0), self._chances[of].get(point, 0.0))
        return worst

    def _chances_of(self, family: Family, limit_id: str) -> dict[Point, float]:
        prior, shares = _PRIORS[family], self._log_shares[family, limit_id]
        points = self.space.points
        learnt, every = self._rows(family, list(shares)), self._rows(family, points)
        centre = learnt[:, 0].mean()
        learnt[:, 0] -= centre
        every[:, 0] -= centre
        gram = _covariance(prior, learnt, learnt) + prior.noise**2 * np.eye(len(learnt))
        cross = _covariance(prior, every, learnt)
        weights = np.linalg.solve(
            gram, np.column_stack([np.array(list(shares.values())) - prior.slope * learnt[:, 0], cross.T])
        )
        mean = prior.slope * every[:, 0] + cross @ weights[:, 0]
        parts = prior.level, prior.network, prior.rung, prior.setting, prior.rung_at_setting, prior.noise
        own = sum(part**2 for part in parts) + (prior.slope_sd * every[:, 0]) ** 2
        deviation = np.sqrt(np.maximum(own - np.einsum("ij,ji->i", cross, weights[:, 1:]), 1e-12))
        return dict(zip(points, map(NormalDist().cdf, (mean / deviation).tolist()), strict=True))

    def _rows(self, family: Family, points: Sequence[Point]) -> NDArray[np.float64]:
        """Logarithm of the size, network, rung and setting of each point: (points, 4)."""
        sizes = [self.space.sizes(point) for point in points]
        logs = [log(max(1, size.macs if family in OF_WORK else size.parameters)) for size in sizes]
        return np.array([(s, p.network, p.rung, p.setting) for s, p in zip(logs, points, strict=True)])


def _covariance(prior: _Prior, one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    network, rung, setting = (np.equal.outer(one[:, at], other[:, at]) for at in (1, 2, 3))
    return np.asarray(
        prior.level**2
        + prior.slope_sd**2 * np.outer(one[:, 0], other[:, 0])
        + prior.network**2 * network
        + prior.rung**2 * rung
        + prior.setting**2 * setting
        + prior.rung_at_setting**2 * (rung & setting)
    )


def _log_share(finding: Finding) -> float | None:
    """The logarithm of a figure over its limit, positive outside; of the error where more is better."""
    value, limit, gap = finding.observed, finding.limit, finding.gap
    if value is None or limit is None or gap is None:
        return None
    if (gap > 0) == (value > limit):  # more is better
        value, limit = (1 - value, 1 - limit) if max(value, limit) <= 1 else (limit, value)
    if limit <= 0 or value < 0:
        return None
    return log(max(value / limit, _LEAST))
