"""A host's meter beside a job: readings cut out for each session, placed on the board's clock, or said to be lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeloop.analysis.energy import session_energy
from edgeloop.board.metering import MeterBeside
from edgeloop.core.board import PowerMeterSpec as Declared
from edgeloop.core.measurement import PowerTrace
from edgeloop.errors import BoardError, LabError
from edgeloop.records.power_files import check_readings, check_windows, trace_of
from edgeloop_agent import wire

METER = Declared(command=("meter", "stream"), accuracy_pct=1.0)
S = 1_000_000_000


def record(energy: wire.Energy | None, **changes: Any) -> wire.SessionRecord:
    plain: dict[str, Any] = {
        "job_id": "j" * 32,
        "index": 3,
        "subject": 0,
        "kind": "energy",
        "outcome": "ok",
        "detail": "",
        "signal": None,
        "engine_version": "",
        "python_version": "",
        "load_ns": 1,
        "first_ns": 1,
        "peak_rss_bytes": 1,
        "runtime_rss_bytes": 1,
        "runs": 20,
        "warmups": 1,
        "overhead_ns": None,
        "missed_periods": 0,
        "stages": [],
        "inputs": [],
        "outputs": [],
        "results": [],
        "energy": energy,
        "conditions": {},
        "boot_id": "b",
        "started_utc": "",
    }
    return wire.SessionRecord(**{**plain, **changes})


def windows(**changes: Any) -> wire.Energy:
    """Idle from 100 s to 102 s, active from 103 s to 105 s of the board's clock."""
    plain: dict[str, Any] = {
        "idle_ns": [100 * S, 102 * S],
        "active_ns": [103 * S, 105 * S],
        "period_ms": 100.0,
        "sensor": None,
        "update_s": None,
        "readings": 0,
        "reading_cpu_s": 0.0,
    }
    return wire.Energy(**{**plain, **changes})


class StepMeter:
    """A meter that saw 2 W until a time of this host's clock and 3 W from then on, 100 times a second."""

    def __init__(self, step_s: float, since_s: float, until_s: float) -> None:
        self.seconds = np.arange(since_s, until_s, 0.01)
        self.watts = np.where(self.seconds < step_s, 2.0, 3.0)
        self.open = False
        self.fault: str | None = None

    def start(self) -> None:
        self.open = True

    def check(self) -> None:
        if self.fault:
            raise LabError(self.fault)

    def wait_until(self, time_s: float, longest_s: float) -> None:
        self.check()

    def readings(self, since_s: float, until_s: float) -> NDArray[np.float64]:
        kept = (self.seconds >= since_s) & (self.seconds <= until_s)
        return np.stack([self.seconds[kept], self.watts[kept]])

    def close(self) -> None:
        self.open = False


class Clocks:
    """This host's clock and a board's that is `skew_s` behind it; asking takes `delay_s` each way."""

    def __init__(self, skew_s: float, delay_s: float) -> None:
        self.now_s, self._skew_s, self._delay_s = 9000.0, skew_s, delay_s

    def ask_board_ns(self) -> int:
        self.now_s += self._delay_s
        shown = round((self.now_s - self._skew_s) * 1e9)
        self.now_s += self._delay_s
        return shown


def beside(meter: StepMeter, clocks: Clocks) -> MeterBeside:
    return MeterBeside(meter, clocks.ask_board_ns, lambda: clocks.now_s)


def traced(of: wire.SessionRecord, parts: Mapping[str, bytes], arrays: Mapping[str, Any] | None = None) -> PowerTrace:
    trace = trace_of(of, METER, arrays or {}, parts)
    assert trace is not None
    return trace


@given(st.floats(-50.0, 8000.0), st.floats(0.0005, 0.2))
def test_whatever_the_skew_is_the_energy_is_that_of_the_boards_own_windows(skew_s: float, delay_s: float) -> None:
    meter = StepMeter(102.5 + skew_s, 98.0 + skew_s, 107.0 + skew_s)
    of = record(windows())
    trace = traced(of, beside(meter, Clocks(skew_s, delay_s)).parts_of(of))
    assert trace.lost == ""
    assert trace.clock_uncertainty_s == pytest.approx(delay_s)
    assert trace.meter == "meter stream"
    found = session_energy(trace)
    assert found.per_period_j == pytest.approx(0.300, abs=1e-3)
    assert found.above_idle_j == pytest.approx(0.100, abs=1e-3)
    assert found.per_period_clock_j == pytest.approx(0, abs=1e-3)


def test_only_what_surrounds_the_windows_is_kept() -> None:
    meter = StepMeter(102.5, 0.0, 500.0)
    of = record(windows())
    trace = traced(of, beside(meter, Clocks(0.0, 0.001)).parts_of(of))
    assert 98.9 < trace.seconds[0] < 99.1
    assert 105.9 < trace.seconds[-1] < 106.1


def test_a_meter_that_began_after_a_sessions_windows_lost_it() -> None:
    of = record(windows())
    for since_s in (101.0, 400.0):  # within the idle window, and long after the session
        parts = beside(StepMeter(0.0, since_s, 500.0), Clocks(0.0, 0.001)).parts_of(of)
        assert traced(of, parts).lost == "the meter's readings are lost: nobody watched it then"


def test_files_of_this_host_that_are_missing_or_damaged_are_said() -> None:
    of = record(windows())
    parts = dict(beside(StepMeter(102.5, 98.0, 107.0), Clocks(0.0, 0.001)).parts_of(of))
    assert "nobody watched it" in traced(of, {}).lost
    assert "nobody watched it" in traced(of, {"meter.npy": parts["meter.npy"]}).lost
    for damage in ({"meter.json": b"{"}, {"meter.npy": b"rubbish"}, {"meter.npy": parts["meter.npy"][:-9]}):
        trace = traced(of, {**parts, **damage})
        assert trace.lost == "the meter's readings as kept here are damaged"
        assert len(trace.seconds) == 0


def test_a_session_without_windows_asks_neither_clock_nor_meter() -> None:
    meter = StepMeter(0.0, 0.0, 1.0)
    meter.fault = "asked"
    latency = record(None, kind="latency")
    assert beside(meter, Clocks(0.0, 0.001)).parts_of(latency) == {}
    assert trace_of(latency, METER, {}, {}) is None


def test_a_meters_fault_goes_through_and_it_is_closed_whatever_happens() -> None:
    meter = StepMeter(0.0, 0.0, 1.0)
    meter.fault = "power meter `meter stream` ended with status 1"
    running = beside(meter, Clocks(0.0, 0.001))
    with running, pytest.raises(LabError, match="ended with status 1"):
        running.check()
    assert not meter.open


def test_what_the_boards_own_sensor_saw_needs_no_clock() -> None:
    of = record(windows(sensor="ina226@1-0040/power1", update_s=0.02, readings=3))
    array = np.array([[99.0, 104.0, 106.0], [2.0, 3.0, 3.0]])
    trace = traced(of, {}, {"power.npy": array})
    assert (trace.meter, trace.clock_uncertainty_s, trace.update_s) == ("ina226@1-0040/power1", 0.0, 0.02)
    assert trace.seconds.tolist() == [99.0, 104.0, 106.0]
    assert trace.lost == ""


@pytest.mark.parametrize(
    "hostile",
    [
        record(None),
        record(windows(idle_ns=[])),
        record(windows(idle_ns=[2, 1])),
        record(windows(active_ns=[-5, 1])),
        record(windows(active_ns=[0, 2**70])),
        record(windows(active_ns=[0, 1, 2])),
        record(windows(readings=-1)),
        record(windows(update_s=0.0)),
        record(windows(period_ms=-1.0)),
        record(windows(), runs=0),
        record(windows(), kind="latency"),
    ],
)
def test_windows_that_are_none_are_refused(hostile: wire.SessionRecord) -> None:
    with pytest.raises(BoardError, match="session 3 is refused"):
        check_windows(hostile, "pi: session 3")


def test_a_session_that_crashed_has_no_windows_and_is_not_refused() -> None:
    check_windows(record(None, outcome="crashed", runs=0), "pi: session 3")
    check_windows(record(None, kind="latency"), "pi: session 3")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 4)),
        np.zeros((3, 3)),
        np.zeros((2, 3), np.float32),
        np.array([[1.0, 3.0, 2.0], [1.0, 1.0, 1.0]]),
        np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 1.0]]),
    ],
)
def test_readings_that_are_not_what_the_record_says_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(BoardError, match=r"power\.npy is refused"):
        check_readings(array, record(windows(readings=3)), "pi: session 3")
