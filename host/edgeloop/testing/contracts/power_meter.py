"""The rules for every PowerMeter. Subclass PowerMeterContract, give it two fixtures, and run it with pytest.

class TestMyMeter(PowerMeterContract):
    @pytest.fixture
    def meter(self):
        ...  # not started; reads at least ten times a second
    @pytest.fixture
    def ending_meter(self):
        ...  # not started; its source ends after the first readings
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edgeloop.errors import LabError
from edgeloop.ports import PowerMeter

Now = Callable[[], float]
_PATIENCE_S = 20.0


class PowerMeterContract:
    """Rules of the PowerMeter port."""

    @pytest.fixture
    def now_s(self) -> Now:
        """The clock of this host as the meter has it."""
        return time.monotonic

    @pytest.fixture
    def running(self, meter: PowerMeter) -> Iterator[PowerMeter]:
        meter.start()
        yield meter
        meter.close()

    def test_it_starts_with_its_first_reading(self, running: PowerMeter) -> None:
        readings = running.readings(-math.inf, math.inf)
        assert readings.dtype == np.float64
        assert readings.shape[0] == 2
        assert readings.shape[1] >= 1
        assert np.isfinite(readings).all()

    def test_readings_are_in_order_and_on_this_hosts_clock(self, running: PowerMeter, now_s: Now) -> None:
        began_s = now_s()
        running.wait_until(began_s + 0.5, _PATIENCE_S)
        seconds, _ = running.readings(-math.inf, math.inf)
        assert (np.diff(seconds) >= 0).all()
        assert seconds[-1] >= began_s + 0.5
        assert seconds[-1] <= now_s()

    def test_a_wait_ends_at_the_latest_after_the_time_allowed(self, running: PowerMeter, now_s: Now) -> None:
        began_s = now_s()
        running.wait_until(began_s + 3600, 0.3)
        assert 0.3 <= now_s() - began_s < _PATIENCE_S

    def test_a_cut_has_at_most_one_reading_beyond_each_end(self, running: PowerMeter, now_s: Now) -> None:
        began_s = now_s()
        running.wait_until(began_s + 1.0, _PATIENCE_S)
        since_s, until_s = began_s + 0.2, began_s + 0.6
        seconds, _ = running.readings(since_s, until_s)
        assert ((seconds >= since_s) & (seconds <= until_s)).any()
        assert (seconds < since_s).sum() <= 1
        assert (seconds > until_s).sum() <= 1

    def test_while_it_reads_there_is_nothing_to_complain_of(self, running: PowerMeter) -> None:
        running.check()

    def test_a_source_that_ended_is_an_error_of_the_lab(self, ending_meter: PowerMeter, now_s: Now) -> None:
        ending_meter.start()
        try:
            with pytest.raises(LabError):
                ending_meter.wait_until(now_s() + _PATIENCE_S, _PATIENCE_S)
            with pytest.raises(LabError):
                ending_meter.check()
        finally:
            ending_meter.close()

    def test_closing_twice_does_no_harm(self, meter: PowerMeter) -> None:
        meter.start()
        meter.close()
        meter.close()

    def test_closing_one_that_was_never_started_does_no_harm(self, meter: PowerMeter) -> None:
        meter.close()
