"""A power meter's command as a real child process: what it prints is stamped, bounded, and ended with it."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeloop.board import meter as meter_module
from edgeloop.board.doctor import meter_checks
from edgeloop.board.meter import CommandMeter
from edgeloop.core.board import PowerMeterSpec
from edgeloop.errors import LabError

TICKS = "import time\nfor i in range(10**6):\n    print({line}, flush=True)\n    time.sleep({pause})\n"


def declared(code: str) -> PowerMeterSpec:
    return PowerMeterSpec(command=(sys.executable, "-u", "-c", code), accuracy_pct=1)


def ticking(line: str = "2.5", pause: float = 0.002) -> PowerMeterSpec:
    return declared(TICKS.format(line=line, pause=pause))


@pytest.fixture
def open_meters() -> Iterator[list[CommandMeter]]:
    meters: list[CommandMeter] = []
    yield meters
    for meter in meters:
        meter.close()


def started(of: PowerMeterSpec, meters: list[CommandMeter]) -> CommandMeter:
    meter = CommandMeter(of)
    meters.append(meter)
    meter.start()
    return meter


def fault_of(meter: CommandMeter) -> str:
    with pytest.raises(LabError) as caught:
        meter.wait_until(math.inf, 10.0)
    (line,) = caught.value.lines()
    assert line.isprintable()
    return line


def test_lines_without_a_time_get_that_of_their_arrival(open_meters: list[CommandMeter]) -> None:
    before_s = time.monotonic()
    meter = started(ticking(), open_meters)
    meter.wait_until(before_s + 0.5, 20)
    seconds, watts = meter.readings()
    assert before_s < seconds[0] < seconds[-1] <= time.monotonic()
    assert (np.diff(seconds) >= 0).all()
    assert set(watts) == {2.5}
    assert not meter._has_own_clock


def test_a_clock_of_the_meters_own_is_placed_on_this_hosts_by_the_earliest_arrival(
    open_meters: list[CommandMeter],
) -> None:
    # Printed in bursts of forty: arrivals come late by up to 0.2 s, but the meter's own times are even.
    code = (
        "import time\nstart = time.monotonic()\nlines = []\nfor i in range(10**6):\n"
        "    lines.append(f'{i * 0.005:.6f} {1 + i}')\n"
        "    time.sleep(max(0, start + i * 0.005 - time.monotonic()))\n"
        "    if len(lines) == 40: print('\\n'.join(lines), flush=True); lines = []\n"
    )
    meter = started(declared(code), open_meters)
    meter.wait_until(time.monotonic() + 1.0, 20)
    seconds, watts = meter.readings()
    assert meter._has_own_clock
    np.testing.assert_allclose(np.diff(seconds), 0.005, atol=1e-6)
    assert watts.tolist() == list(range(1, len(watts) + 1))
    assert seconds[-1] <= time.monotonic()


def test_readings_between_two_times_come_with_one_before_and_one_after(open_meters: list[CommandMeter]) -> None:
    meter = started(ticking(pause=0.01), open_meters)
    meter.wait_until(time.monotonic() + 0.5, 20)
    everything = meter.readings()[0]
    since_s, until_s = everything[5] + 0.001, everything[20] - 0.001
    assert meter.readings(since_s, until_s)[0].tolist() == everything[5:21].tolist()


def test_comments_and_empty_lines_say_nothing(open_meters: list[CommandMeter]) -> None:
    code = "print('# watts\\n\\n  \\n3.25'); import time; time.sleep(60)"
    assert started(declared(code), open_meters).readings()[1].tolist() == [3.25]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("print(1.0); raise SystemExit(3)", "ended with status 3"),
        ("print(1.0); raise SystemExit('no device')", "ended with status 1: no device"),
        ("import os; print(1.0, flush=True); os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        (
            "print(1.0); print('3.1 watts and more')",
            "printed '3.1 watts and more' where WATTS or SECONDS WATTS is wanted",
        ),
        ("print(1.0); print('nan')", "printed 'nan'"),
        ("print(1.0); print(1, 2, 3)", "printed '1 2 3'"),
        ("print(1.0); print(1e9)", "printed 1e+09 W, more than 100000"),
        ("print(1.0); print(2, 1.0)", "printed lines with and without SECONDS"),
        ("print(5, 1.0); print(4, 1.0)", "went back in time, from 5.000000 s to 4.000000 s"),
        ("print(1.0, flush=True)\nwhile True: print('9' * 10**6, end='')", "printed a line of more than 1024 bytes"),
        ("print(1.0, flush=True)\nwhile True: print('1\\n' * 30000, end='')", "more than 20,000 readings in a second"),
        ("import sys; print(1.0, flush=True); sys.stdout.buffer.write(b'\\xff\\x00\\n')", "printed '"),
    ],
)
def test_a_meter_that_ends_or_makes_no_sense_is_named_in_one_line(
    code: str, said: str, open_meters: list[CommandMeter]
) -> None:
    meter = CommandMeter(declared(code + "\nimport time; time.sleep(60)"))
    open_meters.append(meter)
    with contextlib.suppress(LabError):  # the fault may be there before the first reading is seen
        meter.start()
    assert said in fault_of(meter)


def test_a_silent_meter_is_given_up(monkeypatch: pytest.MonkeyPatch, open_meters: list[CommandMeter]) -> None:
    monkeypatch.setattr(meter_module, "SILENT_S_MAX", 0.3)
    monkeypatch.setattr(meter_module, "_POLL_S", 0.05)
    with pytest.raises(LabError, match="printed nothing for"):
        started(declared("import time; time.sleep(60)"), open_meters)


def test_a_command_that_is_not_there_is_said_before_anything_else(open_meters: list[CommandMeter]) -> None:
    with pytest.raises(LabError, match="`no-such-meter stream` can't be started: No such file") as caught:
        started(PowerMeterSpec(command=("no-such-meter", "stream"), accuracy_pct=1), open_meters)
    assert caught.value.next_step == "correct power_meter.command"


def test_closing_ends_the_whole_group_even_where_it_ignores_being_asked(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    code = (
        "import os, signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])\n"
        f"open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "while True:\n    print(1.0, flush=True); time.sleep(0.01)\n"
    )
    with CommandMeter(declared(code)):
        pids = [int(pid) for pid in note.read_text().split()]
    for pid in pids:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout
        assert state.strip()[:1] in ("", "Z"), f"{pid} lives on as {state}"
    assert os.getpid() not in pids


def test_memory_is_bounded_and_the_oldest_readings_go(
    monkeypatch: pytest.MonkeyPatch, open_meters: list[CommandMeter]
) -> None:
    monkeypatch.setattr(meter_module, "READINGS_MAX", 40)
    code = "import time\nfor i in range(95): print(i, flush=True)\ntime.sleep(60)"
    meter = started(declared(code), open_meters)
    end_s = time.monotonic() + 10
    while meter.readings()[1][-1] < 94 and time.monotonic() < end_s:
        time.sleep(0.01)
    watts = meter.readings()[1]
    assert len(watts) <= 40
    assert watts[-1] == 94


def test_doctor_tells_what_the_meter_reads_and_what_is_wrong_with_one_that_does_not() -> None:
    good = ticking("3.5", 0.005)
    (check,) = meter_checks(good, CommandMeter(good), look_s=0.4)
    assert (check.state, check.name) == ("ok", "power meter")
    assert "reads 3.5 W" in check.found
    assert "times a second" in check.found
    bad = declared("raise SystemExit('no device')")
    (check,) = meter_checks(bad, CommandMeter(bad))
    assert check.state == "wrong"
    assert "ended with status 1: no device" in check.found
    once = declared("print(7.5); import time; time.sleep(60)")
    (check,) = meter_checks(once, CommandMeter(once), look_s=0.2)
    assert check.state == "note"
    assert "7.5 W" in check.found
