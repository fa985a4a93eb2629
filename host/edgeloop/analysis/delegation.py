"""What a delegate took of a network, and whether that is the share that it was declared to take.

The board counts the operators of the file that it was given. Where a compiler made one operator of several, the share
is of the network before that: what was left over is what the delegate does not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeloop.analysis.condition_access import part
from edgeloop.core.measurement import Delegation, Session, Subject


def delegation_of(session: Session, subject: Subject) -> Delegation | None:
    """What the delegate took in one session; None where none was asked for, or the session does not tell."""
    told = part(session.conditions, "delegate")
    if subject.delegate is None or told.get("name") != subject.delegate.name:
        return None
    left = int(told["operators"]) - int(told["taken"])
    operators = subject.artifact.compiled_operators or int(told["operators"])
    return Delegation(
        name=subject.delegate.name, operators=operators, taken=max(operators - left, 0), pieces=int(told["pieces"])
    )


def least_taken(sessions: Sequence[Session], subject: Subject) -> Delegation | None:
    """The least of all sessions."""
    found = [one for session in sessions if (one := delegation_of(session, subject)) is not None]
    return min(found, key=lambda one: one.taken_pct, default=None)


def short_of_share(sessions: Sequence[Session], subjects: Sequence[Subject]) -> list[str]:
    """A reason for each subject whose delegate did not take its share, or of which that is not known."""
    delegated = {subject.label: subject for subject in subjects if subject.delegate is not None}
    reasons = [
        reason
        for session in sessions
        if session.outcome == "ok" and session.label in delegated
        for reason in _short(session, delegated[session.label])
    ]
    return list(dict.fromkeys(reasons))


def _short(session: Session, subject: Subject) -> Iterator[str]:
    assert subject.delegate is not None, "only such subjects are asked for"
    found, wanted_pct = delegation_of(session, subject), subject.delegate.ops_delegated_min_pct
    if found is None:
        yield f"{subject.label}: the board does not tell what the delegate {subject.delegate.name} took"
    elif found.taken_pct < wanted_pct:
        yield f"{subject.label}: the delegate {found} ({found.taken_pct:.0f} %), at least {wanted_pct:g} % is declared"
