"""The conditions of a measurement in a few figures, for tables and reports; the whole is with the samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeloop.core.conditions import ConditionSample, ConditionsDigest, IdleGate, Range, SessionConditions, Soak
from edgeloop.core.measurement import Session

SLOWED = 1.2
"""A calibration loop that takes this many times the fastest one was slowed down: far beyond its own noise."""
_NAMES_MAX = 5


def digest(sessions: Sequence[Session]) -> ConditionsDigest:
    """Return ranges over all samples of all sessions.

    `slow_sessions` is there where the cores changed their speed between the calibration loops, whatever the cause: on a
    virtual machine it is often a neighbour that nothing else shows. Intervals then speak of all those speeds, in their
    shares.
    """
    conditions = [session.conditions for session in sessions]
    samples = [sample for each in conditions for sample in each.samples]
    calibration_ns = _calibration_ns(conditions)
    return ConditionsDigest(
        temperature_c=_temperatures_c(samples),
        clock_mhz=_clocks_mhz(samples),
        fans_rpm=_fans_rpm(samples),
        clock_firmware_mhz=_firmware_clocks_mhz(samples),
        core_volts=_core_volts(samples),
        governor=_governors(samples),
        boost=_boost(samples),
        foreign_load_pct_max=_foreign_load_pct(samples),
        foreign=_foreign_names(samples),
        throttle_flags=_flags_now(samples),
        throttled_since_boot=_flags_since_boot(samples),
        under_voltage=_under_voltage(samples),
        cooling=_cooling(samples),
        throttle_count=_throttle_count(conditions),
        major_faults=_major_faults(conditions),
        pressure=_pressure(conditions),
        calibration_ns=calibration_ns,
        slow_sessions=None if calibration_ns is None else _slow_sessions(conditions, calibration_ns[0]),
        gate=_gate(conditions[0].gate) if conditions else None,
        soak=_soak(conditions[0].soak) if conditions else None,
        boot_ids=_boot_ids(sessions),
        pinned_cores=_pinned_cores(conditions),
    )


def _temperatures_c(samples: Iterable[ConditionSample]) -> Range | None:
    return _range(celsius for sample in samples for celsius in sample.temperatures_c.values())


def _clocks_mhz(samples: Iterable[ConditionSample]) -> Range | None:
    return _range(mhz for sample in samples for mhz in sample.clock_mhz.values())


def _fans_rpm(samples: Iterable[ConditionSample]) -> Range | None:
    return _range(rpm for sample in samples for rpm in sample.fans_rpm.values())


def _firmware_clocks_mhz(samples: Iterable[ConditionSample]) -> Range | None:
    return _range(sample.clock_firmware_mhz for sample in samples)


def _core_volts(samples: Iterable[ConditionSample]) -> Range | None:
    return _range(sample.core_volts for sample in samples)


def _calibration_ns(conditions: Iterable[SessionConditions]) -> Range | None:
    return _range(ns for each in conditions for ns in each.calibration_ns or ())


def _governors(samples: Iterable[ConditionSample]) -> tuple[str, ...] | None:
    return _names(name for sample in samples for name in sample.governor.values()) or None


def _foreign_load_pct(samples: Iterable[ConditionSample]) -> float | None:
    loads = _range(sample.foreign_load_pct for sample in samples)
    return None if loads is None else loads[1]


def _boot_ids(sessions: Iterable[Session]) -> tuple[str, ...]:
    return _names(session.boot_id for session in sessions if session.boot_id)


def _pinned_cores(conditions: Iterable[SessionConditions]) -> tuple[float, ...]:
    return tuple(sorted({core for each in conditions for core in each.pinned_cores or ()}))


def _range(values: Iterable[float | None]) -> Range | None:
    numbers = [float(value) for value in values if value is not None]
    return (min(numbers), max(numbers)) if numbers else None


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _flags_now(samples: Iterable[ConditionSample]) -> tuple[str, ...] | None:
    """Set in any sample; None where no sample has flags."""
    flags = [sample.throttle_flags for sample in samples if sample.throttle_flags is not None]
    return _throttling(name for each in flags for name in each.now) if flags else None


def _flags_since_boot(samples: Iterable[ConditionSample]) -> tuple[str, ...] | None:
    flags = [sample.throttle_flags for sample in samples if sample.throttle_flags is not None]
    return _throttling(name for each in flags for name in each.sticky) if flags else None


def _throttling(names: Iterable[str]) -> tuple[str, ...]:
    """Throttling alone: under-voltage has a key of its own."""
    return tuple(name for name in _names(names) if name != "under_voltage")


def _boost(samples: Iterable[ConditionSample]) -> str | None:
    states = {sample.boost for sample in samples if sample.boost is not None}
    if len(states) > 1:
        return "changed"
    return next(("on" if state else "off" for state in states), None)


def _foreign_names(samples: Sequence[ConditionSample]) -> tuple[str, ...] | None:
    """Of the foreign processes that took most, in the order in which they came; None where no load was read."""
    if _foreign_load_pct(samples) is None:
        return None
    names = dict.fromkeys(name for sample in samples for name in sample.foreign_top)
    return tuple(names)[:_NAMES_MAX] or None


def _under_voltage(samples: Iterable[ConditionSample]) -> str | None:
    supplies = [sample.supply for sample in samples if sample.supply is not None]
    if not supplies:
        return None
    if any(supply.now for supply in supplies):
        return "now"
    return "since boot" if any(supply.sticky for supply in supplies) else "no"


def _cooling(samples: Iterable[ConditionSample]) -> str | None:
    steps = [(int(step), name) for sample in samples for name, (step, _) in sample.cooling.items()]
    if not steps:
        return None
    step, name = max(steps)
    return f"{name} at step {step}" if step else "off"


def _throttle_count(conditions: Iterable[SessionConditions]) -> int | None:
    """The most that one of x86's counters grew in a session."""
    growth = [
        int(each.after.throttle_counts[name]) - int(count)
        for each in conditions
        for name, count in each.before.throttle_counts.items()
        if name in each.after.throttle_counts
    ]
    return max(growth, default=None)


def _major_faults(conditions: Iterable[SessionConditions]) -> int | None:
    changes = (difference(each.before.major_faults, each.after.major_faults) for each in conditions)
    faults = [change for change in changes if change is not None]
    return int(sum(faults)) if faults else None


def _pressure(conditions: Iterable[SessionConditions]) -> str | None:
    """The largest share of a session's time that tasks were held up by one of the board's resources."""
    shares = []
    for each in conditions:
        took_ns = difference(each.before.monotonic_ns, each.after.monotonic_ns)
        if took_ns:
            earlier, later = each.before.pressure_us, each.after.pressure_us
            shares += [(100e3 * (later[name] - earlier[name]) / took_ns, name) for name in earlier if name in later]
    if not shares:
        return None
    share, name = max(shares)
    return f"{share:.1f} % {name}"


def _slow_sessions(conditions: Iterable[SessionConditions], fastest_ns: float) -> str | None:
    loops = [[ns for ns in each.calibration_ns or () if ns is not None] for each in conditions]
    slowest = [max(each) for each in loops if each]
    slow = sum(ns > SLOWED * fastest_ns for ns in slowest)
    if not slow:
        return None
    return f"{slow} of {len(slowest)} sessions (calibration loop over {SLOWED:g} times the fastest)"


def _gate(gate: IdleGate) -> str | None:
    return _waiting(gate, gate.waited_s, "") if gate.applies else None


def _soak(soak: Soak) -> str | None:
    slope, end_c = soak.slope_c_per_min, soak.end_c
    flat = f" at {end_c:.1f} C, {slope:+.2f} C a minute" if slope is not None and end_c is not None else ""
    return _waiting(soak, soak.took_s, flat) if soak.applies else None


def _waiting(waiting: IdleGate | Soak, took_s: float, flat: str) -> str:
    outcome = {None: "unknown", True: "passed", False: "not passed"}[waiting.has_passed]
    return f"{outcome} after {took_s:.0f} s{flat}" + (f": {waiting.detail}" if waiting.detail else "")


def difference(before: float | None, after: float | None) -> float | None:
    """Return how far a counter went; None where one of its ends is not known."""
    return None if before is None or after is None else float(after) - float(before)
