"""The uncertainty of a score: Wilson for shares, Tango for paired shares, the bootstrap for everything else.

`Scores` holds what the samples of one subject scored; bounds and differences are functions of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeloop.analysis.percentiles import Side
from edgeloop.analysis.statistics import normal_quantile, share_bound

REPLICATES = 2000
"""Resamples of a bootstrap over per-sample scores."""
REPLICATES_OF_SET = 1000
"""Resamples where a user's function scores the whole set each time."""
RESAMPLING_SEED = 20240229
"""Equal for all subjects, so that two subjects' resamples are pairs. Part of the decision rule."""

_CELLS_MAX = 4_000_000  # sample numbers held at once while resampling: 32 MB


@dataclass(frozen=True, slots=True)
class Scores:
    """One metric of one subject. Per-sample scores (n,), or one score of the whole set and its resamples."""

    metric: str
    higher_is_better: bool
    value: float
    n: int
    per_sample: NDArray[np.float64] | None = None
    root: bool = False
    """The value is the square root of the mean, as in RMSE."""
    replicates: NDArray[np.float64] | None = None
    """The value on resamples of the set (REPLICATES_OF_SET,), of a metric without per-sample scores."""

    def __post_init__(self) -> None:
        if (self.per_sample is None) == (self.replicates is None):
            raise ValueError(f"{self.metric}: either per-sample scores or resamples of the whole set")

    @property
    def is_share(self) -> bool:
        """True where every sample is right or wrong."""
        return not self.root and self.per_sample is not None and bool(np.isin(self.per_sample, (0.0, 1.0)).all())

    def bound(self, confidence: float, side: Side, *, exact: bool = False) -> float:
        """Return the one-sided bound about the population that the samples were drawn from.

        `exact` widens that of a share; see `statistics.share_bound`.
        """
        if self.per_sample is None:
            return _percentile(self._replicates(), confidence, side)
        if self.is_share:
            return share_bound(float(self.per_sample.sum()), self.n, confidence, side, exact=exact)
        if self.root:
            return math.sqrt(max(0.0, _bca(self.per_sample, confidence, side)))
        return _bca(self.per_sample, confidence, side)

    def _replicates(self) -> NDArray[np.float64]:
        if self.per_sample is None:
            assert self.replicates is not None
            return self.replicates
        means = _resampled_means(self.per_sample)
        return np.sqrt(means) if self.root else means


def difference_bound(
    candidate: Scores, reference: Scores, confidence: float, side: Side, *, continuous: bool = True
) -> float:
    """Return the one-sided bound of candidate minus reference, scored on the same samples.

    Shares: Tango's score bound for paired proportions (Tango, Statistics in Medicine 17, 1998), which stays honest
    where hardly a sample differs and a bootstrap would say "no difference, no doubt". Means: the bootstrap of the
    sample-by-sample difference. Anything else: the difference on the same resamples.
    Raises ValueError where the two were not scored on as many samples. `continuous` as in `tango_bound`.
    """
    if candidate.n != reference.n:
        raise ValueError(f"{candidate.metric}: {candidate.n} samples can't be paired with {reference.n}")
    if candidate.is_share and reference.is_share:
        return tango_bound(*differing(candidate, reference), candidate.n, confidence, side, continuous=continuous)
    if candidate.per_sample is not None and reference.per_sample is not None and not candidate.root:
        return _bca(candidate.per_sample - reference.per_sample, confidence, side)
    # The resamples of both were drawn from the same seed, so they are pairs.
    return _percentile(candidate._replicates() - reference._replicates(), confidence, side)  # noqa: SLF001 -- same class


def differing(candidate: Scores, reference: Scores) -> tuple[int, int]:
    """Return how many samples only the candidate has right, and how many only the reference; both are shares."""
    assert candidate.per_sample is not None
    assert reference.per_sample is not None
    gained = (candidate.per_sample == 1) & (reference.per_sample == 0)
    lost = (candidate.per_sample == 0) & (reference.per_sample == 1)
    return int(gained.sum()), int(lost.sum())


def tango_bound(gained: int, lost: int, n: int, confidence: float, side: Side, *, continuous: bool = True) -> float:
    """Return Tango's one-sided score bound for (gained - lost) / n.

    `gained` samples are right only for the candidate, `lost` only for the reference, out of n. Not `continuous`: with
    a correction of half a sample, since samples are lost whole; without it, 8 % of models that lose 3 of 1000
    samples failed a limit of just that.
    """
    z = normal_quantile(confidence) * (1 if side == "lower" else -1)
    half = 0.0 if continuous else math.copysign(0.5, z)

    def too_low(difference: float) -> bool:
        """Return whether the score statistic here still lies above z: it falls as the difference rises."""
        b = -gained - lost + (2 * n - gained + lost) * difference
        c = -lost * difference * (1 - difference)
        share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
        variance = n * (2 * share + difference * (1 - difference))
        distance = gained - lost - half - n * difference
        if variance <= 0 and distance == 0:
            return z < 0  # 0 / 0: no sample differs and none is supposed to, so the statistic is 0
        return distance > z * math.sqrt(max(variance, 0.0))

    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if too_low(middle) else (low, middle)
    return (low + high) / 2


def resamples(n: int, count: int) -> Iterator[NDArray[np.int64]]:
    """Yield `count` draws of n sample numbers with replacement, in blocks (rows, n); equal arguments, equal draws."""
    rng = np.random.default_rng(RESAMPLING_SEED)
    rows = max(1, min(count, _CELLS_MAX // max(1, n)))
    for start in range(0, count, rows):
        yield rng.integers(0, n, size=(min(rows, count - start), n))


def _resampled_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([values[numbers].mean(axis=1) for numbers in resamples(len(values), REPLICATES)])


def _percentile(replicates: NDArray[np.float64], confidence: float, side: Side) -> float:
    return float(np.quantile(replicates, confidence if side == "upper" else 1 - confidence))


def _bca(values: NDArray[np.float64], confidence: float, side: Side) -> float:
    """Return the bias-corrected accelerated bootstrap bound of a mean (Efron, 1987)."""
    mean = float(values.mean())
    deviations = values - mean
    spread = float((deviations**2).sum())
    if spread <= 1e-24 * max(1.0, mean * mean):
        return mean  # all samples score the same: nothing to resample
    means = _resampled_means(values)
    # For a mean the jackknife's acceleration has a closed form.
    acceleration = float((deviations**3).sum()) / (6 * spread**1.5)
    below = float(((means < mean).sum() + 0.5 * (means == mean).sum()) / len(means))
    bias = normal_quantile(min(max(below, 1 / len(means)), 1 - 1 / len(means)))
    z = normal_quantile(confidence if side == "upper" else 1 - confidence)
    z_adjusted = bias + (bias + z) / (1 - acceleration * (bias + z))
    return float(np.quantile(means, _normal_share(z_adjusted)))


def _normal_share(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2))
