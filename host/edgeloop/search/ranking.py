"""In which order the untried points are asked: the claimed moves first, what failures speak against later.

Everything here orders; nothing here excludes. Latency is not monotone in the degree of lightening, so a
point that the rules put last may still be the one that passes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import IntEnum, auto

from edgeloop.core.verdict import Family
from edgeloop.search.engine_rungs import answers_latency
from edgeloop.search.gaussian_process import LimitModel
from edgeloop.search.moves import COSTS, OF_WORK, Intent
from edgeloop.search.rung_costs import RungComparison, RungCosts
from edgeloop.search.space import Point, SearchSpace


class Step(IntEnum):
    """A step of a rule. Each intent has steps of its own, taken in this order."""

    LOWER_RUNG = auto()
    """LOWER: the same network, lightened less."""
    LARGER_NETWORK = auto()
    CHEAPER_RUNG = auto()
    """RAISE: the same network at a rung that is known to cost less."""
    OTHER_SETTING = auto()
    """The same network with another engine, thread count or delegate: it costs a measurement and no training."""
    HIGHER_RUNG = auto()
    """A rung whose cost nobody has measured."""
    FEWER_CHANNELS = auto()
    SMALLER_NETWORK = auto()
    OTHER_NETWORK = auto()
    """SMALLER and LARGER: a network on that side."""
    OPPOSITE_NETWORK = auto()
    NEIGHBOUR = auto()
    MORE_ACCURATE = auto()
    """PASSED: what should be more accurate, where the front may go on."""
    BESIDE = auto()
    ELSEWHERE = auto()
    """Points that the rule does not name: swept in the order of E."""


FIRST_STEPS = frozenset({Step.LOWER_RUNG, Step.CHEAPER_RUNG, Step.OTHER_NETWORK, Step.NEIGHBOUR, Step.MORE_ACCURATE})
"""The step that each intent takes first."""


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """Where a rule puts a point, the smallest first: the rule's step, then the distance within the step."""

    step: Step
    distance: tuple[float, ...] = ()


ELSEWHERE = Rank(Step.ELSEWHERE)
LIKELY = 0.8
"""A point whose chance to be outside a limit is over this is asked after those that nothing speaks against."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A measured failure, and the families of the limits that failed."""

    point: Point
    families: frozenset[Family]
    deployed_bytes: int | None


@dataclass
class Order:
    """The order of untried points, by all that the campaign has measured so far."""

    space: SearchSpace
    costs: RungCosts = field(default_factory=RungCosts)
    failures: list[Failure] = field(default_factory=list)
    limit_model: LimitModel = field(init=False)

    def __post_init__(self) -> None:
        self.limit_model = LimitModel(self.space)

    def sort(
        self, points: Collection[Point], here: Point | None, intent: Intent, families: frozenset[Family]
    ) -> list[Point]:
        """Order points after a trial at `here` that turned the search by `intent`; `families` failed.

        None for `here`: the order at the start, the highest E at the start rung first.
        """
        worth = {
            (network, rung): self.space.evaluation(Point(network, rung, 0)) or 0.0
            for network, rung in {(p.network, p.rung) for p in points}
        }

        def key(point: Point) -> tuple[bool, int, Rank, int, float, Point]:
            return (
                self.space.is_oversized(point),
                self.evidence_against(point),
                ELSEWHERE if here is None else self.rank(here, point, intent, families),
                abs(point.rung - self.space.start_rung),
                -worth[point.network, point.rung],
                Point(point.setting, point.rung, point.network),
            )

        return sorted(points, key=key)

    def evidence_against(self, point: Point) -> int:
        """Return how much of what was measured speaks against a point: 1 for each of accuracy and cost.

        It speaks against a point that is likely outside a limit by what was measured of others. The very network that
        failed accuracy counts 2, and the very file that failed size: another setting hardly changes those.
        """
        for failure in self.failures:
            if (point.network, point.rung) != (failure.point.network, failure.point.rung):
                continue
            same_file = self.space.same_file(point, failure.point)
            if Family.ACCURACY in failure.families or (same_file and Family.SIZE in failure.families):
                return 2
        against = {family for family, chance in self.limit_model.outside(point).items() if chance > LIKELY}
        accuracy, cost = Family.ACCURACY in against, bool(against & set(COSTS)) or self._as_large(point)
        return accuracy + cost

    def _as_large(self, point: Point) -> bool:
        """Return whether a point's file is predicted to be no smaller than one that was too large."""
        too_large = [f.deployed_bytes for f in self.failures if Family.SIZE in f.families and f.deployed_bytes]
        return bool(too_large) and self.space.predicted_bytes(point) >= min(too_large)

    def comparison(self, family: Family, here: Point, rung: int) -> RungComparison | None:
        """The measured comparison of a rung with the one at `here`."""
        return self.costs.compare(family, here.network, here.setting, here.rung, rung)

    def may_cost_less(self, family: Family, here: Point, rung: int) -> bool:
        """Return whether a rung costs less than the one at `here`: measured so, or not measured yet."""
        if rung == here.rung:
            return False
        if family is Family.SIZE:
            return self.space.predicted_bytes(Point(here.network, rung, here.setting)) < self.space.predicted_bytes(
                here
            )
        likely = self._likely(family, here, rung)
        if likely is None:
            return family not in OF_WORK or self.answers_latency(here, rung)
        return likely.better

    def is_known(self, families: frozenset[Family], here: Point, rung: int) -> bool:
        """Return whether a rung's costs beside those at `here` are known; bytes always are, by prediction."""
        return all(family is Family.SIZE or self._likely(family, here, rung) is not None for family in families)

    def _likely(self, family: Family, here: Point, rung: int) -> RungComparison | None:
        """The measured comparison of a rung with the one at `here`, or of two that differ as they do.

        Part of the layers gains no more than all of them, and bits gain on fewer channels what they gain on all.
        """
        pairs = self._alike(here, rung)
        likenesses = (self.costs.compare(family, here.network, here.setting, *pair) for pair in pairs)
        own = self.comparison(family, here, rung)
        return own or next((likeness for likeness in likenesses if likeness is not None), None)

    def _alike(self, here: Point, rung: int) -> list[tuple[int, int]]:
        """Pairs of rungs that differ as the one at `here` and another do."""
        whole = self.space.whole(rung)
        others = [rung] if whole is None else [rung, whole]
        if self.space.rungs[rung].pruned_pct != self.space.rungs[here.rung].pruned_pct:
            return [(here.rung, other) for other in others]
        return [
            (one, two)
            for other in others
            for one in self.space.same_bits(here.rung)
            for two in self.space.same_bits(other)
            if self.space.rungs[one].pruned_pct == self.space.rungs[two].pruned_pct
        ]

    def answers_latency(self, here: Point, rung: int) -> bool:
        """Return whether a rung's latency is its own on this engine, and not that of the rung at `here` by nature."""
        engine = self.space.settings[here.setting].engine
        return answers_latency(engine, self.space.rungs[here.rung], self.space.rungs[rung])

    def _at_most_as_light(self, one: Point, other: Point) -> bool:
        return self.space.rungs[one.rung].at_most_as_light(self.space.rungs[other.rung])

    def rank(self, here: Point, point: Point, intent: Intent, families: frozenset[Family]) -> Rank:
        """Return where the rule of an intent puts a point."""
        up, turn = point.network - here.network, point.rung - here.rung
        same_setting = point.setting == here.setting
        match intent:
            case Intent.LOWER:
                return self._lower(here, point) if same_setting else ELSEWHERE
            case Intent.RAISE:
                return self._raise(here, point, families)
            case Intent.SMALLER | Intent.LARGER if same_setting and up:
                right_way = (up < 0) == (intent is Intent.SMALLER)
                return Rank(Step.OTHER_NETWORK if right_way else Step.OPPOSITE_NETWORK, (abs(up), abs(turn)))
            case Intent.NEIGHBOUR:
                # Among equally near ones the side that helps what could not be decided.
                helps = turn < 0 or up > 0 if families == {Family.ACCURACY} else turn > 0 or up < 0
                return Rank(Step.NEIGHBOUR, (abs(up) + abs(turn) + (not same_setting), not helps, abs(up)))
            case Intent.PASSED:
                # Beside what passed, first what should be more accurate: the front may go on there.
                better = up > 0 or turn < 0
                return Rank(Step.MORE_ACCURATE if better else Step.BESIDE, (abs(up) + abs(turn) + (not same_setting),))
            case _:
                return ELSEWHERE

    def _lower(self, here: Point, point: Point) -> Rank:
        up, turn = point.network - here.network, point.rung - here.rung
        if up == 0 and turn < 0:
            return Rank(Step.LOWER_RUNG, (-turn,)) if self._at_most_as_light(point, here) else ELSEWHERE
        if up <= 0:
            return ELSEWHERE
        # At the lowest rung already, the ladder begins anew on the larger network.
        pivot = self.space.start_rung if here.rung == 0 else here.rung
        return Rank(Step.LARGER_NETWORK, (up, abs(point.rung - pivot)))

    def _raise(self, here: Point, point: Point, families: frozenset[Family]) -> Rank:
        if point.setting != here.setting:
            return self._on_other_setting(here, point, families)
        up, turn = point.network - here.network, point.rung - here.rung
        if up == 0 and turn:
            return self._at_other_rung(here, point, families)
        if up >= 0:
            return ELSEWHERE
        return Rank(Step.SMALLER_NETWORK, (-up, self._relative_work(here, point, families), abs(turn)))

    def _on_other_setting(self, here: Point, point: Point, families: frozenset[Family]) -> Rank:
        """The same network at the same rung, where the setting is not known to cost as much."""
        same_network = (point.network, point.rung) == (here.network, here.rung)
        as_large = Family.SIZE in families and self.space.predicted_bytes(point) >= self.space.predicted_bytes(here)
        if not same_network or as_large:
            return ELSEWHERE
        comparisons = [
            self.costs.compare_settings(family, here.network, here.rung, here.setting, point.setting)
            for family in families - {Family.SIZE}
        ]
        cheaper = all(comparison is None or comparison.better for comparison in comparisons)
        return Rank(Step.OTHER_SETTING, (point.setting,)) if cheaper else ELSEWHERE

    def _at_other_rung(self, here: Point, point: Point, families: frozenset[Family]) -> Rank:
        """The same network at a rung that may cost less."""
        if not all(self.may_cost_less(family, here, point.rung) for family in families):
            return ELSEWHERE
        turn = point.rung - here.rung
        more_pruned = self.space.rungs[point.rung].pruned_pct - self.space.rungs[here.rung].pruned_pct
        # Least lightened among those that are predicted to fit, if the file was too large.
        misfit = Family.SIZE in families and not self.space.fits(point)
        if more_pruned == 0 and turn > 0:
            # Whether fewer bits cost less here is asked of all layers before it is asked of some.
            part = bool(families & OF_WORK) and self.space.whole(point.rung) is not None
            # What was measured to cost less goes before what nobody has measured.
            step = Step.CHEAPER_RUNG if self.is_known(families, here, point.rung) else Step.HIGHER_RUNG
            return Rank(step, (misfit, part, turn))
        if more_pruned > 0:
            work = self._relative_work(here, point, families)
            return Rank(Step.FEWER_CHANNELS, (misfit, more_pruned, work, abs(turn)))
        return ELSEWHERE

    def _relative_work(self, here: Point, point: Point, families: frozenset[Family]) -> float:
        """Latency, else energy, of a point's bits over that of the bits at `here`, as far as is measured.

        Of a pruned rung, what is known of its bits without pruning.
        """
        family = next((family for family in COSTS if family in OF_WORK and family in families), None)
        if family is None:
            return 1.0
        comparisons = (self.comparison(family, here, rung) for rung in self.space.same_bits(point.rung))
        return next((comparison.ratio for comparison in comparisons if comparison is not None), 1.0)
