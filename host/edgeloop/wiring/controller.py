"""The composition root of a run: a checked campaign, and every adapter that carries it out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

from edgeloop.analysis.scoring import Scorer
from edgeloop.analysis.spread import DECISION_RULE
from edgeloop.board.retry import RetryingBench
from edgeloop.builders.parity import Gate
from edgeloop.config.campaign_file import campaign_key, larger_networks, reference_network
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign
from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.core.events import RunStarted
from edgeloop.core.measurement import PipelineFile
from edgeloop.core.network import NetworkSizes, NetworkSpec
from edgeloop.data.files import write_board_npz
from edgeloop.engines.registry import DEFAULT, ENGINES
from edgeloop.errors import Fault, kept_on_disk
from edgeloop.loop.adapters import Adapters, RunFacts
from edgeloop.loop.controller import Controller
from edgeloop.loop.measure_and_judge import MeasurementPolicy
from edgeloop.loop.replay import EventReplay
from edgeloop.ports import Bench, Builder, Observer, Strategy, Trainer
from edgeloop.ready_models.reference_file import ReferenceFileBuilder
from edgeloop.records import external_reference
from edgeloop.search.larger_networks import grid
from edgeloop.search.space import SearchSpace
from edgeloop.search.strategies import SearchProblem, StudyStorage, find_strategy
from edgeloop.training.pool import TrainingPool
from edgeloop.wiring.benches import open_board
from edgeloop.wiring.builders import BuilderFactory, BuilderSet, delegate_builders
from edgeloop.wiring.clock import SystemClock
from edgeloop.wiring.host_engines import HOST_ENGINES
from edgeloop.wiring.packages import needed_packages
from edgeloop.wiring.processors import tvm_target
from edgeloop.wiring.third_parties import ThirdParties, TrainerSite, plugin_versions

ROOM_BYTES_MIN = 64 * 1024 * 1024
"""What a training and a build may take together; with less, a failure of the toolchain is the disk's."""
STORAGE = "optuna.db"
_TOOLS = ("edgeloop", "numpy", "scipy", "paramiko")


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """A campaign with everything that it names, opened and checked."""

    campaign: Campaign
    """Where M1 is a .tflite, with the form that it was found in."""
    boards: tuple[Board, ...]
    compilers: Mapping[str, tuple[str, ...]]
    """Commands of the delegates that compile, by the delegates' names."""
    pipeline: PipelineFile | None
    data: DataSet
    scorer: Scorer
    baseline: Artifact | None
    """M1 as it is measured, where it is a file; None where it is trained."""
    undecidable: tuple[Fault, ...]
    """Of limits that no measurement could decide."""

    @property
    def channel_multiple(self) -> int:
        """Widths are rounded to it, for all boards."""
        return max(board.model.channel_multiple for board in self.boards)


def open_controller(
    run: CheckedRun, folder: Path, replay: EventReplay, observer: Observer, others: ThirdParties, stack: ExitStack
) -> Controller:
    """Return the controller of a run in its folder. All that has to be closed is pushed to `stack`."""
    campaign, clock = run.campaign, SystemClock()
    benches = [RetryingBench((others.bench or open_board)(board)) for board in run.boards]
    for bench in benches:
        stack.callback(bench.close)
    networks = training_pool(campaign, folder / "networks")
    stack.callback(networks.close)
    trainer: Trainer = networks
    if others.trainer is not None:
        trainer = others.trainer(TrainerSite(campaign, folder / "networks"))
        stack.callback(trainer.close)
    builders = _builders(run, folder, observer, others.builders)
    stack.callback(builders.close)
    of_delegates = delegate_builders(
        folder / "artifacts", builders.of(DEFAULT.name, benches[0]), run.compilers, campaign
    )
    for builder in of_delegates.values():
        stack.callback(builder.close)
    by_name = {bench.board.name: bench for bench in benches}
    adapters = Adapters(
        networks=networks,
        trainer=trainer,
        builder_for=lambda engine, board: builders.of(engine, by_name[board.name]),
        compilers=of_delegates,
        benches=benches,
        clock=clock,
        observer=observer,
        strategy=partial(_strategy, run, folder, replay, others),
        has_room=lambda: shutil.disk_usage(folder).free >= ROOM_BYTES_MIN,
        keep_external_m1=partial(external_reference.write, folder=folder),
    )
    facts = RunFacts(
        campaign_key=campaign_key(campaign),
        versions=_versions(campaign) | {"decision rule": DECISION_RULE},
        data_sha256=run.data.sha256,
        channel_multiple=run.channel_multiple,
        lower_is_better=run.scorer.lower_is_better,
        first_larger=next(iter(grid(reference_network(campaign), campaign.search, larger_networks(campaign)))),
        tuned_engines=frozenset(name for name, row in ENGINES.items() if row.tunes and campaign.tuning.trials),
        external_m1=external_reference.read(folder),
    )
    policy = MeasurementPolicy(
        campaign=campaign,
        data=run.data,
        scorer=run.scorer,
        pipeline=run.pipeline,
        samples=folder / "samples",
        board_data=partial(_board_data, folder / "data", for_pipeline=run.pipeline is not None),
        replay=replay,
        clock=clock,
        observer=observer,
    )
    return Controller(campaign, reference_network(campaign), adapters, facts, replay=replay, policy=policy)


def training_pool(campaign: Campaign, folder: Path) -> TrainingPool:
    """Return the process that trains and describes networks, within the campaign's bounds."""
    return TrainingPool(
        folder,
        training_limits=campaign.training_limits,
        describe_limits=campaign.toolchain.build_limits,
    )


def search_space(
    run: CheckedRun,
    m1: NetworkSpec,
    sizes: NetworkSizes,
    m1_bytes: int,
    sizes_of: Callable[[NetworkSpec], NetworkSizes],
) -> SearchSpace:
    """Return the space that a campaign searches, beside an M1 of known sizes."""
    campaign = run.campaign
    return SearchSpace(
        search=campaign.search,
        m1=m1,
        m1_sizes=sizes,
        m1_lightening=campaign.reference.lightening,
        m1_setting=campaign.reference.setting,
        compiling=run.compilers,
        m1_bytes=m1_bytes,
        larger=larger_networks(campaign),
        teacher=campaign.training.teacher,
        limits=campaign.limits,
        sizes_of=sizes_of,
    )


def _strategy(
    run: CheckedRun,
    folder: Path,
    replay: EventReplay,
    others: ThirdParties,
    m1: NetworkSpec,
    sizes: NetworkSizes,
    m1_bytes: int,
    sizes_of: Callable[[NetworkSpec], NetworkSizes],
) -> Strategy:
    """Make the run's strategy, once M1's own file is known."""
    campaign = run.campaign
    start = replay.find(RunStarted, "")
    assert start is not None, "a run asks after it has started"
    storage = StudyStorage(
        storage=campaign.search.storage or f"sqlite:///{folder / STORAGE}",
        study=f"{campaign.name}-{start.run_id}",
    )
    space = search_space(run, m1, sizes, m1_bytes, sizes_of)
    make = others.strategy or find_strategy(campaign.search.strategy)
    return make(SearchProblem(space, campaign.limits, run.scorer.lower_is_better, storage))


def _builders(run: CheckedRun, folder: Path, observer: Observer, others: Mapping[str, BuilderFactory]) -> BuilderSet:
    """The builders of the campaign's engines; around each the one of M1's file, where M1 is one."""
    campaign = run.campaign
    factories = {name: host.make_builder for name, host in HOST_ENGINES.items() if host.make_builder is not None}

    def with_reference(builder: Builder, bench: Bench) -> Builder:
        store = folder / "artifacts"
        return ReferenceFileBuilder(
            builder, run.data, store, campaign.toolchain.build_limits, partial(tvm_target, bench)
        )

    task = campaign.task
    return BuilderSet(
        campaign,
        folder,
        Gate(task, run.scorer.agreement if task.agreement else None),
        observer,
        {**factories, **others},
        wrap=None if campaign.reference.file is None else with_reference,
    )


def _board_data(folder: Path, split: DataSplit, name: str, *, for_pipeline: bool) -> Path:
    """The file of a split as a board gets it, written once."""
    path = folder / f"{name}.npz"
    if not path.exists():
        with kept_on_disk(path):
            path.parent.mkdir(exist_ok=True)
            write_board_npz(split, len(split), path, for_pipeline=for_pipeline)
    return path


def _versions(campaign: Campaign) -> dict[str, str]:
    """Versions of everything that a run's outcome depends on, by package."""
    packages = (*_TOOLS, *(error.package for error in needed_packages(campaign)))
    return {name: metadata.version(name) for name in packages} | plugin_versions(campaign)
