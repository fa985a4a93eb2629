"""A rate with its own uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.analysis.statistics import wilson

CONFIDENCE = 0.95
"""Of the simulated limits; what is left is the nominal error."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of trials in which something happened, with Wilson's two-sided 95 % interval."""

    count: int
    trials: int

    @property
    def share(self) -> float:
        return self.count / self.trials

    def interval(self) -> tuple[float, float]:
        ends = wilson(self.count, self.trials, 0.95)
        return ends.low, ends.high

    @property
    def is_over(self) -> bool:
        """Over the nominal error beyond what the number of trials explains."""
        return self.interval()[0] > 1 - CONFIDENCE + 1e-12

    def __str__(self) -> str:
        low, high = self.interval()
        text = f"{self.share:.1%} [{low:.1%}, {high:.1%}]".replace("%", "")
        return f"**{text}**" if self.is_over else text
