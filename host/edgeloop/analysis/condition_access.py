"""The samples of conditions in a session's record; any key may be absent: older agents, boards that say little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

from edgeloop.core.measurement import Session

Sample = Mapping[str, Any]


def sample(session: Session, when: Literal["before", "after"]) -> Sample:
    found = session.conditions.get(when)
    return found if isinstance(found, Mapping) else {}


def during(session: Session) -> list[Sample]:
    return [c for c in session.conditions.get("during") or () if isinstance(c, Mapping)]


def timed(session: Session) -> list[Sample]:
    """Samples inside the timed window; an agent that does not say which counts them all."""
    return [c for c in during(session) if c.get("timed", True)]


def samples(session: Session) -> list[Sample]:
    """All of a session, in order of time; empty ones are left out."""
    return [c for c in (sample(session, "before"), *during(session), sample(session, "after")) if c]


def neighbours(sessions: Sequence[Session]) -> Iterator[tuple[Session, Session]]:
    """Each session with the one that ran next, on one boot."""
    ordered = sorted(sessions, key=lambda s: s.index)
    return ((a, b) for a, b in pairwise(ordered) if a.boot_id == b.boot_id)


def part(conditions: Sample, name: str) -> Mapping[str, Any]:
    """One of the dictionaries in a sample or record, empty where there is none."""
    found = conditions.get(name)
    return found if isinstance(found, Mapping) else {}


def change(before: Sample, after: Sample, key: str) -> float | None:
    start, end = before.get(key), after.get(key)
    return None if start is None or end is None else float(end) - float(start)


def hottest_c(of: Sample) -> float | None:
    return max((float(celsius) for celsius in part(of, "temperatures_c").values()), default=None)
