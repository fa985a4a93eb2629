"""The judge's half of the method (S705): what a finished trial says, and which way the lightening turns next.

Claims 3 to 5: accuracy at or under its threshold lowers the degree of lightening, speed at or under its
threshold raises it; energy, size and memory turn like speed. Only *measured* numbers turn anything: what was not
measured, or was measured outside the declared environment, says nothing of the network. What the claims
leave open (both fail, nothing faster, nothing decided) is a reconstruction: docs/explanation/method.md.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from edgeloop.core.events import Judgement, Trial
from edgeloop.core.measurement import EnergySummary, LatencySummary
from edgeloop.core.verdict import Family, Finding, Outcome
from edgeloop.search.larger_networks import score_j

COSTS = (Family.SPEED, Family.ENERGY, Family.SIZE, Family.MEMORY)
OF_WORK = frozenset({Family.SPEED, Family.ENERGY})
"""Costs of what an engine computes: where two rungs run the same kernels, they have both alike."""
_Of = TypeVar("_Of", bound=Hashable)
_MEMORY_NOISE = 0.01
"""Resident memory of two fresh processes differs by less than this share."""


class Intent(Enum):
    """Which way a trial turns the search."""

    LOWER = "accuracy failed: lower the degree"
    RAISE = "a cost failed: raise the degree"
    SMALLER = "both failed, cost further off: smaller M2"
    LARGER = "both failed, accuracy further off: larger M2"
    NEIGHBOUR = "undecided: the next untried neighbour"
    KEEP = "says nothing of the network: the order stays"
    PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a finished trial says."""

    outcome: Outcome
    failed: Mapping[Family, Finding] = field(default_factory=dict)
    """By family, the failed finding furthest outside its limit."""
    undecided: tuple[Finding, ...] = ()
    may_pass: bool = True
    """False for a pass under a plan that only steers."""
    unmeasured: str = ""
    """For ERROR and INVALID: who has to act, and what happened."""

    @property
    def intent(self) -> Intent:
        if self.outcome in (Outcome.ERROR, Outcome.INVALID):
            return Intent.KEEP
        if self.outcome is Outcome.PASS:
            return Intent.PASSED
        accuracy = self.failed.get(Family.ACCURACY)
        costs = [self.failed[family] for family in COSTS if family in self.failed]
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


def worst_findings(judged: Sequence[Judgement]) -> list[Finding]:
    """Return of each limit the finding with the least room, over the targets that were measured as declared."""
    measured = [j.verdict for j in judged if j.verdict.outcome not in (Outcome.ERROR, Outcome.INVALID)]
    return list(_least_room((f.limit_id, f) for verdict in measured for f in verdict.findings).values())


def _least_room(findings: Iterable[tuple[_Of, Finding]]) -> dict[_Of, Finding]:
    """Of each group the finding with the least room."""
    worst: dict[_Of, Finding] = {}
    for of, finding in findings:
        if of not in worst or gap_of(finding) < gap_of(worst[of]):
            worst[of] = finding
    return worst


def read(trial: Trial) -> Reading:
    """Return what a trial says. Over several targets the worst counts, a measured failure before all else."""
    if trial.error is not None:
        error = trial.error
        return Reading(Outcome.ERROR, unmeasured=f"{error.stage} failed ({error.owner}): {error.message}")
    judged = decisive(trial)
    if not judged:
        return Reading(Outcome.ERROR, unmeasured="nothing was measured")
    outcomes = {j.verdict.outcome for j in judged}
    if Outcome.FAIL in outcomes:
        findings = (f for j in judged if j.verdict.outcome is Outcome.FAIL for f in j.verdict.findings)
        return Reading(Outcome.FAIL, failed=_least_room((f.family, f) for f in findings if f.outcome is Outcome.FAIL))
    for outcome in (Outcome.ERROR, Outcome.INVALID):
        if outcome in outcomes:
            worst = next(j for j in judged if j.verdict.outcome is outcome)
            reasons = "; ".join(worst.verdict.reasons) or "no reason was given"
            return Reading(outcome, unmeasured=f"{outcome.lower()} on {worst.target}: {reasons}")
    if Outcome.INCONCLUSIVE in outcomes:
        undecided = tuple(f for j in judged for f in j.verdict.findings if f.outcome is Outcome.INCONCLUSIVE)
        return Reading(Outcome.INCONCLUSIVE, undecided=undecided)
    return Reading(Outcome.PASS, may_pass=all(j.plan.may_pass for j in judged))


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

    evaluated = 1.0 if trial.evaluation is None else trial.evaluation
    return score_j(max(1 + worst(Family.ACCURACY), 0.0), max(1 - worst(Family.SPEED), 1e-9), 1.0, evaluated)


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Return the measured candidates, best first: passed, then nearest to its limits; J decides between equals.

    Trials that were not measured, or not in the declared environment, are left out.
    """

    def order(trial: Trial) -> tuple[bool, bool, float, float]:
        inside = read(trial).outcome is Outcome.PASS
        gaps = [gap_of(f) for j in decisive(trial) for f in j.verdict.findings]
        # Inside all limits room is no merit by itself: J ranks. Outside, the distance to the limit does.
        miss = 0.0 if inside else -min(gaps, default=0.0)
        return (not trial.passed, not inside, miss, -(score_of(trial) or 0.0))

    measured = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)
    return sorted((t for t in trials if t.role == "candidate" and read(t).outcome in measured), key=order)


def near_misses(trials: Sequence[Trial], most: int = 3) -> str:
    """Say which measured candidates came nearest and what each missed; empty where none was measured."""
    told = []
    for trial in (t for t in ranked(trials) if read(t).outcome is not Outcome.PASS):
        findings = [f for j in decisive(trial) for f in j.verdict.findings if f.outcome is not Outcome.PASS]
        worst = min(findings, key=gap_of, default=None)
        told.append(f"trial {trial.number} ({trial.candidate})" + (f": {figure(worst)}" if worst is not None else ""))
    if not told:
        return ""
    return f"the nearest miss is {told[0]}" if len(told) == 1 else f"the nearest misses are {'; '.join(told[:most])}"


@dataclass(frozen=True, slots=True)
class RungComparison:
    """One rung against another, as measured in this campaign."""

    ratio: float
    """Cost of the second over the first."""
    better: bool
    """The second costs less, by more than the noise."""
    network: int
    """Where it was measured."""


@dataclass
class Costs:
    """Latency, energy and memory by (network, setting, rung), as measured in this campaign."""

    _latency: dict[tuple[int, int, int], LatencySummary] = field(default_factory=dict)
    _memory: dict[tuple[int, int, int], int] = field(default_factory=dict)
    _energy: dict[tuple[int, int, int], EnergySummary] = field(default_factory=dict)

    def learn(self, network: int, setting: int, rung: int, judged: Judgement) -> None:
        if judged.summary is None or judged.verdict.outcome in (Outcome.ERROR, Outcome.INVALID):
            return
        if judged.summary.latency is not None:
            self._latency[network, setting, rung] = judged.summary.latency
        if judged.summary.peak_rss_bytes is not None:
            self._memory[network, setting, rung] = judged.summary.peak_rss_bytes
        if judged.summary.energy is not None and judged.summary.energy.per_period_mj is not None:
            self._energy[network, setting, rung] = judged.summary.energy

    def compare(self, family: Family, here: int, setting: int, one: int, other: int) -> RungComparison | None:
        """Compare two rungs, at the network nearest to `here` where both were measured; None where none was."""
        found = [
            compared
            for network in {key[0] for key in (*self._latency, *self._memory, *self._energy)}
            if (compared := self._at(family, (network, setting, one), (network, setting, other))) is not None
        ]
        return min(found, key=lambda c: (abs(c.network - here), c.network), default=None)

    def compare_settings(self, family: Family, here: int, rung: int, one: int, other: int) -> RungComparison | None:
        """Compare two settings (engine, threads and delegate) for one rung, as `compare` does."""
        found = [
            compared
            for network in {key[0] for key in (*self._latency, *self._memory, *self._energy)}
            if (compared := self._at(family, (network, one, rung), (network, other, rung))) is not None
        ]
        return min(found, key=lambda c: (abs(c.network - here), c.network), default=None)

    def _at(self, family: Family, one: tuple[int, int, int], other: tuple[int, int, int]) -> RungComparison | None:
        if family is Family.MEMORY:
            if one not in self._memory or other not in self._memory:
                return None
            ratio = self._memory[other] / self._memory[one]
            return RungComparison(ratio, ratio < 1 - _MEMORY_NOISE, one[0])
        if family is Family.ENERGY:
            return self._energies(one, other)
        if one not in self._latency or other not in self._latency:
            return None
        first, second = self._latency[one], self._latency[other]
        noise_first, noise_second = first.interval.get("p50"), second.interval.get("p50")
        better = (noise_second.high if noise_second else second.p50) < (noise_first.low if noise_first else first.p50)
        return RungComparison(second.p50 / first.p50, better, one[0])

    def _energies(self, one: tuple[int, int, int], other: tuple[int, int, int]) -> RungComparison | None:
        """Per period: above idle may be near zero, where a ratio says nothing."""
        if one not in self._energy or other not in self._energy:
            return None
        first, second = self._energy[one], self._energy[other]
        from_mj, to_mj = first.per_period_mj or 0.0, second.per_period_mj or 0.0
        noise_first, noise_second = first.interval.get("per_period"), second.interval.get("per_period")
        better = (noise_second.high if noise_second else to_mj) < (noise_first.low if noise_first else from_mj)
        return RungComparison(to_mj / from_mj, better, one[0])


def figure(finding: Finding) -> str:
    """Say a finding in figures: `latency p90 12.4 ms is over 10 ms`."""
    what = re.split(r" (?:under|over|less than|at most|at least) ", finding.text, maxsplit=1)[0]
    unit = "" if finding.unit in ("", "fraction", "ratio", "1") else f" {finding.unit}"
    if finding.observed is None or finding.limit is None:
        return f"{finding.text}: {finding.reason}"
    observed, limit = _number(finding.observed) + unit, _number(finding.limit) + unit
    if finding.outcome is Outcome.INCONCLUSIVE and finding.interval is not None:
        ends = ["open" if end is None else _number(end) for end in finding.interval]
        return f"{what} {observed} ({ends[0]} to {ends[1]}) can't be told from {limit}"
    if finding.observed == finding.limit:
        return f"{what} {observed} is the limit itself, which is no pass"
    return f"{what} {observed} is {'over' if finding.observed > finding.limit else 'under'} {limit}"


def told_in_figures(reading: Reading) -> str:
    """Say what a reading found: what failed, what could not be decided, why nothing was measured, or that it passed."""
    if reading.unmeasured:
        return reading.unmeasured
    if reading.failed:
        return " and ".join(figure(finding) for finding in sorted(reading.failed.values(), key=gap_of))
    if reading.undecided:
        return "undecided, which is no pass: " + ", ".join(map(figure, reading.undecided))
    return "every limit is met on validation data" if reading.outcome is Outcome.PASS else "not passed"


def percent_faster(compared: RungComparison) -> str:
    """Say a comparison of latencies: `41 % faster`, `12 % slower`, `not faster (2 %, within the noise)`."""
    share = abs(1 - compared.ratio) * 100
    if compared.better:
        return f"{share:.0f} % faster"
    return f"{share:.0f} % slower" if compared.ratio > 1 else f"not faster beyond the noise ({share:.0f} %)"


def percent_less_energy(compared: RungComparison) -> str:
    """Say a comparison of energies: `41 % less energy`, `12 % more energy`, `no less energy beyond the noise (2 %)`."""
    share = abs(1 - compared.ratio) * 100
    if compared.better:
        return f"{share:.0f} % less energy"
    return f"{share:.0f} % more energy" if compared.ratio > 1 else f"no less energy beyond the noise ({share:.0f} %)"


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
