"""Boards whose truth is known: latencies of sessions under noise that real boards show, vectorised over trials.

Everything is on the logarithm of a latency whose undisturbed value is 0. A model says what a session adds, what each
sample adds, and what the time of the job adds to every model alike. Its truth is the geometric mean, over all sessions
that could have been run, of the session's own percentile, of infinitely many samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Logs = NDArray[np.float64]

SESSION_SPREAD = 0.02
"""Standard deviation of what a fresh process changes: memory layout, caches, the clock's state."""
SAMPLE_SPREAD = 0.03
SLOW_MODE = math.log(1.2)
SPIKE = (math.log(3), math.log(30))
"""A spike multiplies a latency by 3 to 30, log-uniform."""


@dataclass(frozen=True, slots=True)
class Noise:
    """One model of noise."""

    name: str
    words: str
    session: Callable[[Generator, tuple[int, int]], Logs]
    """What each session adds; (trials, sessions)."""
    samples: Callable[[Generator, tuple[int, int, int]], Logs]
    """What each sample adds; (trials, sessions, samples)."""
    cdf: Callable[[float], float]
    """Distribution of one sample of a session that adds nothing."""
    session_mean: float = 0.0
    """Mean of what sessions add."""
    drift: Callable[[Generator, int, int], Logs] | None = None
    """What the time of the job adds, to all models alike; (trials, sessions)."""
    about_window: bool = True
    """Whether the truth is that of the time in which the sessions of a verdict ran, or of all time."""
    lasting: bool = False
    """Whether samples come in bursts as long as the shortest session."""
    may_pass: bool = True
    """Whether the table promises its nominal error for absolute limits; for ratios it always does."""
    why_not: str = ""

    def truth(self, percent: float) -> float:
        """Logarithm of the true percentile, without drift."""
        from scipy.optimize import brentq

        return float(brentq(lambda x: self.cdf(x) - percent / 100, -2.0, 8.0, xtol=1e-12)) + self.session_mean


def _lognormal_sessions(rng: Generator, shape: tuple[int, int]) -> Logs:
    return rng.normal(0.0, SESSION_SPREAD, shape)


def _modes_of_sessions(share: float) -> Callable[[Generator, tuple[int, int]], Logs]:
    def draw(rng: Generator, shape: tuple[int, int]) -> Logs:
        return _lognormal_sessions(rng, shape) + SLOW_MODE * (rng.random(shape) < share)

    return draw


def _skewed_sessions(rng: Generator, shape: tuple[int, int]) -> Logs:
    return rng.exponential(SESSION_SPREAD, shape)


def _independent(rng: Generator, shape: tuple[int, int, int]) -> Logs:
    return rng.normal(0.0, SAMPLE_SPREAD, shape)


def _autoregression(per_sample: float) -> Callable[[Generator, tuple[int, int, int]], Logs]:
    def draw(rng: Generator, shape: tuple[int, int, int]) -> Logs:
        from scipy.signal import lfilter

        steps = rng.normal(0.0, SAMPLE_SPREAD * math.sqrt(1 - per_sample**2), shape)
        steps[..., 0] /= math.sqrt(1 - per_sample**2)
        return np.asarray(lfilter([1.0], [1.0, -per_sample], steps, axis=-1))

    return draw


def _heavy(rng: Generator, shape: tuple[int, int, int]) -> Logs:
    return np.log1p(0.1 * rng.pareto(1.5, shape))


def _heavy_cdf(x: float) -> float:
    return float(1 - (1 + math.expm1(max(x, 0.0)) / 0.1) ** -1.5)


def _spikes(share: float) -> Callable[[Generator, tuple[int, int, int]], Logs]:
    def draw(rng: Generator, shape: tuple[int, int, int]) -> Logs:
        times = _independent(rng, shape)
        is_spike = rng.random(shape) < share
        times[is_spike] += rng.uniform(*SPIKE, int(is_spike.sum()))
        return times

    return draw


def _spikes_cdf(share: float) -> Callable[[float], float]:
    heights = np.linspace(*SPIKE, 4001)

    def cdf(x: float) -> float:
        return (1 - share) * _normal_cdf(x) + share * float(np.mean(_normal_cdfs(x - heights)))

    return cdf


def _modes_within(share: float, dwell: float) -> Callable[[Generator, tuple[int, int, int]], Logs]:
    """Slow for about `dwell` samples at a time, and for `share` of all."""
    leave_slow, leave_fast = 1 / dwell, share / (1 - share) / dwell

    def draw(rng: Generator, shape: tuple[int, int, int]) -> Logs:
        times = _independent(rng, shape)
        slow = rng.random(shape[:2]) < share
        for at in range(shape[2]):
            times[..., at] += SLOW_MODE * slow
            turn = rng.random(shape[:2])
            slow = np.where(slow, turn >= leave_slow, turn < leave_fast)
        return times

    return draw


def _modes_cdf(share: float) -> Callable[[float], float]:
    return lambda x: (1 - share) * _normal_cdf(x) + share * _normal_cdf(x - SLOW_MODE)


def _line(rng: Generator, trials: int, sessions: int) -> Logs:
    """A straight drift over all sessions, up or down, 0 in the middle: 10 % from start to end is one sigma."""
    return rng.normal(0.0, 0.1, (trials, 1)) * np.linspace(-0.5, 0.5, sessions)


def _whole_job(rng: Generator, trials: int, sessions: int) -> Logs:
    """A day that is 3 % slower or faster as a whole."""
    return np.broadcast_to(rng.normal(0.0, 0.03, (trials, 1)), (trials, sessions))


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / (SAMPLE_SPREAD * math.sqrt(2)))


def _normal_cdfs(x: Logs) -> Logs:
    from scipy.special import ndtr

    return np.asarray(ndtr(x / SAMPLE_SPREAD))


_UNSEEN = (
    "eight sessions do not see a mode that one session in five is in: 17 % of jobs hold none. More sessions are "
    "the only cure: 14 see a share of 20 %, and 29 one of 10 %, in 95 % of jobs"
)
_SKEWED = "where none of eight sessions shows the tail that the mean is made of, Student's t does not know of it either"
_ANOTHER_DAY = (
    "a verdict is about the time it was measured in; from inside an hour no rule sees what another day brings. Ratios "
    "to an interleaved reference hold"
)
_ACROSS = (
    "read as about the time of both looks, a first look that decides has seen half of it; the trend it sees widens its "
    "bounds and does not make up for all of it. Read as about its own time it holds: the row `drift`"
)

NOISES = (
    Noise("plain", "sessions lognormal 2 %, samples lognormal 3 %", _lognormal_sessions, _independent, _normal_cdf),
    Noise(
        "drift",
        "a straight drift over the job, one sigma 10 %, shared by all models",
        _lognormal_sessions,
        _independent,
        _normal_cdf,
        drift=_line,
    ),
    Noise(
        "autocorrelation",
        "neighbouring samples correlate by 0.9",
        _lognormal_sessions,
        _autoregression(0.9),
        _normal_cdf,
    ),
    Noise(
        "long autocorrelation",
        "neighbouring samples correlate by 0.98",
        _lognormal_sessions,
        _autoregression(0.98),
        _normal_cdf,
    ),
    Noise("heavy tail", "samples with a Pareto tail, exponent 1.5", _lognormal_sessions, _heavy, _heavy_cdf),
    Noise(
        "rare spikes", "0.5 % of samples 3 to 30 times as long", _lognormal_sessions, _spikes(0.005), _spikes_cdf(0.005)
    ),
    Noise("spikes", "2 % of samples 3 to 30 times as long", _lognormal_sessions, _spikes(0.02), _spikes_cdf(0.02)),
    Noise(
        "modes within",
        "30 % of the time 20 % slower, about 25 samples at a time",
        _lognormal_sessions,
        _modes_within(0.3, 25),
        _modes_cdf(0.3),
        lasting=True,
    ),
    Noise(
        "modes of sessions",
        "every other session 20 % slower",
        _modes_of_sessions(0.5),
        _independent,
        _normal_cdf,
        session_mean=0.5 * SLOW_MODE,
    ),
    Noise(
        "rare modes of sessions",
        "one session in five 20 % slower",
        _modes_of_sessions(0.2),
        _independent,
        _normal_cdf,
        session_mean=0.2 * SLOW_MODE,
        may_pass=False,
        why_not=_UNSEEN,
    ),
    Noise(
        "skewed sessions",
        "sessions slower by an exponential 2 %",
        _skewed_sessions,
        _independent,
        _normal_cdf,
        session_mean=SESSION_SPREAD,
        may_pass=False,
        why_not=_SKEWED,
    ),
    Noise(
        "drift across looks",
        "the same drift, and the truth is that of both looks together",
        _lognormal_sessions,
        _independent,
        _normal_cdf,
        drift=_line,
        about_window=False,
        may_pass=False,
        why_not=_ACROSS,
    ),
    Noise(
        "slower than the job",
        "the whole job 3 % off, both looks alike, shared by all models; the truth is that of all days",
        _lognormal_sessions,
        _independent,
        _normal_cdf,
        drift=_whole_job,
        about_window=False,
        may_pass=False,
        why_not=_ANOTHER_DAY,
    ),
)
