"""From sessions to a judgement: trust, verdict, summaries and a digest of the conditions, in one value."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.analysis.conditions import digest
from edgeloop.analysis.delegation import short_of_share
from edgeloop.analysis.subject_data import SubjectData, summarise_subject
from edgeloop.analysis.trust import trust
from edgeloop.analysis.verdict import judge
from edgeloop.core.board import Board
from edgeloop.core.events import Judgement, Split
from edgeloop.core.limits import LimitSet
from edgeloop.core.measurement import Attempt, MeasureRequest, Trust


def judge_attempts(
    request: MeasureRequest,
    board: Board,
    attempts: Sequence[Attempt],
    limits: LimitSet,
    candidate: SubjectData,
    reference: SubjectData | None,
    *,
    trial: int,
    split: Split,
    look: int,
    looks: int,
    seconds: float,
) -> Judgement:
    """Judge what was observed over the attempts of all looks so far; conditions are told of the last one.

    A profile is a pass of its own, after everything that is judged: what happened in it is nobody's fault.
    """
    by_attempt = [tuple(session for session in attempt.sessions if session.kind != "profile") for attempt in attempts]
    trusts = [
        trust(
            sessions,
            request.environment,
            board.environment,
            profile=request.plan.profile,
            emulated=board.emulated,
        )
        for sessions in by_attempt
    ]
    short = short_of_share([session for sessions in by_attempt for session in sessions], request.subjects)
    trust_in_all = Trust(
        valid=all(t.valid for t in trusts) and not short,
        reasons=(*short, *(reason for t in trusts for reason in t.reasons)),
        lasting=bool(short),
        unknown=tuple(sorted({key for t in trusts for key in t.unknown})),
    )
    return Judgement(
        trial=trial,
        job_key=request.key,
        target=board.name,
        split=split,
        plan=request.plan,
        environment=request.environment.on(board.environment),
        look=look,
        summary=summarise_subject(candidate, limits.confidence),
        reference=None if reference is None else summarise_subject(reference, limits.confidence),
        trust=trust_in_all,
        verdict=judge(limits, candidate, reference, request.plan, trust=trust_in_all, look=look, looks=looks),
        conditions=digest(by_attempt[-1]),
        emulated=board.emulated,
        seconds=seconds,
    )
