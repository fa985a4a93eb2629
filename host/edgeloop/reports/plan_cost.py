"""The cost of a plan in sessions, samples and minutes, and the limits that it can't decide. It reaches no board."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeloop.analysis.plans import PlanPreview, preview
from edgeloop.core.plan import Plan
from edgeloop.errors import Fault


@dataclass(frozen=True, slots=True)
class PlanCost:
    """A plan for one or more models on every target, before it is carried out."""

    targets: tuple[str, ...]
    plan: Plan
    subjects: int
    samples_scored: int | None
    looks: int = 1
    faults: tuple[Fault, ...] = ()
    """Of limits that it can't decide."""
    energies: int = 0
    """Models that have energy sessions too."""

    @property
    def cost(self) -> PlanPreview:
        return preview(self.plan, self.subjects, self.samples_scored, energies=self.energies)

    def document(self) -> dict[str, Any]:
        cost = self.cost
        least = cost.samples_per_session_min
        return {
            "schema": 1,
            "targets": list(self.targets),
            "plan": self.plan.model_dump(mode="json"),
            "subjects": self.subjects,
            "looks": self.looks,
            "sessions": cost.sessions,
            "samples_per_session": cost.samples_per_session,
            "samples_per_session_min": least,
            "samples": None if cost.samples_per_session is None else cost.sessions * cost.samples_per_session,
            "samples_min": cost.sessions * least,
            "energy_sessions": self.energies * self.plan.sessions,
            "minutes": cost.minutes,
            "undecidable": [str(fault) for fault in self.faults],
        }

    def lines(self) -> list[str]:
        cost, plan = self.cost, self.plan
        least = cost.samples_per_session_min
        known = cost.samples_per_session is not None
        in_turn = f" of each of {self.subjects} models, interleaved" if self.subjects > 1 else ""
        every = f", one inference every {plan.period_ms:g} ms" if plan.period_ms is not None else ""
        at_least = "" if known else "at least "
        sessions = f"{plan.sessions} sessions of {plan.time_s_min:g} s{in_turn}"
        return [
            f"{plan.profile} on {', '.join(self.targets)}: {sessions}, timed: {plan.timing}{every}, seed {plan.seed}",
            f"  {at_least}{least} samples in each session, {at_least}{cost.sessions * least:,} in all",
            f"  about {cost.minutes:.1f} minutes a board, waiting for it not counted"
            + ("" if known else "; a model slower than the time floor takes longer"),
            *(
                [f"  {plan.sessions} energy sessions beside them, {plan.energy_window_s:g} s idle and active each"]
                if self.energies
                else []
            ),
            *(["  a second look, of as much again, where the first leaves a limit open"] if self.looks > 1 else []),
            *(f"can't be decided: {fault}" for fault in self.faults),
        ]
