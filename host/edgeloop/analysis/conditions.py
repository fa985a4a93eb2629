"""The conditions of a measurement in a few figures, for tables and reports; the whole is with the samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeloop.analysis.condition_access import Sample, change, part, sample, samples
from edgeloop.core.measurement import Session

SLOWED = 1.2
"""A calibration loop that takes this many times the fastest one was slowed down: far beyond its own noise."""


def digest(sessions: Sequence[Session]) -> dict[str, Any]:
    """Return ranges over all samples of all sessions; a key is absent where nothing could be read.

    `calibration_ns` is the fastest and the slowest of the calibration loops. The fastest says how fast this very board
    is: compared with that of another board with the same Python, it shows which of two of a model is the slower.
    `slowed` is there where the cores changed their speed between the loops, whatever the cause: on a virtual machine
    it is often a neighbour that nothing else shows. Intervals then speak of the speeds that were met, in their shares.
    """
    seen = [c for session in sessions for c in samples(session)]
    found: dict[str, Any] = {}
    for key, name in (("temperatures_c", "temperature_c"), ("clock_mhz", "clock_mhz"), ("fans_rpm", "fans_rpm")):
        _range(found, name, [float(v) for c in seen for v in part(c, key).values() if v is not None])
    for key in ("clock_firmware_mhz", "core_volts"):
        _range(found, key, [float(c[key]) for c in seen if c.get(key) is not None])
    governors = {str(g) for c in seen for g in part(c, "governor").values()}
    if governors:
        found["governor"] = sorted(governors)
    boosts = {bool(c["boost"]) for c in seen if c.get("boost") is not None}
    if boosts:
        found["boost"] = "on" if boosts == {True} else "off" if boosts == {False} else "changed"
    loads = [float(c["foreign_load_pct"]) for c in seen if c.get("foreign_load_pct") is not None]
    if loads:
        found["foreign_load_pct_max"] = max(loads)
        names = dict.fromkeys(str(name) for c in seen for name in c.get("foreign_top") or ())
        if names:
            found["foreign"] = list(names)[:5]
    found |= _throttling(sessions, seen)
    found |= _counters(sessions)
    loops = [[float(ns) for ns in s.conditions.get("calibration_ns") or () if ns is not None] for s in sessions]
    _range(found, "calibration_ns", [ns for each in loops for ns in each])
    timed = [max(each) for each in loops if each]
    slowed = sum(slowest > SLOWED * found["calibration_ns"][0] for slowest in timed)
    if slowed:
        found["slowed"] = f"{slowed} of {len(timed)} sessions (calibration loop over {SLOWED:g} times the fastest)"
    for name in ("gate", "soak"):
        told = _told(part(sessions[0].conditions, name)) if sessions else None
        if told:
            found[name] = told
    found["boot_ids"] = sorted({session.boot_id for session in sessions if session.boot_id})
    found["pinned_cores"] = sorted({core for s in sessions for core in s.conditions.get("pinned_cores") or ()})
    return found


def _range(found: dict[str, Any], name: str, values: list[float]) -> None:
    if values:
        found[name] = [min(values), max(values)]


def _throttling(sessions: Sequence[Session], seen: list[Sample]) -> dict[str, Any]:
    """Flags that were on in any sample, the steps of cooling devices, the counts, under-voltage."""
    found: dict[str, Any] = {}
    if any(c.get("throttled") is not None for c in seen):
        flags = {str(flag) for c in seen for flag in part(c, "throttled").get("now") or ()}
        sticky = {str(flag) for c in seen for flag in part(c, "throttled").get("sticky") or ()}
        found["throttled"] = sorted(flags - {"under_voltage"})
        found["throttled_since_boot"] = sorted(sticky - {"under_voltage"})
    supplies = [part(c, "under_voltage") for c in seen if c.get("under_voltage") is not None]
    if supplies:
        now, ever = (any(s.get(key) for s in supplies) for key in ("now", "sticky"))
        found["under_voltage"] = "now" if now else "since boot" if ever else "no"
    steps = [(int(step), str(name)) for c in seen for name, (step, _) in part(c, "cooling").items()]
    if steps:
        step, name = max(steps)
        found["cooling"] = f"{name} at step {step}" if step else "off"
    counts = [
        int(later[name]) - int(earlier[name])
        for session in sessions
        for earlier in (part(sample(session, "before"), "throttle_counts"),)
        for later in (part(sample(session, "after"), "throttle_counts"),)
        for name in earlier
        if name in later
    ]
    if counts:
        found["throttle_count"] = max(counts)
    return found


def _counters(sessions: Sequence[Session]) -> dict[str, Any]:
    """Major faults of all sessions; the most that tasks were held up by one of the board's resources, in percent."""
    faults, held = [], []
    for session in sessions:
        before, after = sample(session, "before"), sample(session, "after")
        faults.append(change(before, after, "major_faults"))
        took_ns = change(before, after, "monotonic_ns")
        earlier, later = part(before, "pressure_us"), part(after, "pressure_us")
        if took_ns:
            held += [(100e3 * (later[name] - earlier[name]) / took_ns, str(name)) for name in earlier if name in later]
    found: dict[str, Any] = {}
    known = [fault for fault in faults if fault is not None]
    if known:
        found["major_faults"] = int(sum(known))
    if held:
        share, name = max(held)
        found["pressure"] = f"{share:.1f} % {name}"
    return found


def _told(waited: Sample) -> str | None:
    """A gate or a soak in words."""
    if not waited.get("asked"):
        return None
    passed = "unknown" if waited.get("passed") is None else "passed" if waited["passed"] else "not passed"
    took_s = waited.get("waited_s", waited.get("took_s", 0.0))
    slope, end_c = waited.get("slope_c_per_min"), waited.get("end_c")
    flat = f" at {end_c:.1f} C, {slope:+.2f} C a minute" if slope is not None and end_c is not None else ""
    detail = f": {waited['detail']}" if waited.get("detail") else ""
    return f"{passed} after {took_s:.0f} s{flat}{detail}"
