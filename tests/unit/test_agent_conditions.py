"""Conditions on a board made of files: what is read, how it is decoded, and what is said to be unknown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edgeloop_agent import conditions, footprint, governor

STAT = "cpu  0 0 0 0 0 0 0 0\ncpu0 {0} 0 0 {1} 0 0 0 0\ncpu1 {2} 0 0 {3} 0 0 0 0\n"


def put(root: Path, path: str, text: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def process(root: Path, pid: int, name: str, ticks: int, parent: int = 1) -> None:
    put(root, f"proc/{pid}/stat", f"{pid} ({name}) S {parent} {pid} {pid} 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 5\n")


@pytest.fixture
def pi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Raspberry Pi with two cores, without vcgencmd on PATH."""
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
    put(root, "proc/vmstat", "pswpin 3\npswpout 4\npgmajfault 5\noom_kill 0\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return root


def vcgencmd(root: Path, script: str) -> None:
    path = root.parent / "bin" / "vcgencmd"
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def test_everything_that_is_there_is_read_with_its_unit(pi: Path) -> None:
    vcgencmd(
        pi, 'case $1 in get_throttled) echo throttled=0x50005;; measure_clock) echo "frequency(48)=600117184";; esac'
    )
    found = conditions.Board(pi, cores=[1]).sample()
    assert found["temperatures_c"] == {"cpu-thermal": 48.312, "cpu-thermal.1": 51.0}
    assert found["clock_mhz"] == {"1": 600.0}
    assert found["clock_max_mhz"] == {"1": 1800.0}
    assert found["governor"] == {"1": "ondemand"}
    assert found["throttled"] == {
        "now": ["under_voltage", "throttled"],
        "sticky": ["under_voltage", "throttled"],
        "raw": 0x50005,
    }
    assert found["clock_firmware_mhz"] == pytest.approx(600.117184)
    assert found["clocksource"] == "arch_sys_counter"
    assert found["mem_available_bytes"] == 2048 * 1024
    assert (found["swap_in_pages"], found["swap_out_pages"], found["major_faults"], found["oom_kills"]) == (3, 4, 5, 0)
    assert found["load1"] == 0.25
    assert found["unknown"] == ["foreign_load_pct"]  # there was no sample before


def test_sticky_bits_are_not_taken_for_current_ones(pi: Path) -> None:
    vcgencmd(pi, "echo throttled=0xe0000")
    assert conditions.Board(pi).throttled() == {
        "now": [],
        "sticky": ["frequency_capped", "throttled", "soft_temperature_limit"],
        "raw": 0xE0000,
    }


@pytest.mark.parametrize(
    "script",
    ["echo VCHI initialization failed; exit 255", "echo throttled=banana", "head -c 100000 /dev/zero", "exit 0"],
)
def test_a_vcgencmd_that_fails_or_prints_rubbish_is_unknown(pi: Path, script: str) -> None:
    vcgencmd(pi, script)
    found = conditions.Board(pi).sample()
    assert found["throttled"] is None
    assert "throttled" in found["unknown"]
    assert "clock_firmware_mhz" not in found


def test_without_vcgencmd_the_kernels_own_file_is_read(pi: Path) -> None:
    put(pi, "sys/devices/platform/soc/soc:firmware/get_throttled", "50000\n")
    throttled = conditions.Board(pi).throttled()
    assert throttled is not None
    assert throttled["sticky"] == ["under_voltage", "throttled"]


def test_an_empty_board_is_all_unknown_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    found = conditions.Board(tmp_path).sample(scan=True)
    assert set(found["unknown"]) == set(conditions.KEYS) - {"realtime_minus_monotonic_ns"}


@pytest.mark.parametrize("text", ["rubbish", "999999999", "", "-300000"])
def test_a_temperature_that_can_not_be_is_left_out(pi: Path, text: str) -> None:
    put(pi, "sys/class/thermal/thermal_zone0/temp", text)
    assert conditions.Board(pi).temperatures_c() == {"cpu-thermal": 51.0}


def test_foreign_load_is_what_is_left_of_the_measuring_cores_time(pi: Path) -> None:
    process(pi, 50, "session", 40)
    board = conditions.Board(pi, cores=[1])
    board.sample([50])
    put(pi, "proc/stat", STAT.format(1100, 900, 180, 920))  # core 0 is busy, and not measured
    process(pi, 50, "session", 100)
    assert board.sample([50])["foreign_load_pct"] == 20.0  # 80 of 100 ticks, 60 of them ours


def test_the_harness_itself_is_not_foreign_load(pi: Path) -> None:
    process(pi, 50, "session", 0)
    board = conditions.Board(pi)
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
    board = conditions.Board(pi)
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
    board = conditions.Board(pi)
    said = governor.set_governor(tmp_path, board, "performance", [0, 1])
    assert said == {"asked": "performance", "set": True, "detail": ""}
    assert governors(pi) == ["performance", "performance"]
    assert governor.restore_governor(tmp_path, board) is None
    assert governors(pi) == ["ondemand", "ondemand"]


def test_after_a_crash_the_next_one_restores_from_the_journal_once(pi: Path, tmp_path: Path) -> None:
    governor.set_governor(tmp_path, conditions.Board(pi), "performance", [1])
    assert governor.restore_governor(tmp_path, conditions.Board(pi)) is None
    assert governors(pi) == ["ondemand", "ondemand"]
    put(pi, "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave")
    assert governor.restore_governor(tmp_path, conditions.Board(pi)) is None
    assert governors(pi) == ["ondemand", "powersave"]  # what somebody set later is theirs


def test_a_journal_of_another_boot_is_void(pi: Path, tmp_path: Path) -> None:
    (tmp_path / governor.JOURNAL).write_text('{"boot_id": "earlier", "governor": {"0": "schedutil"}}')
    assert governor.restore_governor(tmp_path, conditions.Board(pi)) is None
    assert governors(pi) == ["ondemand", "ondemand"]


def test_as_found_touches_nothing(pi: Path, tmp_path: Path) -> None:
    said: dict[str, Any] = governor.set_governor(tmp_path, conditions.Board(pi), "as-found", [0])
    assert said["set"] is None
    assert not (tmp_path / governor.JOURNAL).exists()


def test_a_governor_that_can_not_be_set_is_said(pi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", _refuse)
    said = governor.set_governor(tmp_path, conditions.Board(pi), "performance", [0])
    assert said["set"] is False
    assert "can't be set: Permission denied" in said["detail"]
    monkeypatch.undo()
    none = governor.set_governor(tmp_path, conditions.Board(tmp_path), "performance", [0])
    assert none == {
        "asked": "performance",
        "set": False,
        "detail": "this board has no frequency governor that can be read",
    }


def _refuse(path: Path, _text: str) -> int:
    raise PermissionError(13, os.strerror(13), str(path))


def test_commands_of_ours_that_came_and_went_are_taken_off_the_load(pi: Path, tmp_path: Path) -> None:
    board = conditions.Board(pi, footprint=lambda: footprint.total(tmp_path))
    board.sample()
    put(pi, "proc/stat", STAT.format(150, 900, 100, 950))
    footprint.add(tmp_path, 20)
    footprint.add(tmp_path, 10)
    assert board.sample()["foreign_load_pct"] == 20.0  # 50 of 100 ticks, 30 of them ours


def test_the_agents_own_processes_are_not_named(pi: Path) -> None:
    process(pi, 60, "python3", 0)
    board = conditions.Board(pi)
    board.sample(scan=True)
    process(pi, 60, "python3", 50)
    put(pi, "proc/60/cmdline", "python3\0-m\0edgeloop_agent\0look\0")
    assert board.sample(scan=True)["foreign_top"] == []
