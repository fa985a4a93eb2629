"""The share of a network that a delegate took, beside the share that it was declared to take.

The board counts the operators of the file that it was given. Where a compiler made one operator of several, the share
is of the network before that: what was left over is what the delegate does not run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeloop.core.measurement import Delegation, Session, Subject


def delegation_of(session: Session, subject: Subject) -> Delegation | None:
    """The delegate's share in one session; None where none was asked for, or the session does not tell."""
    count = session.conditions.delegate
    if subject.delegate is None or count is None or count.name != subject.delegate.name:
        return None
    rest = count.operators - count.operators_taken
    operators = subject.artifact.compiled_operators or count.operators
    return Delegation(
        name=subject.delegate.name, operators=operators, taken=max(operators - rest, 0), pieces=count.pieces
    )


def least_taken(sessions: Sequence[Session], subject: Subject) -> Delegation | None:
    """The least of all sessions."""
    delegations = [one for session in sessions if (one := delegation_of(session, subject)) is not None]
    return min(delegations, key=lambda one: one.taken_pct, default=None)


def short_of_share(sessions: Sequence[Session], subjects: Sequence[Subject]) -> list[str]:
    """A reason for each subject whose delegate did not take its share, or of which that is not known."""
    with_delegate = {subject.label: subject for subject in subjects if subject.delegate is not None}
    reasons = [
        reason
        for session in sessions
        if session.outcome == "ok" and session.label in with_delegate
        for reason in _short(session, with_delegate[session.label])
    ]
    return list(dict.fromkeys(reasons))


def _short(session: Session, subject: Subject) -> Iterator[str]:
    assert subject.delegate is not None, "only such subjects are asked for"
    delegation, least_pct = delegation_of(session, subject), subject.delegate.ops_delegated_min_pct
    if delegation is None:
        yield f"{subject.label}: the board does not tell what the delegate {subject.delegate.name} took"
    elif delegation.taken_pct < least_pct:
        share = f"the delegate {delegation} ({delegation.taken_pct:.0f} %)"
        yield f"{subject.label}: {share}, at least {least_pct:g} % is declared"
