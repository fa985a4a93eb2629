"""False passes of a network exactly at its limit: one look, two at the full level, two that share the error.

Usage: python tests/bench/bench_two_looks.py [TRIALS]
"""

from __future__ import annotations

import sys

import numpy as np

from edgeloop.analysis.statistics import split_confidence, student_t

CONFIDENCE = 0.95


def passes(values: np.ndarray, confidence: float) -> np.ndarray:
    """Where the one-sided upper bound of the mean (rows are trials) is under the limit, 0."""
    n = values.shape[1]
    error = values.std(axis=1, ddof=1) / np.sqrt(n)
    return values.mean(axis=1) + student_t(confidence, n - 1) * error < 0


def undecided(values: np.ndarray, confidence: float) -> np.ndarray:
    return ~passes(values, confidence) & ~passes(-values, confidence)


def main() -> int:
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    rng = np.random.default_rng(0)
    shared = split_confidence(CONFIDENCE, 1)
    print(f"{trials} trials, nominal {1 - CONFIDENCE:.0%}; sampling error {np.sqrt(0.05 * 0.95 / trials):.2%}")
    print(f"{'sessions':<10}{'one look':>10}{'two, full level':>17}{'two, shared':>13}")
    for sessions in (3, 8, 10):
        both = rng.standard_normal((trials, 2 * sessions))
        first = both[:, :sessions]
        row = [passes(first, CONFIDENCE).mean()]
        row += [
            (passes(first, level) | (undecided(first, level) & passes(both, level))).mean()
            for level in (CONFIDENCE, shared)
        ]
        print(f"{f'{sessions}+{sessions}':<10}{row[0]:>10.2%}{row[1]:>17.2%}{row[2]:>13.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
