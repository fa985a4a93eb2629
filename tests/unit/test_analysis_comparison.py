"""B beside A: ratios by rounds, scores by samples, and a verdict that asks how much worse is worse."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from factories import make_artifact, make_session

from edgeloop.analysis.accuracy import Scores
from edgeloop.analysis.comparison import compare, in_words, worse_by
from edgeloop.analysis.subject_data import SubjectData, subject_data
from edgeloop.analysis.verdict import judge
from edgeloop.core.measurement import Session, Subject
from edgeloop.core.plan import Plan
from edgeloop.core.verdict import Outcome, Verdict

MS, MIB = 1_000_000, 2**20


def session(label: str, index: int, ms: float, samples: int = 300) -> Session:
    return make_session(
        index=index,
        label=label,
        latencies_ns=np.full(samples, round(ms * MS), dtype=np.int64),
        load_ns=MS,
        first_ns=MS,
        peak_rss_bytes=(50 if label == "a" else 53) * MIB,
        runtime_rss_bytes=40 * MIB,
    )


def seen(
    label: str, values: Sequence[float], *, size: int = 1000, right: Sequence[float] = (), samples: int = 300
) -> SubjectData:
    artifact = make_artifact(deployed_bytes=size)
    scores = {}
    if right:
        per_sample = np.asarray(right, dtype=np.float64)
        scores = {
            "top1": Scores(
                "top1", higher_is_better=True, value=float(per_sample.mean()), n=len(per_sample), per_sample=per_sample
            )
        }
    sessions = [session(label, i, ms, samples) for i, ms in enumerate(values)]
    return subject_data(Subject(label, artifact), "litert", sessions, scores)


DRIFT = (1.0, 1.3, 1.7, 2.2)


def test_times_are_compared_round_by_round_so_that_drift_cancels() -> None:
    found = compare(seen("a", [4 * d for d in DRIFT]), seen("b", [5 * d for d in DRIFT]), 0.95)
    assert found.rounds == 4
    assert set(found.ratio) == {"p50", "p90", "p99", "mean"}
    for ratio in found.ratio.values():
        assert ratio.value == pytest.approx(1.25, rel=1e-6)
        assert ratio.interval is not None
        assert 1.24 < ratio.interval.low <= ratio.interval.high < 1.26


def test_memory_and_bytes_are_differences() -> None:
    found = compare(seen("a", [4.0, 4.0], size=1000), seen("b", [4.0, 4.0], size=900), 0.95)
    assert found.readings == {"deployed_bytes": -100, "peak_rss_bytes": 3 * MIB, "rss_above_runtime_bytes": 3 * MIB}


def test_scores_are_compared_sample_by_sample() -> None:
    a, b = [1.0] * 90 + [0.0] * 10, [1.0] * 85 + [0.0] * 5 + [1.0] * 10
    (metric,) = compare(seen("a", [4.0, 4.0], right=a), seen("b", [4.0, 4.0], right=b), 0.95).metrics
    assert (metric.gained, metric.lost, metric.n) == (10, 5, 100)
    assert metric.difference == pytest.approx(0.05)
    assert metric.interval.low < 0 < metric.difference < metric.interval.high


def test_a_percentile_that_too_few_samples_show_gets_no_interval_and_says_so() -> None:
    found = compare(seen("a", [4.0, 4.1], samples=100), seen("b", [4.0, 4.2], samples=100), 0.95)
    assert found.ratio["p99"].interval is None
    assert "p99 needs 299 samples" in found.ratio["p99"].note
    assert found.ratio["p90"].interval is not None


def verdict(percent: float, a: SubjectData, b: SubjectData) -> Verdict:
    return in_words(judge(worse_by(percent, "p50", 0.95), b, a, Plan(), looks=1), percent)


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, Outcome.PASS), (1.2, Outcome.FAIL), (1.05, Outcome.INCONCLUSIVE)]
)
def test_worse_is_shown_not_to_be_or_open(factor: float, expected: Outcome) -> None:
    noise = (1.0, 1.01, 0.99, 1.0, 1.02, 0.98)
    a, b = seen("a", [10.0] * 6), seen("b", [10 * factor * n for n in noise])
    found = verdict(5, a, b)
    assert found.outcome is expected
    assert found.findings[0].text == "latency p50 of B not worse by 5 %"
    assert "x A's 10 ms" in found.findings[0].reason


def test_a_model_beside_itself_is_called_different_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(41)
    different = 0
    trials = 600
    for _ in range(trials):
        drift = np.exp(np.cumsum(rng.normal(0, 0.05, 8)))
        a, b = (seen(label, list(10 * drift * rng.lognormal(0, 0.02, 8)), samples=5) for label in ("a", "b"))
        interval = compare(a, b, 0.95).ratio["p50"].interval
        assert interval is not None
        different += not interval.low < 1 < interval.high
    assert different / trials == pytest.approx(0.05, abs=0.027)  # three standard errors
