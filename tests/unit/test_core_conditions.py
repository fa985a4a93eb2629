"""Conditions from a board are of the protocol's types or refused; what is let in, judging can't stumble over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from condition_faults import faults
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.analysis.conditions import digest
from edgeloop.analysis.trust import trust
from edgeloop.core.board import BoardEnvironment
from edgeloop.core.conditions import read_conditions
from edgeloop.core.measurement import Session
from edgeloop.core.plan import Environment
from edgeloop.reports.conditions import conditions_line

NUMBER = st.integers(-(10**19), 10**19) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("012ab", max_size=2), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.lists(st.sampled_from(["under_voltage", "throttled", "chrome"]), max_size=2)
NUMBERS = st.dictionaries(st.sampled_from(["0", "1", "cpu"]), NUMBER, max_size=2)
RIGHT: dict[str, st.SearchStrategy[Any]] = {
    "monotonic_ns": NUMBER,
    "realtime_minus_monotonic_ns": NUMBER,
    "temperatures_c": NUMBERS,
    "clock_mhz": NUMBERS,
    "clock_max_mhz": NUMBERS,
    "clock_hardware_max_mhz": NUMBERS,
    "throttle_counts": NUMBERS,
    "pressure_us": NUMBERS,
    "clock_firmware_mhz": NUMBER,
    "clock_kernel_mhz": NUMBER,
    "governor": st.dictionaries(st.sampled_from(["0", "1"]), st.sampled_from(["performance", "ondemand"])),
    "throttled": st.fixed_dictionaries({}, optional={"now": NAMES, "sticky": NAMES, "raw": NUMBER}),
    "under_voltage": st.fixed_dictionaries({}, optional={"now": st.booleans(), "sticky": st.none() | st.booleans()}),
    "cooling": st.dictionaries(st.sampled_from(["cpufreq-cpu0"]), st.lists(NUMBER, min_size=2, max_size=2)),
    "foreign_load_pct": NUMBER,
    "foreign_top": NAMES,
    "oom_kills": NUMBER,
    "major_faults": NUMBER,
    "boot_id": st.text("ab", max_size=2),
    "timed": st.booleans(),
}
WAITED = {"asked": st.booleans(), "passed": st.none() | st.booleans(), "end_c": NUMBER, "slope_c_per_min": NUMBER}


def conditions_of(*, mixed_with: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Conditions whose values are right, or now and then something else."""
    sample = st.fixed_dictionaries({}, optional={key: right | mixed_with for key, right in RIGHT.items()})
    waited = st.fixed_dictionaries({}, optional={key: right | mixed_with for key, right in WAITED.items()})
    return st.fixed_dictionaries(
        {"before": sample, "after": sample},
        optional={
            "during": st.lists(sample, max_size=2),
            "calibration_ns": st.lists(st.integers(1, 10**9), min_size=2, max_size=2) | mixed_with,
            "pinned_cores": st.just([0]) | mixed_with,
            "governor": st.just({"asked": "performance", "set": True, "detail": ""}) | mixed_with,
            "gate": waited,
            "soak": waited,
            "idle_before_s": NUMBER | mixed_with,
            "unknown": NAMES,
        },
    )


NOTHING = np.array([], dtype=np.int64)


def judge(made: list[Any], throttling: Any) -> None:
    sessions = [
        Session(index, "c", "latency", "ok", "", NOTHING, NOTHING, 1, 1, 1, 1, read_conditions(conditions), "boot")
        for index, conditions in enumerate(made)
    ]
    declared = Environment(throttling=throttling, clock="fixed", governor="performance", start_temperature_max_c=50)
    trusted = trust(sessions, declared, BoardEnvironment(), profile="qualification")
    assert all(line.isprintable() for line in (*trusted.reasons, *trusted.unknown))
    assert conditions_line(digest(sessions)).isprintable()


THROTTLING = st.sampled_from(["forbid", "allow", "soak"])


@given(st.lists(conditions_of(mixed_with=st.nothing()), min_size=1, max_size=2), THROTTLING)
def test_conditions_of_the_right_types_are_let_in_judged_and_shown(made: list[Any], throttling: Any) -> None:
    assert [list(faults(conditions)) for conditions in made] == [[]] * len(made)
    judge(made, throttling)


@given(conditions_of(mixed_with=JSON), THROTTLING)
def test_conditions_of_any_type_are_refused_or_can_be_judged(made: Any, throttling: Any) -> None:
    if not list(faults(made)):
        judge([made], throttling)


@pytest.mark.parametrize(
    "wrong",
    [
        {"before": {"clock_mhz": {"0": "fast"}}},
        {"after": {"governor": {"0": "\x1b[2J"}}},
        {"during": [{"cooling": {"cpu": [1]}}]},
        {"during": {}},
        {"soak": {"end_c": "warm"}},
        {"calibration_ns": "soon"},
        {"before": {"throttled": {"now": "all", "sticky": []}}},
    ],
)
def test_a_value_of_another_type_is_named_by_its_key(wrong: dict[str, Any]) -> None:
    assert list(faults({"after": {}, **wrong})) == list(wrong)


def test_keys_of_a_newer_agent_pass() -> None:
    assert list(faults({"energy": {"mj": 3}, "before": {"volts": [1]}})) == []
