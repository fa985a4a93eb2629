"""A board made of files: what its kernel and its firmware say is whatever the test says, before, while and after it is
measured. The agent, its supervisor and its sessions are the real ones; only the root they read conditions under is not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

CORES = (0, 1)
_CPU = "sys/devices/system/cpu/cpu{core}/cpufreq/"
_STOCK = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/sys/kernel/random/boot_id": "11111111-2222-3333-4444-555555555555\n",
    "proc/stat": "cpu  0 0 0 0 0 0 0 0\ncpu0 1 0 0 9 0 0 0 0\ncpu1 1 0 0 9 0 0 0 0\n",
    "proc/loadavg": "0.25 0.10 0.05 1/100 4242\n",
    "proc/meminfo": "MemTotal: 3884000 kB\nMemAvailable: 2048000 kB\n",
    "proc/vmstat": "pswpin 3\npswpout 4\npgmajfault 5\noom_kill 0\n",
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
}
_FREQUENCIES = {
    "scaling_cur_freq": "1800000\n",
    "scaling_max_freq": "1800000\n",
    "cpuinfo_max_freq": "1800000\n",
    "scaling_governor": "ondemand\n",
    "scaling_available_governors": "conservative ondemand userspace powersave performance schedutil\n",
}
# What `later` holds counts once the first session of the job is recorded: between two sessions, to the very moment.
_VCGENCMD = """#!/bin/sh
said={root}/firmware
if ls {state}/jobs/*/sessions/000.json >/dev/null 2>&1 && [ -e "$said/later/$1" ]; then said=$said/later; fi
[ -e "$said/$1" ] && exec cat "$said/$1"
"""
ANSWERS = {
    "get_throttled": "throttled=0x0\n",
    "measure_clock": "frequency(48)=1800457088\n",
    "measure_temp": "temp=48.3'C\n",
    "measure_volts": "volt=0.8600V\n",
}
CLOSED = '#!/bin/sh\necho "Can\'t open device file: /dev/vcio" >&2\nexit 255\n'
"""What vcgencmd does for a user who is not in the group video."""


class FakeBoard:
    """Starts as a Raspberry Pi 4 with Raspberry Pi OS and nothing wrong. `state` is the agent's state folder."""

    def __init__(self, root: Path, state: Path) -> None:
        self.root, self.state = root, state
        for path, text in _STOCK.items():
            self.put(path, text)
        for name, text in _FREQUENCIES.items():
            self.all_cores(name, text)
        for name, text in ANSWERS.items():
            self.put(f"firmware/{name}", text)
        self.vcgencmd(_VCGENCMD.format(root=root, state=state))
        self._threads: list[threading.Thread] = []
        self._left = threading.Event()

    def put(self, path: str, text: str) -> None:
        """Write a file in one step, so that nobody reads half of it."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        making = target.with_name(f".{target.name}.new")
        making.write_text(text)
        making.replace(target)

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def all_cores(self, name: str, text: str) -> None:
        for core in CORES:
            self.put(_CPU.format(core=core) + name, text)

    def governors(self) -> list[str]:
        return [(self.root / (_CPU.format(core=core) + "scaling_governor")).read_text().strip() for core in CORES]

    def vcgencmd(self, script: str) -> None:
        self.put("usr/bin/vcgencmd", script)
        (self.root / "usr/bin/vcgencmd").chmod(0o755)

    def flags(self, raw: int, *, later: bool = False) -> None:
        """What get_throttled says: from now on, or once the first session is recorded."""
        self.put(f"firmware/{'later/' if later else ''}get_throttled", f"throttled=0x{raw:x}\n")

    def celsius(self, value: float) -> None:
        self.put("sys/class/thermal/thermal_zone0/temp", f"{value * 1000:.0f}\n")

    def cooling(self, step: int, kind: str = "cpufreq-cpu0") -> None:
        for name, text in (("type", kind), ("cur_state", str(step)), ("max_state", "5")):
            self.put(f"sys/class/thermal/cooling_device0/{name}", f"{text}\n")

    def while_session(self, index: int, act: Callable[[], None]) -> None:
        """Do something once a session has loaded its model: before its timed window ends, and after it began."""

        def follow() -> None:
            while not self._left.wait(0.005):
                if list(self.state.glob(f"jobs/*/work/{index:03d}/result.json")):
                    act()
                    return

        self.beside(follow)

    def beside(self, act: Callable[[], None]) -> None:
        """Do something in a thread of its own until the test leaves."""
        self._threads.append(threading.Thread(target=act))
        self._threads[-1].start()

    def wait(self, seconds: float) -> bool:
        """Wait in such a thread; True where the test has left."""
        return self._left.wait(seconds)

    def leave(self) -> None:
        self._left.set()
        for thread in self._threads:
            thread.join(10)


def wait_for(what: Callable[[], object], within_s: float = 60) -> None:
    end = time.monotonic() + within_s
    while not what():
        if time.monotonic() > end:
            raise AssertionError("it did not happen in time")
        time.sleep(0.02)
