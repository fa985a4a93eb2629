"""The decision rule: from the findings of all limits to one verdict, with strict thresholds and honest intervals.

PASS where the bound on the bad side is inside the limit, FAIL where the bound on the good side is outside, else
INCONCLUSIVE. A pass needs every limit passed, so no correction for their number is due (an intersection-union test).
How one limit is judged is in `findings`.
"""

from __future__ import annotations

from edgeloop.analysis.findings import LimitJudge
from edgeloop.analysis.spread import DECISION_RULE, Rule, rule_named
from edgeloop.analysis.statistics import latency_sessions, split_confidence
from edgeloop.analysis.subject_data import SubjectData
from edgeloop.core.limits import LimitSet
from edgeloop.core.measurement import Trust
from edgeloop.core.plan import Plan
from edgeloop.core.verdict import Family, Finding, Outcome, Verdict
from edgeloop.errors import Owner


def judge(
    limits: LimitSet,
    candidate: SubjectData,
    reference: SubjectData | None,
    plan: Plan,
    *,
    trust: Trust | None = None,
    look: int = 1,
    looks: int = 2,
    rule: str = DECISION_RULE,
) -> Verdict:
    """Judge every limit. `looks` is how often this candidate may be looked at, fixed before the first look.

    INVALID (from trust) goes before everything, then ERROR where nothing could be measured, then FAIL, then ERROR of
    a single limit or of single sessions, then INCONCLUSIVE; else PASS. Raises ValueError for a look beyond `looks`, and
    for a rule that never was.
    """
    findings = _findings(limits, candidate, reference, plan, look, looks, rule_named(rule))
    return _verdict(findings, candidate, reference, trust).model_copy(update={"rule": rule})


def _findings(
    limits: LimitSet,
    candidate: SubjectData,
    reference: SubjectData | None,
    plan: Plan,
    look: int,
    looks: int,
    rule: Rule,
) -> tuple[Finding, ...]:
    judge_of = LimitJudge(
        candidate=candidate,
        reference=reference,
        sessions=plan.sessions,
        nominal=limits.confidence,
        confidence=split_confidence(limits.confidence, look, looks),
        next_confidence=split_confidence(limits.confidence, min(look + 1, looks), looks),
        rule=rule,
    )
    return tuple(judge_of.finding(limit) for limit in limits.limit)


def _verdict(
    findings: tuple[Finding, ...], candidate: SubjectData, reference: SubjectData | None, trust: Trust | None
) -> Verdict:
    if trust is not None and not trust.valid:
        return Verdict(outcome=Outcome.INVALID, findings=findings, reasons=trust.reasons)
    crashes = _crashes(candidate) or (_crashes(reference) if reference is not None else ())
    if crashes and not latency_sessions(candidate.sessions):
        return Verdict(outcome=Outcome.ERROR, findings=findings, reasons=crashes, owner=Owner.MODEL)
    outcomes = {finding.outcome for finding in findings}
    if Outcome.FAIL in outcomes:
        return Verdict(outcome=Outcome.FAIL, findings=findings)
    if crashes:
        return Verdict(outcome=Outcome.ERROR, findings=findings, reasons=crashes, owner=Owner.MODEL)
    if Outcome.ERROR in outcomes:
        return _not_measured(findings)
    if not findings:
        return Verdict(outcome=Outcome.INCONCLUSIVE, reasons=("there are no limits, so nothing was judged",))
    is_open = Outcome.INCONCLUSIVE in outcomes
    return Verdict(outcome=Outcome.INCONCLUSIVE if is_open else Outcome.PASS, findings=findings)


def _not_measured(findings: tuple[Finding, ...]) -> Verdict:
    """Some limit is about something that was not measured: the lab's to mend where that is energy alone."""
    errors = [finding for finding in findings if finding.outcome is Outcome.ERROR]
    reasons = tuple(f"{finding.limit_id}: {finding.reason}" for finding in errors)
    owner = Owner.LAB if {finding.family for finding in errors} == {Family.ENERGY} else Owner.HARNESS
    return Verdict(outcome=Outcome.ERROR, findings=findings, reasons=reasons, owner=owner)


def _crashes(subject: SubjectData) -> tuple[str, ...]:
    """A model that crashes now and then passes nothing: what the other sessions saw is what survived."""
    if not subject.crashes:
        return ()
    details = dict.fromkeys(f"{s.kind} session {s.outcome}: {s.detail}" for s in subject.crashes)
    return (f"{len(subject.crashes)} of {len(subject.sessions)} sessions of {subject.label} broke", *details)
