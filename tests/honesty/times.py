"""Limits on times at a known truth: simulated sessions, decided by the functions that judge real ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgeloop.analysis.decision import decide_timing
from edgeloop.analysis.percentiles import Bursts, burst_length, leaning, percentile, samples_needed
from edgeloop.analysis.spread import Rule, Spread, paired_spread, spread_from
from edgeloop.analysis.statistics import PERCENT, Statistic, split_confidence
from edgeloop.core.plan import Plan, ProfileName
from edgeloop.core.verdict import Outcome
from honesty.noise import NOISES, Noise
from honesty.rates import CONFIDENCE, Rate

STATISTICS: tuple[Statistic, ...] = ("p50", "p90", "p99")
Kind = Literal["one look", "two looks", "ratio"]
KINDS: tuple[Kind, ...] = ("one look", "two looks", "ratio")
TRUE_NS = 4e6
"""Undisturbed latency of the simulated network: a session of 2 s has 500 samples."""
_CHUNK = 100  # trials that are held at once
_CONFIRM = 4


@dataclass(frozen=True, slots=True)
class Setting:
    """A profile, and the samples that a session of a network of 4 ms has under it."""

    name: str
    sessions: int
    samples: dict[Statistic, int]

    @classmethod
    def of(cls, profile: ProfileName) -> Setting:
        plan = Plan.of(profile)
        samples = max(plan.runs_min, math.ceil(plan.time_s_min / (TRUE_NS / 1e9)))
        return cls(profile, plan.sessions, dict.fromkeys(STATISTICS, samples))

    @classmethod
    def shortest(cls) -> Setting:
        """The fewest samples that a percentile may be passed with."""
        samples = {name: samples_needed(PERCENT[name], CONFIDENCE) for name in STATISTICS}
        return cls("standard, shortest sessions", Plan.of("standard").sessions, samples)


SHORTEST = Setting.shortest()
SETTINGS = (Setting.of("quick"), Setting.of("standard"), SHORTEST, Setting.of("qualification"))


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the table: PASS and FAIL of a limit that is the truth."""

    setting: str
    noise: str
    kind: Kind
    statistic: Statistic
    passes: Rate
    fails: Rate


@dataclass(frozen=True, slots=True)
class _Look:
    """One model's sessions up to the end of a look: session estimates (trials, sessions) and bursts (trials,)."""

    low: NDArray[np.float64]
    middle: NDArray[np.float64]
    high: NDArray[np.float64]
    burst: NDArray[np.float64]

    def spread(self, trial: int, samples: int, rule: Rule) -> Spread:
        at = self.low[trial], self.middle[trial], self.high[trial]
        return spread_from(*at, rule, 0.0, samples, float(self.burst[trial]))


def simulate(noise: Noise, setting: Setting, trials: int, seed: int, rule: Rule) -> list[Cell]:
    """Return the cells of one noise and profile; equal arguments give equal cells."""
    rng = np.random.default_rng([seed, *noise.name.encode(), *setting.name.encode()])
    counts: Counter[tuple[Kind, Statistic, Outcome]] = Counter()
    count = 0
    while count < trials:
        chunk = min(_CHUNK, trials - count)
        for kind, statistic, outcome in _chunk(noise, setting, chunk, rng, rule):
            counts[kind, statistic, outcome] += 1
        count += chunk
    return [
        Cell(
            setting.name,
            noise.name,
            kind,
            statistic,
            Rate(counts[kind, statistic, Outcome.PASS], trials),
            Rate(counts[kind, statistic, Outcome.FAIL], trials),
        )
        for kind in KINDS
        for statistic in STATISTICS
    ]


def _chunk(
    noise: Noise, setting: Setting, trials: int, rng: Generator, rule: Rule
) -> Iterator[tuple[Kind, Statistic, Outcome]]:
    """Simulate a candidate and its reference over two looks, and decide every limit at the truth."""
    sessions = 2 * setting.sessions
    drift = np.zeros((trials, sessions)) if noise.drift is None else noise.drift(rng, trials, sessions)
    logs = [_draw(noise, setting, trials, rng) + drift[..., None] for _ in ("candidate", "reference")]
    for statistic in STATISTICS:
        n, base = setting.samples[statistic], noise.truth(PERCENT[statistic])
        ours, theirs = (_looks(TRUE_NS * np.exp(values[..., :n]), statistic, rule) for values in logs)
        for trial in range(trials):
            truths = _truths(noise, base, drift[trial])
            first, both = (look.spread(trial, n, rule) for look in ours)
            yield "one look", statistic, decide_timing(first, truths[0], statistic, CONFIDENCE, CONFIDENCE)
            yield "two looks", statistic, _two_looks(first, both, truths, statistic)
            beside = theirs[0].spread(trial, n, rule)
            ratio = paired_spread(ours[0].middle[trial], theirs[0].middle[trial], first, beside)
            yield "ratio", statistic, decide_timing(ratio, 1.0, statistic, CONFIDENCE, CONFIDENCE)


def _draw(noise: Noise, setting: Setting, trials: int, rng: Generator) -> NDArray[np.float64]:
    sessions = 2 * setting.sessions
    effects = noise.session(rng, (trials, sessions))
    return effects[..., None] + noise.samples(rng, (trials, sessions, max(setting.samples.values())))


def _truths(noise: Noise, base: float, drift: NDArray[np.float64]) -> tuple[float, float]:
    """The true number, in ns, that the first look and both looks are about."""
    if not noise.about_window:
        return TRUE_NS * math.exp(base), TRUE_NS * math.exp(base)
    return TRUE_NS * math.exp(base + drift[: len(drift) // 2].mean()), TRUE_NS * math.exp(base + drift.mean())


def _looks(samples: NDArray[np.float64], statistic: Statistic, rule: Rule) -> tuple[_Look, _Look]:
    """The first look and both together, of samples (trials, sessions of both, samples)."""
    percent, sessions = PERCENT[statistic], samples.shape[1]
    ascending = np.sort(samples, axis=-1)
    middle = percentile(ascending, percent)
    raw = Bursts.of(samples, middle)
    apart = [replace(raw, between=raw.between[:, k], alone=raw.alone[:, k]) for k in range(sessions)]
    half = sessions // 2
    return (
        _look(ascending[:, :half], middle[:, :half], apart[:half], percent, rule),
        _look(ascending, middle, apart, percent, rule),
    )


def _look(
    ascending: NDArray[np.float64], middle: NDArray[np.float64], bursts: Sequence[Bursts], percent: float, rule: Rule
) -> _Look:
    length = burst_length(bursts) if rule.bursts else np.ones(len(middle))
    if not rule.leans:
        return _Look(middle, middle, middle, length)
    low, high = (leaning(ascending, percent, length[:, None], side) for side in ("lower", "upper"))
    return _Look(low, middle, high, length)


def _two_looks(first: Spread, both: Spread, truths: tuple[float, float], statistic: Statistic) -> Outcome:
    once = decide_timing(first, truths[0], statistic, split_confidence(CONFIDENCE, 1), CONFIDENCE)
    if once is not Outcome.INCONCLUSIVE:
        return once
    return decide_timing(both, truths[1], statistic, split_confidence(CONFIDENCE, 2), CONFIDENCE)


def why_not(noise: Noise, setting: Setting, kind: Kind) -> str:
    """Return why the nominal error is not promised for a cell; empty where it is. For ratios it always is."""
    if kind == "ratio":
        return ""
    if not noise.may_pass:
        return noise.why_not
    if noise.lasting and setting is SHORTEST:
        return (
            "bursts last as long as such a session, whose percentile is then that of one burst; the plans that ship "
            "take more samples"
        )
    if noise.name == "modes of sessions" and setting.sessions < SETTINGS[1].sessions:
        return "in one of four jobs all three sessions are in the same mode, and seem to agree"
    return ""


def is_promised(cell: Cell) -> bool:
    noise = next(noise for noise in NOISES if noise.name == cell.noise)
    setting = next(setting for setting in SETTINGS if setting.name == cell.setting)
    return not why_not(noise, setting, cell.kind)


def is_broken(cell: Cell) -> bool:
    """Return whether a promise is not kept. A quick plan passes nothing, so only its fails count."""
    over = cell.fails.is_over or (cell.passes.is_over and cell.setting != "quick")
    return over and is_promised(cell)


def table(trials: int, seed: int, rule: Rule, say: Callable[[str], None]) -> list[Cell]:
    """Return every cell on times. One over its nominal error is simulated again, once, with four times the trials."""
    cells: list[Cell] = []
    for setting in SETTINGS:
        for noise in NOISES:
            group = simulate(noise, setting, trials, seed, rule)
            if any(is_broken(cell) for cell in group):
                again = simulate(noise, setting, _CONFIRM * trials, seed + 1, rule)
                group = [second if is_broken(first) else first for first, second in zip(group, again, strict=True)]
            cells += group
            say(f"{setting.name}: {noise.name}")
    return cells
