"""The shape of the conditions in a session's record, checked where they enter: judging then trusts their types.

Keys that are not listed pass as they are, in bounded JSON; docs/reference/agent.md says what the listed ones mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeGuard

_TEXT_MAX = 1000
Check = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _TEXT_MAX and value.isprintable()


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _listed(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _by_name(check: Check) -> Check:
    return lambda value: isinstance(value, dict) and all(_text(name) and check(item) for name, item in value.items())


def _count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _delegate(value: Any) -> bool:
    """What it took is counted: whole numbers, and no more taken than there are."""
    if not isinstance(value, dict) or not _text(value.get("name")):
        return False
    taken, operators, pieces = (value.get(key) for key in ("taken", "operators", "pieces"))
    return _count(taken) and _count(operators) and _count(pieces) and taken <= operators


def _step(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_number, value))


def _shaped(keys: Mapping[str, Check]) -> Check:
    return lambda value: (
        isinstance(value, dict) and all(check(value[key]) for key, check in keys.items() if key in value)
    )


_SAMPLE: Mapping[str, Check] = {
    **dict.fromkeys(
        (
            "monotonic_ns",
            "realtime_minus_monotonic_ns",
            "clock_firmware_mhz",
            "clock_kernel_mhz",
            "core_volts",
            "foreign_load_pct",
            "load1",
            "mem_available_bytes",
            "swap_in_pages",
            "swap_out_pages",
            "major_faults",
            "oom_kills",
        ),
        _maybe(_number),
    ),
    **dict.fromkeys(("boot_id", "clocksource", "firmware_problem"), _maybe(_text)),
    **dict.fromkeys(("boost", "throttling_known", "timed"), _maybe(_flag)),
    **dict.fromkeys(
        (
            "temperatures_c",
            "fans_rpm",
            "clock_mhz",
            "clock_max_mhz",
            "clock_hardware_max_mhz",
            "throttle_counts",
            "pressure_us",
        ),
        _by_name(_number),
    ),
    "governor": _by_name(_text),
    "cooling": _by_name(_step),
    "throttled": _maybe(_shaped({"now": _listed(_text), "sticky": _listed(_text), "raw": _number, "source": _text})),
    "under_voltage": _maybe(_shaped({"now": _maybe(_flag), "sticky": _maybe(_flag), "source": _text})),
    "foreign_top": _listed(_text),
    "unknown": _listed(_text),
}
_WAITED: Mapping[str, Check] = {
    **dict.fromkeys(("asked",), _flag),
    **dict.fromkeys(("passed",), _maybe(_flag)),
    **dict.fromkeys(("waited_s", "took_s"), _number),
    **dict.fromkeys(("start_c", "end_c", "slope_c_per_min", "window_s", "slope_max_c_per_min"), _maybe(_number)),
    "end": _shaped(_SAMPLE),
    "detail": _text,
}
_CONDITIONS: Mapping[str, Check] = {
    "before": _shaped(_SAMPLE),
    "during": _listed(_shaped(_SAMPLE)),
    "after": _shaped(_SAMPLE),
    "calibration_ns": _maybe(_listed(_maybe(_number))),
    "timed_window_monotonic_ns": _maybe(_listed(_number)),
    "samples_cycled": _maybe(_number),
    "pinned_cores": _maybe(_listed(_number)),
    "idle_before_s": _maybe(_number),
    "governor": _shaped(
        {"asked": _text, "set": _maybe(_flag), "available": _listed(_text), "detail": _text},
    ),
    "gate": _shaped(_WAITED),
    "soak": _shaped(_WAITED),
    "stand_in": _maybe(_text),
    "delegate": _maybe(_delegate),
    "unknown": _listed(_text),
}


def faults(conditions: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys whose values are not of the protocol's types."""
    yield from (key for key, check in _CONDITIONS.items() if key in conditions and not check(conditions[key]))
