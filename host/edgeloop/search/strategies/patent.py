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
    OF_WORK,
    Intent,
    TrialResult,
    decisive,
    near_misses,
    result_in_figures,
    result_of,
    worst_findings,
)
from edgeloop.search.ranking import FIRST_STEPS, Failure, Order, Step
from edgeloop.search.rung_costs import in_percent, words_of
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
        rest = self._rest()
        if not rest:
            return None
        point, why = rest[0], self._why or self._opening(rest[0])
        self._why = ""
        self._past.add(point)
        self._running = point
        return self.space.candidate(point), why

    def tell(self, trial: Trial) -> tuple[Direction, str]:
        """Learn a finished trial; return the direction of the move and its sentence, with figures."""
        here = self.space.by_key.get(trial.candidate.key)
        if here is None:
            return "none", f"{trial.candidate} is not of this search: nothing moves"
        rest = self._rest()
        self._past.add(here)
        self._running = None
        self._trials.append(trial)
        result = result_of(trial)
        self._learn(trial, here, result)
        families = _families_of(result)
        if result.intent is Intent.KEEP:
            self._queue = [point for point in rest if point != here]
        else:
            self._queue = self._order.sort(self._new_points(), here, result.intent, families)
        direction, sentence = self._move(here, result, families)
        self._why = sentence
        return direction, sentence

    def likely(self) -> list[Candidate]:
        """Return what may be asked next, likeliest first, nothing being known of the running candidate."""
        here = self._running
        if here is None:
            return [self.space.candidate(point) for point in self._rest()[:3]]
        new = self._new_points()
        guesses: list[tuple[Intent, frozenset[Family]]] = []
        costs = frozenset(family for family in COSTS if family in self.space.families)
        if Family.ACCURACY in self.space.families:
            guesses.append((Intent.LOWER, frozenset({Family.ACCURACY})))
        guesses.extend((Intent.RAISE, frozenset({family})) for family in COSTS if family in costs)
        if costs:
            guesses.append((Intent.SMALLER, costs))
        if Family.ACCURACY in self.space.families:
            guesses.append((Intent.LARGER, frozenset({Family.ACCURACY})))
        heads = [self._order.sort(new, here, intent, families)[:1] for intent, families in guesses]
        return [self.space.candidate(point) for point in dict.fromkeys(p for head in heads for p in head)]

    def _rest(self) -> list[Point]:
        """The untried points, in the order in force."""
        if self._queue is None:
            self._queue = self._order.sort(self.space.points, None, Intent.KEEP, _NONE)
        new = frozenset(self._new_points())  # points may turn out to be the same network, and go
        return [point for point in self._queue if point in new]

    def _learn(self, trial: Trial, here: Point, result: TrialResult) -> None:
        file_bytes = self._file_of(trial, here)
        if result.intent is Intent.KEEP:
            return
        judgements = decisive(trial)
        # Costs are compared on one target: the first, which every trial is measured on.
        for first in judgements[:1]:
            self._order.costs.learn(here.network, here.setting, here.rung, first)
        for finding in worst_findings(judgements):
            self._order.limit_model.learn(here, finding)
        if result.failures:
            self._order.failures.append(Failure(here, frozenset(result.failures), file_bytes))

    # sentences

    def _opening(self, point: Point) -> str:
        if self._trials or self._past:
            return "the next untried in the order"
        rung, label = self.space.rungs[point.rung].name, self.space.label(point)
        evaluation = self.space.evaluation(point)
        without = "".join(f"; {sentence}" for sentence in self.space.left_out)
        if evaluation is None:
            return f"M1 itself ({label}) is lightened, beginning at {rung}{without}"
        parameters = self.space.networks[point.network].sizes.parameters
        return (
            f"the search begins at {rung} with {label}: {parameters} parameters, size difference evaluation "
            f"E = {evaluation:.2f}, predicted {self.space.predicted_bytes(point)} bytes{without}"
        )

    def _move(self, here: Point, result: TrialResult, families: frozenset[Family]) -> tuple[Direction, str]:
        rest = self._rest()
        if result.intent is Intent.PASSED:
            return self._after_a_pass(here, result, families)
        what = self._result(here, result)
        if not rest:
            return "none", "; ".join(filter(None, (what, "nothing untried is left", near_misses(self._trials))))
        to = rest[0]
        if result.intent is Intent.KEEP:
            return "none", f"{what}; this says nothing of the network, next in the order is {self._name(to, here)}"
        put_off = self._put_off(here, to, result.intent, families)
        step = put_off or (self._no_rung(here, families) if result.intent is Intent.RAISE else "")
        return self._direction(here, to), f"{what}; {self._clause(here, to, result.intent, families, step)}"

    def _after_a_pass(self, here: Point, result: TrialResult, families: frozenset[Family]) -> tuple[Direction, str]:
        rest = self._rest()
        if not result.may_pass:
            return "confirm", "every limit is met, under a plan that only steers: it has to be confirmed"
        if not self.space.search.pareto or not rest:
            return "none", "every limit is met on validation data"
        to = rest[0]
        more_accurate = self._order.rank(here, to, Intent.PASSED, families).step is Step.MORE_ACCURATE
        why = "should be more accurate and is asked next" if more_accurate else "is next in the order"
        sentence = f"every limit is met on validation data; the front may hold more: {self._name(to, here)} {why}"
        return self._direction(here, to), sentence

    def _result(self, here: Point, result: TrialResult) -> str:
        figures = result_in_figures(result)
        if not result.failures:
            return figures
        match result.intent:
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
        """Say which points of the rule's first step are asked later, and why."""

        def is_first(point: Point) -> bool:
            return self._order.rank(here, point, intent, families).step in FIRST_STEPS

        if intent is Intent.NEIGHBOUR or is_first(to):
            return ""
        later = [point for point in self._rest() if is_first(point)]
        if not later:
            return ""
        names = ", ".join(self._name(point, here) for point in sorted(later)[:3])
        reason = (
            "predicted far over the size limit"
            if all(self.space.is_oversized(point) for point in later)
            else "what was measured of others speaks against it"
        )
        return f"{names} {'is' if len(later) == 1 else 'are'} put off ({reason}); "

    def _clause(self, here: Point, to: Point, intent: Intent, families: frozenset[Family], step: str) -> str:
        """Say where the search turns; `step` says why the rule's first step is not taken."""
        name = self._name(to, here)
        match self._order.rank(here, to, intent, families).step:
            case Step.ELSEWHERE:
                return f"{step}the rules name nothing else here, so what is untried is swept: {name}"
            case Step.LOWER_RUNG:
                return self._lighter_rung(here, to)
            case Step.LARGER_NETWORK:
                return f"{step}next is a larger network, {name}"
            case Step.CHEAPER_RUNG | Step.HIGHER_RUNG:
                return self._cheaper_rung(here, to, families)
            case Step.OTHER_SETTING:
                what = "file" if self.space.same_file(here, to) else "network"
                return f"{step}the same {what} is tried on {self.space.setting_label(to)}"
            case Step.FEWER_CHANNELS:
                percent = self.space.rungs[to.rung].pruned_pct
                return f"{step}next {percent} % of the channels of the same network are removed, {name}"
            case Step.SMALLER_NETWORK:
                return f"{step}next is a smaller network, {name}"
            case Step.NEIGHBOUR:
                return f"next is its untried neighbour {name}"
            case _:
                kind = "smaller" if to.network < here.network else "larger"
                return f"{step}next is a {kind} network, {name}"

    def _lighter_rung(self, here: Point, to: Point) -> str:
        """Say what a lower rung gives back: bits to the most sensitive layers first, or channels."""
        one, other = self.space.rungs[here.rung], self.space.rungs[to.rung]
        if other.pruned_pct < one.pruned_pct:
            return f"{other.name} keeps {one.pruned_pct - other.pruned_pct} % more of the same network's channels"
        if not one.has_choice or other.weight_bits > one.kept_bits:
            return f"{other.name} lightens the same network less"
        back, gives = self.space.given_back(here, to), f"{other.name} gives {one.kept_bits} bit back to the"
        if back is None:
            return f"{gives} layers of the same network that are most sensitive"
        names = ", ".join(back[:3]) + (f" and {len(back) - 3} more" if len(back) > 3 else "")
        return f"{gives} most sensitive of the layers that have {one.weight_bits}: {names}"

    def _cheaper_rung(self, here: Point, to: Point, families: frozenset[Family]) -> str:
        """Say why a higher rung should cost less, by what is known of it."""
        one, other = self.space.rungs[here.rung].name, self.space.rungs[to.rung].name
        parts = []
        for family in (f for f in COSTS if f in families):
            if family is Family.SIZE:
                parts.append(f"{other} is predicted to take {self.space.predicted_bytes(to)} bytes")
                continue
            comparison = self._order.comparison(family, here, to.rung)
            if comparison is None:
                parts.append(f"{other} is not measured here yet and is tried")
                continue
            network = comparison.network
            where = "here" if network == here.network else f"at {self.space.networks[network].label}"
            parts.append(f"{other} {words_of(family).verb} {in_percent(family, comparison)} than {one} {where}")
        return ", ".join(dict.fromkeys(parts))

    def _no_rung(self, here: Point, families: frozenset[Family]) -> str:
        """Say that no higher rung is known to help, with the figures of those that were measured."""
        points = self.space.points
        rungs = sorted({p.rung for p in points if (p.network, p.setting) == (here.network, here.setting)})
        above = [rung for rung in rungs if rung > here.rung]
        sentences = {rung: self._no_help(here, rung, families) for rung in above}
        no_help = list(filter(None, sentences.values()))
        open_ = [
            self.space.rungs[rung].name
            for rung, sentence in sentences.items()
            if not sentence and not self._order.is_known(families, here, rung) and self._same_channels(here, rung)
        ]
        if not open_ and not no_help:
            return "no rung further up is left: " if above else "no rung is further up: "
        # Bytes are predicted: what is not known, or no help, is of another family.
        words = words_of(next(family for family in COSTS if family in families and family is not Family.SIZE))
        if not open_:
            return f"no rung further up {words.is_less} ({', '.join(no_help)}): "
        waiting = f"{', '.join(open_[:3])} {'is' if len(open_) == 1 else 'are'} not measured yet"
        return f"no rung further up measured {words.to_be_less} ({', '.join([*no_help, waiting])}): "

    def _no_help(self, here: Point, rung: int, families: frozenset[Family]) -> str:
        """Say that a rung was measured to cost no less, or can't by nature; empty where neither is so."""
        name, of_work = self.space.rungs[rung].name, [family for family in COSTS if family in families & OF_WORK]
        comparisons = ((family, self._order.comparison(family, here, rung)) for family in of_work)
        no_better = [in_percent(family, c) for family, c in comparisons if c is not None and not c.better]
        if no_better:
            return f"{name} measured {', '.join(no_better)}"
        if of_work and not self._order.answers_latency(here, rung):
            return f"{name} has the latency of {self.space.rungs[here.rung].name} by nature"
        return ""

    def _same_channels(self, here: Point, rung: int) -> bool:
        return self.space.rungs[rung].pruned_pct == self.space.rungs[here.rung].pruned_pct


def _families_of(result: TrialResult) -> frozenset[Family]:
    if result.failures:
        return frozenset(result.failures)
    return frozenset(finding.family for finding in result.open)
