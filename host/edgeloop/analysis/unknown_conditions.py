"""The conditions of a session that could not be read: said in every verdict, refused where they were declared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgeloop.analysis import throttling
from edgeloop.core.conditions import SessionConditions
from edgeloop.core.measurement import Session
from edgeloop.core.plan import Environment

_ALWAYS_JUDGED = ("realtime_minus_monotonic_ns", "oom_kills", "swap_in_pages", "swap_out_pages", "boot_id")
_RESTART = "restart the board to clear it"


@dataclass(frozen=True, slots=True)
class UnknownCondition:
    """One thing that is not known. `declared_by`: the environment's declaration about it, None where there is none."""

    key: str
    text: str
    declared_by: str | None = None
    next_step: str = ""

    @property
    def refusal(self) -> str:
        step = f"; {self.next_step}" if self.next_step else ""
        return f"{self.text}, and {self.declared_by} is declared{step}"


def unknown_of(session: Session, environment: Environment) -> Iterator[UnknownCondition]:
    """Yield the unknown conditions of a session; a key may come twice, first as it was environment."""
    conditions = session.conditions
    if environment.throttling == "forbid":
        yield from _throttling(conditions)
    if environment.under_voltage == "forbid":
        yield from _under_voltage(conditions)
    yield from _by_declaration(session, environment)
    for key in _ALWAYS_JUDGED:
        if getattr(conditions.before, key) is None or getattr(conditions.after, key) is None:
            yield UnknownCondition(key, key)
    if not conditions.calibration_ns and session.kind == "latency" and session.outcome == "ok":
        yield UnknownCondition("calibration_ns", "calibration_ns")
    if conditions.stand_in:
        yield UnknownCondition("stand_in", f"the board itself (its conditions were read under {conditions.stand_in})")
    for name in conditions.unknown:
        yield UnknownCondition(name, name)


def _throttling(conditions: SessionConditions) -> Iterator[UnknownCondition]:
    declared_by = 'throttling = "forbid"'
    after = conditions.after
    if not after.shows_throttling:
        problem = after.firmware_problem
        text = f"throttled ({problem})" if problem else "throttled"
        yield UnknownCondition("throttled", text, declared_by, 'declare "allow" where the board can\'t tell')
    flags = throttling.hiding_flags(conditions)
    if flags:
        text = f"short throttling ({', '.join(sorted(flags))} was set before, and hides it)"
        yield UnknownCondition("short throttling", text, declared_by, _RESTART)


def _under_voltage(conditions: SessionConditions) -> Iterator[UnknownCondition]:
    declared_by = 'under_voltage = "forbid"'
    before, after = conditions.before, conditions.after
    if after.supply is None:
        problem = after.firmware_problem
        text = f"under_voltage ({problem})" if problem else "under_voltage"
        yield UnknownCondition("under_voltage", text, declared_by, 'declare "allow" where the board can\'t tell')
    if before.supply is not None and before.supply.sticky:
        text = "short under-voltage (its flag was set before, and hides it)"
        yield UnknownCondition("short under-voltage", text, declared_by, _RESTART)


def _by_declaration(session: Session, environment: Environment) -> Iterator[UnknownCondition]:
    before, after, window = session.conditions.before, session.conditions.after, session.conditions.in_window
    timed_session = session.kind == "latency" and session.outcome == "ok"
    if environment.clock == "fixed" and timed_session and not any(sample.clock_mhz for sample in window):
        yield UnknownCondition("clock_mhz", "clock_mhz in the timed window", 'clock = "fixed"')
    if environment.throttling == "soak" and timed_session and all(sample.hottest_c is None for sample in window):
        yield UnknownCondition("temperatures_c", "temperatures_c in the timed window", 'throttling = "soak"')
    if environment.governor != "as-found" and not after.governor:
        yield UnknownCondition("governor", "governor", f'governor = "{environment.governor}"')
    if environment.foreign_load_max_pct is not None and after.foreign_load_pct is None:
        limit = f"foreign_load_max_pct = {environment.foreign_load_max_pct:g}"
        yield UnknownCondition("foreign_load_pct", "foreign_load_pct", limit)
    if environment.start_temperature_max_c is not None and not before.temperatures_c:
        limit = f"start_temperature_max_c = {environment.start_temperature_max_c:g}"
        yield UnknownCondition("temperatures_c", "temperatures_c", limit)
