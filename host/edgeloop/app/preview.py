"""A run before it begins and after it ended: what it would measure, what it lacks, and what it came to."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from edgeloop.analysis.emulated import refused_when_emulated
from edgeloop.analysis.plans import PlanPreview, undecidable
from edgeloop.analysis.plans import preview as preview_plan
from edgeloop.analysis.scoring import Scorer
from edgeloop.app.delegate_checks import compilers_of
from edgeloop.app.search_preview import SearchPreview, searched
from edgeloop.builders.tvm.versions import tool_versions
from edgeloop.builders.versions import installed_versions
from edgeloop.config.board_files import resolve_all
from edgeloop.config.pipeline_file import read_pipeline
from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign
from edgeloop.core.dataset import DataSet
from edgeloop.core.events import Entry, RunFinished
from edgeloop.core.lightening import Lightening
from edgeloop.core.measurement import PipelineFile
from edgeloop.core.model_format import ModelFormat
from edgeloop.data.load import load
from edgeloop.errors import ConfigError, Fault, MissingExtraError
from edgeloop.ready_models.reference_file import check_reference_file
from edgeloop.records.ledger import LEDGER
from edgeloop.reports import document, text
from edgeloop.search.strategies.optuna import needs_optuna
from edgeloop.wiring.builders import check_processors, engines_of

REPORT = "report.html"
ROOM_BYTES_MIN = 64 * 1024 * 1024
"""What a training and a build may take together; with less, a failure of the toolchain is the disk's."""
TOOLS = ("edgeloop", "torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert", "numpy", "scipy", "paramiko")


def with_targets(campaign: Campaign, targets: Sequence[str]) -> Campaign:
    """The campaign on other targets than its own; its own where none are given."""
    return campaign.model_copy(update={"targets": tuple(targets)}) if targets else campaign


@dataclass(frozen=True, slots=True)
class RunPreview:
    """What a run would measure, before it does."""

    campaign: Campaign
    search: PlanPreview
    confirmation: PlanPreview
    subjects: int
    faults: tuple[Fault, ...]
    asked: SearchPreview | None
    """Networks and rungs; None where the train extra is not installed."""

    def document(self) -> dict[str, Any]:
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
            "search": self.asked.document() if self.asked is not None else None,
            "undecidable": [str(fault) for fault in self.faults],
        }

    def lines(self) -> list[str]:
        campaign = self.campaign
        budget = f"{campaign.budget.trials} trials or {campaign.budget.wall_minutes:g} minutes"
        lines = [f"{campaign.name}: up to {budget} on {', '.join(campaign.targets)}"]
        for plan, cost in self._plans():
            beside = ", M1 interleaved" if self.subjects > 1 else ""
            lines.append(
                f"  {plan.profile}: {plan.sessions} sessions{beside}, at least {cost.samples_per_session_min} samples "
                f"each, about {cost.minutes:.1f} minutes a measurement"
            )
        if self.asked is None:
            lines.append("  sizes of the networks are told with the train extra: pip install 'edgeloop[train]'")
        else:
            lines += self.asked.lines()
        lines += [f"can't be decided: {fault}" for fault in self.faults]
        return lines

    def _plans(self) -> list[tuple[Any, PlanPreview]]:
        plans = [(self.campaign.plan, self.search)]
        if not self.campaign.plan.may_pass:
            plans.append((self.campaign.confirmation, self.confirmation))
        return plans


def preview(campaign: Campaign, beside: Path) -> RunPreview:
    """Samples, minutes, undecidable limits, networks and rungs of a campaign. Reads the data, reaches no board."""
    boards = resolve_all(campaign.targets, beside)
    compilers = compilers_of(campaign, boards)
    check_processors(campaign, boards)
    pipeline_of(campaign)
    data, scorer = load(campaign.data), Scorer(campaign.task)
    campaign, baseline = check_reference_file(campaign, data)
    subjects = 2 if campaign.limits.interleaves_reference else 1
    n = min(len(data.validation), campaign.data.board_samples_max)
    energies = int(campaign.limits.needs_energy)
    return RunPreview(
        campaign=campaign,
        search=preview_plan(campaign.plan, subjects, n, energies=energies),
        confirmation=preview_plan(campaign.confirmation, subjects, n, energies=energies),
        subjects=subjects,
        faults=tuple(undecidable_limits(campaign, boards, data, scorer)),
        asked=searched(campaign, max(board.model.channel_multiple for board in boards), baseline, compilers),
    )


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended, and where its files are."""

    finished: RunFinished
    entries: tuple[Entry, ...]
    folder: Path
    models: tuple[Path, ...]
    """The network that passed, where one did: a file for each processor, the first target's first."""
    front: tuple[Path, ...] = ()
    """In Pareto mode every model that passed, from the most accurate."""

    @property
    def model(self) -> Path | None:
        """The first target's file of the network that passed."""
        return next(iter(self.models), None)

    @property
    def exit_code(self) -> int:
        """0 passed, 1 measured and none passed, 3 could not tell."""
        return self.finished.exit_code

    def document(self) -> dict[str, Any]:
        return document.run(self.entries) | {
            "exit_code": self.finished.exit_code,
            "artifact": str(self.model) if self.model else None,
            "artifacts": [str(model) for model in self.models],
            "front": [str(model) for model in self.front],
            "report": str(self.folder / REPORT),
            "folder": str(self.folder),
        }

    def rendered(self) -> RenderableType:
        return text.run_report(self.entries)

    def whereabouts(self) -> list[str]:
        lines = [f"network: {model}" for model in self.models]
        lines += [f"front:   {model}" for model in self.front]
        return [*lines, f"report:  {self.folder / REPORT}", f"ledger:  {self.folder / LEDGER}"]


def undecidable_limits(campaign: Campaign, boards: Sequence[Board], data: DataSet, scorer: Scorer) -> list[Fault]:
    """Limits that the confirming plan could not decide; quick plans decide nothing, so they are not asked.

    So are absolute times on an emulated board, unless the campaign allows them.
    """
    refused = [] if campaign.allow_emulated else refused_when_emulated(campaign.limits, boards, "allow_emulated = true")
    return refused + undecidable(
        campaign.limits,
        campaign.confirmation,
        min(len(data.validation), campaign.data.board_samples_max),
        has_reference=True,
        has_labels=bool(data.validation.y) or campaign.task.kind == "autoencoder",
        metrics=tuple(scorer.metrics),
        proportions=tuple(scorer.proportions),
        unmetered=[board.name for board in boards if board.power_meter is None],
    )


def pipeline_of(campaign: Campaign) -> PipelineFile | None:
    """What the plan times end to end, looked at. Raises UserError where it can't run on a board."""
    return None if campaign.plan.pipeline is None else read_pipeline(campaign.plan.pipeline)


def prunes(campaign: Campaign) -> bool:
    """Whether a rung of the search removes channels."""
    return any(Lightening.parse(name).pruned_pct for name in campaign.search.lightenings)


def needs_toolchain(campaign: Campaign) -> None:
    """Raise MissingExtraError for a package that this campaign needs and the install does not have, ConfigError where
    this system can't hold a process to an amount of memory."""
    if campaign.toolchain.memory_max_mib is not None and sys.platform != "linux":
        raise ConfigError([Fault("toolchain.memory_max_mib", "Linux alone holds a process to it", "leave it out")])
    for module, package, extra in (("torch", "torch", "train"), ("litert_torch", "litert-torch", "tflite")):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(package, extra, "edgeloop run")
    if "tvm" in engines_of(campaign):
        tool_versions()
    file = campaign.reference.file
    model_format = ModelFormat.of(Path(file)) if file is not None else None
    if file is not None and model_format is not None:
        for reader in model_format.row.packages:
            installed_versions((reader.name,), reader.extra, f"reading {Path(file).name}")
    if prunes(campaign) and importlib.util.find_spec("torch_pruning") is None:
        raise MissingExtraError("torch-pruning", "train", "a lightening that ends in -p")
    if campaign.search.strategy == "optuna":
        needs_optuna()
        if campaign.search.storage is not None:
            from edgeloop.search.strategies.optuna_storage import check_storage

            check_storage(campaign.search.storage)
