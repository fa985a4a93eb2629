"""The same proof for limits on scores: shares, paired drops, and means by the bootstrap, at a known truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edgeloop.analysis.accuracy import Scores, difference_bound
from edgeloop.analysis.decision import decide
from edgeloop.analysis.spread import Rule
from edgeloop.core.verdict import Outcome
from honesty.rates import CONFIDENCE, Rate

SHARES = tuple((share, n) for n in (100, 1000, 10_000) for share in (0.5, 0.9, 0.97, 0.99, 0.997))
DROPS = ((100, 0.05, 0.0), (100, 0.06, 0.02), (1000, 0.003, 0.0), (1000, 0.01, 0.002), (1000, 0.04, 0.02))
"""Samples, share lost, share gained."""
MEANS = (30, 100, 300, 1000)
"""Samples of a mean."""
_SHARE_TRIALS = 10  # a share costs nothing: as many times the trials asked for

Draw = Callable[[Generator, int], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class ScoreCell:
    """PASS and FAIL of a limit on a score that is the truth."""

    kind: str
    what: str
    n: int
    passes: Rate
    fails: Rate
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Errors:
    """Per-sample errors of known mean."""

    name: str
    draw: Draw
    mean: float
    note: str = ""


_ERRORS = (
    _Errors("errors uniform in [0, 1)", lambda rng, n: rng.random(n), 0.5),
    _Errors("errors exponential", lambda rng, n: rng.exponential(1.0, n), 1.0),
    _Errors(
        "errors lognormal, sigma 1.5",
        lambda rng, n: rng.lognormal(0.0, 1.5, n),
        math.exp(1.5**2 / 2),
        "a tail so long that n samples seldom hold what the mean is made of; no resampling of them shows it",
    ),
)


def score_cells(trials: int, seed: int, rule: Rule, say: Callable[[str], None]) -> list[ScoreCell]:
    """Return every cell on scores; equal arguments give equal cells."""
    rng = np.random.default_rng([seed, 7])
    cells = [*_shares(rng, _SHARE_TRIALS * trials, rule), *_drops(rng, _SHARE_TRIALS * trials, rule)]
    say("shares and drops")
    for errors in _ERRORS:
        for n in MEANS:
            cells.append(_mean(rng, errors, n, trials, rule))
            say(f"{errors.name}, {n} samples")
    cells += [_paired_mean(rng, n, trials) for n in MEANS[:3]]
    say("paired errors")
    return cells


def _shares(rng: Generator, trials: int, rule: Rule) -> Iterator[ScoreCell]:
    for share, n in SHARES:
        rates = _Rates()
        for right, times in _tally(rng.binomial(n, share, trials)[:, None]):
            scores = _of(np.repeat([1.0, 0.0], [right[0], n - right[0]]), higher=True)
            bounds = (scores.bound(CONFIDENCE, side, exact=rule.exact) for side in ("lower", "upper"))
            rates.add(decide(share, *bounds, upper_bar=False), times)
        yield ScoreCell("share", f"{share:g} right", n, *rates.both())


def _drops(rng: Generator, trials: int, rule: Rule) -> Iterator[ScoreCell]:
    for n, loss, gain in DROPS:
        rates = _Rates()
        draws = rng.multinomial(n, [loss, gain, 1 - loss - gain], trials)[:, :2]
        for (losses, gains), times in _tally(draws):
            ours = _of(np.repeat([0.0, 1.0, 1.0], [losses, gains, n - losses - gains]), higher=True)
            theirs = _of(np.repeat([1.0, 0.0, 1.0], [losses, gains, n - losses - gains]), higher=True)
            bounds = (
                difference_bound(ours, theirs, CONFIDENCE, side, continuous=not rule.exact)
                for side in ("lower", "upper")
            )
            rates.add(decide(gain - loss, *bounds, upper_bar=False), times)
        yield ScoreCell("paired share", f"{loss:g} lost, {gain:g} gained", n, *rates.both())


def _mean(rng: Generator, errors: _Errors, n: int, trials: int, rule: Rule) -> ScoreCell:
    rates = _Rates()
    for _ in range(trials):
        scores = _of(errors.draw(rng, n), higher=False)
        bounds = (scores.bound(CONFIDENCE, side, exact=rule.exact) for side in ("lower", "upper"))
        rates.add(decide(errors.mean, *bounds, upper_bar=True))
    return ScoreCell("mean", errors.name, n, *rates.both(), errors.note)


def _paired_mean(rng: Generator, n: int, trials: int) -> ScoreCell:
    """A candidate whose errors are a tenth larger on average, on samples that are hard for both."""
    rates = _Rates()
    for _ in range(trials):
        hard = rng.exponential(1.0, n)
        ours, theirs = (_of(hard * factor, higher=False) for factor in (rng.normal(1.1, 0.2, n).clip(0), np.ones(n)))
        bounds = (difference_bound(ours, theirs, CONFIDENCE, side) for side in ("lower", "upper"))
        rates.add(decide(0.1, *bounds, upper_bar=True))
    return ScoreCell("paired mean", "errors exponential, the candidate's a tenth larger", n, *rates.both())


class _Rates:
    def __init__(self) -> None:
        self._passes = self._fails = self._trials = 0

    def add(self, outcome: Outcome, times: int = 1) -> None:
        self._trials += times
        self._passes += times * (outcome is Outcome.PASS)
        self._fails += times * (outcome is Outcome.FAIL)

    def both(self) -> tuple[Rate, Rate]:
        return Rate(self._passes, self._trials), Rate(self._fails, self._trials)


def _tally(draws: NDArray[np.int64]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Each different row, and how often it was drawn."""
    rows, times = np.unique(draws, axis=0, return_counts=True)
    yield from ((tuple(map(int, row)), int(count)) for row, count in zip(rows, times, strict=True))


def _of(per_sample: NDArray[np.float64], *, higher: bool) -> Scores:
    return Scores("score", higher, float(per_sample.mean()), len(per_sample), per_sample=per_sample)
