"""Every strategy that a campaign can name keeps the same contract."""

from __future__ import annotations

import pytest

from edgeloop.search.strategies import PatentStrategy, SweepStrategy, in_order, shuffled
from edgeloop.search.strategies.optuna import OptunaStrategy
from edgeloop.testing.contracts.strategy import Make, StrategyContract


class TestPatent(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda space, _limits: PatentStrategy(space)


class TestGrid(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda space, _limits: SweepStrategy(space, in_order)


class TestRandom(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda space, _limits: SweepStrategy(space, shuffled)


class TestOptuna(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        return OptunaStrategy
