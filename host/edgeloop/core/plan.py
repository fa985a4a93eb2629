"""Plan and environment of a measurement: declarations, made before anything runs."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from edgeloop.core.board import BoardEnvironment
from edgeloop.core.frozen import Frozen
from edgeloop.core.function_path import FunctionPath

ProfileName = Literal["quick", "standard", "qualification"]
Timing = Literal["invoke", "copy_in_out", "end_to_end"]


class Plan(Frozen):
    """Numbers of a measurement; a session is one fresh process on the board."""

    profile: ProfileName = "standard"
    sessions: int = Field(default=8, ge=2, le=1000)
    warmup_runs_min: int = Field(default=1, ge=1)
    warmup_s_min: float = Field(default=0.5, ge=0)
    warmup_s_max: float = Field(default=5.0, gt=0)
    runs_min: int = Field(default=50, ge=1)
    time_s_min: float = Field(default=2.0, gt=0)
    """Time floor of one session; run floor and time floor must both be met."""
    timing: Timing = "invoke"
    pipeline: FunctionPath | None = None
    """Code that is timed end to end: `file.py:Class`, which runs on the board."""
    period_ms: float | None = Field(default=None, gt=0)
    """Start one inference every so often; None is back to back."""
    seed: int = Field(default=0, ge=0)
    """Of the interleaving."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    deadline_s: float = Field(default=600.0, gt=0)
    """Of one session."""
    idle_gate: bool = False
    """Wait until the board is idle and cool before the first session."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup_s_max < self.warmup_s_min:
            raise ValueError("warmup_s_max is under warmup_s_min")
        if self.timing == "end_to_end" and self.pipeline is None:
            raise ValueError('timing = "end_to_end" needs pipeline = "file.py:Class"')
        if self.timing != "end_to_end" and self.pipeline is not None:
            raise ValueError('pipeline goes with timing = "end_to_end"')
        return self

    @classmethod
    def of(cls, profile: ProfileName, **overrides: Any) -> Self:
        """The profile's own numbers, with single numbers overridden.

        With a period the time floor alone decides unless a run floor is given: at 1 Hz, ten sessions of ten seconds
        are 100 samples, not 500.
        """
        floor = {"runs_min": 1} if overrides.get("period_ms") is not None else {}
        return cls.model_validate({"profile": profile, **_PROFILES[profile], **floor, **overrides})

    @property
    def energy_window_s(self) -> float:
        """Of the idle and of the active window of an energy session: the time floor, in whole periods, many of them."""
        if self.period_ms is None:
            return self.time_s_min
        period_s = self.period_ms / 1000
        return max(ENERGY_PERIODS_MIN, math.ceil(self.time_s_min / period_s - 1e-9)) * period_s

    @property
    def may_pass(self) -> bool:
        """A quick plan steers a search; it never passes anything."""
        return self.profile != "quick"


ENERGY_PERIODS_MIN = 20
"""Fewer periods in a window say little about the next ones."""
_PROFILES: dict[ProfileName, dict[str, Any]] = {
    "quick": {"sessions": 3, "time_s_min": 0.5},
    "standard": {"sessions": 8, "time_s_min": 2.0},
    "qualification": {"sessions": 10, "time_s_min": 10.0, "idle_gate": True},
}


class Environment(Frozen):
    """Conditions that the user declares; a session outside them is INVALID."""

    governor: str = "as-found"
    """`as-found`, or the name that must be in force."""
    clock: Literal["free", "fixed"] = "free"
    expected_clock_mhz: float | None = Field(default=None, gt=0)
    throttling: Literal["forbid", "allow", "soak"] = "forbid"
    """`soak`: the model runs until the temperature is flat; throttling is then recorded and not judged."""
    soak_max_s: float = Field(default=1800, gt=0)
    """Flat within this time, or INVALID."""
    under_voltage: Literal["forbid", "allow"] = "forbid"
    start_temperature_max_c: float | None = Field(default=None, gt=0)
    cool_down_max_s: float | None = Field(default=None, ge=0)
    """Absent: what the board's file says."""
    foreign_load_max_pct: float | None = Field(default=None, ge=0, le=100)
    """Share of the measuring cores' time that others may take; None does not judge it."""

    @property
    def waiting_s_max(self) -> float:
        """The longest that a board may come to rest and be soaked before its first session."""
        return (self.cool_down_max_s or 0.0) + (self.soak_max_s if self.throttling == "soak" else 0.0)

    def on(self, board: BoardEnvironment) -> Self:
        """This environment on a board: what the campaign leaves open is what the board's file says."""
        return self.model_copy(
            update={
                name: getattr(board, name)
                for name in ("expected_clock_mhz", "start_temperature_max_c", "cool_down_max_s")
                if getattr(self, name) is None
            }
        )


SOAK_WINDOW_S = 120.0
SOAK_SLOPE_MAX_C_PER_MIN = 0.2
"""Flat: over the window, the hottest temperature moves by no more than this. With a heat sink that settles in five
minutes, about one degree is then still to come."""


PLAN_KEYS = tuple(name for name in Plan.model_fields if name not in {"profile", "confidence"})
"""What `[plan]` in a campaign may override."""
