"""The conditions a board measures under: everything that an ordinary user can read, as plain dictionaries.

One sample (keys, units)::

    monotonic_ns                  CLOCK_MONOTONIC
    realtime_minus_monotonic_ns   jumps when somebody sets the clock
    boot_id, clocksource          text
    temperatures_c                {zone: degrees Celsius}
    clock_mhz, clock_max_mhz      {core: MHz} of the measuring cores, as the kernel says
    clock_firmware_mhz            `vcgencmd measure_clock arm`; absent where there is no vcgencmd
    governor                      {core: name}
    throttled                     {"now": [names], "sticky": [names], "raw": int} or null
    foreign_load_pct              share of the measuring cores' time that others took since the sample before, or null
    foreign_top                   names of the foreign processes that took most, at most five
    load1                         one-minute load average
    mem_available_bytes
    swap_in_pages, swap_out_pages, major_faults, oom_kills    counters of the board since boot
    unknown                       keys that could not be read

Names in `throttled`: under_voltage, frequency_capped, throttled, soft_temperature_limit. Sticky bits were set at some
time since boot, so what was sticky before a session hides a short event in it.

All paths lie under a root, so that tests can fake a board; only the clocks are this process's own.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import Any, Callable, Iterable, Optional

from edgeloop_agent import ARCHIVE

_THROTTLE_BITS = ("under_voltage", "frequency_capped", "throttled", "soft_temperature_limit")
_STICKY_SHIFT = 16
_VCGENCMD_TIMEOUT_S = 1.0
_VCGENCMD_TRIES = 3
_TOP = 5
_SCAN_FROM_PCT = 5.0  # under this, a look at every process costs more than it tells
_CORE = re.compile(r"cpu(\d+) ")
KEYS = (
    "realtime_minus_monotonic_ns",
    "boot_id",
    "clocksource",
    "temperatures_c",
    "clock_mhz",
    "clock_max_mhz",
    "governor",
    "throttled",
    "foreign_load_pct",
    "load1",
    "mem_available_bytes",
    "swap_in_pages",
    "swap_out_pages",
    "major_faults",
    "oom_kills",
)


class Board:
    """Reads one board's conditions. `cores` are the measuring ones; None: all.

    `footprint` gives the clock ticks so far of processes of ours that came and went.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        cores: Optional[Iterable[int]] = None,
        footprint: Callable[[], int] = lambda: 0,
    ) -> None:
        self._root = root
        self._footprint = footprint
        self._cores = None if cores is None else sorted(cores)
        self._vcgencmd = _which("vcgencmd")
        self._vcgencmd_failed = 0
        self._stat: Optional[tuple[int, int, int]] = None
        self._processes: dict[int, tuple[str, int]] = {}

    def sample(self, own: Iterable[int] = (), beside: Iterable[int] = (), *, scan: bool = False) -> dict[str, Any]:
        """Read everything once.

        `own` are process ids of the harness on the measuring cores, `beside` those on other cores: neither they nor
        their children are foreign load. `scan` looks at every process, which is what names them; else that is done
        only where foreign load was seen.
        """
        found = self._slow_changing()
        load, top = self._foreign(frozenset(own), frozenset(beside), scan)
        found["foreign_load_pct"], found["foreign_top"] = load, top
        firmware = self._firmware_clock()
        if firmware is not None:
            found["clock_firmware_mhz"] = firmware
        found["unknown"] = [key for key in KEYS if found[key] is None or found[key] == {}]
        return found

    def core_numbers(self) -> list[int]:
        """The measuring cores; without a choice, all that /proc/stat lists."""
        if self._cores is not None:
            return self._cores
        return [int(number) for number in _CORE.findall(self._text("proc/stat") or "")]

    def _slow_changing(self) -> dict[str, Any]:
        monotonic = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        realtime = time.clock_gettime_ns(time.CLOCK_REALTIME)
        cores = self.core_numbers()
        counters = dict(re.findall(r"^(\w+) (\d+)$", self._text("proc/vmstat") or "", re.MULTILINE))
        return {
            "monotonic_ns": monotonic,
            "realtime_minus_monotonic_ns": realtime - monotonic,
            "boot_id": self._text("proc/sys/kernel/random/boot_id"),
            "clocksource": self._text("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            "temperatures_c": self.temperatures_c(),
            "clock_mhz": self._by_core(cores, ("scaling_cur_freq",)),
            "clock_max_mhz": self._by_core(cores, ("scaling_max_freq", "cpuinfo_max_freq")),
            "governor": self.governors(cores),
            "throttled": self.throttled(),
            "load1": self._load1(),
            "mem_available_bytes": self.memory_bytes("MemAvailable"),
            "swap_in_pages": _int(counters.get("pswpin")),
            "swap_out_pages": _int(counters.get("pswpout")),
            "major_faults": _int(counters.get("pgmajfault")),
            "oom_kills": _int(counters.get("oom_kill")),
        }

    def temperatures_c(self) -> dict[str, float]:
        """Return the temperature of every thermal zone by its type; a second one of a type gets its number."""
        zones: dict[str, float] = {}
        for folder in sorted((self._root / "sys/class/thermal").glob("thermal_zone*")):
            raw = _int(self._text(folder / "temp"))
            if raw is None or not -100_000 <= raw <= 200_000:
                continue
            name = self._text(folder / "type") or folder.name
            zones[name if name not in zones else "%s.%s" % (name, folder.name[len("thermal_zone") :])] = raw / 1000
        return zones

    def governors(self, cores: Iterable[int]) -> dict[str, str]:
        """Return the frequency governor of each core that has one."""
        found = {str(core): self._text(self.governor_path(core)) for core in cores}
        return {core: name for core, name in found.items() if name}

    def governor_path(self, core: int) -> Path:
        """Where a core's governor is read and written."""
        return self._root / ("sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor" % core)

    def memory_bytes(self, key: str) -> Optional[int]:
        """Return one figure of /proc/meminfo in bytes."""
        found = re.search(r"^%s:\s+(\d+) kB$" % key, self._text("proc/meminfo") or "", re.MULTILINE)
        return int(found.group(1)) * 1024 if found else None

    def throttled(self) -> Optional[dict[str, Any]]:
        """Return the throttle flags of a Raspberry Pi, None where they can't be had or make no sense."""
        answer = self._ask("get_throttled")
        text = answer if answer is not None else self._text("sys/devices/platform/soc/soc:firmware/get_throttled")
        found = re.match(r"\A(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})\Z", text or "")
        if found is None:
            return None
        raw = int(found.group(1), 16)
        return {
            "now": [name for bit, name in enumerate(_THROTTLE_BITS) if raw >> bit & 1],
            "sticky": [name for bit, name in enumerate(_THROTTLE_BITS) if raw >> (bit + _STICKY_SHIFT) & 1],
            "raw": raw,
        }

    def _firmware_clock(self) -> Optional[float]:
        found = re.match(r"\Afrequency\(\d+\)=(\d{1,12})\Z", self._ask("measure_clock", "arm") or "")
        return int(found.group(1)) / 1e6 if found else None

    def _ask(self, *words: str) -> Optional[str]:
        if self._vcgencmd is None or self._vcgencmd_failed >= _VCGENCMD_TRIES:
            return None
        import subprocess  # heavy, and most boards never get here

        try:
            run = subprocess.run(
                [self._vcgencmd, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_VCGENCMD_TIMEOUT_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            self._vcgencmd_failed += 1
            return None
        return run.stdout[:200].decode("ascii", "replace").strip()

    def _load1(self) -> Optional[float]:
        found = re.match(r"(\d+\.\d+) ", self._text("proc/loadavg") or "")
        return float(found.group(1)) if found else None

    def _by_core(self, cores: Iterable[int], names: tuple[str, ...]) -> dict[str, float]:
        found = {}
        for core in cores:
            for name in names:
                raw = _int(self._text("sys/devices/system/cpu/cpu%d/cpufreq/%s" % (core, name)))
                if raw:
                    found[str(core)] = raw / 1000
                    break
        return found

    def _foreign(self, own: frozenset[int], beside: frozenset[int], scan: bool) -> tuple[Optional[float], list[str]]:
        before, now = self._stat, self._cpu_ticks(own)
        self._stat = now
        load = None
        if before is not None and now is not None and now[0] > before[0]:
            foreign = max(0, now[1] - before[1] - max(0, now[2] - before[2]))
            load = round(min(100.0, 100.0 * foreign / (now[0] - before[0])), 2)
        if scan or (load is not None and load > _SCAN_FROM_PCT):
            return load, self._scan(own | beside)
        return load, []

    def _cpu_ticks(self, own: frozenset[int]) -> Optional[tuple[int, int, int]]:
        """Return all, busy and own ticks so far, of the measuring cores."""
        wanted = None if self._cores is None else set(self._cores)
        everything = busy = 0
        for line in (self._text("proc/stat") or "").splitlines():
            found = _CORE.match(line)
            if found is None or (wanted is not None and int(found.group(1)) not in wanted):
                continue
            ticks = [int(part) for part in line.split()[1:9]]
            everything += sum(ticks)
            busy += sum(ticks) - sum(ticks[3:5])  # idle and waiting for I/O
        if not everything:
            return None
        mine = (self._process(pid) for pid in own)
        return everything, busy, self._footprint() + sum(found[1] for found in mine if found is not None)

    def _process(self, pid: int) -> Optional[tuple[str, int, int, int]]:
        """Return name, ticks (children that ended included), parent and session of a process."""
        text = self._text("proc/%d/stat" % pid)
        if text is None:
            return None
        head, _, tail = text.rpartition(")")
        parts = tail.split()
        try:
            ticks = sum(int(part) for part in parts[11:15])
            return head.partition("(")[2], ticks, int(parts[1]), int(parts[3])
        except (ValueError, IndexError):
            return None

    def _scan(self, own: frozenset[int]) -> list[str]:
        processes = {}
        for folder in (self._root / "proc").glob("[0-9]*"):
            pid = int(folder.name) if folder.name.isdigit() else -1
            found = self._process(pid)
            if found is not None and pid not in own and found[2] not in own and found[3] not in own:
                processes[pid] = (found[0], found[1])
        grown = []
        for pid, (name, ticks) in processes.items():
            earlier = self._processes.get(pid)
            if earlier is not None and earlier[0] == name and ticks > earlier[1]:
                grown.append((ticks - earlier[1], name, pid))
        self._processes = processes
        return [name for _, name, pid in sorted(grown, reverse=True)[:_TOP] if not self._is_agent(pid)]

    def _is_agent(self, pid: int) -> bool:
        line = self._text("proc/%d/cmdline" % pid) or ""
        return "edgeloop_agent" in line or (ARCHIVE is not None and os.path.basename(ARCHIVE) in line)

    def _text(self, path: Any) -> Optional[str]:
        with contextlib.suppress(OSError), open(self._root / path, "rb") as handle:
            return handle.read(1 << 20).decode("utf-8", "replace").strip("\0\n\t ") or None
        return None


def _which(name: str) -> Optional[str]:
    places = (os.path.join(folder, name) for folder in os.get_exec_path())
    return next((place for place in places if os.access(place, os.X_OK) and os.path.isfile(place)), None)


def _int(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and re.match(r"\A-?\d{1,20}\Z", text) else None


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
        taken = time.perf_counter_ns() - start
        best = taken if best is None else min(best, taken)
    return best or 0


def vm_bytes(key: str, root: Path = Path("/")) -> Optional[int]:
    """Return VmRSS or VmHWM of this very process in bytes."""
    with contextlib.suppress(OSError):
        found = re.search(r"^%s:\s+(\d+) kB$" % key, (root / "proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found.group(1)) * 1024
    return None


def allowed_cores() -> list[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
