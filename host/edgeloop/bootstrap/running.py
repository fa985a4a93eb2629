"""Wiring a run: which adapters carry out a campaign, and what is checked before anything is done."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from edgeloop.board.inventory import resolve_all
from edgeloop.board.retry import RetryingBench
from edgeloop.bootstrap.benches import open_board
from edgeloop.bootstrap.clock import SystemClock
from edgeloop.bootstrap.files import campaign_key, reference_network
from edgeloop.bootstrap.output import write_best
from edgeloop.bootstrap.pipeline import read_pipeline
from edgeloop.builders.tflite.builder import TfliteBuilder
from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign
from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.core.events import Entry, Finished
from edgeloop.core.measurement import Pipeline
from edgeloop.core.network import NetworkSizes, NetworkSpec
from edgeloop.data.files import write_board_npz
from edgeloop.data.load import load
from edgeloop.data.shapes import network_io
from edgeloop.errors import ConfigError, Fault, MissingExtraError, UserError, kept_on_disk
from edgeloop.measure.plans import PlanPreview, undecidable
from edgeloop.measure.plans import preview as preview_plan
from edgeloop.measure.scoring import Scorer
from edgeloop.measure.statistics import DECISION_RULE
from edgeloop.method.loop import Controller, Means
from edgeloop.method.measuring import Measuring
from edgeloop.method.memo import Memo
from edgeloop.method.strategy import PatentStrategy
from edgeloop.ports import Clock, Observer, Strategy
from edgeloop.records.ledger import LEDGER, FileLedger
from edgeloop.reports import document, html, text
from edgeloop.training.pool import TrainingPool

REPORT = "report.html"
ROOM_BYTES_MIN = 64 * 1024 * 1024
"""What a training and a build may take together; with less, a failure of the toolchain is the disk's."""
_TOOLS = ("edgeloop", "torch", "litert-torch", "ai-edge-quantizer", "ai-edge-litert", "numpy", "scipy", "paramiko")


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
        lines += [f"can't be decided: {fault}" for fault in self.faults]
        return lines

    def _plans(self) -> list[tuple[Any, PlanPreview]]:
        plans = [(self.campaign.plan, self.search)]
        if not self.campaign.plan.may_pass:
            plans.append((self.campaign.confirmation, self.confirmation))
        return plans


def preview(campaign: Campaign, beside: Path) -> RunPreview:
    """Samples, minutes and undecidable limits of a campaign. Reads the data, reaches no board."""
    resolve_all(campaign.targets, beside)
    _pipeline(campaign)
    data, scorer = load(campaign.data), Scorer(campaign.task)
    subjects = 2 if campaign.limits.interleaves_reference else 1
    n = min(len(data.validation), campaign.data.board_samples_max)
    return RunPreview(
        campaign=campaign,
        search=preview_plan(campaign.plan, subjects, n),
        confirmation=preview_plan(campaign.confirmation, subjects, n),
        subjects=subjects,
        faults=tuple(_undecidable(campaign, data, scorer)),
    )


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended, and where its files are."""

    finished: Finished
    entries: tuple[Entry, ...]
    folder: Path
    model: Path | None

    def document(self) -> dict[str, Any]:
        return document.run(self.entries) | {
            "exit_code": self.finished.exit_code,
            "artifact": str(self.model) if self.model else None,
            "report": str(self.folder / REPORT),
            "folder": str(self.folder),
        }

    def rendered(self) -> RenderableType:
        return text.run_report(self.entries)

    def whereabouts(self) -> list[str]:
        lines = [f"network: {self.model}"] if self.model else []
        return [*lines, f"report:  {self.folder / REPORT}", f"ledger:  {self.folder / LEDGER}"]


def run(campaign: Campaign, beside: Path, folder: Path, *, resume: bool, observer: Observer) -> RunResult:
    """Carry out a campaign in a run folder. Raises UserError, BoardError, LabError; the folder stays resumable."""
    folder = folder.resolve()
    begun = (folder / LEDGER).exists()
    if begun and not resume:
        raise UserError(f"{folder}: a run is in there already", next_step="go on with --resume, or name another --out")
    if resume and not begun:
        raise UserError(f"{folder}: there is no run to resume", next_step="leave out --resume, or name its --out")
    _needs_toolchain()
    boards = resolve_all(campaign.targets, beside)
    pipeline = _pipeline(campaign)
    data, scorer = load(campaign.data), Scorer(campaign.task)
    network_io(data, campaign.task)
    faults = list(_undecidable(campaign, data, scorer))
    if faults:
        raise ConfigError(faults)
    with ExitStack() as stack:
        entries = _controlled(campaign, boards, data, scorer, pipeline, folder, observer, stack)
    finished = entries[-1].event
    assert isinstance(finished, Finished), "the last event of a run that ended"
    with kept_on_disk(folder):
        model = write_best(entries, folder)
        html.write(entries, folder / REPORT)
    return RunResult(finished, tuple(entries), folder, model)


def _controlled(
    campaign: Campaign,
    boards: Sequence[Board],
    data: DataSet,
    scorer: Scorer,
    pipeline: Pipeline | None,
    folder: Path,
    observer: Observer,
    stack: ExitStack,
) -> list[Entry]:
    clock: Clock = SystemClock()
    ledger = FileLedger(folder, clock)
    stack.callback(ledger.close)
    benches = [RetryingBench(open_board(board)) for board in boards]
    for bench in benches:
        stack.callback(bench.close)
    trainer = TrainingPool(folder / "networks")
    stack.callback(trainer.close)
    builder = TfliteBuilder(
        folder / "artifacts", campaign.task, agreement=scorer.agreement if campaign.task.agreement else None
    )
    stack.callback(builder.close)
    memo = Memo(ledger, observer)

    def board_data(split: DataSplit, name: str) -> Path:
        path = folder / "data" / f"{name}.npz"
        if not path.exists():
            with kept_on_disk(path):
                path.parent.mkdir(exist_ok=True)
                write_board_npz(split, len(split), path, for_pipeline=pipeline is not None)
        return path

    def strategy(m1: NetworkSpec, sizes: NetworkSizes, m1_bytes: int, sizes_of: Any) -> Strategy:
        return PatentStrategy(
            search=campaign.search,
            m1=m1,
            m1_sizes=sizes,
            m1_lightening=campaign.reference.lightening,
            m1_bytes=m1_bytes,
            larger=campaign.reference.larger,
            teacher=campaign.training.teacher,
            limits=campaign.limits,
            sizes_of=sizes_of,
        )

    means = Means(
        networks=trainer,
        trainer=trainer,
        builder=builder,
        benches=benches,
        memo=memo,
        clock=clock,
        observer=observer,
        measuring=Measuring(
            campaign=campaign,
            data=data,
            scorer=scorer,
            pipeline=pipeline,
            samples=folder / "samples",
            board_data=board_data,
            memo=memo,
            clock=clock,
            observer=observer,
        ),
        data_sha256=data.sha256,
        channel_multiple=max(board.model.channel_multiple for board in boards),
        has_room=lambda: shutil.disk_usage(folder).free >= ROOM_BYTES_MIN,
        versions={name: metadata.version(name) for name in _TOOLS} | {"decision rule": str(DECISION_RULE)},
        campaign_key=campaign_key(campaign),
        strategy=strategy,
    )
    Controller(campaign, reference_network(campaign), means).run()
    return ledger.entries()


def _undecidable(campaign: Campaign, data: DataSet, scorer: Scorer) -> list[Fault]:
    """Limits that the confirming plan could not decide; quick plans decide nothing, so they are not asked."""
    return undecidable(
        campaign.limits,
        campaign.confirmation,
        min(len(data.validation), campaign.data.board_samples_max),
        has_reference=True,
        has_labels=bool(data.validation.y) or campaign.task.kind == "autoencoder",
        metrics=tuple(scorer.metrics),
        proportions=tuple(scorer.proportions),
    )


def _pipeline(campaign: Campaign) -> Pipeline | None:
    """What the plan times end to end, looked at. Raises UserError where it can't run on a board."""
    return None if campaign.plan.pipeline is None else read_pipeline(campaign.plan.pipeline)


def _needs_toolchain() -> None:
    for module, package, extra in (("torch", "torch", "train"), ("litert_torch", "litert-torch", "tflite")):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(package, extra, "edgeloop run")
