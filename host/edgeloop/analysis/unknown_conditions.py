"""What could not be read of a session's conditions: said in every verdict, and refused where it was declared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeloop.analysis import throttling
from edgeloop.analysis.condition_access import hottest_c, part, sample, timed
from edgeloop.core.measurement import Session
from edgeloop.core.plan import Environment

_ALWAYS_JUDGED = ("realtime_minus_monotonic_ns", "oom_kills", "swap_in_pages", "swap_out_pages", "boot_id")
_RESTART = "restart the board to clear it"


@dataclass(frozen=True, slots=True)
class UnknownCondition:
    """One thing that is not known. `declared_by`: what the environment declares about it, None where nothing."""

    key: str
    text: str
    declared_by: str | None = None
    next_step: str = ""

    @property
    def refusal(self) -> str:
        step = f"; {self.next_step}" if self.next_step else ""
        return f"{self.text}, and {self.declared_by} is declared{step}"


def unknown_of(session: Session, declared: Environment) -> Iterator[UnknownCondition]:
    """Yield what is not known of a session; a key may come twice, first as it was declared."""
    if declared.throttling == "forbid":
        yield from _throttling(session)
    if declared.under_voltage == "forbid":
        yield from _under_voltage(session)
    yield from _by_declaration(session, declared)
    before, after = sample(session, "before"), sample(session, "after")
    for key in _ALWAYS_JUDGED:
        if before.get(key) is None or after.get(key) is None:
            yield UnknownCondition(key, key)
    if not session.conditions.get("calibration_ns") and session.kind == "latency" and session.outcome == "ok":
        yield UnknownCondition("calibration_ns", "calibration_ns")
    if session.conditions.get("stand_in"):
        yield UnknownCondition(
            "stand_in", f"the board itself (its conditions were read under {session.conditions['stand_in']})"
        )
    for name in session.conditions.get("unknown") or ():
        yield UnknownCondition(str(name), str(name))


def _throttling(session: Session) -> Iterator[UnknownCondition]:
    declared_by = 'throttling = "forbid"'
    after = sample(session, "after")
    if not throttling.is_known(after):
        problem = after.get("firmware_problem")
        text = f"throttled ({problem})" if problem else "throttled"
        yield UnknownCondition("throttled", text, declared_by, 'declare "allow" where the board can\'t tell')
    hidden = throttling.hidden(session)
    if hidden:
        text = f"short throttling ({', '.join(sorted(hidden))} was set before, and hides it)"
        yield UnknownCondition("short throttling", text, declared_by, _RESTART)


def _under_voltage(session: Session) -> Iterator[UnknownCondition]:
    declared_by = 'under_voltage = "forbid"'
    before, after = sample(session, "before"), sample(session, "after")
    if after.get("under_voltage") is None:
        problem = after.get("firmware_problem")
        text = f"under_voltage ({problem})" if problem else "under_voltage"
        yield UnknownCondition("under_voltage", text, declared_by, 'declare "allow" where the board can\'t tell')
    if part(before, "under_voltage").get("sticky"):
        text = "short under-voltage (its flag was set before, and hides it)"
        yield UnknownCondition("short under-voltage", text, declared_by, _RESTART)


def _by_declaration(session: Session, declared: Environment) -> Iterator[UnknownCondition]:
    before, after = sample(session, "before"), sample(session, "after")
    timed_session = session.kind == "latency" and session.outcome == "ok"
    window = timed(session)
    if declared.clock == "fixed" and timed_session and not any(c.get("clock_mhz") for c in window):
        yield UnknownCondition("clock_mhz", "clock_mhz in the timed window", 'clock = "fixed"')
    if declared.throttling == "soak" and timed_session and all(hottest_c(c) is None for c in window):
        yield UnknownCondition("temperatures_c", "temperatures_c in the timed window", 'throttling = "soak"')
    if declared.governor != "as-found" and not after.get("governor"):
        yield UnknownCondition("governor", "governor", f'governor = "{declared.governor}"')
    if declared.foreign_load_max_pct is not None and after.get("foreign_load_pct") is None:
        limit = f"foreign_load_max_pct = {declared.foreign_load_max_pct:g}"
        yield UnknownCondition("foreign_load_pct", "foreign_load_pct", limit)
    if declared.start_temperature_max_c is not None and not before.get("temperatures_c"):
        limit = f"start_temperature_max_c = {declared.start_temperature_max_c:g}"
        yield UnknownCondition("temperatures_c", "temperatures_c", limit)
