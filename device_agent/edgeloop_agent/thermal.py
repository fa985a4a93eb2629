"""Temperatures, fans and the under-voltage alarm, as the kernel shows them under /sys/class."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from edgeloop_agent.root import Root

_PLAUSIBLE_MILLI_C = (-100_000, 200_000)
_ALARM_CHIPS = ("rpi_volt",)
"""Chips whose `in0_lcrit_alarm` is the supply's: the Raspberry Pi's voltage monitor looks at the flag every 2 s."""


def zones_c(root: Root) -> dict[str, float]:
    """Return the temperature of every thermal zone by its type; a second one of a type gets its number."""
    zones: dict[str, float] = {}
    for folder in root.folders("sys/class/thermal/thermal_zone*"):
        celsius = _celsius(root, folder / "temp")
        if celsius is not None:
            name = root.name(folder / "type") or folder.name
            zones[name if name not in zones else "%s.%s" % (name, folder.name[len("thermal_zone") :])] = celsius
    return zones


def hwmon_c(root: Root) -> dict[str, float]:
    """Return the temperature of every sensor of the hardware monitors as `chip:label`."""
    sensors: dict[str, float] = {}
    for path in root.folders("sys/class/hwmon/hwmon*/temp*_input"):
        celsius = _celsius(root, path)
        if celsius is not None:
            sensor = path.name[: -len("_input")]
            label = root.name(path.with_name(sensor + "_label")) or sensor
            name = "%s:%s" % (root.name(path.with_name("name")) or path.parent.name, label)
            sensors[name if name not in sensors else "%s.%s" % (name, path.parent.name)] = celsius
    return sensors


def fans_rpm(root: Root) -> dict[str, int]:
    """Return the speed of every fan that tells it, as `chip:fanN`."""
    speeds = {}
    for path in root.folders("sys/class/hwmon/hwmon*/fan*_input"):
        rpm = root.number(path)
        if rpm is not None:
            chip = root.name(path.with_name("name")) or path.parent.name
            speeds["%s:%s" % (chip, path.name[: -len("_input")])] = rpm
    return speeds


def under_voltage_alarm(root: Root) -> Optional[bool]:
    """Return whether the supply's alarm is on, None on a board without one. Needs neither root nor vcgencmd."""
    for path in root.folders("sys/class/hwmon/hwmon*/in0_lcrit_alarm"):
        if root.content(path.with_name("name")) in _ALARM_CHIPS:
            value = root.number(path)
            if value is not None:
                return value != 0
    return None


def _celsius(root: Root, path: Path) -> Optional[float]:
    raw = root.number(path)
    return raw / 1000 if raw is not None and _PLAUSIBLE_MILLI_C[0] <= raw <= _PLAUSIBLE_MILLI_C[1] else None
