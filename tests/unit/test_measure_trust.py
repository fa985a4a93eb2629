"""INVALID is a departure from the declared environment, with its figure; less than ideal is not one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeloop.core.board import BoardEnvironment
from edgeloop.core.measurement import Session, Trust
from edgeloop.core.plan import Environment
from edgeloop.measure.trust import calibration_drift, trust

SAMPLE: dict[str, Any] = {
    "monotonic_ns": 1,
    "realtime_minus_monotonic_ns": 1_700_000_000_000_000_000,
    "boot_id": "b",
    "temperatures_c": {"cpu": 45.0},
    "clock_mhz": {"0": 1800.0},
    "governor": {"0": "ondemand"},
    "throttled": {"now": [], "sticky": [], "raw": 0},
    "foreign_load_pct": 1.0,
    "foreign_top": ["cron"],
    "swap_in_pages": 100,
    "swap_out_pages": 200,
    "major_faults": 5,
    "oom_kills": 0,
}


def session(
    before: dict[str, Any] | None = None,
    during: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    index: int = 0,
    boot_id: str = "b",
    **conditions: Any,
) -> Session:
    whole: dict[str, Any] = {
        "before": SAMPLE | (before or {}),
        "during": [SAMPLE | {"timed": True} | (during or {})],
        "after": SAMPLE | (after or {}),
        "calibration_ns": [1000, 1000],
        "pinned_cores": [0],
        "unknown": [],
    }
    nothing = np.array([], dtype=np.int64)
    kept = whole | conditions
    return Session(index, "candidate", "latency", "ok", "", nothing, nothing, 1, 1, 1, 1, kept, boot_id)


def judged(*sessions: Session, board: BoardEnvironment | None = None, **declared: Any) -> Trust:
    return trust(sessions, Environment(**declared), board or BoardEnvironment())


def reason(found: Trust) -> str:
    assert not found.valid
    assert len(found.reasons) == 1, found.reasons
    return found.reasons[0]


def test_an_undisturbed_session_is_trusted_and_nothing_is_unknown() -> None:
    found = judged(session(), session(index=1))
    assert found == Trust(valid=True)


def test_a_stock_board_with_a_changing_clock_is_valid_out_of_the_box() -> None:
    ramping = session(during={"clock_mhz": {"0": 600.0}}, calibration_ns=[2900, 1000])
    noisy = {"foreign_load_pct": 60.0, "swap_in_pages": 110, "realtime_minus_monotonic_ns": 1_700_000_000_004_000_000}
    assert judged(ramping, session(after=noisy, calibration_ns=[1000, 1300])).valid


def test_an_empty_record_is_unknown_and_not_invalid() -> None:
    nothing = np.array([], dtype=np.int64)
    bare = Session(0, "c", "latency", "ok", "", nothing, nothing, 1, 1, 1, 1, {}, "")
    found = judged(bare, clock="fixed", governor="performance", foreign_load_max_pct=5)
    assert found.valid
    assert {"throttled", "clock_mhz", "governor", "foreign_load_pct", "calibration_ns", "oom_kills"} <= set(
        found.unknown
    )


@pytest.mark.parametrize(
    ("after", "figure"),
    [
        ({"realtime_minus_monotonic_ns": 1_700_000_000_000_000_000 - 2_000_000_000}, "the clock was set by -2000 ms"),
        ({"oom_kills": 1}, "killed 1 process"),
        ({"swap_in_pages": 400, "swap_out_pages": 300}, "400 pages were swapped, 256 are let pass"),
        ({"boot_id": "other"}, "restarted meanwhile"),
    ],
)
def test_some_things_always_make_a_session_invalid(after: dict[str, Any], figure: str) -> None:
    found = judged(session(after=after, index=4), throttling="allow")
    assert figure in reason(found)
    assert reason(found).startswith("session 4 (candidate): ")


def test_sessions_of_two_boots_are_not_one_measurement() -> None:
    assert "2 boot ids" in reason(judged(session(), session(boot_id="other", index=1)))


FLAG = {"now": ["throttled"], "sticky": ["throttled"], "raw": 0x40004}
STICKY = {"now": [], "sticky": ["under_voltage"], "raw": 0x10000}


@pytest.mark.parametrize("kept", [{"during": {"throttled": FLAG}}, {"after": {"throttled": STICKY}}])
def test_a_new_throttle_bit_counts_where_throttling_is_forbidden(kept: dict[str, Any]) -> None:
    assert "throttled: " in reason(judged(session(**kept)))
    assert judged(session(**kept), throttling="allow").valid


def test_a_bit_that_was_sticky_before_is_not_new_and_what_it_hides_is_said() -> None:
    found = judged(session(before={"throttled": STICKY}, during={"throttled": STICKY}, after={"throttled": STICKY}))
    assert found.valid
    assert any("under_voltage was set before" in name for name in found.unknown)


def test_a_fixed_clock_is_judged_inside_the_timed_window_only() -> None:
    board = BoardEnvironment(expected_clock_mhz=1800)
    slow = {"clock_mhz": {"0": 1400.0}}
    assert "fell to 1400 MHz, 1800 MHz is expected" in reason(judged(session(during=slow), board=board, clock="fixed"))
    assert judged(session(before=slow, during=slow | {"timed": False}, after=slow), board=board, clock="fixed").valid
    assert judged(session(during=slow), board=board, clock="free").valid
    assert judged(session(during=slow), board=board, clock="fixed", expected_clock_mhz=1400).valid


def test_the_firmware_clock_shows_what_the_kernel_hides() -> None:
    lying = {"clock_mhz": {"0": 1800.0}, "clock_firmware_mhz": 1000.0}
    assert "moved between 1000 and 1800" in reason(judged(session(during=lying), clock="fixed"))


def test_a_governor_other_than_declared_is_named() -> None:
    found = judged(session(), governor="performance")
    assert "governor ondemand was in force, performance is declared" in reason(found)
    assert judged(session(), governor="ondemand").valid


def test_foreign_load_is_judged_over_the_session_and_only_where_declared() -> None:
    busy = session(during={"foreign_load_pct": 90.0}, after={"foreign_load_pct": 30.0, "foreign_top": ["apt"]})
    assert judged(busy).valid
    assert "others took 30.0 % of the measuring cores (cron, apt), 5 % is declared" in reason(
        judged(busy, foreign_load_max_pct=5)
    )
    assert judged(busy, foreign_load_max_pct=40).valid


@pytest.mark.parametrize(
    ("pair", "declared", "valid"),
    [
        ([1000, 1600], {}, True),
        ([1000, 1900], {}, False),
        ([1000, 1900], {"throttling": "allow"}, True),
        ([1000, 1900], {"throttling": "allow", "clock": "fixed"}, False),
        ([1900, 1000], {}, True),
        ([1900, 1000], {"clock": "fixed"}, False),
    ],
)
def test_fixed_work_that_slows_down_is_a_reason(pair: list[int], declared: dict[str, Any], valid: bool) -> None:
    found = judged(session(calibration_ns=pair), **declared)
    assert found.valid is valid
    if not valid:
        assert "a fixed piece of work took" in reason(found)


def test_drift_while_others_share_the_core_is_theirs_and_said_to_be_unknown() -> None:
    crowded = session(calibration_ns=[1000, 4000], after={"foreign_load_pct": 60.0})
    found = judged(crowded)
    assert found.valid
    assert found.unknown == ("calibration (others used the measuring cores)",)
    assert len(judged(crowded, foreign_load_max_pct=5).reasons) == 1
    assert not judged(session(calibration_ns=[1000, 4000], after={"foreign_load_pct": None})).valid


def test_drift_is_end_over_start_and_absent_where_it_was_not_measured() -> None:
    assert calibration_drift(session(calibration_ns=[1000, 1250])) == 1.25
    assert calibration_drift(session(calibration_ns=None)) is None
    assert calibration_drift(session(calibration_ns=[None, 1])) is None


def test_a_start_temperature_is_judged_where_declared_or_waited_for() -> None:
    hot = {"temperatures_c": {"cpu": 61.0, "gpu": 50.0}}
    board = BoardEnvironment(start_temperature_max_c=50)
    waited = {"asked": True, "passed": True, "waited_s": 3, "detail": ""}
    assert "started at 61.0 C (cpu), at most 55 C" in reason(judged(session(before=hot), start_temperature_max_c=55))
    assert judged(session(before=hot), board=board).valid
    assert "at most 50 C" in reason(judged(session(before=hot, gate=waited), board=board))
    assert judged(session(), session(before=hot, index=1), start_temperature_max_c=55).valid


def test_a_gate_that_never_opened_is_a_reason() -> None:
    gate = {"asked": True, "passed": False, "waited_s": 300, "detail": "foreign load 40 %"}
    assert "did not come to rest in 300 s: foreign load 40 %" in reason(judged(session(gate=gate)))


def test_what_the_agent_could_not_read_is_listed_once() -> None:
    found = judged(session(unknown=["temperatures_c"]), session(unknown=["temperatures_c", "clocksource"], index=1))
    assert found.unknown == ("clocksource", "temperatures_c")
