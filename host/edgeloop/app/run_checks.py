"""The one chain of checks of a run: everything that can be known to be wrong before a training."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from edgeloop.analysis.emulated import refused_when_emulated
from edgeloop.analysis.plans import undecidable
from edgeloop.analysis.scoring import Scorer
from edgeloop.app.delegate_checks import delegate_compilers
from edgeloop.config.board_files import resolve_all
from edgeloop.config.pipeline_file import read_pipeline
from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign
from edgeloop.core.dataset import DataSet
from edgeloop.data.load import load
from edgeloop.data.shapes import network_io
from edgeloop.errors import ConfigError, Fault, MissingExtrasError
from edgeloop.ready_models.reference_file import check_reference_file
from edgeloop.wiring.controller import CheckedRun
from edgeloop.wiring.packages import needed_packages
from edgeloop.wiring.processors import check_processors


def with_targets(campaign: Campaign, targets: Sequence[str]) -> Campaign:
    """Return the campaign on other targets than its own; on its own where none are given."""
    return campaign.model_copy(update={"targets": tuple(targets)}) if targets else campaign


def check_run(campaign: Campaign, beside: Path) -> CheckedRun:
    """Open and check everything that a campaign names; files of boards are looked for in `beside` first.

    Reads the data, reaches no board. Raises UserError and its kind, ModelError for an M1 that can't be used.
    """
    boards = tuple(resolve_all(campaign.targets, beside))
    compilers = delegate_compilers(campaign, boards)
    check_processors(campaign, boards)
    pipeline = None if campaign.plan.pipeline is None else read_pipeline(campaign.plan.pipeline)
    data, scorer = load(campaign.data), Scorer(campaign.task)
    network_io(data, campaign.task)
    campaign, baseline = check_reference_file(campaign, data)
    return CheckedRun(
        campaign=campaign,
        boards=boards,
        compilers=compilers,
        pipeline=pipeline,
        data=data,
        scorer=scorer,
        baseline=baseline,
        undecidable=tuple(_undecidable_limits(campaign, boards, data, scorer)),
    )


def check_toolchain(campaign: Campaign) -> None:
    """Raise MissingExtraError or MissingExtrasError for all packages that a campaign needs and the install does not
    have, ConfigError where this system can't hold a process to an amount of memory."""
    if campaign.toolchain.memory_max_mib is not None and sys.platform != "linux":
        raise ConfigError([Fault("toolchain.memory_max_mib", "Linux alone holds a process to it", "leave it out")])
    errors = [error for error in needed_packages(campaign) if not _is_installed(error.package)]
    if errors:
        raise errors[0] if len(errors) == 1 else MissingExtrasError(errors)
    if campaign.search.storage is not None:
        from edgeloop.search.strategies.optuna_storage import check_storage

        check_storage(campaign.search.storage)


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _undecidable_limits(campaign: Campaign, boards: Sequence[Board], data: DataSet, scorer: Scorer) -> Iterator[Fault]:
    """Limits that the confirming plan could not decide; quick plans decide nothing, so they are not asked.

    So are absolute times on an emulated board, unless the campaign allows them.
    """
    if not campaign.allow_emulated:
        yield from refused_when_emulated(campaign.limits, boards, "allow_emulated = true")
    yield from undecidable(
        campaign.limits,
        campaign.confirmation,
        min(len(data.validation), campaign.data.board_samples_max),
        has_reference=True,
        has_labels=bool(data.validation.y) or campaign.task.kind == "autoencoder",
        metrics=tuple(scorer.metrics),
        proportions=tuple(scorer.proportions),
        unmetered=[board.name for board in boards if board.power_meter is None],
    )
