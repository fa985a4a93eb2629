"""How a run ends (S706): what its trials come to, as an exit code, a trial and a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from edgeloop.core.events import FrontMember, FrontRecord, RunFinished, Trial
from edgeloop.core.verdict import Outcome
from edgeloop.search.moves import best_first, decisive, near_misses, result_of
from edgeloop.search.pareto import Front

MEASURED = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)
SPACE_EXHAUSTED = "nothing is left to ask"


class Proof(Enum):
    """What a candidate's measurements come to for the run as a whole."""

    OPEN = "not passed: the search goes on"
    PROVEN = "confirmed, and passed its look at test data"
    REFUTED = "confirmed, and not passed on test data: the run ends"


def confirmed(trial: Trial) -> bool:
    """Whether a trial passed on validation data on every target, under a plan that may pass."""
    return result_of(trial).outcome is Outcome.PASS and all(judged.plan.may_pass for judged in decisive(trial))


def proof_of(trial: Trial) -> Proof:
    """Return what a finished trial's one look at test data came to; OPEN where it never got there."""
    if not confirmed(trial) or not any(judged.split == "test" for judged in trial.judgements):
        return Proof.OPEN
    return Proof.PROVEN if trial.passed else Proof.REFUTED


def passed(trial: Trial, where: str) -> RunFinished:
    return RunFinished(
        exit_code=0,
        best=trial.number,
        sentence=f"trial {trial.number}, {trial.candidate}, passed every limit on {where}: confirmed on validation "
        "data, and once on test data that nothing had seen",
    )


def refuted(trial: Trial) -> RunFinished:
    """The winner was confirmed, and its look at test data was no pass: 1 where it failed, 3 where it can't be told."""
    return RunFinished(
        exit_code=1 if test_outcome(trial) is Outcome.FAIL else 3,
        best=trial.number,
        sentence=f"trial {trial.number}, {trial.candidate}, was confirmed on validation data and is "
        f"{test_outcome(trial).value} on test data, which may be looked at once: {_why_not(trial)}",
    )


def unproven(trial: Trial) -> RunFinished:
    """Confirmed by figures of the caller's own, and nobody looked at test data: that can't be told to have passed."""
    return RunFinished(
        exit_code=3,
        best=trial.number,
        sentence=f"trial {trial.number}, {trial.candidate}, passed every limit on validation data as its owner "
        "measured it; figures on test data were not told, so it is not proven",
    )


def none_passed(trials: Sequence[Trial], why: str) -> RunFinished:
    """Nothing passed; exit code 3 where nothing could be measured either."""
    candidates = [trial for trial in trials if trial.role == "candidate"]
    measured = [trial for trial in candidates if trial.outcome in MEASURED]
    if not measured:
        reasons = [t.error.message for t in candidates if t.error] or ["no candidate was measured"]
        return RunFinished(exit_code=3, best=None, sentence=f"{why}; no candidate could be judged: {reasons[-1]}")
    if why == SPACE_EXHAUSTED:
        why = _swept(candidates)
    misses = near_misses(measured)
    return RunFinished(
        exit_code=1,
        best=best_first(measured)[0].number,
        sentence=f"none passed; {why}" + (f". {misses[0].upper()}{misses[1:]}" if misses else ""),
    )


def front_found(found: Front, outcomes: Mapping[int, Outcome], trials: Sequence[Trial], why: str) -> RunFinished:
    """The front, each member after its look at test data: 0 where one passed, 1 where all failed, else 3."""
    told = FrontRecord(
        axes=found.axes,
        members=tuple(
            FrontMember(trial=number, values=place, outcome=outcomes[number]) for number, place in found.places.items()
        ),
    )
    good = [number for number, outcome in outcomes.items() if outcome is Outcome.PASS]
    names = ", ".join(f"trial {t.number} ({t.candidate})" for t in trials if t.number in outcomes)
    networks = f"{len(outcomes)} networks that none beats" if len(outcomes) > 1 else "one network that none beats"
    sentence = f"{why}; of what passed on validation data the front is {networks}: {names}; {_of_front(outcomes)}"
    best = next((trial.number for trial in best_first(trials) if trial.number in (good or outcomes)), None)
    lost = all(outcome is Outcome.FAIL for outcome in outcomes.values())
    return RunFinished(exit_code=0 if good else 1 if lost else 3, best=best, sentence=sentence, front=told)


def test_outcome(trial: Trial) -> Outcome:
    """The outcome of the last look at test data; ERROR where there was none."""
    if trial.error is not None:
        return Outcome.ERROR
    return next((j.verdict.outcome for j in reversed(trial.judgements) if j.split == "test"), Outcome.ERROR)


def _of_front(outcomes: Mapping[int, Outcome]) -> str:
    lost = [f"trial {number} is {outcome.value}" for number, outcome in outcomes.items() if outcome is not Outcome.PASS]
    if not lost:
        return "test data, looked at once for each, confirm " + ("every one" if len(outcomes) > 1 else "it")
    rest = "" if len(lost) == len(outcomes) else "; the others passed"
    return f"on test data, looked at once for each, {', '.join(lost)}{rest}"


def _swept(candidates: Sequence[Trial]) -> str:
    """Infeasible is said only where every candidate was measured and failed."""
    failed = sum(trial.outcome is Outcome.FAIL for trial in candidates)
    undecided = sum(trial.outcome is Outcome.INCONCLUSIVE for trial in candidates)
    lost = len(candidates) - failed - undecided
    every = f"{len(candidates)} candidates" if len(candidates) > 1 else "one candidate"
    if failed == len(candidates):
        return f"the limits are infeasible in this search: its {every} were all measured, and each failed"
    open_ = [
        *([f"{undecided} undecided"] if undecided else []),
        *([f"{lost} not measured, or not in the declared environment"] if lost else []),
    ]
    return f"{SPACE_EXHAUSTED}: of {every} {failed} failed, {' and '.join(open_)}, so it is not known to be infeasible"


def _why_not(trial: Trial) -> str:
    verdict = trial.judgements[-1].verdict
    found = [finding.reason for finding in verdict.findings if finding.outcome is not Outcome.PASS]
    return "; ".join(found) or "; ".join(verdict.reasons)
