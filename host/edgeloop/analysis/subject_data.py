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
from edgeloop.core.measurement import Delegation, MetricSummary, Session, Subject, Summary


@dataclass(frozen=True, slots=True)
class SubjectData:
    """What was seen of one subject, ready to be judged. Sessions in the order they ran, all kinds and outcomes."""

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
    def called(self) -> str:
        """As sentences name it: the reference is M1."""
        return "M1" if self.label == "reference" else self.label.upper()

    @property
    def broken(self) -> tuple[Session, ...]:
        """Sessions that crashed, ran past their deadline, or were refused; a profile is a pass of its own."""
        return tuple(s for s in self.sessions if s.outcome != "ok" and s.kind != "profile")

    @property
    def peak_rss_bytes(self) -> int | None:
        """Of the worst latency session. Evaluating sessions hold the whole data set, so they don't count."""
        return max((s.peak_rss_bytes for s in self._timed() if s.peak_rss_bytes is not None), default=None)

    @property
    def rss_above_runtime_bytes(self) -> int | None:
        """Of the session where it was the most."""
        above = [
            s.peak_rss_bytes - s.runtime_rss_bytes
            for s in self._timed()
            if s.peak_rss_bytes is not None and s.runtime_rss_bytes is not None
        ]
        return max(above, default=None)

    def _timed(self) -> list[Session]:
        return latency_sessions(self.sessions)


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


def summarise_subject(observed: SubjectData, confidence: float) -> Summary:
    """Return the summary for people: two-sided intervals at `confidence`."""
    timed = latency_sessions(observed.sessions)
    runtime = [s.runtime_rss_bytes for s in timed if s.runtime_rss_bytes is not None]
    profile, profile_problem = profile_in(observed.sessions)
    return Summary(
        label=observed.label,
        engine=observed.engine,
        threads=observed.threads,
        deployed_bytes=observed.deployed_bytes,
        delegate=observed.delegate,
        delegation=observed.delegation,
        latency=summarise(timed, confidence) if timed else None,
        peak_rss_bytes=observed.peak_rss_bytes,
        runtime_rss_bytes=max(runtime, default=None),
        metrics=tuple(metric_summary(scores, confidence) for scores in observed.scores.values()),
        agreement=None if observed.agreement is None else metric_summary(observed.agreement, confidence),
        stages_ns=stage_summaries(timed, confidence),
        profile=profile,
        profile_problem=profile_problem,
        missed_periods=sum(s.missed_periods for s in timed),
        overhead_ns=max((s.overhead_ns for s in timed if s.overhead_ns is not None), default=None),
        energy=summarise_energy(observed.sessions, confidence),
    )


def metric_summary(scores: Scores, confidence: float) -> MetricSummary:
    """Return a score for people: its two-sided interval about the population at `confidence`."""
    interval = two_sided(scores.bound, confidence)
    return MetricSummary(metric=scores.metric, value=scores.value, interval=interval, n=scores.n)
