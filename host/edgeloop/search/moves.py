"""The judge's half of the method (S705): the result of a finished trial, and which way the lightening turns next.

Claims 3 to 5: accuracy at or under its threshold lowers the degree of lightening, speed at or under its
threshold raises it; energy, size and memory turn like speed. Only *measured* numbers turn anything: what was not
measured, or was measured outside the declared environment, says nothing of the network. What the claims
leave open (both fail, nothing faster, nothing decided) is a reconstruction: docs/explanation/method.md.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from edgeloop.core.events import Judgement, Trial
from edgeloop.core.verdict import ABOUT_THE_NETWORK, Family, Finding, Outcome
from edgeloop.search.larger_networks import score_j

COSTS = (Family.SPEED, Family.ENERGY, Family.SIZE, Family.MEMORY)
OF_WORK = frozenset({Family.SPEED, Family.ENERGY})
"""Costs of what an engine computes: where two rungs run the same kernels, they have both alike."""
_Of = TypeVar("_Of", bound=Hashable)


class Intent(Enum):
    """The way that a trial turns the search."""

    LOWER = "accuracy failed: lower the degree"
    RAISE = "a cost failed: raise the degree"
    SMALLER = "both failed, cost further off: smaller M2"
    LARGER = "both failed, accuracy further off: larger M2"
    NEIGHBOUR = "undecided: the next untried neighbour"
    KEEP = "says nothing of the network: the order stays"
    PASSED = "passed"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """A finished trial as the search takes it."""

    outcome: Outcome
    failures: Mapping[Family, Finding] = field(default_factory=dict)
    """By family, the failed finding furthest outside its limit."""
    open: tuple[Finding, ...] = ()
    """Findings that could not be decided."""
    may_pass: bool = True
    """False for a pass under a plan that only steers."""
    not_measured: str = ""
    """For ERROR and INVALID: who has to act, and what happened."""

    @property
    def intent(self) -> Intent:
        if self.outcome in (Outcome.ERROR, Outcome.INVALID):
            return Intent.KEEP
        if self.outcome is Outcome.PASS:
            return Intent.PASSED
        accuracy = self.failures.get(Family.ACCURACY)
        costs = [self.failures[family] for family in COSTS if family in self.failures]
        if accuracy is not None and costs:
            cost_further = min(map(gap_of, costs)) <= gap_of(accuracy)
            return Intent.SMALLER if cost_further else Intent.LARGER
        if accuracy is not None:
            return Intent.LOWER
        return Intent.RAISE if costs else Intent.NEIGHBOUR


def gap_of(finding: Finding) -> float:
    """Return the room inside the limit relative to the limit; 0 where it is not known."""
    return finding.gap_relative or 0.0


def decisive(trial: Trial) -> tuple[Judgement, ...]:
    """Return the last judgement on validation data of each target."""
    return tuple({j.target: j for j in trial.judgements if j.split == "validation"}.values())


def worst_findings(judgements: Sequence[Judgement]) -> list[Finding]:
    """Return of each limit the finding with the least room, over the targets that were measured as declared."""
    verdicts = [j.verdict for j in judgements if j.verdict.outcome not in (Outcome.ERROR, Outcome.INVALID)]
    return list(_least_room((f.limit_id, f) for verdict in verdicts for f in verdict.findings).values())


def _least_room(findings: Iterable[tuple[_Of, Finding]]) -> dict[_Of, Finding]:
    """Of each group the finding with the least room."""
    worst: dict[_Of, Finding] = {}
    for of, finding in findings:
        if of not in worst or gap_of(finding) < gap_of(worst[of]):
            worst[of] = finding
    return worst


def result_of(trial: Trial) -> TrialResult:
    """Return what a trial came to. Over several targets the worst counts, a measured failure before all else."""
    if trial.error is not None:
        error = trial.error
        return TrialResult(Outcome.ERROR, not_measured=f"{error.stage} failed ({error.owner}): {error.message}")
    judgements = decisive(trial)
    if not judgements:
        return TrialResult(Outcome.ERROR, not_measured="nothing was measured")
    outcomes = {j.verdict.outcome for j in judgements}
    if Outcome.FAIL in outcomes:
        findings = (f for j in judgements if j.verdict.outcome is Outcome.FAIL for f in j.verdict.findings)
        failures = _least_room((f.family, f) for f in findings if f.outcome is Outcome.FAIL)
        return TrialResult(Outcome.FAIL, failures=failures)
    for outcome in (Outcome.ERROR, Outcome.INVALID):
        if outcome in outcomes:
            return _not_measured(next(j for j in judgements if j.verdict.outcome is outcome))
    if Outcome.INCONCLUSIVE in outcomes:
        findings = (f for j in judgements for f in j.verdict.findings)
        return TrialResult(Outcome.INCONCLUSIVE, open=tuple(f for f in findings if f.outcome is Outcome.INCONCLUSIVE))
    return TrialResult(Outcome.PASS, may_pass=all(j.plan.may_pass for j in judgements))


def _not_measured(judgement: Judgement) -> TrialResult:
    outcome = judgement.verdict.outcome
    reasons = "; ".join(judgement.verdict.reasons) or "no reason was given"
    return TrialResult(outcome, not_measured=f"{outcome.lower()} on {judgement.target}: {reasons}")


def score_of(trial: Trial) -> float | None:
    """Return J of a measured trial; None where nothing was judged.

    Accuracy and latency are taken relative to their limits, so that error metrics, where less is better,
    rank the same way; a family without a limit counts 1.
    """
    findings = [f for j in decisive(trial) for f in j.verdict.findings if f.gap_relative is not None]
    if not findings:
        return None

    def worst(family: Family) -> float:
        return min((gap_of(f) for f in findings if f.family is family), default=0.0)

    evaluation = 1.0 if trial.evaluation is None else trial.evaluation
    return score_j(max(1 + worst(Family.ACCURACY), 0.0), max(1 - worst(Family.SPEED), 1e-9), 1.0, evaluation)


def best_first(trials: Sequence[Trial]) -> list[Trial]:
    """Return the measured candidates, best first: passed, then nearest to its limits; J decides between equals.

    Trials that were not measured, or not in the declared environment, are left out.
    """

    def order(trial: Trial) -> tuple[bool, bool, float, float]:
        inside = result_of(trial).outcome is Outcome.PASS
        gaps = [gap_of(f) for j in decisive(trial) for f in j.verdict.findings]
        # Inside all limits room is no merit by itself: J ranks. Outside, the distance to the limit does.
        miss = 0.0 if inside else -min(gaps, default=0.0)
        return (not trial.passed, not inside, miss, -(score_of(trial) or 0.0))

    candidates = (t for t in trials if t.role == "candidate" and result_of(t).outcome in ABOUT_THE_NETWORK)
    return sorted(candidates, key=order)


def near_misses(trials: Sequence[Trial], most: int = 3) -> str:
    """Say which measured candidates came nearest and what each missed; empty where none was measured."""
    misses = []
    for trial in (t for t in best_first(trials) if result_of(t).outcome is not Outcome.PASS):
        findings = [f for j in decisive(trial) for f in j.verdict.findings if f.outcome is not Outcome.PASS]
        worst = min(findings, key=gap_of, default=None)
        missed_limit = f": {in_figures(worst)}" if worst is not None else ""
        misses.append(f"trial {trial.number} ({trial.candidate}){missed_limit}")
    if not misses:
        return ""
    return (
        f"the nearest miss is {misses[0]}" if len(misses) == 1 else f"the nearest misses are {'; '.join(misses[:most])}"
    )


def in_figures(finding: Finding) -> str:
    """Say a finding in figures: `latency p90 12.4 ms is over 10 ms`."""
    what = finding.label
    unit = "" if finding.unit in ("", "fraction", "ratio", "1") else f" {finding.unit}"
    if finding.observed is None or finding.limit is None:
        return f"{finding.text}: {finding.reason}"
    value, limit = _number(finding.observed) + unit, _number(finding.limit) + unit
    if finding.outcome is Outcome.INCONCLUSIVE and finding.interval is not None:
        ends = ["open" if end is None else _number(end) for end in finding.interval]
        return f"{what} {value} ({ends[0]} to {ends[1]}) can't be told from {limit}"
    if finding.observed == finding.limit:
        return f"{what} {value} is the limit itself, which is no pass"
    return f"{what} {value} is {'over' if finding.observed > finding.limit else 'under'} {limit}"


def result_in_figures(result: TrialResult) -> str:
    """Say what failed, what could not be decided, why nothing was measured, or that every limit was met."""
    if result.not_measured:
        return result.not_measured
    if result.failures:
        return " and ".join(in_figures(finding) for finding in sorted(result.failures.values(), key=gap_of))
    if result.open:
        return "undecided, which is no pass: " + ", ".join(map(in_figures, result.open))
    return "every limit is met on validation data" if result.outcome is Outcome.PASS else "not passed"


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
