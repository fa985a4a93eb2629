"""In which order the untried points are asked: the claimed moves first, what failures speak against later.

Everything here orders; nothing here excludes. Latency is not monotone in the degree of lightening, so a
point that the rules put last may still be the one that passes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from edgeloop.core.verdict import Family
from edgeloop.search.engine_rungs import answers_latency
from edgeloop.search.gaussian_process import LimitModel
from edgeloop.search.moves import COSTS, OF_WORK, Costs, Intent, RungComparison
from edgeloop.search.space import Point, SearchSpace

Tier = tuple[float, ...]
"""Where a rule puts a point, the smallest first: the rule's step, then the distance within the step."""
ELSEWHERE: Tier = (9.0,)
"""Points that the rule does not name: swept in the order of E."""
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
    """What the campaign has measured so far, as it bears on the order."""

    space: SearchSpace
    costs: Costs = field(default_factory=Costs)
    failures: list[Failure] = field(default_factory=list)
    expectation: LimitModel = field(init=False)

    def __post_init__(self) -> None:
        self.expectation = LimitModel(self.space)

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

        def key(point: Point) -> tuple[bool, int, Tier, int, float, Point]:
            return (
                self.space.oversized(point),
                self.doubts(point),
                ELSEWHERE if here is None else self.tier(here, point, intent, families),
                abs(point.rung - self.space.start_rung),
                -worth[point.network, point.rung],
                Point(point.setting, point.rung, point.network),
            )

        return sorted(points, key=key)

    def doubts(self, point: Point) -> int:
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
        against = {family for family, chance in self.expectation.outside(point).items() if chance > LIKELY}
        accuracy, cost = Family.ACCURACY in against, bool(against & set(COSTS)) or self._as_large(point)
        return accuracy + cost

    def _as_large(self, point: Point) -> bool:
        """Whether a point's file is predicted to be no smaller than one that was too large."""
        too_large = [f.deployed_bytes for f in self.failures if Family.SIZE in f.families and f.deployed_bytes]
        return bool(too_large) and self.space.predicted(point) >= min(too_large)

    def compared(self, family: Family, here: Point, rung: int) -> RungComparison | None:
        """The measured comparison of a rung with the one at `here`."""
        return self.costs.compare(family, here.network, here.setting, here.rung, rung)

    def may_cost_less(self, family: Family, here: Point, rung: int) -> bool:
        """Whether a rung costs less than the one at `here`: measured so, or not measured yet."""
        if rung == here.rung:
            return False
        if family is Family.SIZE:
            return self.space.predicted(Point(here.network, rung, here.setting)) < self.space.predicted(here)
        likely = self._likely(family, here, rung)
        if likely is None:
            return family not in OF_WORK or self.answers_latency(here, rung)
        return likely.better

    def known(self, families: frozenset[Family], here: Point, rung: int) -> bool:
        """Whether the costs of a rung beside those of the one at `here` are known; bytes always are, by prediction."""
        return all(family is Family.SIZE or self._likely(family, here, rung) is not None for family in families)

    def _likely(self, family: Family, here: Point, rung: int) -> RungComparison | None:
        """The measured comparison of a rung with the one at `here`, or of two that differ as they do.

        Part of the layers gains no more than all of them, and bits gain on fewer channels what they gain on all.
        """
        likenesses = (self.costs.compare(family, here.network, here.setting, *pair) for pair in self._alike(here, rung))
        return self.compared(family, here, rung) or next((known for known in likenesses if known is not None), None)

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
        """Whether a rung's latency is its own on this engine, and not that of the rung at `here` by nature."""
        engine = self.space.settings[here.setting].engine
        return answers_latency(engine, self.space.rungs[here.rung], self.space.rungs[rung])

    def _at_most_as_light(self, one: Point, other: Point) -> bool:
        return self.space.rungs[one.rung].at_most_as_light(self.space.rungs[other.rung])

    def tier(self, here: Point, point: Point, intent: Intent, families: frozenset[Family]) -> Tier:
        """Where the rule of an intent puts a point."""
        up, turn = point.network - here.network, point.rung - here.rung
        same_setting = point.setting == here.setting
        match intent:
            case Intent.LOWER:
                return self._lower(here, point) if same_setting else ELSEWHERE
            case Intent.RAISE:
                return self._raise(here, point, families)
            case Intent.SMALLER | Intent.LARGER if same_setting and up:
                wanted = -up if intent is Intent.SMALLER else up
                return (0.0 if wanted > 0 else 1.0, abs(wanted), abs(turn))
            case Intent.NEIGHBOUR:
                # Among equally near ones the side that helps what could not be decided.
                helps = turn < 0 or up > 0 if families == {Family.ACCURACY} else turn > 0 or up < 0
                return (0.0, abs(up) + abs(turn) + (not same_setting), not helps, abs(up))
            case Intent.PASSED:
                # Beside what passed, first what should be more accurate: the front may go on there.
                better = up > 0 or turn < 0
                return (0.0 if better else 1.0, abs(up) + abs(turn) + (not same_setting))
            case _:
                return ELSEWHERE

    def _lower(self, here: Point, point: Point) -> Tier:
        up, turn = point.network - here.network, point.rung - here.rung
        if up == 0 and turn < 0:
            return (0.0, -turn) if self._at_most_as_light(point, here) else ELSEWHERE
        if up <= 0:
            return ELSEWHERE
        # At the lowest rung already, the ladder begins anew on the larger network.
        pivot = self.space.start_rung if here.rung == 0 else here.rung
        return (1.0, up, abs(point.rung - pivot))

    def _raise(self, here: Point, point: Point, families: frozenset[Family]) -> Tier:
        up, turn = point.network - here.network, point.rung - here.rung
        if point.setting != here.setting:
            if up or turn or (Family.SIZE in families and self.space.predicted(point) >= self.space.predicted(here)):
                return ELSEWHERE
            # The same network: it costs a measurement and no training.
            known = [
                self.costs.compare_settings(family, here.network, here.rung, here.setting, point.setting)
                for family in families - {Family.SIZE}
            ]
            return (1.0, point.setting) if all(c is None or c.better for c in known) else ELSEWHERE
        if up == 0 and turn and all(self.may_cost_less(family, here, point.rung) for family in families):
            pruned = self.space.rungs[point.rung].pruned_pct - self.space.rungs[here.rung].pruned_pct
            # Least lightened among those that are predicted to fit, if the file was too large.
            misfit = Family.SIZE in families and not self.space.fits(point)
            if pruned == 0 and turn > 0:
                # Whether 4 bit costs less here is asked of all layers before it is asked of some.
                part = bool(families & OF_WORK) and self.space.whole(point.rung) is not None
                # What was measured to cost less goes before what nobody has measured.
                return (0.0 if self.known(families, here, point.rung) else 1.5, misfit, part, turn)
            if pruned > 0:
                return (2.0, misfit, pruned, self._relative_work(here, point, families), abs(turn))
        if up >= 0:
            return ELSEWHERE
        return (3.0, -up, self._relative_work(here, point, families), abs(turn))

    def _relative_work(self, here: Point, point: Point, families: frozenset[Family]) -> float:
        """Latency, else energy, of a point's bits over that of the bits at `here`, as far as is measured.

        Of a pruned rung, what is known of its bits without pruning.
        """
        family = next((family for family in (Family.SPEED, Family.ENERGY) if family in families), None)
        if family is None:
            return 1.0
        known = (self.compared(family, here, rung) for rung in self.space.same_bits(point.rung))
        return next((compared.ratio for compared in known if compared is not None), 1.0)
