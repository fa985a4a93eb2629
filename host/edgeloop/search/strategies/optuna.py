"""Bayesian search (Optuna's TPE) over network, lightening, engine, threads and delegate; the limits are constraints.

Several objectives, one for each family of limits (accuracy up; latency, bytes, memory down), and one constraint for
each limit: how far outside it a trial was, relative to the limit. What was not measured, or not in the declared
environment, is told as a failed trial, never as values.

What is suggested is a function of the trials told and of `search.seed` alone: each question builds a study anew from
them, in memory, with a sampler of its own. Whatever a storage holds decides nothing (`optuna_storage`), so a search
goes on the same with one that was lost.

TPE: Watanabe, arXiv:2304.11127; several objectives: Ozaki et al., JAIR 73 (2022).
"""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from edgeloop.core.board import NO_DELEGATE
from edgeloop.core.events import Trial
from edgeloop.core.limits import Limit, LimitSet
from edgeloop.core.network import Candidate
from edgeloop.core.verdict import Direction, Family, Finding, Outcome
from edgeloop.errors import MissingExtraError
from edgeloop.search.moves import decisive, result_in_figures, result_of
from edgeloop.search.space import Point, SearchSpace
from edgeloop.search.strategies.base import VisitedPoints

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

DRAWS_MAX = 24
"""Suggestions of points that were asked before; then the nearest one that was not is taken."""
STARTUP_TRIALS = 4
"""Measured trials before the sampler listens to them. Optuna's own 10 are half of a usual budget here; of 4 and 6, 4
found the best candidate sooner on simulated tables (tests/bench/search_replay.py)."""
_UNDECIDED = 1e-9
"""Constraint of a limit that is inside by its estimate and undecided, or exactly met: neither is a pass."""


def needs_optuna() -> None:
    """Raise MissingExtraError where optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtraError("optuna", "search", "search.strategy = 'optuna'")


@dataclass(frozen=True, slots=True)
class StudyObjective:
    """A number that is made large or small: the one that the first limit of a family is about."""

    limit_id: str
    name: str
    maximise: bool


def objectives_of(limits: LimitSet, lower_is_better: frozenset[str]) -> list[StudyObjective]:
    """Return one objective for each family that the limits name, in the order of the families."""
    first = {limit.family: limit for limit in reversed(limits.limit)}
    return [
        StudyObjective(limit.id, _title(limit), _is_maximised(limit, lower_is_better))
        for family in Family
        if (limit := first.get(family)) is not None
    ]


def _title(limit: Limit) -> str:
    """The metric with its unit: `latency p90, ms`."""
    metric = limit.row
    return metric.label(limit.statistic) + (f", {metric.unit}" if metric.unit else "")


def _is_maximised(limit: Limit, lower_is_better: frozenset[str]) -> bool:
    if limit.family is not Family.ACCURACY:
        return False
    if limit.bound_name == "max_drop_from_reference":
        return limit.metric not in lower_is_better
    return limit.bound_name != "max_value"


class Publishes(Protocol):
    """Writes told trials down for others to look at; see `optuna_storage`."""

    def write(self, trials: Sequence[FrozenTrial], objectives: Sequence[StudyObjective]) -> None: ...


class OptunaStrategy(VisitedPoints):
    """ports.Strategy by Optuna's TPE sampler."""

    def __init__(
        self,
        space: SearchSpace,
        limits: LimitSet,
        *,
        lower_is_better: frozenset[str] = frozenset(),
        publisher: Publishes | None = None,
    ) -> None:
        """`lower_is_better`: metrics where small is good. Raises MissingExtraError without optuna."""
        needs_optuna()
        super().__init__(space)
        self._limits = limits
        self._objectives = objectives_of(limits, lower_is_better)
        self._publisher = publisher
        self._trials: list[FrozenTrial] = []
        self._running: Point | None = None
        self._next: Point | None = None

    def ask(self) -> tuple[Candidate, str] | None:
        """Return the next candidate and why. Raises ConfigError as `SearchSpace.networks` does."""
        point = self._suggestion()
        if point is None:
            return None
        with_values = self._with_values(self._trials)
        self._past.add(point)
        self._running, self._next = point, None
        return self.space.candidate(point), (
            f"drawn at random, as {STARTUP_TRIALS} trials are before the sampler listens"
            if with_values < STARTUP_TRIALS
            else f"suggested by TPE from {with_values} measured trials"
        )

    def tell(self, trial: Trial) -> tuple[Direction, str]:
        """Learn a finished trial. Raises StationError where the storage can't be written."""
        here = self.space.by_key.get(trial.candidate.key)
        if here is None:
            return "none", f"{trial.candidate} is not of this search: nothing moves"
        self._past.add(here)
        self._file_of(trial, here)
        self._running = self._next = None
        self._trials.append(self._frozen(trial, here))
        if self._publisher is not None:
            self._publisher.write(self._trials, self._objectives)
        reading = result_of(trial)
        sentence = result_in_figures(reading)
        to = self._suggestion()
        if to is None:
            return "none", f"{sentence}; nothing untried is left"
        if reading.not_measured:
            return "none", f"{sentence}; told as a failed trial, next is {self._name(to, here)}"
        return self._direction(here, to), f"{sentence}; the sampler suggests {self._name(to, here)}"

    def likely(self) -> list[Candidate]:
        """Return what would be asked if nothing more became known: exact while points are drawn at random."""
        if self._running is None:
            point = self._suggestion()
        else:
            failure = self._trial("FAIL", self._running)
            point = self._suggest([*self._trials, failure], frozenset(self._past))
        return [] if point is None else [self.space.candidate(point)]

    # suggestions

    def _suggestion(self) -> Point | None:
        if self._next is None:
            self._next = self._suggest(self._trials, frozenset(self._past))
        return self._next

    def _suggest(self, trials: Sequence[FrozenTrial], past: frozenset[Point]) -> Point | None:
        import optuna

        rest = [point for point in self.space.points if point not in past]
        if len(rest) < 2:
            return next(iter(rest), None)
        digest = hashlib.sha256(f"{self.space.search.seed or 0}/{len(past)}".encode()).digest()
        with quiet():
            sampler = optuna.samplers.TPESampler(
                seed=int.from_bytes(digest[:4], "big"), n_startup_trials=STARTUP_TRIALS, multivariate=True
            )
            directions = ["maximize" if o.maximise else "minimize" for o in self._objectives]
            study = optuna.create_study(directions=directions, sampler=sampler)  # type: ignore[arg-type]
            study.add_trials(trials)
            for _ in range(DRAWS_MAX):
                point = self._point(study.ask(dict(self._distributions)).params)
                if point in rest:
                    return point
        near = point or rest[0]
        return min(rest, key=lambda point: (_distance(point, near), point))

    @cached_property
    def _words(self) -> dict[Point, dict[str, Any]]:
        """Every point as parameters: width and depth name the network where they tell all networks apart.

        Points that turned out to be the same network as another one are in it too: what is told later changes no
        distribution.
        """
        sizes = [(n.spec.width, n.spec.depth) for n in self.space.networks]
        by_size = len(set(sizes)) == len(sizes)
        delegating = any(setting.delegate is not None for setting in self.space.settings)
        words = {}
        for point in self.space.by_key.values():
            network = self.space.networks[point.network]
            setting = self.space.settings[point.setting]
            size = {"width": network.spec.width, "depth": network.spec.depth} if by_size else {"network": network.label}
            rung = self.space.rungs[point.rung].name
            words[point] = {**size, "lightening": rung, "engine": setting.engine, "threads": setting.threads}
            if delegating:
                words[point]["delegate"] = setting.delegate or NO_DELEGATE
        return words

    @cached_property
    def _distributions(self) -> Mapping[str, BaseDistribution]:
        from optuna.distributions import CategoricalDistribution

        words = list(self._words.values())
        return {name: CategoricalDistribution(list(dict.fromkeys(w[name] for w in words))) for name in words[0]}

    def _point(self, params: Mapping[str, Any]) -> Point | None:
        """The point that was drawn; None for a width and depth that are no network of the space."""
        return next((point for point, words in self._words.items() if words == params), None)

    # trials, as optuna keeps them

    def _trial(self, state: str, point: Point, **more: Any) -> FrozenTrial:
        import optuna

        return optuna.trial.create_trial(
            state=optuna.trial.TrialState[state],
            params=self._words[point],
            distributions=dict(self._distributions),
            **more,
        )

    def _frozen(self, trial: Trial, here: Point) -> FrozenTrial:
        attributes: dict[str, Any] = {
            "trial": trial.number,
            "candidate": str(trial.candidate),
            "outcome": result_of(trial).outcome.value,
        }
        if trial.evaluation is not None:
            attributes["size_difference_evaluation"] = trial.evaluation
        findings = self._findings(trial)
        values = [self._value(objective, findings) for objective in self._objectives]
        if result_of(trial).not_measured or None in values:
            return self._trial("FAIL", here, user_attrs=attributes | {"reason": result_in_figures(result_of(trial))})
        # As a list: named constraints are new in Optuna 5, and optuna-dashboard 0.21 reads the list alone.
        constraints = [max(map(_violation, of_limit)) for of_limit in findings.values()]
        attributes["limits"] = ", ".join(findings)
        system = {"constraints": constraints}
        return self._trial("COMPLETE", here, values=values, system_attrs=system, user_attrs=attributes)

    def _findings(self, trial: Trial) -> dict[str, list[Finding]]:
        """The findings of each limit, on every target."""
        by_limit: dict[str, list[Finding]] = {}
        for finding in (f for judgement in decisive(trial) for f in judgement.verdict.findings):
            by_limit.setdefault(finding.limit_id, []).append(finding)
        return by_limit

    def _value(self, objective: StudyObjective, findings: Mapping[str, list[Finding]]) -> float | None:
        """The worst over targets; None where one target has no number."""
        values = [finding.observed for finding in findings.get(objective.limit_id, [])]
        numbers = [value for value in values if value is not None]
        if not numbers or len(numbers) < len(values):
            return None
        return min(numbers) if objective.maximise else max(numbers)

    @staticmethod
    def _with_values(trials: Sequence[FrozenTrial]) -> int:
        return sum(trial.values is not None for trial in trials)


def _violation(finding: Finding) -> float:
    """Return the distance outside the limit: over 0 unless passed."""
    gap = finding.gap_relative if finding.gap_relative is not None else finding.gap
    if gap is None:
        return 1.0
    return -gap if finding.outcome is Outcome.PASS else max(-gap, _UNDECIDED)


def _distance(one: Point, other: Point) -> int:
    return abs(one.network - other.network) + abs(one.rung - other.rung) + (one.setting != other.setting)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from telling of every study it makes, and of what it calls experimental; then all is as before."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
