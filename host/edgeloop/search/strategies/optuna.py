"""Bayesian search (Optuna's TPE) over network, lightening, engine, threads and delegate; the limits are constraints.

Several objectives, one for each family of limits (accuracy up; latency, bytes, memory down), and one constraint for
each limit: how far outside it a trial was, relative to the limit. What was not measured, or not in the declared
environment, is told as a failed trial, never as values.

What is suggested is a function of the trials told and of `search.seed` alone: each question builds a study anew from
them, in memory, with a sampler of its own. Whatever a storage holds decides nothing (`publish`), so a search goes on
the same with one that was lost.

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
from edgeloop.search.moves import decisive, read, told_in_figures
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
    """What is made large or small: the number that the first limit of a family is about."""

    limit_id: str
    name: str
    maximise: bool


def objectives_of(limits: LimitSet, lower_is_better: frozenset[str]) -> list[StudyObjective]:
    """Return one objective for each family that the limits name, in the order of the families."""
    found = {limit.family: limit for limit in reversed(limits.limit)}
    return [
        StudyObjective(limit.id, _named(limit), _maximised(limit, lower_is_better))
        for family in Family
        if (limit := found.get(family)) is not None
    ]


def _named(limit: Limit) -> str:
    """The metric with its unit: `latency p90, ms`."""
    what = f"{limit.metric} {limit.statistic}" if limit.statistic else limit.metric
    unit = {Family.SPEED: ", ms", Family.SIZE: ", bytes", Family.MEMORY: ", bytes", Family.ENERGY: ", mJ"}.get(
        limit.family, ""
    )
    return what + unit


def _maximised(limit: Limit, lower_is_better: frozenset[str]) -> bool:
    if limit.family is not Family.ACCURACY:
        return False
    if limit.bound_name == "max_drop_from_reference":
        return limit.metric not in lower_is_better
    return limit.bound_name != "max_value"


class Publishes(Protocol):
    """Writes told trials down for others to look at; see `publish`."""

    def write(self, told: Sequence[FrozenTrial], objectives: Sequence[StudyObjective]) -> None: ...


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
        self._told: list[FrozenTrial] = []
        self._running: Point | None = None
        self._next: Point | None = None

    def ask(self) -> tuple[Candidate, str] | None:
        """Return the next candidate and why. Raises ConfigError as `SearchSpace.networks` does."""
        point = self._suggested()
        if point is None:
            return None
        measured = self._measured(self._told)
        self._visited.add(point)
        self._running, self._next = point, None
        return self.space.candidate(point), (
            f"drawn at random, as {STARTUP_TRIALS} trials are before the sampler listens"
            if measured < STARTUP_TRIALS
            else f"suggested by TPE from {measured} measured trials"
        )

    def tell(self, trial: Trial) -> tuple[Direction, str]:
        """Learn a finished trial. Raises StationError where the storage can't be written."""
        here = self.space.by_key.get(trial.candidate.key)
        if here is None:
            return "none", f"{trial.candidate} is not of this search: nothing moves"
        self._visited.add(here)
        self._file_of(trial, here)
        self._running = self._next = None
        self._told.append(self._frozen(trial, here))
        if self._publisher is not None:
            self._publisher.write(self._told, self._objectives)
        reading = read(trial)
        said = told_in_figures(reading)
        to = self._suggested()
        if to is None:
            return "none", f"{said}; nothing untried is left"
        if reading.unmeasured:
            return "none", f"{said}; told as a failed trial, next is {self._name(to, here)}"
        return self._direction(here, to), f"{said}; the sampler suggests {self._name(to, here)}"

    def likely(self) -> list[Candidate]:
        """Return what would be asked if nothing more became known: exact while points are drawn at random."""
        if self._running is None:
            point = self._suggested()
        else:
            lost = self._trial("FAIL", self._running)
            point = self._suggest([*self._told, lost], frozenset(self._visited))
        return [] if point is None else [self.space.candidate(point)]

    # suggestions

    def _suggested(self) -> Point | None:
        if self._next is None:
            self._next = self._suggest(self._told, frozenset(self._visited))
        return self._next

    def _suggest(self, told: Sequence[FrozenTrial], visited: frozenset[Point]) -> Point | None:
        import optuna

        left = [point for point in self.space.points if point not in visited]
        if len(left) < 2:
            return next(iter(left), None)
        digest = hashlib.sha256(f"{self.space.search.seed or 0}/{len(visited)}".encode()).digest()
        with quiet():
            sampler = optuna.samplers.TPESampler(
                seed=int.from_bytes(digest[:4], "big"), n_startup_trials=STARTUP_TRIALS, multivariate=True
            )
            directions = ["maximize" if o.maximise else "minimize" for o in self._objectives]
            study = optuna.create_study(directions=directions, sampler=sampler)  # type: ignore[arg-type]
            study.add_trials(told)
            for _ in range(DRAWS_MAX):
                drawn = self._point(study.ask(dict(self._distributions)).params)
                if drawn in left:
                    return drawn
        wanted = drawn or left[0]
        return min(left, key=lambda point: (_distance(point, wanted), point))

    @cached_property
    def _words(self) -> dict[Point, dict[str, Any]]:
        """Every point as parameters: width and depth name the network where they tell all networks apart.

        Points that turned out to be the same network as another one are in it too: what is told later changes no
        distribution.
        """
        sized = [(n.spec.width, n.spec.depth) for n in self.space.networks]
        by_size = len(set(sized)) == len(sized)
        delegating = any(setting.delegate is not None for setting in self.space.settings)
        words = {}
        for point in self.space.by_key.values():
            network = self.space.networks[point.network]
            setting = self.space.settings[point.setting]
            named = (
                {"width": network.spec.width, "depth": network.spec.depth} if by_size else {"network": network.label}
            )
            rung = self.space.rungs[point.rung].name
            words[point] = {**named, "lightening": rung, "engine": setting.engine, "threads": setting.threads}
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
            "outcome": read(trial).outcome.value,
        }
        if trial.evaluation is not None:
            attributes["size_difference_evaluation"] = trial.evaluation
        findings = self._findings(trial)
        values = [self._value(objective, findings) for objective in self._objectives]
        if read(trial).unmeasured or None in values:
            return self._trial("FAIL", here, user_attrs=attributes | {"reason": told_in_figures(read(trial))})
        # As a list: named constraints are new in Optuna 5, and optuna-dashboard 0.21 reads the list alone.
        constraints = [max(map(_violation, found)) for found in findings.values()]
        attributes["limits"] = ", ".join(findings)
        system = {"constraints": constraints}
        return self._trial("COMPLETE", here, values=values, system_attrs=system, user_attrs=attributes)

    def _findings(self, trial: Trial) -> dict[str, list[Finding]]:
        """What was found of each limit, on every target."""
        found: dict[str, list[Finding]] = {}
        for finding in (f for judged in decisive(trial) for f in judged.verdict.findings):
            found.setdefault(finding.limit_id, []).append(finding)
        return found

    def _value(self, objective: StudyObjective, findings: Mapping[str, list[Finding]]) -> float | None:
        """The worst over targets; None where one target has no number."""
        observed = [finding.observed for finding in findings.get(objective.limit_id, [])]
        numbers = [value for value in observed if value is not None]
        if not numbers or len(numbers) < len(observed):
            return None
        return min(numbers) if objective.maximise else max(numbers)

    @staticmethod
    def _measured(told: Sequence[FrozenTrial]) -> int:
        return sum(trial.values is not None for trial in told)


def _violation(finding: Finding) -> float:
    """How far outside its limit: over 0 unless passed."""
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
