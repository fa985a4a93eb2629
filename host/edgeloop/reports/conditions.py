"""The declared environment and a measurement's conditions, in words."""

from __future__ import annotations

from typing import Any

from edgeloop.core.conditions import ConditionsDigest
from edgeloop.core.plan import Environment


def flat(value: Any) -> str:
    """A condition as words: `1500 to 1800`, `performance`."""
    if isinstance(value, list | tuple):
        if len(value) == 2 and all(isinstance(end, int | float) for end in value):
            return f"{value[0]:g} to {value[1]:g}" if value[0] != value[1] else f"{value[0]:g}"
        return ", ".join(map(flat, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {flat(part)}" for name, part in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


_FIRST_KEYS = (
    "temperature_c",
    "clock_mhz",
    "governor",
    "throttled",
    "under_voltage",
    "foreign_load_pct_max",
    "slowed",
    "soak",
)


def environment_line(environment: Environment | None) -> str:
    """The declared environment in words; a dash in records of before it was kept."""
    if environment is None:
        return "-"
    words = [
        f"governor {environment.governor}",
        f"clock {environment.clock}",
        f"throttling {environment.throttling}",
        f"under-voltage {environment.under_voltage}",
    ]
    if environment.expected_clock_mhz is not None:
        words[1] += f", {environment.expected_clock_mhz:g} MHz expected"
    if environment.throttling == "soak":
        words[2] += f" (flat within {environment.soak_max_s:g} s)"
    if environment.start_temperature_max_c is not None:
        words.append(f"start at {environment.start_temperature_max_c:g} C at most")
    if environment.foreign_load_max_pct is not None:
        words.append(f"load of others {environment.foreign_load_max_pct:g} % at most")
    return "; ".join(words)


def conditions_line(digest: ConditionsDigest) -> str:
    """The conditions that an environment declares something about, in a line."""
    conditions = digest.entries()
    return "; ".join(f"{name} {flat(conditions[name])}" for name in _FIRST_KEYS if name in conditions)
