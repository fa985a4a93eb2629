"""Figures that the caller measured, in place of a board that edgeloop reaches: checked, and judged by the same rule.

They are raw numbers, not averages: latencies by session and scores by sample, since a verdict needs an interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeloop.analysis.accuracy import Scores
from edgeloop.analysis.scoring import Scorer
from edgeloop.analysis.subject_data import SubjectData, summarise_subject
from edgeloop.analysis.verdict import judge
from edgeloop.core.conditions import SessionConditions
from edgeloop.core.events import Judgement, Split, Trial
from edgeloop.core.frozen import key_of
from edgeloop.core.limits import LimitSet
from edgeloop.core.measurement import Session
from edgeloop.core.network import Candidate
from edgeloop.core.plan import Plan
from edgeloop.core.verdict import Outcome, Verdict
from edgeloop.errors import UserError

EXTERNAL_TARGET = "own-measuring"
"""The target that a ledger names for such figures."""
BASELINE = Verdict(outcome=Outcome.PASS, reasons=("the baseline: every limit of this campaign is relative to it",))
"""Of M1 where no limit can be judged on M1 alone."""


@dataclass(frozen=True, slots=True)
class TimedSession:
    """The times of one fresh process. All in ns; memory in bytes, None where it was not read."""

    latencies_ns: ArrayLike
    """(n,): every timed run, warm-ups left out."""
    load_ns: int
    """From nothing to a model that can run."""
    first_ns: int
    """The first inference."""
    peak_rss_bytes: int | None = None
    runtime_rss_bytes: int | None = None
    """Before the model was loaded."""


@dataclass(frozen=True, slots=True)
class ExternalMeasurement:
    """One network on one split of the data, as the caller measured it."""

    deployed_bytes: int
    sessions: Sequence[TimedSession] = ()
    scores: Mapping[str, ArrayLike] = field(default_factory=dict)
    """By metric (n,): the score of each sample, such as 1 and 0 for `top1`."""
    agreement: ArrayLike | None = None
    """(n,): whether the network agrees with M1 in each sample."""
    beside: ExternalMeasurement | None = None
    """M1, measured in turn with it: ratios of latency and drops of accuracy are taken from pairs."""


def judge_external(
    figures: ExternalMeasurement,
    *,
    run_id: str,
    trial: int,
    candidate: Candidate,
    split: Split,
    limits: LimitSet,
    plan: Plan,
    scorer: Scorer,
) -> Judgement:
    """Judge figures. M1 (trial 0) is judged by the limits that need no reference.

    Raises UserError for figures that are no numbers of the right shape, and for metrics the task does not have.
    """
    if trial == 0:
        limits = limits.model_copy(update={"limit": tuple(one for one in limits.limit if not one.needs_reference)})
    subject = _subject(figures, "candidate", candidate, scorer, f"trial {trial}")
    beside = figures.beside
    reference = (
        None if beside is None else _subject(beside, "reference", candidate, scorer, f"trial {trial}, M1 beside")
    )
    for name, scores in subject.scores.items():
        other = reference.scores.get(name) if reference is not None else None
        if other is not None and other.n != scores.n:
            raise UserError(f"trial {trial}: {name} has {scores.n} scores, M1 beside it {other.n}")
    verdict = judge(limits, subject, reference, plan, looks=1) if limits.limit or trial else BASELINE
    return Judgement(
        trial=trial,
        job_key=key_of("own", run_id, trial, split),
        target=EXTERNAL_TARGET,
        split=split,
        plan=plan,
        look=1,
        summary=summarise_subject(subject, limits.confidence),
        reference=None if reference is None else summarise_subject(reference, limits.confidence),
        trust=None,
        verdict=verdict,
        seconds=0.0,
    )


def is_external(trial: Trial) -> bool:
    """Return whether a trial was judged on figures that the caller measured."""
    return any(judgement.target == EXTERNAL_TARGET for judgement in trial.judgements)


def _subject(figures: ExternalMeasurement, label: str, candidate: Candidate, scorer: Scorer, where: str) -> SubjectData:
    if figures.deployed_bytes < 1:
        raise UserError(f"{where}: deployed_bytes is {figures.deployed_bytes}, a file has at least 1")
    unknown = sorted(set(figures.scores) - set(scorer.metrics))
    if unknown:
        names = ", ".join(scorer.metrics)
        raise UserError(f"{where}: the task has no metric {', '.join(unknown)}", next_step=f"its metrics are {names}")
    scores = {}
    for name, by_sample in figures.scores.items():
        metric, values = scorer.metrics[name], _numbers(by_sample, f"{where}: {name}")
        mean = float(values.mean())
        value = float(np.sqrt(mean)) if metric.root else mean
        scores[name] = Scores(name, metric.higher_is_better, value, len(values), per_sample=values, root=metric.root)
    agreement = None if figures.agreement is None else _numbers(figures.agreement, f"{where}: agreement")
    return SubjectData(
        label=label,
        engine=candidate.engine,
        threads=candidate.threads,
        delegate=candidate.delegate,
        deployed_bytes=figures.deployed_bytes,
        sessions=tuple(_session(at, label, one, where) for at, one in enumerate(figures.sessions)),
        scores=scores,
        agreement=None if agreement is None else _agreement(agreement),
    )


def _agreement(by_sample: NDArray[np.float64]) -> Scores:
    value = float(by_sample.mean())
    return Scores("agreement", higher_is_better=True, value=value, n=len(by_sample), per_sample=by_sample)


def _session(index: int, label: str, session: TimedSession, where: str) -> Session:
    latencies = _numbers(session.latencies_ns, f"{where}: latencies of session {index}")
    if min(latencies.min(), session.load_ns, session.first_ns) <= 0:
        raise UserError(f"{where}: session {index} has a time that is not over 0 ns")
    return Session(
        index=index,
        label=label,
        kind="latency",
        outcome="ok",
        detail="",
        latencies_ns=latencies.astype(np.int64),
        warmups_ns=np.array([], dtype=np.int64),
        load_ns=session.load_ns,
        first_ns=session.first_ns,
        peak_rss_bytes=session.peak_rss_bytes,
        runtime_rss_bytes=session.runtime_rss_bytes,
        conditions=SessionConditions(),
        boot_id="",
    )


def _numbers(array: ArrayLike, where: str) -> NDArray[np.float64]:
    try:
        values = np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: no numbers: {error}") from error
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise UserError(f"{where}: one finite number each is wanted, found shape {values.shape}")
    return values
