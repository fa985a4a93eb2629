"""Strategies: which candidate is asked next. One port (ports.Strategy), and a table of the ways to fill it.

`patent` turns the claimed moves into questions, `optuna` samples where earlier trials were good, `grid` and `random`
sweep without listening. All of them ask every point of the search space at most once, in an order that is a function
of the trials told alone: a run that is walked again asks what the first one asked. A package that is installed may add
one of its own, as an entry point of the group `edgeloop.strategies`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from edgeloop.core import installed
from edgeloop.core.limits import LimitSet
from edgeloop.ports import Strategy
from edgeloop.search.space import SearchSpace
from edgeloop.search.strategies.grid_random import SweepStrategy, grid_order, random_order
from edgeloop.search.strategies.patent import PatentStrategy
from edgeloop.user_code.entry_points import load_installed

__all__ = [
    "STRATEGIES",
    "PatentStrategy",
    "SearchProblem",
    "StrategyFactory",
    "StudyStorage",
    "SweepStrategy",
    "find_strategy",
    "grid_order",
    "random_order",
    "strategy_for",
]


@dataclass(frozen=True, slots=True)
class StudyStorage:
    """Where an optuna search is written down for others to look at, beside the ledger that it is rebuilt from."""

    storage: str
    """A URL that SQLAlchemy takes, such as `sqlite:////runs/a/optuna.db`."""
    study: str
    """The study's name; one run's own."""


@dataclass(frozen=True, slots=True)
class SearchProblem:
    """All that a strategy is made of."""

    space: SearchSpace
    """Its points, and what is predicted of each; `space.search` has the campaign's own table."""
    limits: LimitSet
    lower_is_better: frozenset[str] = frozenset()
    """Metrics of the task where small is good."""
    storage: StudyStorage | None = None


StrategyFactory = Callable[[SearchProblem], Strategy]


def _optuna(problem: SearchProblem) -> Strategy:
    from edgeloop.search.strategies.optuna import OptunaStrategy
    from edgeloop.search.strategies.optuna_storage import Publisher

    storage = problem.storage
    publisher = Publisher(storage.storage, storage.study) if storage else None
    return OptunaStrategy(problem.space, problem.limits, lower_is_better=problem.lower_is_better, publisher=publisher)


STRATEGIES: dict[str, StrategyFactory] = {
    "patent": lambda problem: PatentStrategy(problem.space),
    "optuna": _optuna,
    "grid": lambda problem: SweepStrategy(problem.space, grid_order),
    "random": lambda problem: SweepStrategy(problem.space, random_order),
}
"""Those that edgeloop brings, by the name that `search.strategy` has."""


def find_strategy(name: str) -> StrategyFactory:
    """Return what makes the strategy of a name. Raises UserError where there is none, or where it can't be loaded."""
    own = STRATEGIES.get(name)
    return own or cast("StrategyFactory", load_installed(installed.STRATEGIES, name))


def strategy_for(
    space: SearchSpace,
    limits: LimitSet,
    *,
    lower_is_better: frozenset[str] = frozenset(),
    storage: StudyStorage | None = None,
) -> Strategy:
    """Return the strategy that the search of `space` names.

    `lower_is_better`: metrics of the task where small is good. Raises MissingExtraError where optuna is asked for and
    not installed, UserError as `find_strategy`.
    """
    return find_strategy(space.search.strategy)(SearchProblem(space, limits, lower_is_better, storage))
