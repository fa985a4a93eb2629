"""Every strategy that a campaign can name keeps the same contract."""

from __future__ import annotations

import pytest

from edgeloop.search.strategies import PatentStrategy, SweepStrategy, grid_order, random_order
from edgeloop.search.strategies.optuna import OptunaStrategy
from edgeloop.testing.contracts.strategy import Make, StrategyContract


class TestPatent(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda space, _limits: PatentStrategy(space)


class TestGrid(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda space, _limits: SweepStrategy(space, grid_order)


class TestRandom(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        return lambda space, _limits: SweepStrategy(space, random_order)


class TestOptuna(StrategyContract):
    @pytest.fixture
    def make(self) -> Make:
        return OptunaStrategy
