"""The processor's clocks and the limits on them, as cpufreq, the thermal framework and x86 counters show them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterable, Optional

from edgeloop_agent.root import Root

_CPU = "sys/devices/system/cpu"
_COOLING = re.compile(r"\A(?:(?:cpufreq|idle)-cpu(?P<core>\d+)|thermal-(?:cpufreq|idle)-\d+|Processor)\Z")
"""Types of cooling devices that slow the processor down; fans and GPUs have others. Newer kernels name the core."""


def frequencies_mhz(root: Root, cores: Iterable[int], name: str) -> dict[str, float]:
    """Return one of cpufreq's frequencies (scaling_cur_freq, scaling_max_freq, cpuinfo_max_freq) by core."""
    by_core = {}
    for core in cores:
        raw = root.number("%s/cpu%d/cpufreq/%s" % (_CPU, core, name))
        if raw:
            by_core[str(core)] = raw / 1000
    return by_core


def governor_path(root: Root, core: int) -> Path:
    """The file in which a core's governor is read and written."""
    return root.path / ("%s/cpu%d/cpufreq/scaling_governor" % (_CPU, core))


def governors(root: Root, cores: Iterable[int]) -> dict[str, str]:
    """Return the frequency governor of each core that has one."""
    names = {str(core): root.name(governor_path(root, core)) for core in cores}
    return {core: name for core, name in names.items() if name}


def governors_available(root: Root, cores: Iterable[int]) -> list[str]:
    """Return the governors that every core's driver offers."""
    offers = [root.content("%s/cpu%d/cpufreq/scaling_available_governors" % (_CPU, core)) for core in cores]
    sets = [set(offer.split()) for offer in offers if offer]
    return sorted(set.intersection(*sets)) if sets else []


def boost(root: Root) -> Optional[bool]:
    """Return whether clocks above the nominal one are allowed, None where the board has no such switch."""
    value = root.number("%s/cpufreq/boost" % _CPU)
    if value is not None:
        return value != 0
    off = root.number("%s/intel_pstate/no_turbo" % _CPU)
    return None if off is None else off == 0


def cooling(root: Root, cores: Iterable[int]) -> dict[str, list[int]]:
    """Return [step, highest step] of each cooling device that slows down one of the cores; step 0 does nothing."""
    measuring = set(cores)
    steps = {}
    for folder in root.folders("sys/class/thermal/cooling_device*"):
        kind = root.name(folder / "type") or ""
        match = _COOLING.match(kind)
        if match is None or (match.group("core") and measuring.isdisjoint(_same_clock(root, int(match.group("core"))))):
            continue
        step, highest = root.number(folder / "cur_state"), root.number(folder / "max_state")
        if step is not None and highest is not None:
            steps[kind if kind not in steps else "%s.%s" % (kind, folder.name[len("cooling_device") :])] = [
                step,
                highest,
            ]
    return steps


def _same_clock(root: Root, core: int) -> set[int]:
    """The cores that share a clock with one."""
    text = root.content("%s/cpu%d/cpufreq/related_cpus" % (_CPU, core)) or ""
    return {int(word) for word in text.split() if word.isdigit()} | {core}


def throttle_counts(root: Root, cores: Iterable[int]) -> dict[str, int]:
    """Return how often the hardware throttled since boot, by core and package: x86."""
    counts = {}
    for core in cores:
        for kind in ("core", "package"):
            count = root.number("%s/cpu%d/thermal_throttle/%s_throttle_count" % (_CPU, core, kind))
            if count is not None:
                counts["%s %d" % (kind, core)] = count
    return counts
