"""From bounds to an outcome: the few lines that every verdict, and the proof that they are honest, goes through."""

from __future__ import annotations

import math

from edgeloop.analysis.percentiles import samples_needed
from edgeloop.analysis.spread import Spread
from edgeloop.analysis.statistics import PERCENT, Statistic
from edgeloop.core.verdict import Outcome


def under(a: float, b: float) -> bool:
    """Strictly, where a difference in the last digits of a sum such as 0.9 - 0.005 is none."""
    return a < b and not math.isclose(a, b, rel_tol=1e-12)


def decide(bar: float, low: float | None, high: float | None, *, upper_bar: bool) -> Outcome:
    """Return PASS where the bound on the bad side is inside, FAIL where the one on the good side is outside.

    `upper_bar`: what passes is under the bar. An estimate that equals it is open.
    """
    if low is None or high is None:
        return Outcome.INCONCLUSIVE
    bad, good = (high, low) if upper_bar else (-low, -high)
    bar_up = bar if upper_bar else -bar
    if under(bad, bar_up):
        return Outcome.PASS
    return Outcome.FAIL if under(bar_up, good) else Outcome.INCONCLUSIVE


def decide_timing(spread: Spread, bar: float, statistic: Statistic, confidence: float, nominal: float) -> Outcome:
    """Decide a limit on a time or a ratio. `bar` in the unit of the spread; `confidence` of this look.

    Sessions that are too short for a percentile may fail it, and never pass it: the floor goes by the nominal
    confidence, since it is about seeing the percentile at all.
    """
    low, high = (spread.bound(confidence, side) for side in ("lower", "upper"))
    outcome = decide(bar, low, high, upper_bar=True)
    if outcome is Outcome.PASS and too_short(spread, statistic, nominal):
        return Outcome.INCONCLUSIVE
    return outcome


def too_short(spread: Spread, statistic: Statistic, confidence: float) -> str:
    """Return why the sessions don't show a percentile well enough to pass; empty where they do."""
    percent = PERCENT.get(statistic)
    if percent is None or spread.independent >= (least := samples_needed(percent, confidence)):
        return ""
    if spread.burst > 1:
        return (
            f"{statistic} needs {least} independent samples in each session; slow ones come in bursts of about "
            f"{spread.burst:.0f}, so the shortest has {spread.independent}"
        )
    return f"{statistic} needs {least} samples in each session, the shortest has {spread.independent}"
