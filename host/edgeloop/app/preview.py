"""A run before it begins: what its plans cost, which candidates it has, and which limits it can't decide."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeloop.analysis.plans import PlanPreview
from edgeloop.analysis.plans import preview as preview_plan
from edgeloop.app.run_checks import check_run
from edgeloop.app.search_preview import SearchPreview, preview_search
from edgeloop.core.campaign import Campaign
from edgeloop.core.plan import Plan
from edgeloop.errors import Fault


@dataclass(frozen=True, slots=True)
class RunPreview:
    """A campaign before it is carried out: the cost of its plans, its candidates, and what it can't decide."""

    campaign: Campaign
    search: PlanPreview
    confirmation: PlanPreview
    subjects: int
    faults: tuple[Fault, ...]
    candidates: SearchPreview | None
    """Networks and rungs; None where the train extra is not installed."""

    def document(self) -> dict[str, Any]:
        """The JSON document of the preview."""
        campaign = self.campaign
        return {
            "schema": 1,
            "campaign": campaign.name,
            "targets": list(campaign.targets),
            "trials_max": campaign.budget.trials,
            "wall_minutes_max": campaign.budget.wall_minutes,
            "plans": [
                {
                    "profile": plan.profile,
                    "sessions": cost.sessions,
                    "samples_per_session": cost.samples_per_session,
                    "samples_per_session_min": cost.samples_per_session_min,
                    "minutes": cost.minutes,
                }
                for plan, cost in self._plans()
            ],
            "search": self.candidates.document() if self.candidates is not None else None,
            "undecidable": [str(fault) for fault in self.faults],
        }

    def lines(self) -> list[str]:
        """The preview as a terminal shows it."""
        campaign = self.campaign
        budget = f"{campaign.budget.trials} trials or {campaign.budget.wall_minutes:g} minutes"
        lines = [f"{campaign.name}: up to {budget} on {', '.join(campaign.targets)}"]
        for plan, cost in self._plans():
            beside = ", M1 interleaved" if self.subjects > 1 else ""
            lines.append(
                f"  {plan.profile}: {plan.sessions} sessions{beside}, at least {cost.samples_per_session_min} samples "
                f"each, about {cost.minutes:.1f} minutes a measurement"
            )
        if self.candidates is None:
            lines.append("  sizes of the networks are told with the train extra: pip install 'edgeloop[train]'")
        else:
            lines += self.candidates.lines()
        lines += [f"can't be decided: {fault}" for fault in self.faults]
        return lines

    def _plans(self) -> list[tuple[Plan, PlanPreview]]:
        plans = [(self.campaign.plan, self.search)]
        if not self.campaign.plan.may_pass:
            plans.append((self.campaign.confirmation, self.confirmation))
        return plans


def preview(campaign: Campaign, beside: Path) -> RunPreview:
    """Preview a campaign. Reads the data and describes its networks; reaches no board, and trains nothing.

    Raises as `run_checks.check_run`.
    """
    run = check_run(campaign, beside)
    campaign = run.campaign
    subjects = 2 if campaign.limits.interleaves_reference else 1
    n = min(len(run.data.validation), campaign.data.board_samples_max)
    energies = int(campaign.limits.needs_energy)
    return RunPreview(
        campaign=campaign,
        search=preview_plan(campaign.plan, subjects, n, energies=energies),
        confirmation=preview_plan(campaign.confirmation, subjects, n, energies=energies),
        subjects=subjects,
        faults=run.undecidable,
        candidates=preview_search(run),
    )
