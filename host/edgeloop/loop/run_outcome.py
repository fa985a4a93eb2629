"""The end of a run (S706): an exit code, the best trial and a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from edgeloop.core.events import FrontMember, FrontRecord, RunFinished, Trial
from edgeloop.core.verdict import ABOUT_THE_NETWORK, Outcome
from edgeloop.search.moves import best_first, decisive, near_misses, result_of
from edgeloop.search.pareto import Front

SPACE_EXHAUSTED = "nothing is left to ask"


class Proof(Enum):
    """A candidate's measurements, as the run as a whole takes them."""

    OPEN = "not passed: the search goes on"
    PROVEN = "confirmed, and passed its look at test data"
    REFUTED = "confirmed, and not passed on test data: the run ends"


def is_confirmed(trial: Trial) -> bool:
    """Return whether a trial passed on validation data on every target, under a plan that may pass."""
    return result_of(trial).outcome is Outcome.PASS and all(judgement.plan.may_pass for judgement in decisive(trial))


def proof_of(trial: Trial) -> Proof:
    """Return what a finished trial's one look at test data came to; OPEN where it never got there."""
    if not is_confirmed(trial) or not any(judgement.split == "test" for judgement in trial.judgements):
        return Proof.OPEN
    return Proof.PROVEN if trial.passed else Proof.REFUTED


def end_with_pass(trial: Trial, where: str) -> RunFinished:
    """A candidate was confirmed, and passed its look at test data."""
    return RunFinished(
        exit_code=0,
        best=trial.number,
        sentence=f"trial {trial.number}, {trial.candidate}, passed every limit on {where}: confirmed on validation "
        "data, and once on test data that nothing had seen",
    )


def end_refuted(trial: Trial) -> RunFinished:
    """The winner was confirmed, and its look at test data was no pass: 1 where it failed, 3 where it can't be told."""
    return RunFinished(
        exit_code=1 if test_outcome(trial) is Outcome.FAIL else 3,
        best=trial.number,
        sentence=f"trial {trial.number}, {trial.candidate}, was confirmed on validation data and is "
        f"{test_outcome(trial).value} on test data, which may be looked at once: {_why_not(trial)}",
    )


def end_unproven(trial: Trial) -> RunFinished:
    """Confirmed by figures of the caller's own, and nobody looked at test data: that can't be told to have passed."""
    return RunFinished(
        exit_code=3,
        best=trial.number,
        sentence=f"trial {trial.number}, {trial.candidate}, passed every limit on validation data as its owner "
        "measured it; figures on test data were not told, so it is not proven",
    )


def end_without_pass(trials: Sequence[Trial], why: str) -> RunFinished:
    """Nothing passed; exit code 3 where nothing could be measured either."""
    candidates = [trial for trial in trials if trial.role == "candidate"]
    with_verdict = [trial for trial in candidates if trial.outcome in ABOUT_THE_NETWORK]
    if not with_verdict:
        reasons = [t.error.message for t in candidates if t.error] or ["no candidate was measured"]
        return RunFinished(exit_code=3, best=None, sentence=f"{why}; no candidate could be judged: {reasons[-1]}")
    if why == SPACE_EXHAUSTED:
        why = _whole_space(candidates)
    misses = near_misses(with_verdict)
    return RunFinished(
        exit_code=1,
        best=best_first(with_verdict)[0].number,
        sentence=f"none passed; {why}" + (f". {misses[0].upper()}{misses[1:]}" if misses else ""),
    )


def end_with_front(front: Front, outcomes: Mapping[int, Outcome], trials: Sequence[Trial], why: str) -> RunFinished:
    """The front, each member after its look at test data: 0 where one passed, 1 where all failed, else 3."""
    record = FrontRecord(
        axes=front.axes,
        members=tuple(
            FrontMember(trial=number, values=place, outcome=outcomes[number]) for number, place in front.places.items()
        ),
    )
    good = [number for number, outcome in outcomes.items() if outcome is Outcome.PASS]
    names = ", ".join(f"trial {t.number} ({t.candidate})" for t in trials if t.number in outcomes)
    networks = f"{len(outcomes)} networks that none beats" if len(outcomes) > 1 else "one network that none beats"
    sentence = f"{why}; of what passed on validation data the front is {networks}: {names}; {_of_front(outcomes)}"
    best = next((trial.number for trial in best_first(trials) if trial.number in (good or outcomes)), None)
    all_failed = all(outcome is Outcome.FAIL for outcome in outcomes.values())
    return RunFinished(exit_code=0 if good else 1 if all_failed else 3, best=best, sentence=sentence, front=record)


def test_outcome(trial: Trial) -> Outcome:
    """The outcome of the last look at test data; ERROR where there was none."""
    if trial.error is not None:
        return Outcome.ERROR
    return next((j.verdict.outcome for j in reversed(trial.judgements) if j.split == "test"), Outcome.ERROR)


def _of_front(outcomes: Mapping[int, Outcome]) -> str:
    losers = [f"trial {number} is {outcome.value}" for number, outcome in outcomes.items() if outcome != Outcome.PASS]
    if not losers:
        return "test data, looked at once for each, confirm " + ("every one" if len(outcomes) > 1 else "it")
    rest = "" if len(losers) == len(outcomes) else "; the others passed"
    return f"on test data, looked at once for each, {', '.join(losers)}{rest}"


def _whole_space(candidates: Sequence[Trial]) -> str:
    """Infeasible is said only where every candidate was measured and failed."""
    failures = sum(trial.outcome is Outcome.FAIL for trial in candidates)
    open_ = sum(trial.outcome is Outcome.INCONCLUSIVE for trial in candidates)
    errors = len(candidates) - failures - open_
    every = f"{len(candidates)} candidates" if len(candidates) > 1 else "one candidate"
    if failures == len(candidates):
        return f"the limits are infeasible in this search: its {every} were all measured, and each failed"
    rest = [
        *([f"{open_} undecided"] if open_ else []),
        *([f"{errors} not measured, or not in the declared environment"] if errors else []),
    ]
    return f"{SPACE_EXHAUSTED}: of {every} {failures} failed, {' and '.join(rest)}, so it is not known to be infeasible"


def _why_not(trial: Trial) -> str:
    verdict = trial.judgements[-1].verdict
    reasons = [finding.reason for finding in verdict.findings if finding.outcome is not Outcome.PASS]
    return "; ".join(reasons) or "; ".join(verdict.reasons)
