"""The replay of searches on tables: the format, the limits it draws, and what it counts."""

from __future__ import annotations

import json

import bench_search_cost
import numpy as np
import pytest
from search_replay import FEASIBLE_SHARE_MAX, SearchTable, drawn_limits, feasible, replay, simulated_table

from edgeloop.core.limits import LimitSet

TABLE = simulated_table(1, widths=(1.41, 2.0))
"""20 candidates."""


def test_a_table_is_the_same_after_being_written_and_read() -> None:
    again = SearchTable.of(json.loads(json.dumps(TABLE.plain())), "a.json")
    assert again == TABLE
    assert again.simulated
    assert again.recorded == "made up"


def test_a_table_that_lacks_a_candidate_is_refused() -> None:
    plain = TABLE.plain()
    plain["rows"] = plain["rows"][:-1]
    with pytest.raises(ValueError, match="1 candidates were not recorded, such as width 2 w4a8 x2"):
        SearchTable.of(plain, "a.json")
    with pytest.raises(ValueError, match="schema 2, this reads 1"):
        SearchTable.of(TABLE.plain() | {"schema": 2}, "a.json")


def test_drawn_limits_are_met_by_some_and_by_few() -> None:
    for number in range(30):
        inside = feasible(TABLE, drawn_limits(TABLE, np.random.default_rng(number)))
        assert 1 <= len(inside) <= FEASIBLE_SHARE_MAX * len(TABLE.rows)
        accuracies = [TABLE.truth(candidate).accuracy for candidate in inside]
        assert accuracies == sorted(accuracies, reverse=True)


@pytest.mark.parametrize("strategy", bench_search_cost.STRATEGIES)
def test_a_replay_counts_until_the_best_and_is_the_same_each_time(strategy: str) -> None:
    for number in range(5):
        limits = drawn_limits(TABLE, np.random.default_rng(number))
        best = feasible(TABLE, limits)[0]
        cost = replay(TABLE, strategy, number, limits, best)
        assert 1 <= cost.first <= cost.best <= len(TABLE.rows)
        assert replay(TABLE, strategy, number, limits, best) == cost
        if len(feasible(TABLE, limits)) == 1:
            assert cost.first == cost.best


def test_a_grid_needs_as_many_measurements_as_the_place_of_the_best_in_its_order() -> None:
    limits = drawn_limits(TABLE, np.random.default_rng(3))
    space = TABLE.space("grid", 0, LimitSet())
    order = [space.candidate(point) for point in space.points]
    places = [order.index(candidate) + 1 for candidate in feasible(TABLE, limits)]
    cost = replay(TABLE, "grid", 0, limits, feasible(TABLE, limits)[0])
    assert (cost.first, cost.best) == (min(places), places[0])


def test_random_needs_on_average_what_drawing_without_replacement_does() -> None:
    """The best one of n lies at (n + 1) / 2 on average."""
    limits = drawn_limits(TABLE, np.random.default_rng(3))
    best = feasible(TABLE, limits)[0]
    found = [replay(TABLE, "random", seed, limits, best).best for seed in range(400)]
    expected, error = (len(TABLE.rows) + 1) / 2, len(TABLE.rows) / np.sqrt(12 * 400)
    assert abs(np.mean(found) - expected) < 4 * error


def test_the_bench_says_that_simulated_tables_are_simulated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_search_cost, "RECORDED", bench_search_cost.RECORDED / "nowhere")
    monkeypatch.setattr(bench_search_cost, "simulated_table", lambda seed: TABLE)
    monkeypatch.setattr("sys.argv", ["bench", "--replays", "3"])
    assert bench_search_cost.main() == 0
    told = capsys.readouterr().out
    assert "these are SIMULATED, and say nothing of a real board" in told
    assert "simulated 1: 20 candidates, 3 replays" in told
    assert "(SIMULATED)" in told
    assert [line.split()[0] for line in told.splitlines() if line[:6] in {"patent", "random", "grid  ", "optuna"}] == [
        "patent",
        "patent-without-E",
        "random",
        "grid",
        "optuna",
    ]
