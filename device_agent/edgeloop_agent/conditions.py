"""The conditions a board measures under: everything that an ordinary user can read, as plain dictionaries.

One sample (keys, units)::

    monotonic_ns                  CLOCK_MONOTONIC
    realtime_minus_monotonic_ns   jumps when somebody sets the clock
    boot_id, clocksource          text
    temperatures_c                {zone: degrees Celsius}; without thermal zones, those of the hardware monitors;
                                  without these, the firmware's
    fans_rpm                      {chip:fan: turns a minute}
    clock_mhz                     {core: MHz} of the measuring cores, as the kernel says
    clock_max_mhz                 {core: MHz} that the kernel allows just now
    clock_hardware_max_mhz        {core: MHz} that the processor can do
    clock_firmware_mhz            `vcgencmd measure_clock arm`; absent where there is no vcgencmd
    clock_kernel_mhz              the lowest that the kernel said around that very question
    core_volts                    `vcgencmd measure_volts core`; in samples that scan
    governor                      {core: name}
    boost                         whether clocks above the nominal one are allowed, or null
    throttled                     {"now": [names], "sticky": [names], "raw": int, "source": text} or null
    under_voltage                 {"now": bool, "sticky": bool or null, "source": text} or null
    cooling                       {device: [step, highest]}: what the kernel slows these cores down with
    throttle_counts               {core or package: times since boot}: x86
    throttling_known              whether one of these would show throttling on this board
    firmware_problem              why vcgencmd says nothing, or null
    foreign_load_pct              share of the measuring cores' time that others took since the sample before, or null
    foreign_top                   names of the foreign processes that took most, at most five
    load1                         one-minute load average
    pressure_us                   {"cpu.some", "memory.full", ...: time that tasks were held up, since boot}
    mem_available_bytes
    swap_in_pages, swap_out_pages, major_faults, oom_kills    counters of the board since boot
    unknown                       keys that could not be read

Names in `throttled`: under_voltage, frequency_capped, throttled, soft_temperature_limit. Sticky bits were set at some
time since boot, so what was sticky before a session hides a short event in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import Any, Callable, Iterable, Optional

from edgeloop_agent import processor, thermal
from edgeloop_agent.firmware import Firmware
from edgeloop_agent.load import CORE_LINE, Load
from edgeloop_agent.root import Root, whole

_CLOCK_GAP_NS = 1_000_000
_CLOCK_READINGS = 20
KEYS = (
    "realtime_minus_monotonic_ns",
    "boot_id",
    "clocksource",
    "temperatures_c",
    "clock_mhz",
    "clock_max_mhz",
    "governor",
    "throttled",
    "under_voltage",
    "foreign_load_pct",
    "load1",
    "pressure_us",
    "mem_available_bytes",
    "swap_in_pages",
    "swap_out_pages",
    "major_faults",
    "oom_kills",
)
"""The keys listed as unknown where they can't be read. `throttled` is not, where the kernel itself throttles."""


class ConditionProbe:
    """Reads one board's conditions. `cores` are the measuring ones; None: all.

    `footprint` gives the clock ticks so far of processes of ours that came and went. Readers of one board share its
    `firmware`, so that a silent one is given up on once.
    """

    def __init__(
        self,
        root: Optional[Root] = None,
        cores: Optional[Iterable[int]] = None,
        footprint: Callable[[], int] = lambda: 0,
        firmware: Optional[Firmware] = None,
    ) -> None:
        self.root = root if root is not None else Root()
        self._cores = None if cores is None else sorted(cores)
        self._firmware = firmware if firmware is not None else Firmware(self.root)
        self._load = Load(self.root, self._cores, footprint)

    def sample(self, own: Iterable[int] = (), beside: Iterable[int] = (), *, scan: bool = False) -> dict[str, Any]:
        """Read everything once.

        `own` are process ids of the harness on the measuring cores, `beside` those on other cores: neither they nor
        their children are foreign load. `scan` looks at every process, which is what names them; else that is done
        only where foreign load was seen.
        """
        cores = self.core_numbers()
        sample = {**self._system(), **self._processor(cores), **self._throttling(cores)}
        sample["temperatures_c"] = self.temperatures_c()
        sample["fans_rpm"] = thermal.fans_rpm(self.root)
        if scan:
            sample["core_volts"] = self._firmware.core_volts()
        load_pct, names = self._load.look(frozenset(own), frozenset(beside), scan=scan)
        sample.update(foreign_load_pct=load_pct, foreign_top=names)
        missing = {key for key in KEYS if sample[key] is None or sample[key] == {}}
        if self._shows_throttling(sample):
            missing.discard("throttled")
        sample["unknown"] = [key for key in KEYS if key in missing]
        return sample

    def core_numbers(self) -> list[int]:
        """The measuring cores; without a choice, all that /proc/stat lists."""
        if self._cores is not None:
            return self._cores
        return [int(number) for number in CORE_LINE.findall(self.root.content("proc/stat") or "")]

    def temperatures_c(self) -> dict[str, float]:
        """Return the temperature of every thermal zone, else of every hardware monitor, else the firmware's."""
        zones = thermal.zones_c(self.root) or thermal.hwmon_c(self.root)
        if not zones:
            celsius = self._firmware.temperature_c()
            return {} if celsius is None else {"vcgencmd": celsius}
        return zones

    def memory_bytes(self, key: str) -> Optional[int]:
        """Return one figure of /proc/meminfo in bytes."""
        match = re.search(r"^%s:\s+(\d+) kB$" % key, self.root.content("proc/meminfo") or "", re.MULTILINE)
        return int(match.group(1)) * 1024 if match else None

    def _clocks(self) -> tuple[int, int]:
        """CLOCK_MONOTONIC, and how far CLOCK_REALTIME is beyond it, in ns.

        Whoever is held up between two readings sees a clock that was set. So one is read between two of the other,
        and again until they lie close together; the closest counts.
        """
        readings = []
        for _ in range(_CLOCK_READINGS):
            before, realtime, after = self.root.monotonic_ns(), self.root.realtime_ns(), self.root.monotonic_ns()
            readings.append((after - before, before, realtime - (before + after) // 2))
            if after - before < _CLOCK_GAP_NS:
                break
        _, monotonic, beyond = min(readings)
        return monotonic, beyond

    def _system(self) -> dict[str, Any]:
        counters = dict(re.findall(r"^(\w+) (\d+)$", self.root.content("proc/vmstat") or "", re.MULTILINE))
        monotonic, beyond = self._clocks()
        load1 = re.match(r"(\d+\.\d+) ", self.root.content("proc/loadavg") or "")
        return {
            "monotonic_ns": monotonic,
            "realtime_minus_monotonic_ns": beyond,
            "boot_id": self.root.name("proc/sys/kernel/random/boot_id"),
            "clocksource": self.root.name("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            "load1": float(load1.group(1)) if load1 else None,
            "pressure_us": self._pressure_us(),
            "mem_available_bytes": self.memory_bytes("MemAvailable"),
            "swap_in_pages": whole(counters.get("pswpin")),
            "swap_out_pages": whole(counters.get("pswpout")),
            "major_faults": whole(counters.get("pgmajfault")),
            "oom_kills": whole(counters.get("oom_kill")),
        }

    def _pressure_us(self) -> dict[str, int]:
        totals = {}
        for what in ("cpu", "memory", "io"):
            text = self.root.content("proc/pressure/%s" % what) or ""
            for kind, total in re.findall(r"^(some|full) .*\btotal=(\d{1,20})$", text, re.MULTILINE):
                totals["%s.%s" % (what, kind)] = int(total)
        return totals

    def _processor(self, cores: list[int]) -> dict[str, Any]:
        now = processor.frequencies_mhz(self.root, cores, "scaling_cur_freq")
        hardware = processor.frequencies_mhz(self.root, cores, "cpuinfo_max_freq")
        clocks = {
            "clock_mhz": now,
            "clock_max_mhz": processor.frequencies_mhz(self.root, cores, "scaling_max_freq") or hardware,
            "clock_hardware_max_mhz": hardware,
            "governor": processor.governors(self.root, cores),
            "boost": processor.boost(self.root),
        }
        firmware_mhz = self._firmware.clock_mhz()
        if firmware_mhz is not None:
            # The kernel is asked before and after, so that a clock which just changed is not taken for a lie.
            after = processor.frequencies_mhz(self.root, cores, "scaling_cur_freq")
            clocks["clock_firmware_mhz"] = firmware_mhz
            clocks["clock_kernel_mhz"] = min([*now.values(), *after.values()], default=None)
        return clocks

    def _throttling(self, cores: list[int]) -> dict[str, Any]:
        flags = self._firmware.throttle_flags()
        signs: dict[str, Any] = {
            "throttled": flags,
            "under_voltage": self._under_voltage(flags),
            "cooling": processor.cooling(self.root, cores),
            "throttle_counts": processor.throttle_counts(self.root, cores),
        }
        signs["throttling_known"] = self._shows_throttling(signs)
        signs["firmware_problem"] = self._firmware.problem
        return signs

    def _shows_throttling(self, signs: dict[str, Any]) -> bool:
        """True where throttling would be seen; a Raspberry Pi's kernel proves nothing: its firmware throttles."""
        if signs["throttled"] is not None:
            return True
        return bool(signs["cooling"] or signs["throttle_counts"]) and not self._firmware.is_raspberry_pi()

    def _under_voltage(self, flags: Optional[dict[str, Any]]) -> Optional[dict[str, Any]]:
        alarm = thermal.under_voltage_alarm(self.root)
        if flags is None:
            return None if alarm is None else {"now": alarm, "sticky": None, "source": "hwmon"}
        return {
            "now": "under_voltage" in flags["now"] or bool(alarm),
            "sticky": "under_voltage" in flags["sticky"],
            "source": flags["source"],
        }


_CALIBRATION_LOOPS = 40_000
_CALIBRATION_REPEATS = 3


def calibration_ns() -> int:
    """Time a fixed piece of integer work: the fastest of three. Its drift is the board's, not the network's."""
    best = None
    for _ in range(_CALIBRATION_REPEATS):
        value = 1
        start = time.perf_counter_ns()
        for _ in range(_CALIBRATION_LOOPS):
            value = (value * 1103515245 + 12345) & 0x7FFFFFFF
        loop_ns = time.perf_counter_ns() - start
        best = loop_ns if best is None else min(best, loop_ns)
    return best or 0


def vm_bytes(key: str, process: str = "self") -> Optional[int]:
    """Return VmRSS or VmHWM of a process in bytes, of this very one unless told; None where it has no memory."""
    with contextlib.suppress(OSError):
        match = re.search(r"^%s:\s+(\d+) kB$" % key, (Path("/proc") / process / "status").read_text(), re.MULTILINE)
        if match:
            return int(match.group(1)) * 1024
    return None


def allowed_cores() -> list[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
