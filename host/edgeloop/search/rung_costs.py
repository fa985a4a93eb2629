"""Costs of rungs and settings beside each other, as measured in this campaign, and the words for them.

Each family of costs has one metric that stands for it (`core.metrics.costs`): latency for speed, the energy of a
period, resident memory. Bytes are predicted, not compared (search.size_model).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeloop.core.events import Judgement
from edgeloop.core.metric import CostComparison, Estimate
from edgeloop.core.metrics import costs
from edgeloop.core.verdict import Family, Outcome

Place = tuple[int, int, int]
"""Network, setting and rung, as indices of the search space."""


@dataclass(frozen=True, slots=True)
class RungComparison:
    """One rung against another, as measured in this campaign."""

    ratio: float
    """Cost of the second over the first."""
    better: bool
    """The second costs less, by more than the noise."""
    network: int
    """Where it was measured."""


@dataclass
class RungCosts:
    """Estimates by family and place."""

    _estimates: dict[Family, dict[Place, Estimate]] = field(default_factory=dict)

    def learn(self, network: int, setting: int, rung: int, judgement: Judgement) -> None:
        """Learn what a measurement cost; one that says nothing of the network teaches nothing."""
        if judgement.summary is None or judgement.verdict.outcome in (Outcome.ERROR, Outcome.INVALID):
            return
        for family, metric in costs().items():
            assert metric.cost is not None, "costs have something to be compared by"
            estimate = metric.of_summary(judgement.summary, metric.cost.statistic)
            if estimate is not None:
                self._estimates.setdefault(family, {})[network, setting, rung] = estimate

    def compare(self, family: Family, here: int, setting: int, one: int, other: int) -> RungComparison | None:
        """Compare two rungs, at the network nearest to `here` where both were measured; None where none was."""
        return self._nearest(
            family, here, {network: ((network, setting, one), (network, setting, other)) for network in self._networks}
        )

    def compare_settings(self, family: Family, here: int, rung: int, one: int, other: int) -> RungComparison | None:
        """Compare two settings (engine, threads and delegate) for one rung, as `compare` does."""
        return self._nearest(
            family, here, {network: ((network, one, rung), (network, other, rung)) for network in self._networks}
        )

    @property
    def _networks(self) -> set[int]:
        return {place[0] for estimates in self._estimates.values() for place in estimates}

    def _nearest(self, family: Family, here: int, pairs: dict[int, tuple[Place, Place]]) -> RungComparison | None:
        comparisons = (self._at(family, network, *pair) for network, pair in pairs.items())
        return min(
            (comparison for comparison in comparisons if comparison is not None),
            key=lambda comparison: (abs(comparison.network - here), comparison.network),
            default=None,
        )

    def _at(self, family: Family, network: int, one: Place, other: Place) -> RungComparison | None:
        estimates = self._estimates.get(family, {})
        if one not in estimates or other not in estimates:
            return None
        first, second = estimates[one], estimates[other]
        ratio, noise = second.value / first.value, words_of(family).noise
        if noise:
            return RungComparison(ratio, ratio < 1 - noise, network)
        high = second.interval.high if second.interval else second.value
        low = first.interval.low if first.interval else first.value
        return RungComparison(ratio, high < low, network)


def words_of(family: Family) -> CostComparison:
    """Return how rungs are compared in a family of costs, and the words for it."""
    words = costs()[family].cost
    assert words is not None, "costs have something to be compared by"
    return words


def in_percent(family: Family, comparison: RungComparison) -> str:
    """Say a comparison: `41 % faster`, `12 % more energy`, `not faster beyond the noise (2 %)`."""
    words, percent = words_of(family), f"{abs(1 - comparison.ratio) * 100:.0f} %"
    if comparison.better:
        return f"{percent} {words.less}"
    return f"{percent} {words.more}" if comparison.ratio > 1 else f"{words.no_less} beyond the noise ({percent})"
