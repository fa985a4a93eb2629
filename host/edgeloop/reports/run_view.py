"""A run in the order in which it is told: shared by the text, HTML, CSV and JUnit reports.

A function of ledger entries alone, so every report can be made again from a run folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop.core.events import Entry, Judgement, RunFinished, RunStarted, Trial, fold
from edgeloop.core.measurement import LatencySummary, MetricSummary, Summary
from edgeloop.core.units import number
from edgeloop.core.verdict import ABOUT_THE_NETWORK, Finding, Outcome
from edgeloop.reports.figures import FigureColumn, estimate_columns, first_score, reading_columns
from edgeloop.sentences import command_line


@dataclass(frozen=True, slots=True)
class LimitRow:
    """A limit as a manager reads it: the limit, the measured figure, and the gap between them."""

    target: str
    finding: Finding
    closest: str
    """The nearest that any candidate came to this limit by itself; empty where none was judged."""

    @property
    def observation(self) -> str:
        return number(self.finding.observed, self.finding.unit)

    @property
    def bound(self) -> str:
        return number(self.finding.limit, self.finding.unit)

    @property
    def gap(self) -> str:
        """The room inside the limit (+) or what is missing (-), absolute and relative."""
        finding = self.finding
        if finding.gap is None:
            return "-"
        relative = f" ({finding.gap_relative:+.1%})" if finding.gap_relative is not None else ""
        return f"{'+' if finding.gap >= 0 else '-'}{number(abs(finding.gap), finding.unit)}{relative}"


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial on one target, in words: outcome, plan and figures of one judgement, the look at test data beside it."""

    trial: Trial
    judgement: Judgement | None
    """The last one on validation data; None where there is none yet."""

    @property
    def name(self) -> str:
        return "M1" if self.trial.role == "reference" else str(self.trial.number)

    @property
    def target(self) -> str:
        return self.judgement.target if self.judgement else ""

    @property
    def summary(self) -> Summary | None:
        return self.judgement.summary if self.judgement else None

    @property
    def latency(self) -> LatencySummary | None:
        return self.summary.latency if self.summary else None

    @property
    def deployed_bytes(self) -> int | None:
        return self.trial.build.artifact.deployed_bytes if self.trial.build else None

    @property
    def outcome(self) -> Outcome | None:
        """The outcome on validation data; None for a trial that is still under way."""
        if self.trial.error is not None:
            return Outcome.ERROR
        return self.judgement.verdict.outcome if self.judgement else None

    @property
    def test_outcome(self) -> Outcome | None:
        """The outcome of the look at test data on this target; None where nobody has looked."""
        looks = (j for j in reversed(self.trial.judgements) if j.split == "test" and j.target == self.target)
        look = next(looks, None)
        return look.verdict.outcome if look else None

    @property
    def word(self) -> str:
        """The outcome in a word."""
        if self.trial.role == "reference" and self.trial.error is None:
            return "reference"
        return self.outcome.value if self.outcome is not None else "under way"

    @property
    def basis(self) -> str:
        """The plan under which the outcome was reached, and what test data said; empty where nothing was judged."""
        if self.judgement is None or self.trial.error is not None or self.trial.role == "reference":
            return ""
        test = f"; test data {self.test_outcome.value}" if self.test_outcome is not None else ""
        return f"{self.judgement.plan.profile}{test}"

    @property
    def verdict(self) -> str:
        """Word and basis together."""
        return f"{self.word} {self.basis}".strip()

    @property
    def accuracy(self) -> MetricSummary | None:
        return first_score(self.summary)


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as reports need it."""

    start: RunStarted | None
    end: RunFinished | None
    trials: tuple[Trial, ...]
    begun_utc: str
    ended_utc: str
    wall_s: float

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> RunView:
        events = [entry.event for entry in entries]
        return cls(
            start=next((e for e in events if isinstance(e, RunStarted)), None),
            end=next((e for e in events if isinstance(e, RunFinished)), None),
            trials=tuple(fold(events)),
            begun_utc=entries[0].utc if entries else "",
            ended_utc=entries[-1].utc if entries else "",
            wall_s=entries[-1].wall_s_spent if entries else 0.0,
        )

    @property
    def name(self) -> str:
        return self.start.campaign_name if self.start else "run"

    @property
    def candidates(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.role == "candidate"]

    @property
    def reference(self) -> Trial | None:
        return next((trial for trial in self.trials if trial.role == "reference"), None)

    @property
    def emulated(self) -> bool:
        return any(judgement.emulated for trial in self.trials for judgement in trial.judgements)

    @property
    def best(self) -> Trial | None:
        """The network that was output; without one the nearest miss."""
        if self.end is not None and self.end.best is not None:
            return next((t for t in self.trials if t.number == self.end.best), None)
        return next((trial for trial in self.candidates if trial.passed), None) or min(
            self._with_verdict(), key=_missed_by, default=None
        )

    def _with_verdict(self) -> list[Trial]:
        return [t for t in self.candidates if t.outcome in ABOUT_THE_NETWORK and t.last_validation is not None]

    @property
    def word(self) -> str:
        """The run in one word or two."""
        if self.end is None:
            return "NOT FINISHED"
        return {0: "PASSED", 1: "NOT PASSED"}.get(self.end.exit_code, "COULD NOT TELL")

    @property
    def sentence(self) -> str:
        """The run in one sentence."""
        if self.end is not None:
            return self.end.sentence
        count = len(self.candidates)
        command = command_line("run", resume=True)
        return f"the run stopped or goes on: {count} candidate{'' if count == 1 else 's'} so far; `{command}` goes on"

    @property
    def limits(self) -> list[LimitRow]:
        """The limits beside what was measured on the chosen network, a row for each limit and target."""
        best = self.best
        if best is None:
            return []
        return [
            LimitRow(judgement.target, finding, self._closest(judgement.target, finding.limit_id))
            for judgement in final_judgements(best)
            for finding in judgement.verdict.findings
        ]

    def _closest(self, target: str, limit_id: str) -> str:
        candidates = [
            (finding.gap_relative, trial, finding)
            for trial in self._with_verdict()
            for judgement in trial.judgements
            if judgement.target == target and judgement.verdict.outcome in ABOUT_THE_NETWORK
            for finding in judgement.verdict.findings
            if finding.limit_id == limit_id and finding.gap_relative is not None
        ]
        if not candidates:
            return ""
        _, trial, finding = max(candidates, key=lambda entry: entry[0])
        return f"{number(finding.observed, finding.unit)} (trial {trial.number})"

    @property
    def rows(self) -> list[TrialRow]:
        """Every trial, a row for each target it was measured on."""
        rows: list[TrialRow] = []
        for trial in self.trials:
            latest = {j.target: j for j in trial.judgements if j.split == "validation"}
            rows.extend(TrialRow(trial, judgement) for judgement in latest.values())
            if not latest:
                rows.append(TrialRow(trial, None))
        return rows

    @property
    def moves(self) -> list[tuple[str, str]]:
        """(trial, what it moved and why), in order; first, why the first candidate was asked."""
        first = [(str(trial.number), f"start: {trial.why}") for trial in self.candidates[:1]]
        return first + [
            (str(t.number), f"{DIRECTIONS[t.move.direction]}: {t.move.sentence}") for t in self.trials if t.move
        ]

    @property
    def summaries(self) -> list[Summary]:
        """The figures of every row that was measured."""
        return [row.summary for row in self.rows if row.summary is not None]

    @property
    def estimate_columns(self) -> list[FigureColumn]:
        """Columns of scores, times and energies."""
        return estimate_columns(self.summaries, self.accuracy_name)

    @property
    def reading_columns(self) -> list[FigureColumn]:
        """Columns of what is read."""
        return reading_columns(self.summaries)

    @property
    def several_targets(self) -> bool:
        return len({row.target for row in self.rows if row.target}) > 1

    @property
    def accuracy_name(self) -> str:
        """The metric in the accuracy column."""
        return next((row.accuracy.metric for row in self.rows if row.accuracy), "accuracy")


DIRECTIONS = {
    "lower_degree": "lighten less",
    "raise_degree": "lighten more",
    "larger": "larger network",
    "smaller": "smaller network",
    "other_engine": "other engine, delegate or threads",
    "confirm": "confirm",
    "repeat": "measure again",
    "none": "no move",
}


def final_judgements(trial: Trial) -> list[Judgement]:
    """The judgement that counts on each target: the look at test data where there was one."""
    latest = {j.target: j for j in trial.judgements if j.split == "validation"}
    latest.update({j.target: j for j in trial.judgements if j.split == "test"})
    return list(latest.values())


def _missed_by(trial: Trial) -> float:
    worst = trial.last_validation.verdict.worst if trial.last_validation else None
    return -(worst.gap_relative or 0.0) if worst else float("inf")


def limit_title(finding: Finding) -> str:
    """Return `L1`, or `L1 [REQ-7]` where the limit stands for a requirement."""
    return f"{finding.limit_id} [{finding.requirement}]" if finding.requirement else finding.limit_id


def more_needed(finding: Finding) -> str:
    """Return what would decide an inconclusive limit; empty otherwise."""
    if finding.outcome is not Outcome.INCONCLUSIVE:
        return ""
    if finding.more_sessions:
        return f"needs about {finding.more_sessions} more session{'' if finding.more_sessions == 1 else 's'}"
    if finding.more_samples:
        return f"needs about {finding.more_samples} more sample{'' if finding.more_samples == 1 else 's'}"
    return "more measuring would not decide it soon"


def size_of(row: TrialRow) -> str:
    """Size is four numbers, always together: parameters, MACs, deployed bytes, bytes of activations at the peak."""
    trial = row.trial
    file = f"{row.deployed_bytes:,} bytes deployed" if row.deployed_bytes is not None else "not built"
    prediction = f" ({trial.predicted_bytes:,} predicted)" if trial.predicted_bytes is not None else ""
    return (
        f"{trial.sizes.parameters:,} parameters, {trial.sizes.macs:,} MACs, {file}{prediction}, "
        f"{trial.peak_activation_bytes:,} bytes of activations at the peak"
    )


@dataclass(frozen=True, slots=True)
class ChainRow:
    """One metric of a trial at each station, so that a loss shows where it happened."""

    row: TrialRow
    metric: str
    float_value: float | None
    fake_quantized: float | None
    on_host: float | None
    """Of the built file."""
    board: float | None
    test: float | None
    """On the board, on test data; all others are on validation data."""


def chain(run: RunView) -> list[ChainRow]:
    """The chain of every trial, a row for each target and metric."""
    rows = []
    for row in run.rows:
        training, build = row.trial.training, row.trial.build
        test = next((j for j in row.trial.judgements if j.split == "test" and j.target == row.target), None)
        stations = (
            training.validation if training else {},
            (training.lightened or {}) if training else {},
            (build.converted or {}) if build else {},
            _metrics(row.summary),
            _metrics(test.summary if test else None),
        )
        names = dict.fromkeys(name for values in stations for name in values)
        rows += [ChainRow(row, name, *(values.get(name) for values in stations)) for name in names]
    return rows


def _metrics(summary: Summary | None) -> dict[str, float]:
    return {metric.metric: metric.value for metric in summary.metrics} if summary else {}
