"""Reasons not to trust sessions: where they departed from the declared environment, each with its figure.

Less than ideal is not a reason: a board whose clock changes is a valid board unless a fixed clock was declared.
What could not be read is listed as unknown, never assumed. The keys of conditions are those of
docs/reference/agent.md; any of them may be absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgeloop.core.board import BoardEnvironment
from edgeloop.core.measurement import Session, Trust
from edgeloop.core.plan import Environment

CLOCK_STEP_MAX_MS = 50.0
"""NTP's slewing moves CLOCK_MONOTONIC along and leaves the difference to CLOCK_REALTIME as it is, so any honest
difference is the pause between reading the two: far under 50 ms even on a crowded virtual machine."""
SWAP_PAGES_MAX = 256
"""Pages in and out during a session. The counters are the whole board's; an idle daemon that is fetched back (1 MiB)
does not slow a model down, thrashing moves thousands."""
CALIBRATION_DRIFT_MAX = 1.8
"""End over start of the calibration loop, around the timed window. A processor that halves its clock doubles it; a
virtual machine whose core shares its silicon with a neighbour's was seen to reach 1.6."""
CALIBRATION_FOREIGN_MAX_PCT = 10.0
"""Over this foreign load the loop shared its core: it then says nothing about the board's own speed. Loaded five-fold,
a machine with two cores showed drifts from 0.2 to 4 that way. Whether that load is allowed is declared elsewhere."""
CLOCK_TOLERANCE = 0.02
"""A fixed clock reads as steady within this share: firmware and kernel round differently."""

Conditions = Mapping[str, Any]


def trust(sessions: Sequence[Session], environment: Environment, board_environment: BoardEnvironment) -> Trust:
    """Judge the conditions of all sessions of an attempt, of all subjects.

    Always a reason: a step of the clock, a memory kill, swap activity, a reboot, a calibration loop that slowed
    down. By declaration: throttling, clock, governor, foreign load, start temperature; what a campaign declares goes
    before what the board's file says.
    """
    reasons: list[str] = []
    unknown: dict[str, None] = {}
    boots = sorted({s.boot_id for s in sessions if s.boot_id})
    if len(boots) > 1:
        reasons.append(f"the board restarted: sessions ran under {len(boots)} boot ids")
    for session in sessions:
        where = f"session {session.index} ({session.label})"
        reasons += [f"{where}: {reason}" for reason in _always(session)]
        reasons += [f"{where}: {reason}" for reason in _declared(session, environment, board_environment)]
        unknown |= dict.fromkeys(_unknown(session, environment))
    if sessions:
        reasons += _start(sessions[0], environment, board_environment)
    return Trust(valid=not reasons, reasons=tuple(reasons), unknown=tuple(sorted(unknown)))


def _always(session: Session) -> Iterator[str]:
    before, after = _sample(session, "before"), _sample(session, "after")
    stepped = _change(before, after, "realtime_minus_monotonic_ns")
    if stepped is not None and abs(stepped) / 1e6 > CLOCK_STEP_MAX_MS:
        yield f"the clock was set by {stepped / 1e6:+.0f} ms"
    killed = _change(before, after, "oom_kills")
    if killed:
        yield f"the kernel killed {killed:g} process(es) for want of memory"
    swapped = [_change(before, after, key) for key in ("swap_in_pages", "swap_out_pages")]
    pages = sum(p for p in swapped if p is not None)
    if pages > SWAP_PAGES_MAX:
        yield f"{pages:g} pages were swapped, {SWAP_PAGES_MAX} are let pass"
    boots = {c["boot_id"] for c in (before, after) if c.get("boot_id")}
    if len(boots) > 1:
        yield "the board restarted meanwhile"


def _declared(session: Session, environment: Environment, board: BoardEnvironment) -> Iterator[str]:
    if environment.throttling == "forbid":
        yield from _throttled(session)
    if environment.clock == "fixed":
        yield from _clock_moved(session, environment.expected_clock_mhz or board.expected_clock_mhz)
    yield from _calibration(session, environment)
    if environment.governor != "as-found":
        found = {str(g) for c in _samples(session) for g in (c.get("governor") or {}).values()}
        strange = sorted(found - {environment.governor})
        if strange:
            yield f"governor {', '.join(strange)} was in force, {environment.governor} is declared"
    yield from _foreign_load(session, environment.foreign_load_max_pct)


def _throttled(session: Session) -> Iterator[str]:
    before = _throttle(_sample(session, "before"), "sticky")
    now = {name for sample in _samples(session) for name in _throttle(sample, "now")}
    new = _throttle(_sample(session, "after"), "sticky") - before
    if now | new:
        yield f"throttled: {', '.join(sorted(now | new))}"


def _clock_moved(session: Session, expected_mhz: float | None) -> Iterator[str]:
    """Inside the timed window only: a clock that rests between sessions hurts nobody."""
    clocks = [float(mhz) for c in _timed(session) for mhz in (c.get("clock_mhz") or {}).values()]
    clocks += [float(c["clock_firmware_mhz"]) for c in _timed(session) if c.get("clock_firmware_mhz") is not None]
    if not clocks:
        return
    low, high = min(clocks), max(clocks)
    if expected_mhz is not None and low < expected_mhz * (1 - CLOCK_TOLERANCE):
        yield f"the clock fell to {low:g} MHz, {expected_mhz:g} MHz is expected"
    elif low < high * (1 - CLOCK_TOLERANCE):
        yield f"the clock is declared fixed and moved between {low:g} and {high:g} MHz"


def _calibration(session: Session, environment: Environment) -> Iterator[str]:
    """A free clock may rise, and where throttling is allowed it may fall: then drift is recorded, not judged."""
    drift = calibration_drift(session)
    if drift is None or _shared_core(session) or (environment.clock == "free" and environment.throttling == "allow"):
        return
    if drift > CALIBRATION_DRIFT_MAX or (environment.clock == "fixed" and drift < 1 / CALIBRATION_DRIFT_MAX):
        yield (
            f"a fixed piece of work took {drift:.2f} times as long at the end as at the start, "
            f"{CALIBRATION_DRIFT_MAX:g} is let pass"
        )


def calibration_drift(session: Session) -> float | None:
    """Return end over start of the calibration loop; None where it did not run."""
    pair = session.conditions.get("calibration_ns")
    if not pair or len(pair) != 2 or not all(pair):
        return None
    return float(pair[1]) / float(pair[0])


def _shared_core(session: Session) -> bool:
    return (_sample(session, "after").get("foreign_load_pct") or 0.0) > CALIBRATION_FOREIGN_MAX_PCT


def _foreign_load(session: Session, allowed_pct: float | None) -> Iterator[str]:
    if allowed_pct is None:
        return
    over_session = _sample(session, "after").get("foreign_load_pct")
    if over_session is not None and over_session > allowed_pct:
        names = dict.fromkeys(str(n) for c in _samples(session) for n in c.get("foreign_top") or ())
        who = f" ({', '.join(list(names)[:3])})" if names else ""
        yield f"others took {over_session:.1f} % of the measuring cores{who}, {allowed_pct:g} % is declared"


def _start(first: Session, environment: Environment, board: BoardEnvironment) -> Iterator[str]:
    gate = first.conditions.get("gate") or {}
    # What the board's file says is what the gate waits for; without a gate nothing was promised.
    allowed = environment.start_temperature_max_c or (board.start_temperature_max_c if gate.get("asked") else None)
    zones = _sample(first, "before").get("temperatures_c") or {}
    if allowed is not None and zones:
        zone, hottest = max(zones.items(), key=lambda item: float(item[1]))
        if hottest > allowed:
            yield f"started at {hottest:.1f} C ({zone}), at most {allowed:g} C is declared"
    if gate.get("asked") and gate.get("passed") is False:
        yield f"the board did not come to rest in {gate.get('waited_s', 0):g} s: {gate.get('detail') or 'no detail'}"


def _unknown(session: Session, environment: Environment) -> Iterator[str]:
    conditions = session.conditions
    yield from (str(name) for name in conditions.get("unknown") or ())
    before, after = _sample(session, "before"), _sample(session, "after")
    for key in ("realtime_minus_monotonic_ns", "oom_kills", "swap_in_pages", "swap_out_pages", "boot_id"):
        if before.get(key) is None or after.get(key) is None:
            yield key
    if not conditions.get("calibration_ns") and session.kind == "latency" and session.outcome == "ok":
        yield "calibration_ns"
    elif _shared_core(session):
        yield "calibration (others used the measuring cores)"
    if environment.throttling == "forbid":
        if after.get("throttled") is None:
            yield "throttled"
        elif _throttle(before, "sticky"):
            yield f"short throttling since boot ({', '.join(sorted(_throttle(before, 'sticky')))} was set before)"
    if environment.clock == "fixed" and not any(c.get("clock_mhz") for c in _timed(session)):
        yield "clock_mhz"
    if environment.governor != "as-found" and not after.get("governor"):
        yield "governor"
    if environment.foreign_load_max_pct is not None and after.get("foreign_load_pct") is None:
        yield "foreign_load_pct"


def _sample(session: Session, when: str) -> Conditions:
    found = session.conditions.get(when)
    return found if isinstance(found, Mapping) else {}


def _during(session: Session) -> list[Conditions]:
    return [c for c in session.conditions.get("during") or () if isinstance(c, Mapping)]


def _timed(session: Session) -> list[Conditions]:
    """Samples inside the timed window; an agent that does not say which counts them all."""
    return [c for c in _during(session) if c.get("timed", True)]


def _samples(session: Session) -> list[Conditions]:
    return [_sample(session, "before"), *_during(session), _sample(session, "after")]


def _throttle(sample: Conditions, which: str) -> set[str]:
    flags = sample.get("throttled")
    return set(flags.get(which) or ()) if isinstance(flags, Mapping) else set()


def _change(before: Conditions, after: Conditions, key: str) -> float | None:
    start, end = before.get(key), after.get(key)
    return None if start is None or end is None else float(end) - float(start)
