"""A board's clock on this host's: whatever the delays are, the truth lies inside what is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.board.clocks import ClockFit, Exchange, fit

DELAY_S = st.floats(0.001, 0.5)


class SkewedBoard:
    """A board whose clock is `skew_s` behind this host's and runs at another rate; asking takes time both ways."""

    def __init__(self, skew_s: float, delays_s: list[tuple[float, float]], rate: float = 1.0) -> None:
        self.now_s = 5000.0
        self._skew_s, self._rate = skew_s, rate
        self._delays_s = iter(delays_s)

    def board_s(self) -> float:
        return (self.now_s - self._skew_s) * self._rate

    def ask(self) -> int:
        there_s, back_s = next(self._delays_s)
        self.now_s += there_s
        shown = int(self.board_s() * 1e9)
        self.now_s += back_s
        return shown


@given(st.floats(-1e6, 4000.0), st.lists(st.tuples(DELAY_S, DELAY_S), min_size=5, max_size=5))
def test_the_true_offset_lies_inside_the_uncertainty(skew_s: float, delays_s: list[tuple[float, float]]) -> None:
    board = SkewedBoard(skew_s, delays_s)
    found = fit(board.ask, lambda: board.now_s)
    assert abs(found.offset_s - skew_s) <= found.uncertainty_s + 1e-6
    assert found.uncertainty_s == pytest.approx(min(map(sum, delays_s)) / 2)


def test_a_clock_that_runs_fast_is_off_by_no_more_than_its_drift_over_the_age_of_the_fit() -> None:
    board = SkewedBoard(100.0, [(0.010, 0.010)] * 5, rate=1 + 50e-6)
    found = fit(board.ask, lambda: board.now_s)
    board.now_s += 20.0  # a session ago
    assert abs(board.board_s() + found.offset_s - board.now_s) < found.uncertainty_s + 21 * 50e-6


def test_the_exchange_with_the_shortest_round_trip_decides() -> None:
    slow, quick = Exchange(10.0, 3.0, 12.0), Exchange(20.0, 12.001, 20.004)
    assert ClockFit.of([slow, quick]) == ClockFit.of([quick, slow])
    assert ClockFit.of([slow, quick]).offset_s == pytest.approx(8.001)
    assert ClockFit.of([slow, quick]).uncertainty_s == pytest.approx(0.002)
