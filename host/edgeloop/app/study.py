"""A run whose loop the caller owns, and the loop that `edgeloop run` is made of: which adapters carry out a campaign.

with edgeloop.Study("campaign.toml") as study:
    while (trial := study.ask()) is not None:
        study.tell(trial, study.carry_out(trial))
    result = study.finish()
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

from edgeloop.analysis.scoring import Scorer
from edgeloop.analysis.spread import DECISION_RULE
from edgeloop.app.delegate_checks import Compilers, compilers_of
from edgeloop.app.preview import (
    REPORT,
    TOOLS,
    RunResult,
    needs_toolchain,
    pipeline_of,
    prunes,
    undecidable_limits,
    with_targets,
)
from edgeloop.app.write_best import write_best
from edgeloop.board.retry import RetryingBench
from edgeloop.builders.parity import Gate
from edgeloop.builders.tvm.versions import PACKAGES
from edgeloop.config.board_files import resolve_all
from edgeloop.config.campaign_file import (
    campaign_key,
    checked_campaign,
    larger_networks,
    load_campaign,
    reference_network,
)
from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign
from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.core.events import Entry, RunStarted, Trial
from edgeloop.core.measurement import PipelineFile
from edgeloop.core.model_format import ModelFormat
from edgeloop.core.network import NetworkSizes, NetworkSpec
from edgeloop.data.files import write_board_npz
from edgeloop.data.load import load
from edgeloop.data.shapes import network_io
from edgeloop.errors import BoardError, ConfigError, HarnessError, LabError, UserError, kept_on_disk
from edgeloop.loop.controller import Controller
from edgeloop.loop.external_measurements import ExternalMeasurement
from edgeloop.loop.measure_and_judge import MeasurementPolicy
from edgeloop.loop.replay import EventReplay
from edgeloop.loop.train_and_build import Adapters
from edgeloop.ports import Observer, Strategy
from edgeloop.ready_models.reference_file import ReferenceFileBuilder, check_reference_file
from edgeloop.records import external_reference
from edgeloop.records.ledger import LEDGER, FileLedger
from edgeloop.reports import html
from edgeloop.search.larger_networks import grid
from edgeloop.search.moves import ranked
from edgeloop.search.space import SearchSpace
from edgeloop.search.strategies import StudyStorage, strategy_for
from edgeloop.training.pool import TrainingPool
from edgeloop.wiring.benches import open_board
from edgeloop.wiring.builders import builders_for, check_processors, compilers_for, engines_of, tvm_target
from edgeloop.wiring.clock import SystemClock

ROOM_BYTES_MIN = 64 * 1024 * 1024
"""What a training and a build may take together; with less, a failure of the toolchain is the disk's."""
STORAGE = "optuna.db"

Anywhere = str | os.PathLike[str]


class Silent:
    """ports.Observer that tells nobody."""

    def stage(self, trial: int, what: str) -> None: ...

    def progress(self, what: str, done: float, total: float) -> None: ...

    def entry(self, entry: Entry) -> None: ...


class Study:
    """One run of a campaign, asked and told by the caller. Close it, or use it in a `with`.

    Everything that is asked and told is in the run's folder when the call returns; after an interruption
    `Study(..., resume=True)` goes on, and asks no candidate that was told.
    """

    def __init__(
        self,
        campaign: Campaign | Anywhere,
        *,
        targets: Sequence[str] = (),
        beside: Anywhere | None = None,
        out: Anywhere | None = None,
        resume: bool = False,
        observer: Observer | None = None,
    ) -> None:
        """Read, check and wire; nothing is trained or sent yet.

        `campaign` is a file or a loaded campaign, `targets` replace its own, `beside` is the folder where files of
        boards are looked for first (the campaign file's, or the working directory), `out` is the run's folder
        (`runs/NAME` where absent), `observer` is told what the run does. Raises UserError and its kind for everything
        that can be known to be wrong before a training.
        """
        loaded, folder = (
            (checked_campaign(campaign), Path.cwd())
            if isinstance(campaign, Campaign)
            else (load_campaign(Path(campaign)), Path(campaign).resolve().parent)
        )
        self.campaign = with_targets(loaded, targets)
        self.folder = (Path(out) if out is not None else Path("runs") / loaded.name).resolve()
        _begun_as_asked(self.folder, resume=resume)
        needs_toolchain(self.campaign)
        boards = resolve_all(self.campaign.targets, folder if beside is None else Path(beside))
        compilers = compilers_of(self.campaign, boards)
        check_processors(self.campaign, boards)
        pipeline = pipeline_of(self.campaign)
        data, scorer = load(self.campaign.data), Scorer(self.campaign.task)
        network_io(data, self.campaign.task)
        self.campaign, _ = check_reference_file(self.campaign, data)
        faults = undecidable_limits(self.campaign, boards, data, scorer)
        if faults:
            raise ConfigError(faults)
        with ExitStack() as opened:
            self._ledger = FileLedger(self.folder, SystemClock())
            opened.callback(self._ledger.close)
            self._memo = EventReplay(self._ledger, observer or Silent())
            self._controller = _controller(
                self.campaign,
                boards,
                data,
                scorer,
                pipeline,
                compilers,
                self.folder,
                observer or Silent(),
                self._memo,
                opened,
            )
            opened.callback(self._controller.close)
            self._opened = opened.pop_all()

    def ask(self) -> Trial | None:
        """The next trial, M1 first (`trial.role == "reference"`); None where the run has come to its end.

        A trial that was asked and not told yet is asked again. Raises UserError where the folder is another
        campaign's.
        """
        return self._controller.ask()

    def make(self, trial: Trial) -> Artifact:
        """Train and build the trial that was asked, through the parity gate; measure nothing. The artifact is the first
        target's; `trials` have those of targets of other processors (`trial.built.on(target)`).

        Raises HarnessError where the toolchain failed, UserError where the user's own code did.
        """
        return self._controller.make(trial)

    def carry_out(self, trial: Trial) -> Trial:
        """Train, build, measure on every target and judge; return the trial with its results.

        What goes wrong with the network or the toolchain is in the trial (`trial.errored`). Raises UserError for the
        user's own code or data; BoardError and LabError leave the study as it was before the call.
        """
        return self._controller.carry_out(trial)

    def tell(
        self, trial: Trial, outcome: Trial | ExternalMeasurement, *, test: ExternalMeasurement | None = None
    ) -> Trial:
        """Take in what a trial came to, and return it with its verdict and its move.

        `outcome` is what `carry_out` returned, or figures of the caller's own on validation data. Of a candidate that
        passes with these, `test` is its one look at test data: without it nothing is proven. Raises UserError for
        figures that can't be judged, and for a trial that was not asked.
        """
        if isinstance(outcome, ExternalMeasurement):
            self._controller.judge_own(trial, outcome, test)
        elif test is not None:
            raise UserError("figures on test data go with figures on validation data", next_step="leave out test=")
        elif outcome.number != trial.number:
            raise UserError(f"trial {trial.number} can't be told as trial {outcome.number}")
        self._controller.tell(trial)
        return next(told for told in self.trials if told.number == trial.number)

    def finish(self) -> RunResult:
        """End the run once `ask` returns None: look at test data in Pareto mode, write the networks and the report.

        Raises UserError where there is more to ask, StationError where this machine has no room for the files.
        """
        finished = self._controller.finish()
        entries = tuple(self._ledger.entries())
        with kept_on_disk(self.folder):
            written = write_best(entries, self.folder)
            html.write(entries, self.folder / REPORT)
        return RunResult(finished, entries, self.folder, written.models, written.front)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial so far, as the ledger has it."""
        return tuple(self._memo.trials())

    @property
    def best(self) -> Trial | None:
        """The best candidate so far: passed, else nearest to its limits; None before one was measured."""
        return next(iter(ranked(self.trials)), None)

    def close(self) -> None:
        """Let go of boards, trainings and the ledger; an unfinished run goes on with `resume=True`."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run(
    campaign: Campaign | Anywhere,
    *,
    targets: Sequence[str] = (),
    beside: Anywhere | None = None,
    out: Anywhere | None = None,
    resume: bool = False,
    observer: Observer | None = None,
) -> RunResult:
    """Carry out a campaign to its end; the arguments are those of `Study`.

    Raises UserError for what can't be used, BoardError and LabError for a board that could not be measured, and
    HarnessError where the toolchain failed on M1: the folder then goes on with `resume=True`.
    """
    with Study(campaign, targets=targets, beside=beside, out=out, resume=resume, observer=observer) as study:
        try:
            while (trial := study.ask()) is not None:
                study.tell(trial, study.carry_out(trial))
            return study.finish()
        except (BoardError, LabError, HarnessError) as error:
            if "--" not in (error.next_step or ""):
                error.next_step = "; ".join(filter(None, [error.next_step, "then go on with --resume"]))
            raise


def _begun_as_asked(folder: Path, *, resume: bool) -> None:
    begun = (folder / LEDGER).exists()
    if begun and not resume:
        raise UserError(f"{folder}: a run is in there already", next_step="go on with --resume, or name another --out")
    if resume and not begun:
        raise UserError(f"{folder}: there is no run to resume", next_step="leave out --resume, or name its --out")


def _controller(
    campaign: Campaign,
    boards: Sequence[Board],
    data: DataSet,
    scorer: Scorer,
    pipeline: PipelineFile | None,
    compilers: Compilers,
    folder: Path,
    observer: Observer,
    memo: EventReplay,
    opened: ExitStack,
) -> Controller:
    clock, larger = SystemClock(), larger_networks(campaign)
    benches = [RetryingBench(open_board(board)) for board in boards]
    for bench in benches:
        opened.callback(bench.close)
    trainer = TrainingPool(
        folder / "networks",
        training_limits=campaign.training_limits,
        describe_limits=campaign.toolchain.build_limits,
    )
    opened.callback(trainer.close)
    builders = builders_for(
        campaign,
        folder,
        Gate(campaign.task, scorer.agreement if campaign.task.agreement else None),
        benches,
        observer,
    )
    if campaign.reference.file is not None:
        artifacts, limits = folder / "artifacts", campaign.toolchain.build_limits
        processors = {bench.board.name: partial(tvm_target, bench) for bench in benches}
        builders = {
            (engine, target): ReferenceFileBuilder(made, data, artifacts, limits, processors[target])
            for (engine, target), made in builders.items()
        }
    for builder in builders.values():
        opened.callback(builder.close)

    def board_data(split: DataSplit, name: str) -> Path:
        path = folder / "data" / f"{name}.npz"
        if not path.exists():
            with kept_on_disk(path):
                path.parent.mkdir(exist_ok=True)
                write_board_npz(split, len(split), path, for_pipeline=pipeline is not None)
        return path

    def strategy(
        m1: NetworkSpec, sizes: NetworkSizes, m1_bytes: int, sizes_of: Callable[[NetworkSpec], NetworkSizes]
    ) -> Strategy:
        space = SearchSpace(
            search=campaign.search,
            m1=m1,
            m1_sizes=sizes,
            m1_lightening=campaign.reference.lightening,
            m1_setting=campaign.reference.setting,
            compiling=compilers,
            m1_bytes=m1_bytes,
            larger=larger,
            teacher=campaign.training.teacher,
            limits=campaign.limits,
            sizes_of=sizes_of,
        )
        started = memo.find(RunStarted, "")
        assert started is not None, "a run asks after it has started"
        published = StudyStorage(
            storage=campaign.search.storage or f"sqlite:///{folder / STORAGE}",
            study=f"{campaign.name}-{started.run_id}",
        )
        return strategy_for(space, campaign.limits, lower_is_better=scorer.lower_is_better, published=published)

    delegates = compilers_for(builders["litert", boards[0].name], folder / "artifacts", compilers, campaign.toolchain)
    for builder in delegates.values():
        opened.callback(builder.close)

    means = Adapters(
        networks=trainer,
        trainer=trainer,
        builder_for=lambda engine, board: builders[engine, board.name],
        compilers=delegates,
        benches=benches,
        memo=memo,
        clock=clock,
        observer=observer,
        measuring=MeasurementPolicy(
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
        versions={name: metadata.version(name) for name in _tools(campaign)} | {"decision rule": DECISION_RULE},
        campaign_key=campaign_key(campaign),
        compared_by=(campaign.limits, scorer.lower_is_better),
        strategy=strategy,
        tuned=frozenset(["tvm"] if campaign.tuning.trials else ()),
        first_larger=next(iter(grid(reference_network(campaign), campaign.search, larger))),
        own_m1=external_reference.kept(folder),
        keep_own_m1=partial(external_reference.keep, folder=folder),
    )
    return Controller(campaign, reference_network(campaign), means)


def _tools(campaign: Campaign) -> tuple[str, ...]:
    more = [*PACKAGES] if "tvm" in engines_of(campaign) else []
    more += ["optuna"] if campaign.search.strategy == "optuna" else []
    if campaign.reference.file is not None:
        model_format = ModelFormat.of(Path(campaign.reference.file))
        if model_format is not None and model_format.row.converter is not None:
            more += [package.name for package in model_format.row.packages]
    return (*TOOLS, *more, *(["torch-pruning"] if prunes(campaign) else []))
