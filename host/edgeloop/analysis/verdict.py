"""The decision rule: limits beside what was observed, with strict thresholds and honest intervals.

PASS where the bound on the bad side is inside the limit, FAIL where the bound on the good side is outside, else
INCONCLUSIVE. Each bound is one-sided at the limits' confidence, shared between the looks. A pass needs every limit
passed, so no correction for their number is due (an intersection-union test). Bytes and memory are read, not
estimated: they have no interval. Everything here is a function of raw numbers, so a record can be judged again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeloop.analysis.accuracy import Scores, difference_bound
from edgeloop.analysis.decision import decide, decide_timing, too_short
from edgeloop.analysis.energy import EnergyMetric, energies
from edgeloop.analysis.percentiles import Side
from edgeloop.analysis.spread import DECISION_RULE, Rule, Spread, ratio_by_rounds, rule_named, spread_of
from edgeloop.analysis.statistics import (
    Statistic,
    latency_sessions,
    more_until,
    normal_quantile,
    share_bound,
    split_confidence,
)
from edgeloop.analysis.subject_data import SubjectData, subject_data, summarise_subject
from edgeloop.core.limits import Limit, LimitSet
from edgeloop.core.measurement import Trust
from edgeloop.core.plan import Plan
from edgeloop.core.verdict import Family, Finding, Outcome, Verdict
from edgeloop.errors import Owner

__all__ = ["SubjectData", "judge", "subject_data", "summarise_subject"]

_MIB = 1024 * 1024
_SAMPLES_MAX = 10_000_000
"""Beyond this many samples more data are no advice."""


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
    found = _judge(limits, candidate, reference, plan, trust, look, looks, rule_named(rule))
    return found.model_copy(update={"rule": rule})


def _judge(
    limits: LimitSet,
    candidate: SubjectData,
    reference: SubjectData | None,
    plan: Plan,
    trust: Trust | None,
    look: int,
    looks: int,
    rule: Rule,
) -> Verdict:
    judging = _Judging(
        candidate=candidate,
        reference=reference,
        planned=plan.sessions,
        nominal=limits.confidence,
        confidence=split_confidence(limits.confidence, look, looks),
        next_confidence=split_confidence(limits.confidence, min(look + 1, looks), looks),
        rule=rule,
    )
    findings = tuple(judging.finding(limit) for limit in limits.limit)
    if trust is not None and not trust.valid:
        return Verdict(outcome=Outcome.INVALID, findings=findings, reasons=trust.reasons)
    broken = _broken(candidate) or (_broken(reference) if reference is not None else ())
    timed = latency_sessions(candidate.sessions)
    if broken and not timed:
        return Verdict(outcome=Outcome.ERROR, findings=findings, reasons=broken, owner=Owner.MODEL)
    outcomes = {finding.outcome for finding in findings}
    if Outcome.FAIL in outcomes:
        return Verdict(outcome=Outcome.FAIL, findings=findings)
    if broken:
        return Verdict(outcome=Outcome.ERROR, findings=findings, reasons=broken, owner=Owner.MODEL)
    if Outcome.ERROR in outcomes:
        reasons = tuple(f"{f.limit_id}: {f.reason}" for f in findings if f.outcome is Outcome.ERROR)
        families = {f.family for f in findings if f.outcome is Outcome.ERROR}
        owner = Owner.LAB if families == {Family.ENERGY} else Owner.HARNESS
        return Verdict(outcome=Outcome.ERROR, findings=findings, reasons=reasons, owner=owner)
    if not findings:
        return Verdict(outcome=Outcome.INCONCLUSIVE, reasons=("there are no limits, so nothing was judged",))
    undecided = Outcome.INCONCLUSIVE in outcomes
    return Verdict(outcome=Outcome.INCONCLUSIVE if undecided else Outcome.PASS, findings=findings)


def _broken(observed: SubjectData) -> tuple[str, ...]:
    """A model that crashes now and then passes nothing: what the other sessions saw is what survived."""
    if not observed.broken:
        return ()
    details = dict.fromkeys(f"{s.kind} session {s.outcome}: {s.detail}" for s in observed.broken)
    return (f"{len(observed.broken)} of {len(observed.sessions)} sessions of {observed.label} broke", *details)


@dataclass(frozen=True, slots=True)
class _Case:
    """A limit with its numbers: which side is bad, where the bar is, and the one-sided bounds of what was seen."""

    bar: float
    observed: float
    low: float | None
    high: float | None
    unit: str
    upper_bar: bool
    """True: what passes is under the bar. False: over it."""
    seen: str
    """The observed number and the bar in words."""
    exact: bool = False
    """Read, not estimated: there is no interval, and no doubt."""

    def outcome(self) -> Outcome:
        outcome = decide(self.bar, *self._bounds(), upper_bar=self.upper_bar)
        # Equal is not a pass; for a number that is read it is a failure, for an estimate it is open.
        return Outcome.FAIL if self.exact and outcome is Outcome.INCONCLUSIVE else outcome

    def _bounds(self) -> tuple[float | None, float | None]:
        return (self.observed, self.observed) if self.exact else (self.low, self.high)

    @property
    def gap(self) -> float:
        return self.bar - self.observed if self.upper_bar else self.observed - self.bar


@dataclass(frozen=True, slots=True)
class _Judging:
    """One verdict in the making."""

    candidate: SubjectData
    reference: SubjectData | None
    planned: int
    nominal: float
    confidence: float
    next_confidence: float
    """Of the look that more sessions or samples would be judged at."""
    rule: Rule

    def finding(self, limit: Limit) -> Finding:
        match limit.metric:
            case "latency" | "first_inference" | "load":
                return self._timing(limit)
            case "deployed_size":
                return self._bytes(limit, self.candidate.deployed_bytes, "")
            case "peak_rss":
                return self._bytes(limit, self.candidate.peak_rss_bytes, " in the worst session")
            case "rss_above_runtime":
                return self._bytes(limit, self.candidate.rss_above_runtime_bytes, " in the worst session")
            case "energy_per_period" | "energy_above_idle":
                return self._energy(limit, limit.metric)
            case "agreement":
                return self._score(limit, self.candidate.agreement)
            case _:
                return self._score(limit, self.candidate.scores.get(limit.metric))

    # Timing: Student's t on the logarithms of one number a session

    def _timing(self, limit: Limit) -> Finding:
        statistic = _statistic(limit)
        if limit.max_ratio_to_reference is not None:
            pairs = (
                None
                if self.reference is None
                else ratio_by_rounds(self.candidate.sessions, self.reference.sessions, statistic, self.rule)
            )
            if pairs is None:
                return _unmeasured(limit, "ms", "no round timed both the candidate and the reference")
            spread, scale = pairs.ratio, pairs.of_reference / 1e6
            bar = (limit.max_ratio_to_reference - limit.guard) * scale
            assert self.reference is not None, "pairs have a reference"
            beside = self.reference.called
            limited = f"{limit.max_ratio_to_reference:g} x {beside}{_guarded(limit)}"
            seen = (
                f"{limit.statistic} {spread.estimate * scale:.4g} ms is {spread.estimate:.4g} x {beside}'s "
                f"{scale:.4g} ms, the limit {limited} is {bar:.4g} ms"
            )
        else:
            found = spread_of(self.candidate.sessions, statistic, self.rule)
            if found is None:
                return _unmeasured(limit, "ms", f"no session of {self.candidate.label} timed it")
            spread, scale = found, 1e-6
            bar = limit.bound - limit.guard
            seen = f"{statistic} {spread.estimate * scale:.4g} ms, limit {bar:.4g} ms{_guarded(limit)}"
        low, high = (spread.bound(self.confidence, side) for side in ("lower", "upper"))
        case = _Case(
            bar=bar,
            observed=spread.estimate * scale,
            low=None if low is None else low * scale,
            high=None if high is None else high * scale,
            unit="ms",
            upper_bar=True,
            seen=seen,
        )
        return self._judged_timing(limit, case, spread, scale)

    def _judged_timing(self, limit: Limit, case: _Case, spread: Spread, scale: float) -> Finding:
        statistic = _statistic(limit)
        outcome = decide_timing(spread, case.bar / scale, statistic, self.confidence, self.nominal)
        if spread.n < 2:
            return _finding(
                limit, case, outcome, f"{case.seen}; 1 session of {self.planned}, and an interval needs 2", sessions=1
            )
        units = "sessions" if limit.max_ratio_to_reference is None else "rounds"
        interval = f"{self.confidence:.4g} bounds {case.low:.4g} to {case.high:.4g} ms over {spread.n} {units}"
        reason = f"{case.seen}; {interval}"
        short = too_short(spread, statistic, self.nominal)
        if short and outcome is not Outcome.FAIL:
            return _finding(limit, case, outcome, f"{reason}; {short}")
        if outcome is not Outcome.INCONCLUSIVE:
            return _finding(limit, case, outcome, reason)
        more = spread.more_needed(case.bar / scale, self.next_confidence)
        each = "" if limit.max_ratio_to_reference is None else " of each model"
        told = (
            f"needs about {_count(more, 'session')}{each}" if more else "too near to the limit for sessions to decide"
        )
        return _finding(limit, case, outcome, f"{reason}; {told}", sessions=more)

    # Bytes: read, not estimated

    def _bytes(self, limit: Limit, observed: int | None, which: str) -> Finding:
        if observed is None:
            return _unmeasured(limit, "bytes", f"{limit.metric} was not read in any session")
        if limit.max_ratio_to_reference is not None:
            if self.reference is None:
                return _unmeasured(limit, "bytes", "there is no reference to compare with")
            bar = (limit.max_ratio_to_reference - limit.guard) * self.reference.deployed_bytes
        else:
            bar = (limit.bound - limit.guard) * (_MIB if limit.max_mib is not None else 1)
        case = _Case(
            bar=bar,
            observed=float(observed),
            low=None,
            high=None,
            unit="bytes",
            upper_bar=True,
            seen=f"{observed} bytes{which}, limit {bar:.0f} bytes{_guarded(limit)}",
            exact=True,
        )
        return _finding(limit, case, case.outcome(), case.seen)

    # Energy: Student's t over sessions, then the meter and the clocks at their worst

    def _energy(self, limit: Limit, metric: EnergyMetric) -> Finding:
        found = energies(self.candidate.sessions)
        estimate = found.estimate(metric)
        if estimate is None:
            asked = found.without if found.asked else f"no energy session of {self.candidate.label} ran"
            return _unmeasured(limit, "mJ", asked)
        case = _Case(
            bar=limit.bound - limit.guard,
            observed=estimate.mj,
            low=estimate.bound(self.confidence, "lower"),
            high=estimate.bound(self.confidence, "upper"),
            unit="mJ",
            upper_bar=True,
            seen=f"{estimate.mj:.4g} mJ, limit {limit.bound - limit.guard:.4g} mJ{_guarded(limit)}",
        )
        outcome = case.outcome()
        told = [case.seen, estimate.bounds_in_words(self.confidence, self.planned), found.without]
        more = None
        if outcome is Outcome.INCONCLUSIVE:
            more = estimate.more_needed(case.bar, self.next_confidence)
            told.append(f"needs about {_count(more, 'session')}" if more else "too near to the limit for this meter")
        return _finding(limit, case, outcome, "; ".join(filter(None, told)), sessions=more)

    # Scores: an interval about the population, or the number on exactly these samples

    def _score(self, limit: Limit, scores: Scores | None) -> Finding:
        if scores is None:
            return _unmeasured(limit, "", f"{limit.metric} was not scored for {self.candidate.label}")
        if limit.max_drop_from_reference is not None:
            beside = None if self.reference is None else self.reference.scores.get(limit.metric)
            if beside is None:
                return _unmeasured(limit, "", f"{limit.metric} was not scored for the reference")
            case = self._drop(limit, scores, beside)
        else:
            case = self._absolute(limit, scores)
        outcome = case.outcome()
        if case.exact:
            return _finding(limit, case, outcome, f"{case.seen} on exactly these {scores.n} samples")
        reason = f"{case.seen}; {self.confidence:.4g} bounds {case.low:.4g} to {case.high:.4g} over {scores.n} samples"
        if outcome is not Outcome.INCONCLUSIVE:
            return _finding(limit, case, outcome, reason)
        share = scores.is_share and limit.max_drop_from_reference is None
        more = _more_samples(case, scores.n, share, self.next_confidence, self.confidence, self.rule)
        told = f"needs about {_count(more, 'sample')}" if more else "too near to the limit for samples to decide"
        return _finding(limit, case, outcome, f"{reason}; {told}", samples=more)

    def _absolute(self, limit: Limit, scores: Scores) -> _Case:
        upper_bar = limit.max_value is not None
        bar = limit.bound + (-limit.guard if upper_bar else limit.guard)
        return _Case(
            bar=bar,
            observed=scores.value,
            low=scores.bound(self.confidence, "lower", exact=self.rule.exact),
            high=scores.bound(self.confidence, "upper", exact=self.rule.exact),
            unit="",
            upper_bar=upper_bar,
            seen=f"{limit.metric} {scores.value:.4g}, limit {bar:.4g}{_guarded(limit)}",
            exact=limit.about == "this_set",
        )

    def _difference(self, scores: Scores, beside: Scores, side: Side) -> float:
        return difference_bound(scores, beside, self.confidence, side, continuous=not self.rule.exact)

    def _drop(self, limit: Limit, scores: Scores, beside: Scores) -> _Case:
        """The bar is M1's own value, less what may be lost; the interval is that of the paired difference around M1."""
        allowed = (limit.max_drop_from_reference or 0.0) - limit.guard
        bar = beside.value - allowed if scores.higher_is_better else beside.value + allowed
        return _Case(
            bar=bar,
            observed=scores.value,
            low=beside.value + self._difference(scores, beside, "lower"),
            high=beside.value + self._difference(scores, beside, "upper"),
            unit="",
            upper_bar=not scores.higher_is_better,
            seen=f"{limit.metric} {scores.value:.4g} beside M1's {beside.value:.4g}, limit {bar:.4g}{_guarded(limit)}",
            exact=limit.about == "this_set",
        )


def _guarded(limit: Limit) -> str:
    """How the bar came about, where a guard band moved it."""
    if not limit.guard:
        return ""
    floor = limit.bound_name.startswith("min_")
    return f" ({limit.bound:g} {'and' if floor else 'less'} {limit.guard:g} guard)"


def _count(more: int, what: str) -> str:
    return f"{more} more {what}{'' if more == 1 else 's'}"


def _statistic(limit: Limit) -> Statistic:
    if limit.metric == "latency":
        assert limit.statistic is not None, "a latency limit names its statistic"
        return limit.statistic
    return "first" if limit.metric == "first_inference" else "load"


def _more_samples(
    case: _Case, n: int, share: bool, next_confidence: float, confidence: float, rule: Rule
) -> int | None:
    """About how many more samples decide, if they go on like these; None where that is more than anybody has."""
    if share:

        def decides(size: int) -> bool:
            right = case.observed * size
            low = share_bound(right, size, next_confidence, "lower", exact=rule.exact)
            high = share_bound(right, size, next_confidence, "upper", exact=rule.exact)
            return low > case.bar or high < case.bar

        return more_until(decides, n, _SAMPLES_MAX)
    assert case.low is not None
    assert case.high is not None
    above = case.observed < case.bar  # the bound that lies across the bar
    half = case.high - case.observed if above else case.observed - case.low
    half *= normal_quantile(next_confidence) / normal_quantile(confidence)
    distance = abs(case.bar - case.observed)
    if distance <= half * math.sqrt(n / _SAMPLES_MAX):
        return None
    return max(1, math.ceil(n * (half / distance) ** 2) - n)


def _finding(
    limit: Limit,
    case: _Case,
    outcome: Outcome,
    reason: str,
    *,
    sessions: int | None = None,
    samples: int | None = None,
) -> Finding:
    return Finding(
        limit_id=limit.id,
        family=limit.family,
        text=str(limit),
        unit=case.unit,
        outcome=outcome,
        limit=case.bar,
        observed=case.observed,
        interval=None if case.exact or (case.low is None and case.high is None) else (case.low, case.high),
        gap=case.gap,
        gap_relative=case.gap / abs(case.bar) if case.bar else None,
        reason=reason,
        more_sessions=sessions,
        more_samples=samples,
    )


def _unmeasured(limit: Limit, unit: str, reason: str) -> Finding:
    return Finding(
        limit_id=limit.id,
        family=limit.family,
        text=str(limit),
        unit=unit,
        outcome=Outcome.ERROR,
        limit=None,
        observed=None,
        reason=reason,
    )
