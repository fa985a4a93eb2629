"""What a run found, in the order in which it is told: shared by the text, HTML, CSV and JUnit reports.

A function of ledger entries alone, so every report can be made again from a run folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeloop.core.events import Entry, Judgement, RunFinished, RunStarted, Trial, fold
from edgeloop.core.measurement import EnergySummary, LatencySummary, MetricSummary, StageSummary, Summary
from edgeloop.core.verdict import Finding, Outcome
from edgeloop.sentences import command_line

MEASURED = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)
"""Outcomes that say something about a network."""


@dataclass(frozen=True, slots=True)
class LimitRow:
    """A limit as a manager reads it: what was asked, what was measured, what is missing."""

    target: str
    finding: Finding
    closest: str
    """How near any candidate came to this limit by itself; empty where none was judged."""

    @property
    def measured(self) -> str:
        return number(self.finding.observed, self.finding.unit)

    @property
    def bound(self) -> str:
        return number(self.finding.limit, self.finding.unit)

    @property
    def gap(self) -> str:
        """Room inside the limit (+) or what is missing (-), absolute and relative."""
        finding = self.finding
        if finding.gap is None:
            return "-"
        relative = f" ({finding.gap_relative:+.1%})" if finding.gap_relative is not None else ""
        return f"{'+' if finding.gap >= 0 else '-'}{number(abs(finding.gap), finding.unit)}{relative}"


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial on one target, in words."""

    trial: Trial
    judged: Judgement | None

    @property
    def name(self) -> str:
        return "M1" if self.trial.role == "reference" else str(self.trial.number)

    @property
    def target(self) -> str:
        return self.judged.target if self.judged else ""

    @property
    def summary(self) -> Summary | None:
        return self.judged.summary if self.judged else None

    @property
    def latency(self) -> LatencySummary | None:
        return self.summary.latency if self.summary else None

    @property
    def energy(self) -> EnergySummary | None:
        return self.summary.energy if self.summary else None

    @property
    def deployed_bytes(self) -> int | None:
        return self.trial.build.artifact.deployed_bytes if self.trial.build else None

    @property
    def outcome(self) -> Outcome | None:
        """None for a trial that is still under way, and for a reference that has no limit of its own."""
        if self.trial.error is not None:
            return Outcome.ERROR
        last = next((j for j in reversed(self.trial.judgements) if j.target == self.target), None)
        return last.verdict.outcome if last else None

    @property
    def word(self) -> str:
        """The outcome in a word."""
        if self.trial.role == "reference" and self.trial.error is None:
            return "reference"
        return self.outcome.value if self.outcome is not None else "under way"

    @property
    def basis(self) -> str:
        """Under which plan, and on which data, the outcome was reached; empty where nothing was judged."""
        last = next((j for j in reversed(self.trial.judgements) if j.target == self.target), None)
        if last is None or self.trial.error is not None or self.trial.role == "reference":
            return ""
        return f"{last.plan.profile}{', test data' if last.split == 'test' else ''}"

    @property
    def verdict(self) -> str:
        """Word and basis together."""
        return f"{self.word} {self.basis}".strip()

    @property
    def accuracy(self) -> MetricSummary | None:
        summary = self.summary
        return None if summary is None else next(iter(summary.metrics), summary.agreement)


@dataclass(frozen=True, slots=True)
class RunView:
    """A run, told."""

    started: RunStarted | None
    finished: RunFinished | None
    trials: tuple[Trial, ...]
    begun_utc: str
    ended_utc: str
    wall_s: float

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> RunView:
        events = [entry.event for entry in entries]
        return cls(
            started=next((e for e in events if isinstance(e, RunStarted)), None),
            finished=next((e for e in events if isinstance(e, RunFinished)), None),
            trials=tuple(fold(events)),
            begun_utc=entries[0].utc if entries else "",
            ended_utc=entries[-1].utc if entries else "",
            wall_s=entries[-1].wall_s_spent if entries else 0.0,
        )

    @property
    def name(self) -> str:
        return self.started.campaign_name if self.started else "run"

    @property
    def candidates(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.role == "candidate"]

    @property
    def reference(self) -> Trial | None:
        return next((trial for trial in self.trials if trial.role == "reference"), None)

    @property
    def emulated(self) -> bool:
        return any(judged.emulated for trial in self.trials for judged in trial.judgements)

    @property
    def chosen(self) -> Trial | None:
        """The network that was output; without one the nearest miss."""
        if self.finished is not None and self.finished.best is not None:
            return next((t for t in self.trials if t.number == self.finished.best), None)
        passed = [trial for trial in self.candidates if trial.passed]
        return next(iter(passed), None) or min(self._judged(), key=_missed_by, default=None)

    def _judged(self) -> list[Trial]:
        return [t for t in self.candidates if t.outcome in MEASURED and t.measured is not None]

    @property
    def word(self) -> str:
        """The run in one word or two."""
        if self.finished is None:
            return "NOT FINISHED"
        return {0: "PASSED", 1: "NOT PASSED"}.get(self.finished.exit_code, "COULD NOT TELL")

    @property
    def sentence(self) -> str:
        """The run in one sentence."""
        if self.finished is not None:
            return self.finished.sentence
        asked = len(self.candidates)
        command = command_line("run", resume=True)
        return f"the run stopped or goes on: {asked} candidate{'' if asked == 1 else 's'} so far; `{command}` goes on"

    @property
    def limits(self) -> list[LimitRow]:
        """The limits beside what was measured on the chosen network, a row for each limit and target."""
        chosen = self.chosen
        if chosen is None:
            return []
        return [
            LimitRow(judged.target, finding, self._closest(judged.target, finding.limit_id))
            for judged in final_judgements(chosen)
            for finding in judged.verdict.findings
        ]

    def _closest(self, target: str, limit_id: str) -> str:
        found = [
            (finding.gap_relative, trial, finding)
            for trial in self._judged()
            for judged in trial.judgements
            if judged.target == target and judged.verdict.outcome in MEASURED
            for finding in judged.verdict.findings
            if finding.limit_id == limit_id and finding.gap_relative is not None
        ]
        if not found:
            return ""
        _, trial, finding = max(found, key=lambda entry: entry[0])
        return f"{number(finding.observed, finding.unit)} (trial {trial.number})"

    @property
    def rows(self) -> list[TrialRow]:
        """Every trial, a row for each target it was measured on."""
        rows: list[TrialRow] = []
        for trial in self.trials:
            latest = {judged.target: judged for judged in trial.judgements if judged.split == "validation"}
            rows.extend(TrialRow(trial, judged) for judged in latest.values())
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
    def energy_per(self) -> Literal["period", "inference"] | None:
        """What the energies are of; None where none was measured."""
        return next((row.energy.per for row in self.rows if row.energy), None)

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
    latest = {judged.target: judged for judged in trial.judgements if judged.split == "validation"}
    latest.update({judged.target: judged for judged in trial.judgements if judged.split == "test"})
    return list(latest.values())


def _missed_by(trial: Trial) -> float:
    worst = trial.measured.verdict.worst if trial.measured else None
    return -(worst.gap_relative or 0.0) if worst else float("inf")


def more_needed(finding: Finding) -> str:
    """For an inconclusive limit, what would decide it; empty otherwise."""
    if finding.outcome is not Outcome.INCONCLUSIVE:
        return ""
    if finding.more_sessions:
        return f"needs about {finding.more_sessions} more session{'' if finding.more_sessions == 1 else 's'}"
    if finding.more_samples:
        return f"needs about {finding.more_samples} more sample{'' if finding.more_samples == 1 else 's'}"
    return "more measuring would not decide it soon"


def number(value: float | None, unit: str = "") -> str:
    """A number with its unit, as people read it; `-` for none."""
    if value is None:
        return "-"
    if unit == "bytes":
        return f"{value:,.0f} bytes"
    return f"{value:.4g}{' ' + unit if unit else ''}"


def ms(nanoseconds: float) -> str:
    """Nanoseconds as milliseconds with four digits."""
    return f"{nanoseconds / 1e6:.4g}"


def mib(value: float | None) -> str:
    return "-" if value is None else f"{value / 2**20:.1f}"


def latency_with_interval(latency: LatencySummary | None, statistic: str) -> str:
    """`1.234 [1.21, 1.26]` in ms; `-` for none."""
    if latency is None:
        return "-"
    interval = next((span for name, span in latency.interval.items() if name == statistic), None)
    text = ms(getattr(latency, statistic))
    return f"{text} [{ms(interval.low)}, {ms(interval.high)}]" if interval else text


def stage_with_interval(stage: StageSummary) -> str:
    """`load 0.123 [0.121, 0.126]` in ms."""
    interval = f" [{ms(stage.interval.low)}, {ms(stage.interval.high)}]" if stage.interval else ""
    return f"{stage.stage} {ms(stage.p50)}{interval}"


EACH = {"period": "a period", "inference": "an inference"}
"""What an energy is of, in words."""


def energy_with_interval(energy: EnergySummary | None, which: Literal["per_period", "above_idle"]) -> str:
    """`12.3 [12.1, 12.6]` in mJ; `-` for none."""
    value = None if energy is None else energy.per_period_mj if which == "per_period" else energy.above_idle_mj
    if energy is None or value is None:
        return "-"
    interval = energy.interval.get(which)
    return f"{value:.4g} [{interval.low:.4g}, {interval.high:.4g}]" if interval else f"{value:.4g}"


def metric_with_interval(metric: MetricSummary | None) -> str:
    if metric is None:
        return "-"
    text = f"{metric.value:.4f}"
    return f"{text} [{metric.interval.low:.4f}, {metric.interval.high:.4f}]" if metric.interval else text


def size_of(row: TrialRow) -> str:
    """Size is four numbers, always together: parameters, MACs, deployed bytes, bytes of activations at the peak."""
    trial = row.trial
    deployed = f"{row.deployed_bytes:,} bytes deployed" if row.deployed_bytes is not None else "not built"
    predicted = f" ({trial.predicted_bytes:,} predicted)" if trial.predicted_bytes is not None else ""
    return (
        f"{trial.sizes.parameters:,} parameters, {trial.sizes.macs:,} MACs, {deployed}{predicted}, "
        f"{trial.peak_activation_bytes:,} bytes of activations at the peak"
    )


@dataclass(frozen=True, slots=True)
class ChainRow:
    """One metric of a trial at each station, so that a loss shows where it happened."""

    row: TrialRow
    metric: str
    float_value: float | None
    fake_quantized: float | None
    converted: float | None
    """Of the built file, on the host."""
    board: float | None
    test: float | None
    """On the board, on test data; all others are on validation data."""


def chain(run: RunView) -> list[ChainRow]:
    """The chain of every trial, a row for each target and metric."""
    rows = []
    for row in run.rows:
        trained, built = row.trial.training, row.trial.build
        test = next((j for j in row.trial.judgements if j.split == "test" and j.target == row.target), None)
        stations = (
            trained.validation if trained else {},
            (trained.lightened or {}) if trained else {},
            (built.converted or {}) if built else {},
            _metrics(row.summary),
            _metrics(test.summary if test else None),
        )
        names = dict.fromkeys(name for values in stations for name in values)
        rows += [ChainRow(row, name, *(values.get(name) for values in stations)) for name in names]
    return rows


def _metrics(summary: Summary | None) -> dict[str, float]:
    return {metric.metric: metric.value for metric in summary.metrics} if summary else {}
