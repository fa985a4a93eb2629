"""A run whose loop the caller owns, and the loop that `edgeloop run` is made of.

with edgeloop.Study("campaign.toml") as study:
    while (trial := study.ask()) is not None:
        study.tell(trial, study.carry_out(trial))
    result = study.finish()
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from edgeloop.app.run_checks import check_run, check_toolchain, with_targets
from edgeloop.app.run_result import REPORT, RunResult
from edgeloop.app.write_best import write_best
from edgeloop.config.campaign_file import checked_campaign, load_campaign
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Campaign
from edgeloop.core.events import Entry, Trial
from edgeloop.errors import BoardError, HarnessError, LabError, UserError, kept_on_disk, raise_faults
from edgeloop.loop.external_measurements import ExternalMeasurement
from edgeloop.loop.replay import EventReplay
from edgeloop.ports import Observer, Progress
from edgeloop.records.ledger import LEDGER, FileLedger
from edgeloop.reports import html
from edgeloop.search.moves import best_first
from edgeloop.search.strategies import StrategyFactory
from edgeloop.sentences import Argument, Sentence, names_argument
from edgeloop.wiring.builders import BuilderFactory
from edgeloop.wiring.clock import SystemClock
from edgeloop.wiring.controller import open_controller
from edgeloop.wiring.third_parties import BenchFactory, ThirdParties, TrainerFactory

_NO_BUILDERS: Mapping[str, BuilderFactory] = MappingProxyType({})
Anywhere = str | os.PathLike[str]


class Silent:
    """ports.Observer that tells nobody."""

    def stage(self, trial: int, what: str) -> None: ...

    def progress(self, progress: Progress) -> None: ...

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
        strategy: StrategyFactory | None = None,
        builders: Mapping[str, BuilderFactory] = _NO_BUILDERS,
        bench: BenchFactory | None = None,
        trainer: TrainerFactory | None = None,
    ) -> None:
        """Read, check and wire; nothing is trained or sent yet.

        `campaign` is a file or a loaded campaign, `targets` replace its own, `beside` is the folder where files of
        boards are looked for first (the campaign file's, or the working directory), `out` is the run's folder
        (`runs/NAME` where absent), `observer` is told what the run does. `strategy`, `builders` (by engine), `bench`
        and `trainer` make adapters that take the place of edgeloop's own, and of those that the campaign names
        (docs/how-to/adapters-of-your-own.md). Raises UserError and its kind for everything that can be known to be
        wrong before a training.
        """
        if isinstance(campaign, Campaign):
            whole, folder = checked_campaign(campaign), Path.cwd()
        else:
            whole, folder = load_campaign(Path(campaign)), Path(campaign).resolve().parent
        whole = with_targets(whole, targets)
        self.folder = (Path(out) if out is not None else Path("runs") / whole.name).resolve()
        _check_folder(self.folder, resume=resume)
        check_toolchain(whole)
        others = ThirdParties(strategy, builders, bench, trainer).completed_by(whole)
        run = check_run(whole, folder if beside is None else Path(beside))
        raise_faults(run.undecidable)
        self.campaign = run.campaign
        observer = observer or Silent()
        with ExitStack() as stack:
            self._ledger = FileLedger(self.folder, SystemClock())
            stack.callback(self._ledger.close)
            self._replay = EventReplay(self._ledger, observer)
            self._controller = open_controller(run, self.folder, self._replay, observer, others, stack)
            stack.callback(self._controller.close)
            self._stack = stack.pop_all()

    def ask(self) -> Trial | None:
        """The next trial, M1 first (`trial.role == "reference"`); None where the run has come to its end.

        A trial that was asked and not told yet is asked again. Raises UserError where the folder is another
        campaign's.
        """
        return self._controller.ask()

    def make(self, trial: Trial) -> Artifact:
        """Train and build the trial that was asked, through the parity gate; measure nothing. The artifact is the first
        target's; `trials` have those of targets of other processors (`trial.build.on(target)`).

        Raises HarnessError where the toolchain failed, UserError where the user's own code did.
        """
        return self._controller.make(trial)

    def carry_out(self, trial: Trial) -> Trial:
        """Train, build, measure on every target and judge; return the trial with its results.

        What goes wrong with the network or the toolchain is in the trial (`trial.error`). Raises UserError for the
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
            self._controller.judge_external(trial, outcome, test)
        elif test is not None:
            raise UserError(
                "figures on test data go with figures on validation data",
                next_step=Sentence("leave out {}", Argument("test")),
            )
        elif outcome.number != trial.number:
            raise UserError(f"trial {trial.number} can't be told as trial {outcome.number}")
        self._controller.tell(trial)
        return next(one for one in self.trials if one.number == trial.number)

    def finish(self) -> RunResult:
        """End the run once `ask` returns None: look at test data in Pareto mode, write the networks and the report.

        Raises UserError where there is more to ask, StationError where this machine has no room for the files.
        """
        end = self._controller.finish()
        entries = tuple(self._ledger.entries())
        with kept_on_disk(self.folder):
            best = write_best(entries, self.folder)
            html.write(entries, self.folder / REPORT)
        return RunResult(end, entries, self.folder, best.models, best.front)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial so far, as the ledger has it."""
        return tuple(self._replay.trials())

    @property
    def best(self) -> Trial | None:
        """The best candidate so far: passed, else nearest to its limits; None before one was measured."""
        return next(iter(best_first(self.trials)), None)

    def close(self) -> None:
        """Let go of boards, trainings and the ledger; an unfinished run goes on with `resume=True`."""
        self._stack.close()

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
    strategy: StrategyFactory | None = None,
    builders: Mapping[str, BuilderFactory] = _NO_BUILDERS,
    bench: BenchFactory | None = None,
    trainer: TrainerFactory | None = None,
) -> RunResult:
    """Carry out a campaign to its end; the arguments are those of `Study`.

    Raises UserError for what can't be used, BoardError and LabError for a board that could not be measured, and
    HarnessError where the toolchain failed on M1: the folder then goes on with `resume=True`.
    """
    with Study(
        campaign,
        targets=targets,
        beside=beside,
        out=out,
        resume=resume,
        observer=observer,
        strategy=strategy,
        builders=builders,
        bench=bench,
        trainer=trainer,
    ) as study:
        try:
            while (trial := study.ask()) is not None:
                study.tell(trial, study.carry_out(trial))
            return study.finish()
        except (BoardError, LabError, HarnessError) as error:
            if not names_argument(error.next_step, "resume", "out"):
                resume_step = Sentence("then go on with {}", Argument("resume", value=True))
                step = error.next_step
                error.next_step = resume_step if step is None else Sentence("{}; {}", step, resume_step)
            raise


def _check_folder(folder: Path, *, resume: bool) -> None:
    """Raise UserError where the folder has a run and none is to be resumed, or the other way round."""
    has_run, out = (folder / LEDGER).exists(), Argument("out")
    if has_run and not resume:
        step = Sentence("go on with {}, or name another {}", Argument("resume", value=True), out)
        raise UserError(f"{folder}: a run is in there already", next_step=step)
    if resume and not has_run:
        step = Sentence("leave out {}, or name its {}", Argument("resume"), out)
        raise UserError(f"{folder}: there is no run to resume", next_step=step)
