"""What doctor makes of a board's answers and of this host's packages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.app.host_doctor import package_checks, pair_checks
from edgeloop.board.doctor_checks import (
    clock_checks,
    condition_checks,
    declared_checks,
    sensor_checks,
    state_checks,
    support_checks,
)
from edgeloop.board.wheels import Interpreter, engine_support
from edgeloop.cli.checks import checks_text
from edgeloop.config.board_models import load_model
from edgeloop.core.board import Board, BoardEnvironment, Runtime, Ssh
from edgeloop.core.check import Check, note, ok, wrong

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FACTS: dict[str, Any] = {
    "python": "3.11.2",
    "machine": "aarch64",
    "glibc": "2.36",
    "model": "Raspberry Pi 4 Model B Rev 1.4",
    "serial": "10000000abc",
    "memory_bytes": 3_900_000_000,
    "cores": [0, 1, 2, 3],
    "state_dir": {
        "path": "/var/tmp/edgeloop",
        "exists": True,
        "writable": True,
        "free_bytes": 9 << 30,
        "problem": None,
    },
    "conditions": {
        "clock_max_mhz": {"0": 1800.0},
        "governor": {"0": "ondemand"},
        "temperatures_c": {"cpu": 48.2},
        "throttled": {"now": [], "sticky": [], "raw": 0},
        "load1": 0.1,
    },
}


def board(**changes: Any) -> Board:
    plain = {
        "name": "pi",
        "model": load_model("raspberry-pi-4"),
        "ssh": Ssh(host="pi"),
        "path": "/x/pi.toml",
        **changes,
    }
    return Board(**plain)


def by_name(checks: Any) -> dict[str, Check]:
    return {check.name: check for check in checks}


def of(declared: Board, facts: dict[str, Any]) -> dict[str, Check]:
    return by_name(
        [*declared_checks(declared, facts), *state_checks(declared, facts), *condition_checks(declared, facts)]
    )


def conditions(**changes: Any) -> dict[str, Any]:
    return {**FACTS, "conditions": {**FACTS["conditions"], **changes}}


def test_a_board_that_is_as_declared_has_nothing_to_say() -> None:
    assert {check.state for check in of(board(serial="10000000abc", runtime=Runtime(cores=(3,))), FACTS).values()} == {
        "ok"
    }


@pytest.mark.parametrize(
    ("name", "state", "changes", "facts"),
    [
        ("serial", "wrong", {"serial": "2"}, FACTS),
        ("cores", "wrong", {"runtime": Runtime(cores=(4,))}, FACTS),
        ("model", "note", {}, {**FACTS, "model": "Raspberry Pi 5 Model B Rev 1.0"}),
        ("model", "note", {}, {**FACTS, "model": None}),
        ("python", "wrong", {}, {**FACTS, "machine": "x86_64"}),
        ("memory", "note", {}, {**FACTS, "memory_bytes": 400 << 20}),
        ("disk", "wrong", {}, {**FACTS, "state_dir": {"problem": "is a symbolic link"}}),
        ("disk", "note", {}, {**FACTS, "state_dir": {"free_bytes": 100 << 20}}),
        ("disk", "note", {}, {**FACTS, "state_dir": {"free_bytes": 1000 << 20}}),
        ("clock", "note", {}, conditions(clock_max_mhz={"0": 600.0})),
        ("clock", "note", {}, conditions(clock_max_mhz={})),
        ("clock", "note", {"environment": BoardEnvironment(expected_clock_mhz=1500)}, FACTS),
        ("temperature", "note", {"environment": BoardEnvironment(start_temperature_max_c=40)}, FACTS),
        ("throttling", "wrong", {}, conditions(throttled={"now": ["under_voltage"], "sticky": []})),
        ("throttling", "note", {}, conditions(throttled={"now": [], "sticky": ["throttled"]})),
        ("throttling", "note", {}, conditions(throttled=None, throttling_known=False, firmware_problem="no vcgencmd")),
        ("supply", "wrong", {}, conditions(under_voltage={"now": True, "sticky": True, "source": "hwmon"})),
        ("load", "note", {}, conditions(load1=2.0)),
    ],
)
def test_each_difference_has_its_next_step(
    name: str, state: str, changes: dict[str, Any], facts: dict[str, Any]
) -> None:
    check = of(board(**changes), facts)[name]
    assert check.state == state
    assert check.next_step


@pytest.mark.parametrize(
    ("there_s", "state", "word"),
    [(0, "ok", "as this"), (-60, "note", "behind"), (60, "note", "ahead"), (2, "ok", "as")],
)
def test_a_clock_is_judged_by_when_it_was_asked(there_s: int, state: str, word: str) -> None:
    utc = (NOON + timedelta(seconds=there_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    (check,) = clock_checks({"utc": utc}, NOON, NOON + timedelta(seconds=3))
    assert check.state == state
    assert word in check.found


def test_a_board_without_any_engine_is_wrong_and_one_engine_is_enough() -> None:
    trixie32 = engine_support(Interpreter((3, 13), "armv7l", (2, 41), numpy="2.2.4"))
    assert {check.state for check in support_checks(trixie32)} == {"wrong"}
    trixie64 = engine_support(Interpreter((3, 13), "aarch64", (2, 41)))
    assert [check.state for check in support_checks(trixie64)] == ["ok", "note", "ok"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@settings(deadline=None)  # the first call reads the lock of wheels
@given(st.fixed_dictionaries({}, optional={key: _JSON for key in FACTS if key not in {"python", "machine"}}))
def test_no_answer_of_a_board_can_break_the_doctor(strange: dict[str, Any]) -> None:
    checks = of(board(), {**FACTS, **strange})
    assert {"model", "python", "cores", "disk", "clock", "governor"} <= set(checks)
    assert all(check.found.isprintable() for check in checks.values())


@given(_JSON, _JSON, _JSON, _JSON)
def test_no_condition_of_a_board_can_break_the_doctor(clock: Any, governor: Any, flags: Any, load: Any) -> None:
    throttled = {"now": flags, "sticky": flags}
    facts = conditions(clock_max_mhz={"0": clock}, governor={"0": governor}, throttled=throttled, load1=load)
    checks = of(board(), facts)
    assert "governor" in checks
    assert all(check.found.isprintable() for check in checks.values())


def test_an_extra_is_missing_whole_and_the_command_that_brings_it_is_given() -> None:
    wanted = ["numpy>=1.26", 'torch>=2.9; extra == "train"', 'optuna>=4; extra == "search"']
    checks = by_name(package_checks(wanted, {"numpy": "2.1", "torch": "2.13.0+cpu"}.get))
    assert checks["base install"].state == "ok"
    assert checks["extra train"].state == "ok"
    assert (checks["extra search"].state, checks["extra search"].found) == ("note", "missing: optuna")
    assert "pip install 'edgeloop[search]'" in (checks["extra search"].next_step or "")


def test_a_pinned_toolchain_of_another_version_is_wrong() -> None:
    wanted = ['apache-tvm-ffi==0.1.14.post1; extra == "tvm"']
    checks = by_name(package_checks(wanted, lambda _: "0.1.15.post2"))
    assert checks["extra tvm"].state == "wrong"
    assert "0.1.15.post2" in checks["extra tvm"].found
    assert by_name(pair_checks({"apache-tvm-ffi": "0.1.15.post2"}.get))["apache-tvm-ffi"].state == "wrong"


def test_tflite_runtime_beside_numpy_2_is_known_to_crash() -> None:
    assert by_name(pair_checks({"tflite-runtime": "2.14.0", "numpy": "2.1.0"}.get))["tflite-runtime"].state == "wrong"
    assert "tflite-runtime" not in by_name(pair_checks({"tflite-runtime": "2.14.0", "numpy": "1.26.4"}.get))


def test_the_next_step_stands_under_its_line_and_the_end_counts() -> None:
    text = checks_text([ok("disk", "1 GiB", "2 GiB"), note("load", "3", "stop it"), wrong("serial", "1", "look", "2")])
    assert text.splitlines() == [
        "ok     disk    1 GiB",
        "note   load    3",
        "               -> stop it",
        "wrong  serial  1 (wanted: 2)",
        "               -> look",
        "1 wrong, 1 to note, 1 ok",
    ]


@pytest.mark.parametrize(
    ("power", "state", "said"),
    [
        (
            {"sensor": "ina226@1-0040/power1", "watts": 3.412, "interval_s": 0.05, "update_s": 0.002, "error": None},
            "ok",
            "ina226@1-0040/power1: 3.412 W, read 20 times a second, a new value every 2 ms",
        ),
        (
            {"sensor": "ina226", "watts": None, "error": "the board has no power sensor ina226; found: none"},
            "wrong",
            "the board has no power sensor ina226; found: none",
        ),
        ({"sensor": "ina226", "watts": "much", "error": None}, "wrong", "the board says nothing of it"),
        (None, "wrong", "the board says nothing of it"),
    ],
)
def test_a_sensor_on_the_board_is_told_with_what_it_reads(power: Any, state: str, said: str) -> None:
    (check,) = sensor_checks({"power": power})
    assert (check.state, check.found) == (state, said)
    assert (check.next_step is None) == (state == "ok")
