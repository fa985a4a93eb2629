"""Reasons not to trust sessions: where they departed from the declared environment, each with its figure.

Less than ideal is not a reason: a board whose clock changes is a valid board unless a fixed clock was declared.
What could not be read is listed as unknown, never assumed; the qualification profile takes an unknown for a reason
where the environment declares something about it. The keys of conditions are those of docs/reference/agent.md; any of
them may be absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgeloop.analysis import throttling
from edgeloop.analysis.condition_access import Sample, change, hottest_c, neighbours, part, sample, samples, timed
from edgeloop.analysis.throttling import CLOCK_TOLERANCE
from edgeloop.analysis.unknown_conditions import UnknownCondition, unknown_of
from edgeloop.core.board import BoardEnvironment
from edgeloop.core.measurement import Session, Trust
from edgeloop.core.plan import Environment, ProfileName

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
SOAK_DRIFT_MAX_C = 5.0
"""A soaked board stays this near its soaked temperature in every timed window. Sensors of boards read in steps of half
a degree, and a core cools by a few degrees while the next session loads its model."""


def trust(
    sessions: Sequence[Session],
    environment: Environment,
    board_environment: BoardEnvironment,
    *,
    profile: ProfileName = "standard",
    emulated: bool = False,
) -> Trust:
    """Judge the conditions of all sessions of an attempt, of all subjects.

    Always a reason: a step of the clock, a memory kill, swap activity, a reboot. By declaration: throttling,
    under-voltage, clock, governor, foreign load, start temperature, a soak; what a campaign declares goes before what
    the board's file says. `qualification` refuses what is unknown about anything declared. The calibration loop of an
    `emulated` board times its host, whose load is no departure from anything: its drift is no reason there.
    """
    declared = environment.on(board_environment)
    reasons: list[str] = []
    unknown: dict[str, UnknownCondition] = {}
    boots = sorted({s.boot_id for s in sessions if s.boot_id})
    if len(boots) > 1:
        reasons.append(f"the board restarted: sessions ran under {len(boots)} boot ids")
    for session in sessions:
        where = f"session {session.index} ({session.label})"
        reasons += [f"{where}: {reason}" for reason in _always(session)]
        reasons += [f"{where}: {reason}" for reason in _declared(session, declared, emulated=emulated)]
        for found in unknown_of(session, declared):
            if unknown.get(found.key) is None or unknown[found.key].declared_by is None:
                unknown[found.key] = found
        if _shared_core(session):
            unknown["calibration"] = UnknownCondition("calibration", "calibration (others used the measuring cores)")
    for earlier, later in neighbours(sessions):
        where = f"between sessions {earlier.index} and {later.index}"
        reasons += [f"{where}: {reason}" for reason in _between(earlier, later, declared)]
    if declared.clock == "fixed":
        reasons += _slower_than_the_fastest(sessions)
    if sessions:
        reasons += _start(sessions[0], environment, board_environment)
    unknown |= {found.key: found for found in _governor_left_alone(sessions, declared)}
    if profile == "qualification":
        reasons += [f"not known: {found.refusal}" for found in unknown.values() if found.declared_by is not None]
    return Trust(valid=not reasons, reasons=tuple(reasons), unknown=tuple(sorted(u.text for u in unknown.values())))


def _always(session: Session) -> Iterator[str]:
    before, after = sample(session, "before"), sample(session, "after")
    yield from _clock_step(samples(session))
    killed = change(before, after, "oom_kills")
    if killed:
        yield f"the kernel killed {killed:g} process(es) for want of memory"
    swapped = [change(before, after, key) for key in ("swap_in_pages", "swap_out_pages")]
    pages = sum(p for p in swapped if p is not None)
    if pages > SWAP_PAGES_MAX:
        yield f"{pages:g} pages were swapped, {SWAP_PAGES_MAX} are let pass"
    boots = {c["boot_id"] for c in (before, after) if c.get("boot_id")}
    if len(boots) > 1:
        yield "the board restarted meanwhile"


def _clock_step(seen: Sequence[Sample]) -> Iterator[str]:
    """How far any sample is from the first: a clock that is set and set back did step."""
    steps = (change(seen[0], c, "realtime_minus_monotonic_ns") for c in seen)
    stepped = max((step for step in steps if step is not None), key=abs, default=0.0) / 1e6
    if abs(stepped) > CLOCK_STEP_MAX_MS:
        yield f"the clock was set by {stepped:+.0f} ms"


def _declared(session: Session, declared: Environment, *, emulated: bool) -> Iterator[str]:
    if declared.throttling == "forbid":
        yield from throttling.signs(session, declared.expected_clock_mhz)
    if declared.throttling == "forbid" or declared.clock == "fixed":
        yield from throttling.lying_clock(session)
    if declared.throttling == "soak":
        yield from _soak(session)
    if declared.under_voltage == "forbid":
        yield from throttling.under_voltage(session)
    if declared.clock == "fixed":
        yield from _clock_moved(session, declared.expected_clock_mhz)
    if not emulated:
        yield from _calibration(session, declared)
    if declared.governor != "as-found":
        yield from _governor(session, declared.governor)
    yield from _foreign_load(session, declared.foreign_load_max_pct)


def _between(earlier: Session, later: Session, declared: Environment) -> Iterator[str]:
    """What happened while no session ran: the next one began in what it left."""
    before, after = sample(earlier, "after"), sample(later, "before")
    yield from _clock_step([before, after])
    killed = change(before, after, "oom_kills")
    if killed:
        yield f"the kernel killed {killed:g} process(es) for want of memory"
    if declared.throttling == "forbid":
        new = throttling.new_flags(before, after)
        if new:
            yield f"throttled: {', '.join(sorted(new))}"
        yield from throttling.counted(before, after)
    if declared.under_voltage == "forbid" and throttling.new_under_voltage(before, after):
        yield "under-voltage; look at its power supply"


def _soak(session: Session) -> Iterator[str]:
    soak = part(session.conditions, "soak")
    if not soak.get("asked"):
        yield 'the board was not soaked, throttling = "soak" is declared'
        return
    if soak.get("passed") is not True:
        yield f"soaking did not end: {soak.get('detail') or 'no detail'}"
        return
    soaked, seen = soak.get("end_c"), [c for c in map(hottest_c, timed(session)) if c is not None]
    if session.kind != "latency" or soaked is None or not seen:
        return
    furthest = max(seen, key=lambda celsius: abs(celsius - soaked))
    if abs(furthest - soaked) > SOAK_DRIFT_MAX_C:
        idle_s = session.conditions.get("idle_before_s")
        idle = "" if idle_s is None else f", after {idle_s:.1f} s without load"
        yield (
            f"it was at {furthest:.1f} C in the timed window{idle}, soaked at {soaked:.1f} C; "
            f"{SOAK_DRIFT_MAX_C:g} C are let pass"
        )


def _clock_moved(session: Session, expected_mhz: float | None) -> Iterator[str]:
    """Inside the timed window only: a clock that rests between sessions hurts nobody."""
    clocks = [float(mhz) for c in timed(session) for mhz in part(c, "clock_mhz").values()]
    clocks += [float(c["clock_firmware_mhz"]) for c in timed(session) if c.get("clock_firmware_mhz") is not None]
    if not clocks:
        return
    low, high = min(clocks), max(clocks)
    if expected_mhz is not None and low < expected_mhz * (1 - CLOCK_TOLERANCE):
        yield f"the clock fell to {low:g} MHz, {expected_mhz:g} MHz is expected"
    elif low < high * (1 - CLOCK_TOLERANCE):
        yield f"the clock is declared fixed and moved between {low:g} and {high:g} MHz"


def _calibration(session: Session, declared: Environment) -> Iterator[str]:
    """A free clock may rise, and where throttling is allowed it may fall: then drift is recorded, not judged."""
    drift = calibration_drift(session)
    if drift is None or _shared_core(session) or (declared.clock == "free" and declared.throttling != "forbid"):
        return
    if drift > CALIBRATION_DRIFT_MAX or (declared.clock == "fixed" and drift < 1 / CALIBRATION_DRIFT_MAX):
        yield (
            f"a fixed piece of work took {drift:.2f} times as long at the end as at the start, "
            f"{CALIBRATION_DRIFT_MAX:g} is let pass{_while_the_kernel_says(session)}"
        )


def _while_the_kernel_says(session: Session) -> str:
    clocks = {float(mhz) for c in timed(session) for mhz in part(c, "clock_mhz").values()}
    return f"; the kernel says that the clock stood at {min(clocks):g} MHz" if len(clocks) == 1 else ""


def calibration_drift(session: Session) -> float | None:
    """Return end over start of the calibration loop; None where it did not run."""
    pair = session.conditions.get("calibration_ns")
    if not pair or len(pair) != 2 or not all(pair):
        return None
    return float(pair[1]) / float(pair[0])


def _slower_than_the_fastest(sessions: Sequence[Session]) -> Iterator[str]:
    """A session that was slow from start to end shows beside the others: its clock was not theirs."""
    best = {
        s.index: min(map(float, s.conditions["calibration_ns"]))
        for s in sessions
        if calibration_drift(s) is not None and not _shared_core(s)
    }
    fastest = min(best.values(), default=0.0)
    for index, taken in best.items():
        if taken > fastest * CALIBRATION_DRIFT_MAX:
            yield (
                f"session {index}: a fixed piece of work took {taken / fastest:.2f} times as long as in the fastest "
                f"session, {CALIBRATION_DRIFT_MAX:g} is let pass"
            )


def _shared_core(session: Session) -> bool:
    return (sample(session, "after").get("foreign_load_pct") or 0.0) > CALIBRATION_FOREIGN_MAX_PCT


def _governor(session: Session, wanted: str) -> Iterator[str]:
    seen = samples(session)
    strange = [(core, str(name)) for c in seen for core, name in part(c, "governor").items() if name != wanted]
    if not strange:
        return
    names, cores = sorted({name for _, name in strange}), sorted({core for core, _ in strange}, key=str)
    said = part(session.conditions, "governor")
    why = f" ({said['detail']})" if said.get("set") is False and said.get("detail") else ""
    if said.get("set") is True:
        why = f" ({sum(_departs(c, wanted) for c in seen)} of {len(seen)} looks): somebody else changed it"
    yield f"governor {', '.join(names)} was in force on core {', '.join(cores)}{why}, {wanted} is declared"


def _departs(of: Sample, wanted: str) -> bool:
    return any(name != wanted for name in part(of, "governor").values())


def _governor_left_alone(sessions: Sequence[Session], declared: Environment) -> Iterator[UnknownCondition]:
    """As found is as found: where it changed while we measured, nobody can say which one the figures belong to."""
    if declared.governor != "as-found":
        return
    first: Mapping[str, str] | None = None
    for session in sessions:
        for seen in samples(session):
            now = part(seen, "governor")
            if first is None and now:
                first = now
            elif first is not None and now and dict(now) != dict(first):
                core = next(c for c in {**first, **now} if first.get(c) != now.get(c))
                yield UnknownCondition(
                    "governor",
                    f"governor (somebody changed it from {first.get(core)} to {now.get(core)} on core {core}, "
                    f"session {session.index})",
                    'governor = "as-found"',
                )
                return


def _foreign_load(session: Session, allowed_pct: float | None) -> Iterator[str]:
    if allowed_pct is None:
        return
    over_session = sample(session, "after").get("foreign_load_pct")
    if over_session is not None and over_session > allowed_pct:
        names = dict.fromkeys(str(n) for c in samples(session) for n in c.get("foreign_top") or ())
        who = f" ({', '.join(list(names)[:3])})" if names else ""
        yield f"others took {over_session:.1f} % of the measuring cores{who}, {allowed_pct:g} % is declared"


def _start(first: Session, environment: Environment, board: BoardEnvironment) -> Iterator[str]:
    gate = part(first.conditions, "gate")
    # What the board's file says is what the gate waits for; without a gate nothing was promised. A soak makes it warm.
    allowed = environment.start_temperature_max_c or (board.start_temperature_max_c if gate.get("asked") else None)
    zones = part(sample(first, "before"), "temperatures_c")
    if allowed is not None and zones and environment.throttling != "soak":
        zone, hottest = max(zones.items(), key=lambda item: float(item[1]))
        if hottest > allowed:
            yield f"started at {hottest:.1f} C ({zone}), at most {allowed:g} C is declared"
    if gate.get("asked") and gate.get("passed") is False:
        yield f"the board did not come to rest in {gate.get('waited_s', 0):g} s: {gate.get('detail') or 'no detail'}"
