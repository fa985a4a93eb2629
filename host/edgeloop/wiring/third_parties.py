"""Adapters of third parties in place of edgeloop's own: given by a caller, or installed and named by the campaign."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from edgeloop.core import installed
from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign
from edgeloop.core.installed import BENCHES, BUILDERS, TRAINERS
from edgeloop.ports import Bench, Trainer
from edgeloop.search.strategies import STRATEGIES, StrategyFactory
from edgeloop.user_code.entry_points import installed_version, load_installed
from edgeloop.wiring.builders import BuilderFactory

BenchFactory = Callable[[Board], Bench]
"""Makes the bench of one board; edgeloop retries it as it does its own."""


@dataclass(frozen=True, slots=True)
class TrainerSite:
    """The place that a trainer is made for."""

    campaign: Campaign
    folder: Path
    """For a folder of each training, named by its key."""


TrainerFactory = Callable[[TrainerSite], Trainer]


@dataclass(frozen=True, slots=True)
class ThirdParties:
    """The factories that take the place of edgeloop's own; None where none does."""

    strategy: StrategyFactory | None = None
    builders: Mapping[str, BuilderFactory] = field(default_factory=dict)
    """By engine."""
    bench: BenchFactory | None = None
    trainer: TrainerFactory | None = None

    def completed_by(self, campaign: Campaign) -> ThirdParties:
        """Return these, and where none is given those that the campaign's `[plugins]` names.

        Raises UserError where one is not installed, or can't be loaded.
        """
        plugins = campaign.plugins
        builders = {
            engine: cast("BuilderFactory", load_installed(BUILDERS, name))
            for engine, name in plugins.builders.items()
            if engine not in self.builders
        }
        bench, trainer = self.bench, self.trainer
        if bench is None and plugins.bench is not None:
            bench = cast("BenchFactory", load_installed(BENCHES, plugins.bench))
        if trainer is None and plugins.trainer is not None:
            trainer = cast("TrainerFactory", load_installed(TRAINERS, plugins.trainer))
        return ThirdParties(self.strategy, {**self.builders, **builders}, bench, trainer)


def plugin_versions(campaign: Campaign) -> dict[str, str]:
    """Return the distributions that a campaign's plugins come from, with their versions, for the ledger."""
    plugins, strategy = campaign.plugins, campaign.search.strategy
    names = [] if strategy in STRATEGIES else [(installed.STRATEGIES, strategy)]
    names += [(BUILDERS, name) for name in plugins.builders.values()]
    names += [(group, name) for group, name in ((BENCHES, plugins.bench), (TRAINERS, plugins.trainer)) if name]
    return {f"{group} {name}": installed_version(group, name) for group, name in names}
