"""Strategies: which candidate is asked next. One port (ports.Strategy), four ways to fill it.

`patent` turns the claimed moves into questions, `optuna` samples where earlier trials were good, `grid` and `random`
sweep without listening. All of them ask every point of the search space at most once, in an order that is a function
of the trials told alone: a run that is walked again asks what the first one asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.core.limits import LimitSet
from edgeloop.ports import Strategy
from edgeloop.search.space import SearchSpace
from edgeloop.search.strategies.grid_random import SweepStrategy, grid_order, random_order
from edgeloop.search.strategies.patent import PatentStrategy

__all__ = ["PatentStrategy", "StudyStorage", "SweepStrategy", "grid_order", "random_order", "strategy_for"]


@dataclass(frozen=True, slots=True)
class StudyStorage:
    """Where an optuna search is written down for others to look at, beside the ledger that it is rebuilt from."""

    storage: str
    """A URL that SQLAlchemy takes, such as `sqlite:////runs/a/optuna.db`."""
    study: str
    """The study's name; one run's own."""


def strategy_for(
    space: SearchSpace,
    limits: LimitSet,
    *,
    lower_is_better: frozenset[str] = frozenset(),
    storage: StudyStorage | None = None,
) -> Strategy:
    """Return the strategy that the search of `space` names.

    `lower_is_better`: metrics of the task where small is good. Raises MissingExtraError where optuna is asked for and
    not installed.
    """
    search = space.search
    match search.strategy:
        case "patent":
            return PatentStrategy(space)
        case "grid":
            return SweepStrategy(space, grid_order)
        case "random":
            return SweepStrategy(space, random_order)
        case "optuna":
            from edgeloop.search.strategies.optuna import OptunaStrategy
            from edgeloop.search.strategies.optuna_storage import Publisher

            publisher = Publisher(storage.storage, storage.study) if storage else None
            return OptunaStrategy(space, limits, lower_is_better=lower_is_better, publisher=publisher)
