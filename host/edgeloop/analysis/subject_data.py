"""One subject as it was seen: its sessions and scores, picked out of a job, and their summary for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgeloop.analysis.accuracy import Scores
from edgeloop.analysis.delegation import least_taken
from edgeloop.analysis.energy import summarise_energy
from edgeloop.analysis.profiling import profile_in
from edgeloop.analysis.spread import summarise
from edgeloop.analysis.statistics import latency_sessions, stage_summaries, two_sided
from edgeloop.core.measurement import OWN_READINGS, Delegation, MetricSummary, Session, Subject, Summary
from edgeloop.core.metric import Metric
from edgeloop.core.metrics import readings


@dataclass(frozen=True, slots=True)
class SubjectData:
    """One subject as it was seen, ready to be judged. Sessions in the order they ran, all kinds and outcomes."""

    label: str
    engine: str
    threads: int
    deployed_bytes: int
    sessions: tuple[Session, ...]
    scores: Mapping[str, Scores] = field(default_factory=dict)
    agreement: Scores | None = None
    """With the reference's results on the same samples; None without a reference or data."""
    delegate: str | None = None
    delegation: Delegation | None = None

    @property
    def alias(self) -> str:
        """Its name in sentences: the reference is M1."""
        return "M1" if self.label == "reference" else self.label.upper()

    @property
    def crashes(self) -> tuple[Session, ...]:
        """Sessions that crashed, ran past their deadline, or were refused; a profile is a pass of its own."""
        return tuple(s for s in self.sessions if s.outcome != "ok" and s.kind != "profile")

    def reading(self, metric: Metric) -> float | None:
        """Return a figure that is read; None where no latency session brought it.

        Sessions that evaluate hold the whole data set, so they don't count.
        """
        if metric.of_session is None:
            return self.deployed_bytes
        values = [value for s in latency_sessions(self.sessions) if (value := metric.of_session(s)) is not None]
        return metric.over_sessions(values) if values else None


def subject_data(
    subject: Subject,
    engine_version: str,
    sessions: Sequence[Session],
    scores: Mapping[str, Scores] | None = None,
    agreement: Scores | None = None,
) -> SubjectData:
    """Pick one subject's sessions out of a job's, or out of several jobs', given in the order they ran."""
    own = tuple(session for session in sessions if session.label == subject.label)
    return SubjectData(
        label=subject.label,
        engine=engine_version,
        threads=subject.threads,
        deployed_bytes=subject.artifact.deployed_bytes,
        sessions=own,
        delegate=None if subject.delegate is None else subject.delegate.name,
        delegation=least_taken(own, subject),
        scores=dict(scores or {}),
        agreement=agreement,
    )


def summarise_subject(subject: SubjectData, confidence: float) -> Summary:
    """Return the summary for people: two-sided intervals at `confidence`."""
    timings = latency_sessions(subject.sessions)
    profile, profile_problem = profile_in(subject.sessions)
    figures = {row.key: subject.reading(row) for row in readings(in_summary=True)}
    return Summary.model_validate(
        {
            "label": subject.label,
            "engine": subject.engine,
            "threads": subject.threads,
            "deployed_bytes": subject.deployed_bytes,
            "delegate": subject.delegate,
            "delegation": subject.delegation,
            "latency": summarise(timings, confidence) if timings else None,
            "metrics": tuple(metric_summary(scores, confidence) for scores in subject.scores.values()),
            "agreement": None if subject.agreement is None else metric_summary(subject.agreement, confidence),
            "stages_ns": stage_summaries(timings, confidence),
            "profile": profile,
            "profile_problem": profile_problem,
            "energy": summarise_energy(subject.sessions, confidence),
            **{key: value for key, value in figures.items() if key in OWN_READINGS and value is not None},
            "readings": {key: value for key, value in figures.items() if key not in OWN_READINGS and value is not None},
        }
    )


def metric_summary(scores: Scores, confidence: float) -> MetricSummary:
    """Return a score for people: its two-sided interval about the population at `confidence`."""
    interval = two_sided(scores.bound, confidence)
    return MetricSummary(metric=scores.metric, value=scores.value, interval=interval, n=scores.n)
