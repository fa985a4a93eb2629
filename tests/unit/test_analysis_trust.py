"""INVALID is a departure from the declared environment, with its figure; less than ideal is not one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from factories import make_session
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.analysis.conditions import digest
from edgeloop.analysis.trust import trust
from edgeloop.core.board import BoardEnvironment
from edgeloop.core.conditions import SessionConditions, read_conditions
from edgeloop.core.measurement import Session, Trust
from edgeloop.core.plan import Environment, ProfileName

SAMPLE: dict[str, Any] = {
    "monotonic_ns": 1,
    "realtime_minus_monotonic_ns": 1_700_000_000_000_000_000,
    "boot_id": "b",
    "temperatures_c": {"cpu": 45.0},
    "clock_mhz": {"0": 1800.0},
    "governor": {"0": "ondemand"},
    "throttled": {"now": [], "sticky": [], "raw": 0, "source": "vcgencmd"},
    "under_voltage": {"now": False, "sticky": False, "source": "vcgencmd"},
    "cooling": {"cpufreq-cpu0": [0, 4]},
    "throttle_counts": {},
    "throttling_known": True,
    "firmware_problem": None,
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
    return make_session(index=index, conditions=read_conditions(whole | conditions), boot_id=boot_id)


def judged(
    *sessions: Session,
    board: BoardEnvironment | None = None,
    profile: ProfileName = "standard",
    **declared: Any,
) -> Trust:
    return trust(sessions, Environment(**declared), board or BoardEnvironment(), profile=profile)


def fields(kept: Session) -> dict[str, Any]:
    return {name: getattr(kept, name) for name in Session.__dataclass_fields__}


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
    bare = Session(0, "c", "latency", "ok", "", nothing, nothing, 1, 1, 1, 1, SessionConditions(), "")
    found = judged(bare, clock="fixed", governor="performance", foreign_load_max_pct=5)
    assert found.valid
    assert {
        "throttled",
        "under_voltage",
        "clock_mhz in the timed window",
        "governor",
        "foreign_load_pct",
        "calibration_ns",
        "oom_kills",
    } <= set(found.unknown)


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
STICKY = {"now": [], "sticky": ["soft_temperature_limit"], "raw": 0x80000}
LOW = {"now": True, "sticky": True, "source": "vcgencmd"}
WAS_LOW = {"now": False, "sticky": True, "source": "vcgencmd"}


@pytest.mark.parametrize("kept", [{"during": {"throttled": FLAG}}, {"after": {"throttled": STICKY}}])
def test_a_new_throttle_bit_counts_where_throttling_is_forbidden(kept: dict[str, Any]) -> None:
    assert "throttled: " in reason(judged(session(**kept)))
    assert judged(session(**kept), throttling="allow").valid


def test_a_bit_that_was_sticky_before_is_not_new_and_what_it_hides_is_said() -> None:
    found = judged(session(before={"throttled": STICKY}, during={"throttled": STICKY}, after={"throttled": STICKY}))
    assert found.valid
    assert any("soft_temperature_limit was set before" in name for name in found.unknown)


@pytest.mark.parametrize("kept", [{"during": {"under_voltage": LOW}}, {"after": {"under_voltage": WAS_LOW}}])
def test_under_voltage_is_a_reason_of_its_own_with_a_declaration_of_its_own(kept: dict[str, Any]) -> None:
    flags = {"throttled": {"now": ["under_voltage"], "sticky": ["under_voltage"], "raw": 0x10001}}
    low = session(**{when: {**sample, **flags} for when, sample in kept.items()})
    assert "under-voltage" in reason(judged(low))
    assert "under-voltage" in reason(judged(low, throttling="allow"))
    assert judged(low, under_voltage="allow").valid


def test_what_happened_between_two_sessions_belongs_to_the_measurement() -> None:
    since = {"throttled": STICKY}
    later = session(before=since, during=since, after=since, index=1)
    assert "between sessions 0 and 1: throttled: soft_temperature_limit" in reason(judged(session(), later))
    assert judged(session(), later, throttling="allow").valid
    stepped = {"realtime_minus_monotonic_ns": 1_700_000_009_000_000_000}
    after_a_step = session(before=stepped, during=stepped, after=stepped, index=1)
    assert "between sessions 0 and 1: the clock was set by +9000 ms" in reason(judged(session(), after_a_step))


def test_a_clock_that_is_set_and_set_back_did_step() -> None:
    assert "the clock was set by -3000 ms" in reason(
        judged(session(during={"realtime_minus_monotonic_ns": 1_699_999_997_000_000_000}))
    )


@pytest.mark.parametrize(
    ("during", "figure"),
    [
        ({"cooling": {"cpufreq-cpu0": [3, 4]}}, "the kernel slowed the processor down (cpufreq-cpu0, step 3 of 4)"),
        (
            {"clock_max_mhz": {"0": 1000.0}, "clock_hardware_max_mhz": {"0": 1800.0}},
            "held to 1000 MHz of the 1800 MHz that the processor can do",
        ),
        ({"clock_kernel_mhz": 1800.0, "clock_firmware_mhz": 700.0}, "the kernel says 1800 MHz, the firmware measures"),
    ],
)
def test_every_sign_of_throttling_has_its_figure(during: dict[str, Any], figure: str) -> None:
    assert figure in reason(judged(session(during=during)))
    assert judged(session(during=during), throttling="allow").valid


def test_a_lower_clock_that_was_declared_is_no_sign_of_throttling() -> None:
    held = {"clock_max_mhz": {"0": 1000.0}, "clock_hardware_max_mhz": {"0": 1800.0}}
    assert judged(session(during=held), expected_clock_mhz=1000).valid
    assert not judged(session(during=held), expected_clock_mhz=1400).valid


def test_a_firmwares_clock_that_is_low_in_one_look_of_many_is_a_clock_that_changed() -> None:
    looks = [
        SAMPLE | {"timed": True, "clock_kernel_mhz": 1800.0, "clock_firmware_mhz": mhz} for mhz in (600, 1800, 1800)
    ]
    kept = session()
    conditions = read_conditions({**kept.conditions.model_dump(), "during": looks})
    assert judged(Session(**{**fields(kept), "conditions": conditions})).valid


def test_the_qualification_profile_refuses_an_unknown_only_where_something_is_declared_about_it() -> None:
    poor = {"throttled": None, "under_voltage": None, "throttling_known": False, "firmware_problem": "no vcgencmd"}
    blind = session(before=poor, during=poor, after=poor, unknown=["load1"])
    assert judged(blind).valid
    assert {"throttled (no vcgencmd)", "under_voltage (no vcgencmd)", "load1"} == set(judged(blind).unknown)
    refused = judged(blind, profile="qualification")
    step = 'declare "allow" where the board can\'t tell'
    assert refused.reasons == (
        f'not known: throttled (no vcgencmd), and throttling = "forbid" is declared; {step}',
        f'not known: under_voltage (no vcgencmd), and under_voltage = "forbid" is declared; {step}',
    )
    assert judged(blind, profile="qualification", throttling="allow", under_voltage="allow").valid


@pytest.mark.parametrize(
    ("without", "declared"),
    [
        ({"clock_mhz": {}}, {"clock": "fixed"}),
        ({"governor": {}}, {"governor": "performance"}),
        ({"foreign_load_pct": None}, {"foreign_load_max_pct": 5}),
        ({"temperatures_c": {}}, {"start_temperature_max_c": 50}),
    ],
)
def test_each_declaration_needs_what_it_is_about(without: dict[str, Any], declared: dict[str, Any]) -> None:
    blind = session(before=without, during=without, after=without)
    assert judged(blind, **declared).valid
    assert judged(blind, profile="qualification").valid
    assert "not known: " in reason(judged(blind, profile="qualification", **declared))


SOAKED = {"asked": True, "passed": True, "took_s": 300.0, "end_c": 70.0, "slope_c_per_min": 0.1, "detail": ""}
HOT = {"temperatures_c": {"cpu": 71.0}, "throttled": FLAG}


def test_a_soaked_board_may_throttle_and_must_stay_as_warm() -> None:
    good = session(before=HOT, during=HOT, after=HOT, soak=SOAKED, calibration_ns=[1000, 2500])
    assert judged(good, throttling="soak").valid
    assert "was not soaked" in reason(judged(session(), throttling="soak"))
    cooled = session(during={"temperatures_c": {"cpu": 64.0}}, soak=SOAKED, idle_before_s=2.25)
    assert "at 64.0 C in the timed window, after 2.2 s without load, soaked at 70.0 C; 5 C are let pass" in reason(
        judged(cooled, throttling="soak")
    )
    failed = SOAKED | {"passed": False, "detail": "not flat after 1800 s: 80.0 C, +1.30 C a minute"}
    assert "not flat after 1800 s: 80.0 C, +1.30" in reason(judged(session(soak=failed), throttling="soak"))


def test_as_found_means_as_found_and_a_change_is_said_or_refused() -> None:
    changed = session(after={"governor": {"0": "powersave"}}, index=2)
    said = "governor (somebody changed it from ondemand to powersave on core 0, session 2)"
    assert judged(session(), changed).valid
    assert judged(session(), changed).unknown == (said,)
    assert said in reason(judged(session(), changed, profile="qualification"))


def test_who_changed_a_declared_governor_is_said() -> None:
    ours = {"governor": {"0": "performance"}}
    asked = {"asked": "performance", "set": True, "detail": ""}
    theirs = session(before=ours, during=ours, after={"governor": {"0": "powersave"}}, governor=asked)
    assert "governor powersave was in force on core 0 (1 of 3 looks): somebody else changed it" in reason(
        judged(theirs, governor="performance")
    )
    refused = session(governor={"asked": "performance", "set": False, "detail": "permission denied"})
    assert "ondemand was in force on core 0 (permission denied), performance is declared" in reason(
        judged(refused, governor="performance")
    )


def test_with_a_fixed_clock_a_session_that_was_slow_all_through_shows_beside_the_others() -> None:
    slow = session(calibration_ns=[2100, 2000], index=1)
    assert "session 1: a fixed piece of work took 2.00 times as long as in the fastest session" in reason(
        judged(session(), slow, clock="fixed")
    )
    assert judged(session(), slow).valid


SAMPLES = st.fixed_dictionaries(
    {},
    optional={
        "throttled": st.sampled_from([None, FLAG, STICKY, SAMPLE["throttled"]]),
        "throttling_known": st.booleans(),
        "under_voltage": st.sampled_from([None, LOW, WAS_LOW, SAMPLE["under_voltage"]]),
        "cooling": st.sampled_from([{}, {"cpufreq-cpu0": [2, 4]}]),
        "throttle_counts": st.sampled_from([{}, {"core 0": 1}, {"core 0": 5}]),
        "governor": st.sampled_from([{}, {"0": "performance"}, {"0": "powersave"}]),
        "clock_mhz": st.sampled_from([{}, {"0": 600.0}, {"0": 1800.0}]),
        "clock_firmware_mhz": st.sampled_from([600.0, 1800.0]),
        "clock_kernel_mhz": st.sampled_from([600.0, 1800.0]),
        "temperatures_c": st.sampled_from([{}, {"cpu": 40.0}, {"cpu": 80.0}]),
        "foreign_load_pct": st.sampled_from([None, 0.0, 50.0]),
        "realtime_minus_monotonic_ns": st.sampled_from([None, 0, 10**10]),
        "oom_kills": st.sampled_from([None, 0, 1]),
    },
)
SESSIONS = st.lists(
    st.tuples(SAMPLES, SAMPLES, SAMPLES, st.sampled_from([[1000, 1000], [1000, 5000], None])), max_size=4
)
STRICT: dict[str, Any] = {
    "throttling": "forbid",
    "under_voltage": "forbid",
    "clock": "fixed",
    "governor": "performance",
    "foreign_load_max_pct": 5.0,
    "start_temperature_max_c": 50.0,
}
LAX: dict[str, Any] = {
    "throttling": "allow",
    "under_voltage": "allow",
    "clock": "free",
    "governor": "as-found",
    "foreign_load_max_pct": None,
    "start_temperature_max_c": None,
}


@given(SESSIONS, st.sets(st.sampled_from(sorted(STRICT))))
def test_declaring_more_never_makes_an_invalid_measurement_valid(made: list[Any], strict: set[str]) -> None:
    run = [session(b, d, a, index=i, calibration_ns=c) for i, (b, d, a, c) in enumerate(made)]
    declared = LAX | {key: STRICT[key] for key in strict}
    lax, middle, full = (set(judged(*run, **what).reasons) for what in (LAX, declared, STRICT))
    assert lax <= middle <= full


@given(SESSIONS, st.sets(st.sampled_from(sorted(STRICT))))
def test_qualification_only_adds_what_is_not_known_about_what_is_declared(made: list[Any], strict: set[str]) -> None:
    run = [session(b, d, a, index=i, calibration_ns=c) for i, (b, d, a, c) in enumerate(made)]
    declared = LAX | {key: STRICT[key] for key in strict}
    standard, qualification = judged(*run, **declared), judged(*run, profile="qualification", **declared)
    added = qualification.reasons[len(standard.reasons) :]
    assert qualification.reasons[: len(standard.reasons)] == standard.reasons
    assert qualification.unknown == standard.unknown
    assert all(line.startswith("not known: ") and " is declared" in line for line in added)


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
    assert "governor ondemand was in force on core 0, performance is declared" in reason(found)
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


def test_the_calibration_loop_of_an_emulated_board_times_its_host_and_judges_nothing() -> None:
    slowed = session(calibration_ns=[1000, 4700])
    assert not trust([slowed], Environment(), BoardEnvironment()).valid
    assert trust([slowed], Environment(), BoardEnvironment(), emulated=True).valid


def test_sessions_that_something_slowed_down_are_counted_whatever_slowed_them() -> None:
    calm = [session(calibration_ns=[1000, 1100 + n], index=n) for n in range(6)]
    assert "slowed" not in digest(calm).entries()
    found = digest([*calm, session(calibration_ns=[1600, 1000], index=6)]).entries()
    assert found["slowed"] == "1 of 7 sessions (calibration loop over 1.2 times the fastest)"
    assert digest([session(calibration_ns=[None, 1000])]).entries()["calibration_ns"] == [1000.0, 1000.0]
