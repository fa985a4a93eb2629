"""Conditions on a board made of files: what is read, how it is decoded, and what is said to be unknown."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop_agent import conditions, firmware, folder, footprint, gate, governor, soak, wire
from edgeloop_agent.root import Root

STAT = "cpu  0 0 0 0 0 0 0 0\ncpu0 {0} 0 0 {1} 0 0 0 0\ncpu1 {2} 0 0 {3} 0 0 0 0\n"


def put(root: Path, path: str, text: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def process(root: Path, pid: int, name: str, ticks: int, parent: int = 1) -> None:
    put(root, f"proc/{pid}/stat", f"{pid} ({name}) S {parent} {pid} {pid} 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 5\n")


@pytest.fixture
def pi(tmp_path: Path) -> Path:
    """A Raspberry Pi with two cores, without vcgencmd."""
    root = tmp_path / "root"
    put(root, "sys/class/thermal/thermal_zone0/temp", "48312\n")
    put(root, "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    put(root, "sys/class/thermal/thermal_zone1/temp", "51000\n")
    put(root, "sys/class/thermal/thermal_zone1/type", "cpu-thermal\n")
    for core in (0, 1):
        folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        put(root, f"{folder}/scaling_cur_freq", "600000\n")
        put(root, f"{folder}/scaling_max_freq", "1800000\n")
        put(root, f"{folder}/scaling_governor", "ondemand\n")
    put(root, "sys/devices/system/clocksource/clocksource0/current_clocksource", "arch_sys_counter\n")
    put(root, "proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555\n")
    put(root, "proc/stat", STAT.format(100, 900, 100, 900))
    put(root, "proc/loadavg", "0.25 0.10 0.05 1/100 4242\n")
    put(root, "proc/meminfo", "MemTotal: 3884 kB\nMemAvailable:  2048 kB\n")
    put(root, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")
    put(root, "proc/pressure/cpu", "some avg10=0.00 avg60=0.01 avg300=0.02 total=1234\n")
    put(root, "proc/pressure/memory", "some avg10=0 total=5\nfull avg10=0 total=6\n")
    put(root, "proc/vmstat", "pswpin 3\npswpout 4\npgmajfault 5\noom_kill 0\n")
    return root


def vcgencmd(root: Path, script: str) -> None:
    path = root / "usr/bin/vcgencmd"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def test_everything_that_is_there_is_read_with_its_unit(pi: Path) -> None:
    vcgencmd(
        pi, 'case $1 in get_throttled) echo throttled=0x50005;; measure_clock) echo "frequency(48)=600117184";; esac'
    )
    found = conditions.ConditionProbe(Root(pi), cores=[1]).sample()
    assert found["temperatures_c"] == {"cpu-thermal": 48.312, "cpu-thermal.1": 51.0}
    assert found["clock_mhz"] == {"1": 600.0}
    assert found["clock_max_mhz"] == {"1": 1800.0}
    assert found["governor"] == {"1": "ondemand"}
    assert found["throttled"] == {
        "now": ["under_voltage", "throttled"],
        "sticky": ["under_voltage", "throttled"],
        "raw": 0x50005,
        "source": "vcgencmd",
    }
    assert found["under_voltage"] == {"now": True, "sticky": True, "source": "vcgencmd"}
    assert found["clock_firmware_mhz"] == pytest.approx(600.117184)
    assert found["clocksource"] == "arch_sys_counter"
    assert found["mem_available_bytes"] == 2048 * 1024
    assert (found["swap_in_pages"], found["swap_out_pages"], found["major_faults"], found["oom_kills"]) == (3, 4, 5, 0)
    assert found["load1"] == 0.25
    assert found["pressure_us"] == {"cpu.some": 1234, "memory.some": 5, "memory.full": 6}
    assert found["unknown"] == ["foreign_load_pct"]  # there was no sample before


def test_sticky_bits_are_not_taken_for_current_ones(pi: Path) -> None:
    vcgencmd(pi, "echo throttled=0xe0000")
    found = conditions.ConditionProbe(Root(pi)).sample()
    assert found["throttled"] == {
        "now": [],
        "sticky": ["frequency_capped", "throttled", "soft_temperature_limit"],
        "raw": 0xE0000,
        "source": "vcgencmd",
    }
    assert found["under_voltage"] == {"now": False, "sticky": False, "source": "vcgencmd"}


@pytest.mark.parametrize(
    "script",
    ["echo VCHI initialization failed; exit 255", "echo throttled=banana", "head -c 100000 /dev/zero", "exit 0"],
)
def test_a_vcgencmd_that_fails_or_prints_rubbish_is_unknown(pi: Path, script: str) -> None:
    vcgencmd(pi, script)
    found = conditions.ConditionProbe(Root(pi)).sample()
    assert found["throttled"] is None
    assert {"throttled", "under_voltage"} <= set(found["unknown"])
    assert found["firmware_problem"].startswith("vcgencmd get_throttled ")
    assert found["firmware_problem"].isprintable()
    assert "clock_firmware_mhz" not in found


def test_without_vcgencmd_the_kernels_own_file_is_read(pi: Path) -> None:
    put(pi, "sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n")
    throttled = conditions.ConditionProbe(Root(pi)).sample()["throttled"]
    assert throttled["sticky"] == ["under_voltage", "throttled"]
    assert throttled["source"] == "the firmware's file"


def test_an_empty_board_is_all_unknown_and_no_error(tmp_path: Path) -> None:
    found = conditions.ConditionProbe(Root(tmp_path)).sample(scan=True)
    assert set(found["unknown"]) == set(conditions.KEYS) - {"realtime_minus_monotonic_ns"}


@pytest.mark.parametrize("text", ["rubbish", "999999999", "", "-300000"])
def test_a_temperature_that_can_not_be_is_left_out(pi: Path, text: str) -> None:
    put(pi, "sys/class/thermal/thermal_zone0/temp", text)
    assert conditions.ConditionProbe(Root(pi)).temperatures_c() == {"cpu-thermal": 51.0}


def test_foreign_load_is_what_is_left_of_the_measuring_cores_time(pi: Path) -> None:
    process(pi, 50, "session", 40)
    board = conditions.ConditionProbe(Root(pi), cores=[1])
    board.sample([50])
    put(pi, "proc/stat", STAT.format(1100, 900, 180, 920))  # core 0 is busy, and not measured
    process(pi, 50, "session", 100)
    assert board.sample([50])["foreign_load_pct"] == 20.0  # 80 of 100 ticks, 60 of them ours


def test_the_harness_itself_is_not_foreign_load(pi: Path) -> None:
    process(pi, 50, "session", 0)
    board = conditions.ConditionProbe(Root(pi))
    board.sample([50])
    put(pi, "proc/stat", STAT.format(200, 900, 100, 1000))
    process(pi, 50, "session", 104)  # the kernel counts a process finer than a core
    assert board.sample([50])["foreign_load_pct"] == 0.0


def test_the_busiest_foreign_processes_are_named_and_ours_are_not(pi: Path) -> None:
    process(pi, 50, "session", 0)
    process(pi, 51, "helper of ours", 0, parent=50)
    process(pi, 60, "apt (get)", 0)
    process(pi, 61, "idle", 7)
    process(pi, 62, "chrome", 0)
    board = conditions.ConditionProbe(Root(pi))
    assert board.sample([50], scan=True)["foreign_top"] == []
    for pid, name, ticks, parent in ((51, "helper of ours", 90, 50), (60, "apt (get)", 20, 1), (62, "chrome", 30, 1)):
        process(pi, pid, name, ticks, parent)
    assert board.sample([50], scan=True)["foreign_top"] == ["chrome", "apt (get)"]


def test_the_calibration_loop_does_the_same_work_each_time() -> None:
    first, second = conditions.calibration_ns(), conditions.calibration_ns()
    assert 1e5 < first < 5e9
    assert 0.05 < first / second < 20


def test_the_own_memory_is_read_in_bytes() -> None:
    resident, peak = conditions.vm_bytes("VmRSS"), conditions.vm_bytes("VmHWM")
    assert resident is not None
    assert peak is not None
    assert 1e6 < resident <= peak


def governors(root: Path) -> list[str]:
    return [
        (root / f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor").read_text().strip() for core in (0, 1)
    ]


def test_a_governor_is_set_read_back_and_restored(pi: Path, tmp_path: Path) -> None:
    said = governor.set_governor(tmp_path, Root(pi), "performance", [0, 1])
    assert said == {"asked": "performance", "set": True, "available": [], "detail": ""}
    assert governors(pi) == ["performance", "performance"]
    assert governor.restore_governor(tmp_path, Root(pi)) is None
    assert governors(pi) == ["ondemand", "ondemand"]


def test_after_a_crash_the_next_one_restores_from_the_journal_once(pi: Path, tmp_path: Path) -> None:
    governor.set_governor(tmp_path, Root(pi), "performance", [1])
    assert governor.restore_governor(tmp_path, Root(pi)) is None
    assert governors(pi) == ["ondemand", "ondemand"]
    put(pi, "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave")
    assert governor.restore_governor(tmp_path, Root(pi)) is None
    assert governors(pi) == ["ondemand", "powersave"]  # what somebody set later is theirs


def test_a_journal_of_another_boot_is_void(pi: Path, tmp_path: Path) -> None:
    (tmp_path / governor.JOURNAL).write_text('{"boot_id": "earlier", "governor": {"0": "schedutil"}}')
    assert governor.restore_governor(tmp_path, Root(pi)) is None
    assert governors(pi) == ["ondemand", "ondemand"]


def test_what_somebody_else_set_meanwhile_is_not_restored(pi: Path, tmp_path: Path) -> None:
    governor.set_governor(tmp_path, Root(pi), "performance", [0, 1])
    put(pi, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave")
    assert governor.restore_governor(tmp_path, Root(pi)) is None
    assert governors(pi) == ["powersave", "ondemand"]


def test_nobody_restores_while_somebody_measures(pi: Path, tmp_path: Path) -> None:
    governor.set_governor(tmp_path, Root(pi), "performance", [0])
    lock = folder.open_shared(tmp_path / wire.LOCK_FILE)
    assert folder.try_lock(lock)
    governor.restore_left_behind(tmp_path, Root(pi))
    assert governors(pi) == ["performance", "ondemand"]
    os.close(lock)
    governor.restore_left_behind(tmp_path, Root(pi))
    assert governors(pi) == ["ondemand", "ondemand"]


def test_as_found_touches_nothing(pi: Path, tmp_path: Path) -> None:
    said: dict[str, Any] = governor.set_governor(tmp_path, Root(pi), "as-found", [0])
    assert said["set"] is None
    assert not (tmp_path / governor.JOURNAL).exists()


def test_a_governor_that_can_not_be_set_is_said(pi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", _refuse)
    said = governor.set_governor(tmp_path, Root(pi), "performance", [0])
    assert said["set"] is False
    assert "can't be set: Permission denied" in said["detail"]
    monkeypatch.undo()
    none = governor.set_governor(tmp_path, Root(tmp_path), "performance", [0])
    assert none == {
        "asked": "performance",
        "set": False,
        "available": [],
        "detail": "this board has no frequency governor that can be read",
    }


def _refuse(path: Path, _text: str) -> int:
    raise PermissionError(13, os.strerror(13), str(path))


def test_commands_of_ours_that_came_and_went_are_taken_off_the_load(pi: Path, tmp_path: Path) -> None:
    board = conditions.ConditionProbe(Root(pi), footprint=lambda: footprint.total(tmp_path))
    board.sample()
    put(pi, "proc/stat", STAT.format(150, 900, 100, 950))
    footprint.add(tmp_path, 20)
    footprint.add(tmp_path, 10)
    assert board.sample()["foreign_load_pct"] == 20.0  # 50 of 100 ticks, 30 of them ours


def test_the_agents_own_processes_are_not_named(pi: Path) -> None:
    process(pi, 60, "python3", 0)
    board = conditions.ConditionProbe(Root(pi))
    board.sample(scan=True)
    process(pi, 60, "python3", 50)
    put(pi, "proc/60/cmdline", "python3\0-m\0edgeloop_agent\0look\0")
    assert board.sample(scan=True)["foreign_top"] == []


def hwmon(root: Path, number: int, **files: str) -> None:
    for name, text in files.items():
        put(root, f"sys/class/hwmon/hwmon{number}/{name}", text + "\n")


def test_under_voltage_is_seen_without_vcgencmd_and_is_not_throttling(pi: Path) -> None:
    hwmon(pi, 3, name="rpi_volt", in0_lcrit_alarm="1")
    hwmon(pi, 4, name="ina260", in0_lcrit_alarm="1")
    found = conditions.ConditionProbe(Root(pi)).sample()
    assert found["under_voltage"] == {"now": True, "sticky": None, "source": "hwmon"}
    assert found["throttled"] is None
    assert found["throttling_known"] is False
    assert found["firmware_problem"] == "there is no vcgencmd"
    hwmon(pi, 3, name="rpi_volt", in0_lcrit_alarm="0")
    assert conditions.ConditionProbe(Root(pi)).sample()["under_voltage"]["now"] is False


def test_what_the_kernel_of_a_raspberry_pi_shows_is_no_proof_that_it_does_not_throttle(pi: Path) -> None:
    for name, text in (("type", "cpufreq-cpu0"), ("cur_state", "0"), ("max_state", "4")):
        put(pi, f"sys/class/thermal/cooling_device0/{name}", text)
    assert conditions.ConditionProbe(Root(pi)).sample()["throttling_known"] is False
    put(pi, "proc/device-tree/model", "BeagleBoard.org BeaglePlay")
    found = conditions.ConditionProbe(Root(pi)).sample()
    assert (found["throttling_known"], found["cooling"]) == (True, {"cpufreq-cpu0": [0, 4]})
    assert "throttled" not in found["unknown"]


def test_cooling_devices_of_other_cores_and_fans_slow_nobody_down_here(pi: Path) -> None:
    put(pi, "sys/devices/system/cpu/cpu4/cpufreq/related_cpus", "4 5 6 7")
    put(pi, "sys/devices/system/cpu/cpu0/cpufreq/related_cpus", "0 1 2 3")
    for number, kind in enumerate(("cpufreq-cpu0", "cpufreq-cpu4", "pwm-fan", "thermal-devfreq-0", "Processor")):
        for name, text in (("type", kind), ("cur_state", "1"), ("max_state", "3")):
            put(pi, f"sys/class/thermal/cooling_device{number}/{name}", text)
    assert set(conditions.ConditionProbe(Root(pi), cores=[1]).sample()["cooling"]) == {"cpufreq-cpu0", "Processor"}
    assert set(conditions.ConditionProbe(Root(pi), cores=[5]).sample()["cooling"]) == {"cpufreq-cpu4", "Processor"}


def test_counts_of_the_hardware_fans_boost_and_offered_governors_are_read(pi: Path) -> None:
    put(pi, "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "7")
    put(pi, "sys/devices/system/cpu/cpu1/thermal_throttle/package_throttle_count", "9")
    put(pi, "sys/devices/system/cpu/intel_pstate/no_turbo", "1")
    put(pi, "sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq", "2400000")
    put(pi, "sys/devices/system/cpu/cpu1/cpufreq/scaling_available_governors", "powersave performance")
    hwmon(pi, 2, name="pwmfan", fan1_input="2985")
    found = conditions.ConditionProbe(Root(pi), cores=[1]).sample()
    assert found["throttle_counts"] == {"core 1": 7, "package 1": 9}
    assert (found["boost"], found["fans_rpm"]) == (False, {"pwmfan:fan1": 2985})
    assert (found["clock_max_mhz"], found["clock_hardware_max_mhz"]) == ({"1": 1800.0}, {"1": 2400.0})
    assert governor.set_governor(pi, Root(pi), "as-found", [1])["available"] == ["performance", "powersave"]


def test_without_zones_the_hardware_monitors_and_then_the_firmware_tell_the_temperature(pi: Path) -> None:
    for zone in (0, 1):
        (pi / f"sys/class/thermal/thermal_zone{zone}/temp").unlink()
    assert conditions.ConditionProbe(Root(pi)).temperatures_c() == {}
    vcgencmd(pi, 'echo "temp=61.8\'C"')
    assert conditions.ConditionProbe(Root(pi)).temperatures_c() == {"vcgencmd": 61.8}
    hwmon(pi, 1, name="coretemp", temp1_input="52000", temp1_label="Package id 0", temp2_input="rubbish")
    assert conditions.ConditionProbe(Root(pi)).temperatures_c() == {"coretemp:Package id 0": 52.0}


def test_a_silent_vcgencmd_is_killed_and_after_three_failures_asked_no_more(
    pi: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firmware, "_TIMEOUT_S", 0.2)
    vcgencmd(pi, 'echo asked >> "$0.log"; exec sleep 60')
    asked = firmware.Firmware(Root(pi))
    board = conditions.ConditionProbe(Root(pi), firmware=asked)
    assert board.sample()["firmware_problem"] == "vcgencmd get_throttled gave no answer in 0.2 s"
    board.sample()
    conditions.ConditionProbe(Root(pi), firmware=asked).sample()
    assert (pi / "usr/bin/vcgencmd.log").read_text().count("asked") == 3


def test_the_firmwares_clock_stands_beside_the_lowest_that_the_kernel_said_around_it(pi: Path) -> None:
    frequency = pi / "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq"
    vcgencmd(pi, f"[ $1 = measure_clock ] && echo 'frequency(48)=599000000' && echo 500000 > {frequency}")
    found = conditions.ConditionProbe(Root(pi), cores=[1]).sample()
    assert (found["clock_mhz"], found["clock_kernel_mhz"], found["clock_firmware_mhz"]) == ({"1": 600.0}, 500.0, 599.0)


def test_a_program_and_a_clock_step_come_from_the_root_only_where_it_stands_in(tmp_path: Path) -> None:
    put(tmp_path, "clock_step_ns", "-5000000000")
    difference = Root(tmp_path).realtime_ns() - Root().realtime_ns()
    assert -5.1e9 < difference < -4.9e9
    assert Root(tmp_path).program("sh") is None
    assert Root().program("sh") is not None


@pytest.mark.parametrize("held_up", [1, 5, 30])
def test_who_is_held_up_between_two_clocks_sees_none_that_was_set(tmp_path: Path, held_up: int) -> None:
    class Starved(Root):
        """A board where the first looks at CLOCK_REALTIME come 70 ms late, some later than others."""

        now = looks = 0

        def monotonic_ns(self) -> int:
            self.now += 100
            return self.now

        def realtime_ns(self) -> int:
            self.looks += 1
            self.now += 70_000_000 if self.looks <= held_up else 100
            return self.now + 10**18

    found = conditions.ConditionProbe(Starved(tmp_path), cores=[]).sample()
    error = abs(found["realtime_minus_monotonic_ns"] - 10**18)
    assert error < (1_000 if held_up < 20 else 36_000_000)


ASKED = wire.Conditions(
    cores=[],
    governor="as-found",
    idle_gate=False,
    start_temperature_max_c=None,
    cool_down_max_s=0.0,
    foreign_load_max_pct=None,
    soak_max_s=100.0,
    soak_window_s=60.0,
    soak_slope_max_c_per_min=0.2,
)
NOBODY: tuple[list[int], list[int]] = ([], [])


class Clock:
    """Time that passes only while something waits."""

    def __init__(self, each: Callable[[float], None] = lambda now_s: None) -> None:
        self.now_s, self._each = 1000.0, each
        self.told: list[str] = []

    def pause(self, told: str) -> None:
        self.told.append(told)
        self.now_s += 0.5
        self._each(self.now_s - 1000)


def soaked(pi: Path, celsius: Callable[[float], float], *, ends_s: float = 1e9, **asked: Any) -> dict[str, Any]:
    clock = Clock(lambda at_s: put(pi, "sys/class/thermal/thermal_zone1/temp", f"{celsius(at_s) * 1000:.0f}"))
    return soak.soak(
        conditions.ConditionProbe(Root(pi)),
        replace(ASKED, **asked),
        NOBODY,
        lambda: "killed by SIGSEGV" if clock.now_s - 1000 >= ends_s else None,
        clock.pause,
        lambda: clock.now_s,
    )


def test_a_soak_ends_when_the_hottest_zone_is_flat_over_the_window(pi: Path) -> None:
    found = soaked(pi, lambda at_s: min(80.0, 51 + at_s))  # one degree a second, flat after 29 s
    assert found["passed"] is True
    assert (found["start_c"], found["end_c"]) == (51.0, 80.0)
    assert 85 <= found["took_s"] <= 90  # a full window after the last degree, but for a slope that is let pass
    assert abs(found["slope_c_per_min"]) <= 0.2
    assert found["end"]["temperatures_c"]["cpu-thermal.1"] == 80.0


def test_steps_of_a_coarse_sensor_are_not_taken_for_a_slope(pi: Path) -> None:
    assert soaked(pi, lambda at_s: 80.0 + 0.487 * (round(at_s * 2) % 3 == 0))["passed"] is True


def test_a_soak_gives_up_at_its_cap_with_the_slope_that_is_left(pi: Path) -> None:
    found = soaked(pi, lambda at_s: 51 + at_s / 60)
    assert found["passed"] is False
    assert found["detail"] == "not flat after 100 s: 52.7 C, +1.00 C a minute over the last 60 s"


def test_a_soak_whose_model_dies_says_how(pi: Path) -> None:
    found = soaked(pi, lambda at_s: 51 + at_s, ends_s=4)
    assert found["passed"] is False
    assert found["detail"] == "the model that heats the board ended after 4 s: killed by SIGSEGV"


def test_a_soak_without_a_temperature_is_unknown_at_once(tmp_path: Path) -> None:
    found = soak.soak(conditions.ConditionProbe(Root(tmp_path)), ASKED, NOBODY, lambda: None, Clock().pause)
    assert (found["passed"], found["took_s"] < 1) == (None, True)


@given(
    st.lists(st.floats(20, 100), min_size=5, max_size=200),
    st.floats(1, 60),
)
def test_a_constant_temperature_is_flat_and_a_full_window_always_has_a_slope(
    values: list[float], window_s: float
) -> None:
    step_s = window_s / 4
    constant, any_at_all = soak.Flatness(window_s, 0.2), soak.Flatness(window_s, 0.2)
    for place, value in enumerate(values):
        constant.add(place * step_s, 70.0)
        any_at_all.add(place * step_s, value)
    assert constant.is_flat
    assert any_at_all.slope_c_per_min() is not None
    rising = soak.Flatness(window_s, 0.2)
    for place in range(len(values)):
        rising.add(place * step_s, 40 + place * step_s / 60)
    slope = rising.slope_c_per_min()
    assert slope == pytest.approx(1.0)
    assert not rising.is_flat


def test_the_gate_names_who_keeps_the_board_busy_and_does_not_wait_for_cold_before_a_soak(pi: Path) -> None:
    ticks = [0]

    def busy(_at_s: float) -> None:
        ticks[0] += 50
        put(pi, "proc/stat", STAT.format(100 + ticks[0], 900 + ticks[0], 100, 900))
        process(pi, 62, "chrome", ticks[0])

    process(pi, 62, "chrome", 0)
    clock = Clock(busy)
    asked = replace(ASKED, idle_gate=True, cool_down_max_s=5.0, foreign_load_max_pct=5.0, soak_max_s=None)
    found = gate.wait_for_calm(
        conditions.ConditionProbe(Root(pi), cores=[0]), asked, NOBODY, clock.pause, lambda: clock.now_s
    )
    assert (found["asked"], found["passed"], found["waited_s"]) == (True, False, 5.0)
    assert found["detail"] == "load of others 50.0 % (chrome), wanted at most 5 %"
    warm = replace(asked, idle_gate=False, start_temperature_max_c=40.0, cool_down_max_s=2.0)
    board = conditions.ConditionProbe(Root(pi))
    assert gate.wait_for_calm(board, warm, NOBODY, clock.pause, lambda: clock.now_s)["passed"] is False
    assert gate.wait_for_calm(board, replace(warm, soak_max_s=9.0), NOBODY, clock.pause)["asked"] is False
