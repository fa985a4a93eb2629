"""The rule-based search: the claimed moves, turned into questions and sentences.

`tell` reads a finished trial and orders everything that is untried; `ask` takes the first. Every network,
rung and setting of the search space is asked before nothing is left, and none is asked twice. The order is
a function of the trials told, so a resumed run asks what the first one would have asked.
"""

from __future__ import annotations

from edgeloop.core.events import Trial
from edgeloop.core.network import Candidate
from edgeloop.core.verdict import Direction, Family
from edgeloop.search.moves import (
    COSTS,
    Intent,
    Reading,
    decisive,
    near_misses,
    percent_faster,
    percent_less_energy,
    read,
    told_in_figures,
    worst_findings,
)
from edgeloop.search.ranking import ELSEWHERE, Failure, Order
from edgeloop.search.space import Point, SearchSpace
from edgeloop.search.strategies.base import VisitedPoints

_NONE: frozenset[Family] = frozenset()


class PatentStrategy(VisitedPoints):
    """ports.Strategy by the rules of docs/explanation/method.md."""

    def __init__(self, space: SearchSpace) -> None:
        super().__init__(space)
        self._order = Order(space)
        self._trials: list[Trial] = []
        self._queue: list[Point] | None = None
        self._running: Point | None = None
        self._why = ""

    def ask(self) -> tuple[Candidate, str] | None:
        """Return the next candidate and why, or None where nothing is left.

        Raises ConfigError at the first question where no network of the grid is larger than M1.
        """
        left = self._left()
        if not left:
            return None
        point, why = left[0], self._why or self._opening(left[0])
        self._why = ""
        self._visited.add(point)
        self._running = point
        return self.space.candidate(point), why

    def tell(self, trial: Trial) -> tuple[Direction, str]:
        """Learn a finished trial; return the direction of the move and its sentence, with figures."""
        here = self.space.by_key.get(trial.candidate.key)
        if here is None:
            return "none", f"{trial.candidate} is not of this search: nothing moves"
        left = self._left()
        self._visited.add(here)
        self._running = None
        self._trials.append(trial)
        reading = read(trial)
        self._learn(trial, here, reading)
        families = _families_of(reading)
        if reading.intent is Intent.KEEP:
            self._queue = [point for point in left if point != here]
        else:
            self._queue = self._order.sort(self._untried(), here, reading.intent, families)
        direction, sentence = self._move(here, reading, families)
        self._why = sentence
        return direction, sentence

    def likely(self) -> list[Candidate]:
        """Return what may be asked next, likeliest first, nothing being known of the running candidate."""
        here = self._running
        if here is None:
            return [self.space.candidate(point) for point in self._left()[:3]]
        untried = self._untried()
        guesses: list[tuple[Intent, frozenset[Family]]] = []
        costs = frozenset(family for family in COSTS if family in self.space.families)
        if Family.ACCURACY in self.space.families:
            guesses.append((Intent.LOWER, frozenset({Family.ACCURACY})))
        guesses.extend((Intent.RAISE, frozenset({family})) for family in COSTS if family in costs)
        if costs:
            guesses.append((Intent.SMALLER, costs))
        if Family.ACCURACY in self.space.families:
            guesses.append((Intent.LARGER, frozenset({Family.ACCURACY})))
        heads = [self._order.sort(untried, here, intent, families)[:1] for intent, families in guesses]
        return [self.space.candidate(point) for point in dict.fromkeys(p for head in heads for p in head)]

    def _left(self) -> list[Point]:
        """What is untried, in the order in force."""
        if self._queue is None:
            self._queue = self._order.sort(self.space.points, None, Intent.KEEP, _NONE)
        untried = frozenset(self._untried())  # points may turn out to be the same network, and go
        return [point for point in self._queue if point in untried]

    def _learn(self, trial: Trial, here: Point, reading: Reading) -> None:
        file_bytes = self._file_of(trial, here)
        if reading.intent is Intent.KEEP:
            return
        judged = decisive(trial)
        # Costs are compared on one target: the first, which every trial is measured on.
        for first in judged[:1]:
            self._order.costs.learn(here.network, here.setting, here.rung, first)
        for finding in worst_findings(judged):
            self._order.expectation.learn(here, finding)
        if reading.failed:
            self._order.failures.append(Failure(here, frozenset(reading.failed), file_bytes))

    # sentences

    def _opening(self, point: Point) -> str:
        if self._trials or self._visited:
            return "the next untried in the order"
        rung, label = self.space.rungs[point.rung].name, self.space.label(point)
        evaluated = self.space.evaluation(point)
        without = "".join(f"; {sentence}" for sentence in self.space.left_out)
        if evaluated is None:
            return f"M1 itself ({label}) is lightened, beginning at {rung}{without}"
        parameters = self.space.networks[point.network].sizes.parameters
        return (
            f"the search begins at {rung} with {label}: {parameters} parameters, size difference evaluation "
            f"E = {evaluated:.2f}, predicted {self.space.predicted(point)} bytes{without}"
        )

    def _move(self, here: Point, reading: Reading, families: frozenset[Family]) -> tuple[Direction, str]:
        left = self._left()
        if reading.intent is Intent.PASSED:
            if not reading.may_pass:
                return "confirm", "every limit is met, under a plan that only steers: it has to be confirmed"
            if not self.space.search.pareto or not left:
                return "none", "every limit is met on validation data"
            tier = self._order.tier(here, left[0], Intent.PASSED, families)
            why = "should be more accurate and is asked next" if tier[0] == 0 else "is next in the order"
            said = f"every limit is met on validation data; the front may hold more: {self._name(left[0], here)} {why}"
            return self._direction(here, left[0]), said
        said = self._said(here, reading)
        if not left:
            return "none", "; ".join(filter(None, (said, "nothing untried is left", near_misses(self._trials))))
        to = left[0]
        if reading.intent is Intent.KEEP:
            return "none", f"{said}; this says nothing of the network, next in the order is {self._name(to, here)}"
        put_off = self._put_off(here, to, reading.intent, families)
        step = put_off or (self._no_rung(here, families) if reading.intent is Intent.RAISE else "")
        return self._direction(here, to), f"{said}; {self._clause(here, to, reading, families, step)}"

    def _said(self, here: Point, reading: Reading) -> str:
        figures = told_in_figures(reading)
        if not reading.failed:
            return figures
        match reading.intent:
            case Intent.SMALLER:
                return f"{figures}: both fail and the cost is relatively further off"
            case Intent.LARGER:
                return f"{figures}: both fail and accuracy is relatively further off"
            case Intent.LOWER if here.rung == 0:
                return f"{figures}, at the lowest rung that is offered"
            case Intent.NEIGHBOUR:
                return "not passed"
            case _:
                return figures

    def _put_off(self, here: Point, to: Point, intent: Intent, families: frozenset[Family]) -> str:
        """Say which steps of the rule itself are asked later, and why."""

        def step(point: Point) -> float:
            return self._order.tier(here, point, intent, families)[0]

        later = [
            point for point in self._left() if step(point) == 0 and step(to) > 0 and intent is not Intent.NEIGHBOUR
        ]
        if not later:
            return ""
        names = ", ".join(self._name(point, here) for point in sorted(later)[:3])
        reason = (
            "predicted far over the size limit"
            if all(self.space.oversized(point) for point in later)
            else "what was measured of others speaks against it"
        )
        return f"{names} {'is' if len(later) == 1 else 'are'} put off ({reason}); "

    def _clause(self, here: Point, to: Point, reading: Reading, families: frozenset[Family], step: str) -> str:
        """Say where the search turns; `step` says why the rule's first step is not taken."""
        name = self._name(to, here)
        tier = self._order.tier(here, to, reading.intent, families)
        if tier == ELSEWHERE:
            return f"{step}the rules name nothing else here, so what is untried is swept: {name}"
        match reading.intent, tier[0]:
            case Intent.LOWER, 0.0:
                return self._lighter_rung(here, to)
            case Intent.LOWER, _:
                return f"{step}next is a larger network, {name}"
            case Intent.RAISE, 0.0 | 1.5:
                return self._cheaper_rung(here, to, families)
            case Intent.RAISE, 1.0:
                what = "file" if self.space.same_file(here, to) else "network"
                return f"{step}the same {what} is tried on {self.space.setting_label(to)}"
            case Intent.RAISE, 2.0:
                pruned = self.space.rungs[to.rung].pruned_pct
                return f"{step}next {pruned} % of the channels of the same network are removed, {name}"
            case Intent.RAISE, _:
                return f"{step}next is a smaller network, {name}"
            case Intent.NEIGHBOUR, _:
                return f"next is its untried neighbour {name}"
            case _:
                kind = "smaller" if to.network < here.network else "larger"
                return f"{step}next is a {kind} network, {name}"

    def _lighter_rung(self, here: Point, to: Point) -> str:
        """Say what a lower rung gives back: bits to the most sensitive layers first, or channels."""
        one, other = self.space.rungs[here.rung], self.space.rungs[to.rung]
        if other.pruned_pct < one.pruned_pct:
            return f"{other.name} keeps {one.pruned_pct - other.pruned_pct} % more of the same network's channels"
        if one.weight_bits == 8 or other.weight_bits > 8:
            return f"{other.name} lightens the same network less"
        back = self.space.given_back(here, to)
        if back is None:
            return f"{other.name} gives 8 bit back to the layers of the same network that are most sensitive"
        named = ", ".join(back[:3]) + (f" and {len(back) - 3} more" if len(back) > 3 else "")
        return f"{other.name} gives 8 bit back to the most sensitive of the layers that have 4: {named}"

    def _cheaper_rung(self, here: Point, to: Point, families: frozenset[Family]) -> str:
        """Say why a higher rung should cost less, by what is known of it."""
        one, other = self.space.rungs[here.rung].name, self.space.rungs[to.rung].name
        parts = []
        for family in (f for f in COSTS if f in families):
            if family is Family.SIZE:
                parts.append(f"{other} is predicted to take {self.space.predicted(to)} bytes")
                continue
            compared = self._order.compared(family, here, to.rung)
            if compared is None:
                parts.append(f"{other} is not measured here yet and is tried")
                continue
            where = "here" if compared.network == here.network else f"at {self.space.networks[compared.network].label}"
            if family is Family.SPEED:
                parts.append(f"{other} measured {percent_faster(compared)} than {one} {where}")
            elif family is Family.ENERGY:
                parts.append(f"{other} took {percent_less_energy(compared)} than {one} {where}")
            else:
                parts.append(f"{other} took {100 * (1 - compared.ratio):.0f} % less memory than {one} {where}")
        return ", ".join(dict.fromkeys(parts))

    def _no_rung(self, here: Point, families: frozenset[Family]) -> str:
        """Say that no higher rung is known to help, with the figures of those that were measured."""
        known, open_ = [], []
        points = self.space.points
        above = sorted({p.rung for p in points if (p.network, p.setting) == (here.network, here.setting)})
        for rung in (rung for rung in above if rung > here.rung):
            name = self.space.rungs[rung].name
            measured = [
                said(compared)
                for family, said in ((Family.SPEED, percent_faster), (Family.ENERGY, percent_less_energy))
                if family in families
                and (compared := self._order.compared(family, here, rung)) is not None
                and not compared.better
            ]
            if measured:
                known.append(f"{name} measured {', '.join(measured)}")
            elif families & {Family.SPEED, Family.ENERGY} and not self._order.answers_latency(here, rung):
                known.append(f"{name} has the latency of {self.space.rungs[here.rung].name} by nature")
            elif not self._order.known(families, here, rung) and self._same_channels(here, rung):
                open_.append(name)
        if open_:
            waiting = f"{', '.join(open_[:3])} {'is' if len(open_) == 1 else 'are'} not measured yet"
            what = "to take less energy" if families == {Family.ENERGY} else "faster"
            return f"no rung further up measured {what} ({', '.join([*known, waiting])}): "
        if known:
            what = "is faster" if Family.SPEED in families else "takes less energy"
            return f"no rung further up {what} ({', '.join(known)}): "
        return "no rung further up is left: " if above and above[-1] > here.rung else "no rung is further up: "

    def _same_channels(self, here: Point, rung: int) -> bool:
        return self.space.rungs[rung].pruned_pct == self.space.rungs[here.rung].pruned_pct


def _families_of(reading: Reading) -> frozenset[Family]:
    if reading.failed:
        return frozenset(reading.failed)
    return frozenset(finding.family for finding in reading.undecided)
