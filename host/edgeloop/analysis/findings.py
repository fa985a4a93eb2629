"""One limit beside what was observed: a finding. There is one way to judge for each estimator of a metric's row.

Each bound is one-sided at the limits' confidence, shared between the looks. What is read, not estimated (bytes, memory,
counts), has no interval. Everything here is a function of raw numbers, so a record can be judged again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from edgeloop.analysis.accuracy import Scores, difference_bound
from edgeloop.analysis.decision import decide, decide_timing, too_short
from edgeloop.analysis.energy import energies
from edgeloop.analysis.percentiles import Side
from edgeloop.analysis.spread import Rule, Spread, ratio_by_rounds, spread_of
from edgeloop.analysis.statistics import Statistic, more_until, normal_quantile, share_bound
from edgeloop.analysis.subject_data import SubjectData
from edgeloop.core.limits import Limit
from edgeloop.core.metric import Estimator
from edgeloop.core.verdict import Finding, Outcome

_SAMPLES_MAX = 10_000_000
"""Beyond this many samples more data are no advice."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A limit with its numbers: which side is bad, where the bar is, and the one-sided bounds of what was seen."""

    bar: float
    observation: float
    low: float | None
    high: float | None
    upper_bar: bool
    """True: what passes is under the bar. False: over it."""
    sentence: str
    """The observed number and the bar in words."""
    exact: bool = False
    """Read, not estimated: there is no interval, and no doubt."""

    def outcome(self) -> Outcome:
        outcome = decide(self.bar, *self._ends(), upper_bar=self.upper_bar)
        # Equal is not a pass; for a number that is read it is a failure, for an estimate it is open.
        return Outcome.FAIL if self.exact and outcome is Outcome.INCONCLUSIVE else outcome

    def _ends(self) -> tuple[float | None, float | None]:
        return (self.observation, self.observation) if self.exact else (self.low, self.high)

    @property
    def gap(self) -> float:
        return self.bar - self.observation if self.upper_bar else self.observation - self.bar


@dataclass(frozen=True, slots=True)
class LimitJudge:
    """The means by which one verdict judges its limits."""

    candidate: SubjectData
    reference: SubjectData | None
    sessions: int
    """Of the plan."""
    nominal: float
    """The confidence of the limits; `confidence` is the share of this look."""
    confidence: float
    next_confidence: float
    """Of the look that more sessions or samples would be judged at."""
    rule: Rule

    def finding(self, limit: Limit) -> Finding:
        """Judge one limit. ERROR where what it is about was not measured."""
        return _JUDGES[limit.row.estimator](self, limit)

    # Timing: Student's t on the logarithms of one number a session

    def timing(self, limit: Limit) -> Finding:
        statistic = _statistic(limit)
        if limit.max_ratio_to_reference is not None:
            return self._ratio(limit, limit.max_ratio_to_reference, statistic)
        spread, scale = spread_of(self.candidate.sessions, statistic, self.rule), 1e-6
        if spread is None:
            return _not_measured(limit, f"no session of {self.candidate.label} timed it")
        bar = limit.bound - limit.guard
        sentence = f"{statistic} {spread.estimate * scale:.4g} ms, limit {bar:.4g} ms{_guard_in_words(limit)}"
        return self._of_spread(limit, spread, scale, bar, sentence)

    def _ratio(self, limit: Limit, ratio_max: float, statistic: Statistic) -> Finding:
        """A time over that of the reference, round by round."""
        pairs = (
            None
            if self.reference is None
            else ratio_by_rounds(self.candidate.sessions, self.reference.sessions, statistic, self.rule)
        )
        if pairs is None:
            return _not_measured(limit, "no round timed both the candidate and the reference")
        spread, scale = pairs.ratio, pairs.of_reference / 1e6
        bar = (ratio_max - limit.guard) * scale
        assert self.reference is not None, "pairs have a reference"
        beside = self.reference.alias
        sentence = (
            f"{limit.statistic} {spread.estimate * scale:.4g} ms is {spread.estimate:.4g} x {beside}'s "
            f"{scale:.4g} ms, the limit {ratio_max:g} x {beside}{_guard_in_words(limit)} is {bar:.4g} ms"
        )
        return self._of_spread(limit, spread, scale, bar, sentence)

    def _of_spread(self, limit: Limit, spread: Spread, scale: float, bar: float, sentence: str) -> Finding:
        """`scale` makes ms of the unit of the spread."""
        low, high = (spread.bound(self.confidence, side) for side in ("lower", "upper"))
        case = _Case(
            bar=bar,
            observation=spread.estimate * scale,
            low=None if low is None else low * scale,
            high=None if high is None else high * scale,
            upper_bar=True,
            sentence=sentence,
        )
        statistic, is_ratio = _statistic(limit), limit.max_ratio_to_reference is not None
        outcome = decide_timing(spread, case.bar / scale, statistic, self.confidence, self.nominal)
        if spread.n < 2:
            reason = f"{case.sentence}; 1 session of {self.sessions}, and an interval needs 2"
            return _finding(limit, case, outcome, reason, sessions=1)
        units = "rounds" if is_ratio else "sessions"
        interval = f"{self.confidence:.4g} bounds {case.low:.4g} to {case.high:.4g} ms over {spread.n} {units}"
        reason = f"{case.sentence}; {interval}"
        short = too_short(spread, statistic, self.nominal)
        if short and outcome is not Outcome.FAIL:
            return _finding(limit, case, outcome, f"{reason}; {short}")
        if outcome is not Outcome.INCONCLUSIVE:
            return _finding(limit, case, outcome, reason)
        more = spread.more_needed(case.bar / scale, self.next_confidence)
        each = " of each model" if is_ratio else ""
        advice = (
            f"needs about {_count(more, 'session')}{each}" if more else "too near to the limit for sessions to decide"
        )
        return _finding(limit, case, outcome, f"{reason}; {advice}", sessions=more)

    # Readings: read, not estimated

    def reading(self, limit: Limit) -> Finding:
        metric = limit.row
        value = self.candidate.reading(metric)
        if value is None:
            return _not_measured(limit, f"{limit.metric} was not read in any session")
        if limit.kind.relative:
            beside = None if self.reference is None else self.reference.reading(metric)
            if beside is None:
                return _not_measured(limit, "there is no reference to compare with")
            bar = (limit.bound - limit.guard) * beside
        else:
            bar = (limit.bound - limit.guard) * limit.kind.factor
        unit = f" {metric.unit}" if metric.unit else ""
        case = _Case(
            bar=bar,
            observation=float(value),
            low=None,
            high=None,
            upper_bar=limit.kind.upper,
            sentence=f"{metric.exact(value)}{unit}{metric.over_sessions_in_words}, "
            f"limit {metric.exact(bar)}{unit}{_guard_in_words(limit)}",
            exact=True,
        )
        return _finding(limit, case, case.outcome(), case.sentence)

    # Energy: Student's t over sessions, then the meter and the clocks at their worst

    def energy(self, limit: Limit) -> Finding:
        figures = energies(self.candidate.sessions)
        estimate = figures.estimate(limit.metric)
        if estimate is None:
            nothing = f"no energy session of {self.candidate.label} ran"
            return _not_measured(limit, figures.losses_in_words if figures.count else nothing)
        bar = limit.bound - limit.guard
        case = _Case(
            bar=bar,
            observation=estimate.mj,
            low=estimate.bound(self.confidence, "lower"),
            high=estimate.bound(self.confidence, "upper"),
            upper_bar=True,
            sentence=f"{estimate.mj:.4g} mJ, limit {bar:.4g} mJ{_guard_in_words(limit)}",
        )
        outcome = case.outcome()
        parts = [
            case.sentence,
            estimate.bounds_in_words(self.confidence, self.sessions),
            figures.losses_in_words,
        ]
        more = None
        if outcome is Outcome.INCONCLUSIVE:
            more = estimate.more_needed(case.bar, self.next_confidence)
            parts.append(f"needs about {_count(more, 'session')}" if more else "too near to the limit for this meter")
        return _finding(limit, case, outcome, "; ".join(filter(None, parts)), sessions=more)

    # Scores: an interval about the population, or the number on exactly these samples

    def score(self, limit: Limit) -> Finding:
        scores = self.candidate.agreement if limit.row.against_reference else self.candidate.scores.get(limit.metric)
        if scores is None:
            return _not_measured(limit, f"{limit.metric} was not scored for {self.candidate.label}")
        if limit.max_drop_from_reference is not None:
            beside = None if self.reference is None else self.reference.scores.get(limit.metric)
            if beside is None:
                return _not_measured(limit, f"{limit.metric} was not scored for the reference")
            case = self._drop(limit, scores, beside)
        else:
            case = self._absolute(limit, scores)
        outcome = case.outcome()
        if case.exact:
            return _finding(limit, case, outcome, f"{case.sentence} on exactly these {scores.n} samples")
        reason = (
            f"{case.sentence}; {self.confidence:.4g} bounds {case.low:.4g} to {case.high:.4g} over {scores.n} samples"
        )
        if outcome is not Outcome.INCONCLUSIVE:
            return _finding(limit, case, outcome, reason)
        share = scores.is_share and limit.max_drop_from_reference is None
        more = self._more_samples(case, scores.n, share=share)
        advice = f"needs about {_count(more, 'sample')}" if more else "too near to the limit for samples to decide"
        return _finding(limit, case, outcome, f"{reason}; {advice}", samples=more)

    def _absolute(self, limit: Limit, scores: Scores) -> _Case:
        upper_bar = limit.kind.upper
        bar = limit.bound + (-limit.guard if upper_bar else limit.guard)
        return _Case(
            bar=bar,
            observation=scores.value,
            low=scores.bound(self.confidence, "lower", exact=self.rule.exact),
            high=scores.bound(self.confidence, "upper", exact=self.rule.exact),
            upper_bar=upper_bar,
            sentence=f"{limit.metric} {scores.value:.4g}, limit {bar:.4g}{_guard_in_words(limit)}",
            exact=limit.about == "this_set",
        )

    def _drop(self, limit: Limit, scores: Scores, beside: Scores) -> _Case:
        """The bar is M1's own value, less what may be lost; the interval is that of the paired difference around M1."""
        loss_max = (limit.max_drop_from_reference or 0.0) - limit.guard
        bar = beside.value - loss_max if scores.higher_is_better else beside.value + loss_max

        def end(side: Side) -> float:
            continuous = not self.rule.exact
            return beside.value + difference_bound(scores, beside, self.confidence, side, continuous=continuous)

        sentence = f"{limit.metric} {scores.value:.4g} beside M1's {beside.value:.4g}, limit {bar:.4g}"
        return _Case(
            bar=bar,
            observation=scores.value,
            low=end("lower"),
            high=end("upper"),
            upper_bar=not scores.higher_is_better,
            sentence=sentence + _guard_in_words(limit),
            exact=limit.about == "this_set",
        )

    def _more_samples(self, case: _Case, n: int, *, share: bool) -> int | None:
        """About how many more samples decide, if they go on like these; None where that is more than anybody has."""
        if share:

            def decides(size: int) -> bool:
                right = case.observation * size
                low = share_bound(right, size, self.next_confidence, "lower", exact=self.rule.exact)
                high = share_bound(right, size, self.next_confidence, "upper", exact=self.rule.exact)
                return low > case.bar or high < case.bar

            return more_until(decides, n, _SAMPLES_MAX)
        assert case.low is not None
        assert case.high is not None
        above = case.observation < case.bar  # the bound that lies across the bar
        half = case.high - case.observation if above else case.observation - case.low
        half *= normal_quantile(self.next_confidence) / normal_quantile(self.confidence)
        distance = abs(case.bar - case.observation)
        if distance <= half * math.sqrt(n / _SAMPLES_MAX):
            return None
        return max(1, math.ceil(n * (half / distance) ** 2) - n)


_JUDGES: dict[Estimator, Callable[[LimitJudge, Limit], Finding]] = {
    Estimator.TIMING: LimitJudge.timing,
    Estimator.READING: LimitJudge.reading,
    Estimator.ENERGY: LimitJudge.energy,
    Estimator.SCORE: LimitJudge.score,
}


def _guard_in_words(limit: Limit) -> str:
    """Say how the bar came about, where a guard band moved it."""
    if not limit.guard:
        return ""
    return f" ({limit.bound:g} {'less' if limit.kind.upper else 'and'} {limit.guard:g} guard)"


def _count(more: int, what: str) -> str:
    return f"{more} more {what}{'' if more == 1 else 's'}"


def _statistic(limit: Limit) -> Statistic:
    """The number of a session that a limit on a time is about."""
    name = limit.statistic or limit.row.session_value
    return next(statistic for statistic in get_args(Statistic) if statistic == name)


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
        unit=limit.row.unit,
        outcome=outcome,
        limit=case.bar,
        observed=case.observation,
        interval=None if case.exact or (case.low is None and case.high is None) else (case.low, case.high),
        gap=case.gap,
        gap_relative=case.gap / abs(case.bar) if case.bar else None,
        reason=reason,
        more_sessions=sessions,
        more_samples=samples,
        metric=limit.metric,
        statistic=limit.statistic,
        bound=limit.bound_name,
        requirement=limit.requirement,
    )


def _not_measured(limit: Limit, reason: str) -> Finding:
    return Finding(
        limit_id=limit.id,
        family=limit.family,
        text=str(limit),
        unit=limit.row.unit,
        outcome=Outcome.ERROR,
        limit=None,
        observed=None,
        reason=reason,
        metric=limit.metric,
        statistic=limit.statistic,
        bound=limit.bound_name,
        requirement=limit.requirement,
    )
