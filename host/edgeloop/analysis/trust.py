"""Reasons not to trust sessions: where they departed from the declared environment, each with its figure.

Less than ideal is not a reason: a board whose clock changes is a valid board unless a fixed clock was declared.
What could not be read is listed as unknown, never assumed; the qualification profile takes an unknown for a reason
where the environment declares something about it. The keys of conditions are those of docs/reference/agent.md; any of
them may be absent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from edgeloop.analysis import throttling
from edgeloop.analysis.conditions import difference
from edgeloop.analysis.throttling import CLOCK_TOLERANCE
from edgeloop.analysis.unknown_conditions import UnknownCondition, unknown_of
from edgeloop.core.board import BoardEnvironment
from edgeloop.core.conditions import ConditionSample, SessionConditions
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
    the board's file says. `qualification` refuses what is unknown about anything effective. The calibration loop of an
    `emulated` board times its host, whose load is no departure from anything: its drift is no reason there.
    """
    effective = environment.on(board_environment)
    reasons: list[str] = []
    unknown: dict[str, UnknownCondition] = {}
    boots = sorted({s.boot_id for s in sessions if s.boot_id})
    if len(boots) > 1:
        reasons.append(f"the board restarted: sessions ran under {len(boots)} boot ids")
    for session in sessions:
        where = f"session {session.index} ({session.label})"
        reasons += [f"{where}: {reason}" for reason in _always(session.conditions)]
        reasons += [f"{where}: {reason}" for reason in _by_declaration(session, effective, emulated=emulated)]
        for condition in unknown_of(session, effective):
            if unknown.get(condition.key) is None or unknown[condition.key].declared_by is None:
                unknown[condition.key] = condition
        if _shared_core(session.conditions):
            unknown["calibration"] = UnknownCondition("calibration", "calibration (others used the measuring cores)")
    for earlier, later in _neighbours(sessions):
        where = f"between sessions {earlier.index} and {later.index}"
        reasons += [
            f"{where}: {reason}" for reason in _between(earlier.conditions.after, later.conditions.before, effective)
        ]
    if effective.clock == "fixed":
        reasons += _slower_than_the_fastest(sessions)
    if sessions:
        reasons += _start(sessions[0].conditions, environment, board_environment)
    unknown |= {condition.key: condition for condition in _governor_left_alone(sessions, effective)}
    if profile == "qualification":
        reasons += [f"not known: {each.refusal}" for each in unknown.values() if each.declared_by is not None]
    return Trust(valid=not reasons, reasons=tuple(reasons), unknown=tuple(sorted(u.text for u in unknown.values())))


def _always(conditions: SessionConditions) -> Iterator[str]:
    before, after = conditions.before, conditions.after
    yield from _clock_step(conditions.samples)
    yield from _memory_kills(before, after)
    pages = (difference(before.swap_in_pages, after.swap_in_pages) or 0.0) + (
        difference(before.swap_out_pages, after.swap_out_pages) or 0.0
    )
    if pages > SWAP_PAGES_MAX:
        yield f"{pages:g} pages were swapped, {SWAP_PAGES_MAX} are let pass"
    boots = {sample.boot_id for sample in (before, after) if sample.boot_id}
    if len(boots) > 1:
        yield "the board restarted meanwhile"


def _memory_kills(before: ConditionSample, after: ConditionSample) -> Iterator[str]:
    kills = difference(before.oom_kills, after.oom_kills)
    if kills:
        yield f"the kernel killed {kills:g} process(es) for want of memory"


def _clock_step(samples: Sequence[ConditionSample]) -> Iterator[str]:
    """The furthest that a sample is from the first: a clock that is set and set back did step."""
    steps = (
        difference(samples[0].realtime_minus_monotonic_ns, sample.realtime_minus_monotonic_ns) for sample in samples
    )
    step_ms = max((step for step in steps if step is not None), key=abs, default=0.0) / 1e6
    if abs(step_ms) > CLOCK_STEP_MAX_MS:
        yield f"the clock was set by {step_ms:+.0f} ms"


def _by_declaration(session: Session, environment: Environment, *, emulated: bool) -> Iterator[str]:
    conditions = session.conditions
    if environment.throttling == "forbid":
        yield from throttling.signs(conditions, environment.expected_clock_mhz)
    if environment.throttling == "forbid" or environment.clock == "fixed":
        yield from throttling.lying_clock(conditions)
    if environment.throttling == "soak":
        yield from _soak(session)
    if environment.under_voltage == "forbid":
        yield from throttling.under_voltage(conditions)
    if environment.clock == "fixed":
        yield from _clock_moved(conditions, environment.expected_clock_mhz)
    if not emulated:
        yield from _calibration(conditions, environment)
    if environment.governor != "as-found":
        yield from _governor(conditions, environment.governor)
    yield from _foreign_load(conditions, environment.foreign_load_max_pct)


def _neighbours(sessions: Sequence[Session]) -> Iterator[tuple[Session, Session]]:
    """Each session with the one that ran next, on one boot."""
    in_order = sorted(sessions, key=lambda session: session.index)
    return ((first, second) for first, second in pairwise(in_order) if first.boot_id == second.boot_id)


def _between(before: ConditionSample, after: ConditionSample, environment: Environment) -> Iterator[str]:
    """The events while no session ran: the next one began in their wake."""
    yield from _clock_step([before, after])
    yield from _memory_kills(before, after)
    if environment.throttling == "forbid":
        new = throttling.new_flags(before, after)
        if new:
            yield f"throttled: {', '.join(sorted(new))}"
        yield from throttling.counter_growth(before, after)
    if environment.under_voltage == "forbid" and throttling.new_under_voltage(before, after):
        yield "under-voltage; look at its power supply"


def _soak(session: Session) -> Iterator[str]:
    soak = session.conditions.soak
    if not soak.applies:
        yield 'the board was not soaked, throttling = "soak" is declared'
        return
    if soak.has_passed is not True:
        yield f"soaking did not end: {soak.detail or 'no detail'}"
        return
    end_c = soak.end_c
    hottest = [sample.hottest_c for sample in session.conditions.in_window if sample.hottest_c is not None]
    if session.kind != "latency" or end_c is None or not hottest:
        return
    furthest = max(hottest, key=lambda celsius: abs(celsius - end_c))
    if abs(furthest - end_c) > SOAK_DRIFT_MAX_C:
        idle_s = session.conditions.idle_before_s
        idle = "" if idle_s is None else f", after {idle_s:.1f} s without load"
        yield (
            f"it was at {furthest:.1f} C in the timed window{idle}, soaked at {end_c:.1f} C; "
            f"{SOAK_DRIFT_MAX_C:g} C are let pass"
        )


def _clock_moved(conditions: SessionConditions, expected_mhz: float | None) -> Iterator[str]:
    """Inside the timed window only: a clock that rests between sessions hurts nobody."""
    window = conditions.in_window
    clocks = [float(mhz) for sample in window for mhz in sample.clock_mhz.values()]
    clocks += [float(sample.clock_firmware_mhz) for sample in window if sample.clock_firmware_mhz is not None]
    if not clocks:
        return
    low, high = min(clocks), max(clocks)
    if expected_mhz is not None and low < expected_mhz * (1 - CLOCK_TOLERANCE):
        yield f"the clock fell to {low:g} MHz, {expected_mhz:g} MHz is expected"
    elif low < high * (1 - CLOCK_TOLERANCE):
        yield f"the clock is declared fixed and moved between {low:g} and {high:g} MHz"


def _calibration(conditions: SessionConditions, environment: Environment) -> Iterator[str]:
    """A free clock may rise, and where throttling is allowed it may fall: then drift is recorded, not judged."""
    loops = _loops_ns(conditions)
    if (
        loops is None
        or _shared_core(conditions)
        or (environment.clock == "free" and environment.throttling != "forbid")
    ):
        return
    drift = loops[1] / loops[0]
    if drift > CALIBRATION_DRIFT_MAX or (environment.clock == "fixed" and drift < 1 / CALIBRATION_DRIFT_MAX):
        yield (
            f"a fixed piece of work took {drift:.2f} times as long at the end as at the start, "
            f"{CALIBRATION_DRIFT_MAX:g} is let pass{_while_the_kernel_says(conditions)}"
        )


def _while_the_kernel_says(conditions: SessionConditions) -> str:
    clocks = {float(mhz) for sample in conditions.in_window for mhz in sample.clock_mhz.values()}
    return f"; the kernel says that the clock stood at {min(clocks):g} MHz" if len(clocks) == 1 else ""


def _loops_ns(conditions: SessionConditions) -> tuple[float, float] | None:
    """The calibration loop at the start and at the end; None where one of them did not run."""
    match conditions.calibration_ns:
        case (start, end) if start and end:
            return float(start), float(end)
    return None


def _slower_than_the_fastest(sessions: Sequence[Session]) -> Iterator[str]:
    """A session that was slow from start to end shows beside the others: its clock was not theirs."""
    best = {
        session.index: min(loops)
        for session in sessions
        if (loops := _loops_ns(session.conditions)) is not None and not _shared_core(session.conditions)
    }
    fastest_ns = min(best.values(), default=0.0)
    for index, loop_ns in best.items():
        if loop_ns > fastest_ns * CALIBRATION_DRIFT_MAX:
            yield (
                f"session {index}: a fixed piece of work took {loop_ns / fastest_ns:.2f} times as long as in the "
                f"fastest session, {CALIBRATION_DRIFT_MAX:g} is let pass"
            )


def _shared_core(conditions: SessionConditions) -> bool:
    return (conditions.after.foreign_load_pct or 0.0) > CALIBRATION_FOREIGN_MAX_PCT


def _governor(conditions: SessionConditions, name: str) -> Iterator[str]:
    samples = conditions.samples
    strange = [(core, other) for sample in samples for core, other in sample.governor.items() if other != name]
    if not strange:
        return
    names, cores = sorted({other for _, other in strange}), sorted({core for core, _ in strange})
    setting, why = conditions.governor, ""
    if setting.is_set is False and setting.detail:
        why = f" ({setting.detail})"
    elif setting.is_set is True:
        looks = sum(any(other != name for other in sample.governor.values()) for sample in samples)
        why = f" ({looks} of {len(samples)} looks): somebody else changed it"
    yield f"governor {', '.join(names)} was in force on core {', '.join(cores)}{why}, {name} is declared"


def _governor_left_alone(sessions: Sequence[Session], environment: Environment) -> Iterator[UnknownCondition]:
    """As found is as found: where it changed while we measured, nobody can say which one the figures belong to."""
    if environment.governor != "as-found":
        return
    first: dict[str, str] | None = None
    for session in sessions:
        for sample in session.conditions.samples:
            now = sample.governor
            if first is None and now:
                first = now
            elif first is not None and now and now != first:
                core = next(core for core in {**first, **now} if first.get(core) != now.get(core))
                yield UnknownCondition(
                    "governor",
                    f"governor (somebody changed it from {first.get(core)} to {now.get(core)} on core {core}, "
                    f"session {session.index})",
                    'governor = "as-found"',
                )
                return


def _foreign_load(conditions: SessionConditions, allowed_pct: float | None) -> Iterator[str]:
    if allowed_pct is None:
        return
    over_session = conditions.after.foreign_load_pct
    if over_session is not None and over_session > allowed_pct:
        names = dict.fromkeys(name for sample in conditions.samples for name in sample.foreign_top)
        who = f" ({', '.join(list(names)[:3])})" if names else ""
        yield f"others took {over_session:.1f} % of the measuring cores{who}, {allowed_pct:g} % is declared"


def _start(first: SessionConditions, environment: Environment, board: BoardEnvironment) -> Iterator[str]:
    gate, zones = first.gate, first.before.temperatures_c
    # The gate waits for the limit of the board's file; without a gate nothing was promised. A soak makes it warm.
    limit_c = environment.start_temperature_max_c or (board.start_temperature_max_c if gate.applies else None)
    if limit_c is not None and zones and environment.throttling != "soak":
        zone, hottest = max(zones.items(), key=lambda item: float(item[1]))
        if hottest > limit_c:
            yield f"started at {hottest:.1f} C ({zone}), at most {limit_c:g} C is declared"
    if gate.applies and gate.has_passed is False:
        yield f"the board did not come to rest in {gate.waited_s:g} s: {gate.detail or 'no detail'}"
