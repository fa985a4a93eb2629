"""The boundaries on a page: what each promises, and what it raises.

Adapters are chosen in `wiring`. Retrying wraps a port; adapters do not retry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board
from edgeloop.core.campaign import Data, Task, Training
from edgeloop.core.events import Entry, Event, Trial
from edgeloop.core.frozen import Frozen
from edgeloop.core.measurement import Arrays, Attempt, MeasureRequest
from edgeloop.core.mixed_precision import LayerChoice
from edgeloop.core.network import Candidate, NetworkSizes, NetworkSpec
from edgeloop.core.verdict import Direction


class Clock(Protocol):
    """Time as a parameter, so that tests fake it."""

    def monotonic_s(self) -> float: ...

    def utc(self) -> str:
        """ISO 8601 with seconds and `Z`."""
        ...


class CompletedCommand(Protocol):
    @property
    def exit_status(self) -> int: ...
    @property
    def stdout(self) -> bytes: ...
    @property
    def stderr(self) -> bytes: ...


class Link(Protocol):
    """A way to run commands on a board and move bytes. Every wait has a deadline of ours.

    Raises UnreachableError where the board does not answer in time, HostKeyError for a wrong key.
    """

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | Path | None = None,
        deadline_s: float = 30.0,
        output_max: int = 16 * 1024 * 1024,
    ) -> CompletedCommand:
        """Run a command; a Path as stdin is streamed."""
        ...

    def fetch(self, remote: str, local: Path, *, deadline_s: float = 120.0, size_max: int = 1 << 30) -> None:
        """Copy one file here, to a temporary name first."""
        ...

    def close(self) -> None: ...


class PowerMeter(Protocol):
    """A meter that this host reads. Raises LabError where it ends, falls silent or makes no sense.

    It is started once. `edgeloop.testing.contracts.power_meter` holds the rules.
    """

    def start(self) -> None:
        """Begin; returns with the first reading."""
        ...

    def check(self) -> None:
        """Raise where no more readings will come."""
        ...

    def wait_until(self, time_s: float, longest_s: float) -> None:
        """Wait until a reading is as late as a time, at most so long. Raises as `check`."""
        ...

    def readings(self, since_s: float, until_s: float) -> NDArray[np.float64]:
        """(2, n), float64: seconds of this host's monotonic clock, in order, and watts.

        Those between the two times, and where there are, one before and one after.
        """
        ...

    def close(self) -> None:
        """End it; harmless where it ended, or was never started."""
        ...


class Activity(StrEnum):
    """The kinds of progress."""

    WORKING = "working"
    PUSHING = "pushing"
    """Files go to a board, or are unpacked there."""
    WAITING = "waiting"
    """For a board that somebody else holds, or that is busy or warm."""
    NO_CONNECTION = "no connection"
    TUNING = "tuning"

    @property
    def is_worth_a_line(self) -> bool:
        """True where its begin is worth a line of a log: it may last, and it is not what was asked for."""
        return self in (Activity.WAITING, Activity.NO_CONNECTION, Activity.TUNING)


@dataclass(frozen=True, slots=True)
class Progress:
    """One piece of news of what goes on: words for people, their kind, and how far it is."""

    text: str
    activity: Activity = Activity.WORKING
    done: float = 0.0
    """Sessions, or a share of the whole."""
    total: float = 0.0
    """0 where nobody knows."""


Watch = Callable[[Progress], None]
"""Called with each piece of news."""
TrainingProgress = Callable[[str, float], None]
"""Called with a label of what a training does, and the share of that which is over, 0 to 1."""


class Bench(Protocol):
    """One board, ready to measure. `edgeloop.testing.contracts.bench` holds the rules."""

    @property
    def board(self) -> Board: ...

    def facts(self) -> Mapping[str, Any]:
        """The board as it described itself at the first call: `python`, `machine`, `boot_id`, `model`, ..."""
        ...

    def measure(self, request: MeasureRequest, watch: Watch) -> Attempt:
        """Measure every step of the schedule and keep the raw samples in `request.folder`.

        One session for each step, in the schedule's order, all in one boot of the board. A job that is complete in the
        folder is read, not measured; one that runs on the board already is adopted. Raises BoardError, LabError,
        ModelError (a model the engine refuses) or HarnessError.
        """
        ...

    def close(self) -> None:
        """Let go of the board; harmless where that was done."""
        ...


class TrainingJob(Frozen):
    """One training, with everything it depends on; equal jobs give equal networks."""

    network: NetworkSpec
    lightening: str
    task: Task
    data: Data
    data_sha256: str
    recipe: Training
    parent: str | None = None
    """Folder of the trained float network that a lightened one starts from."""
    widened_from: str | None = None
    """Folder of the trained float network whose function a wider one of the same factory starts with."""
    teacher: str | None = None
    """Folder of the trained float network that teaches."""
    goes_on_from: str | None = None
    """Folder of a lightened training of this very network, at another rung, whose weights are fine-tuned."""
    channel_multiple: int = 4


class TrainedNetwork(Frozen):
    """A folder with `network.pt2`, `recipe.json`, `probe.npz`, `weights.pt` and `training.json`.

    Where it was lightened, `graph.pt` too, with the weights of the folded graph before rounding. Of an M1 that is a
    file: `training.json` and, where it teaches, `outputs.npz`.
    """

    key: str
    folder: str
    seconds: float
    epochs: int
    validation: dict[str, float]
    lightened: dict[str, float] | None = None
    layers: tuple[LayerChoice, ...] = ()
    """Of a lightened network, in forward order."""
    note: str | None = None
    """A remark on it, beside the phase."""


class Networks(Protocol):
    """The sizes of a network before it is trained. Runs a user's code apart from the controller.

    `edgeloop.testing.contracts.trainer` holds this and the Trainer port.
    """

    def describe(self, network: NetworkSpec, task: Task, data: Data, channel_multiple: int) -> NetworkSizes:
        """Return the sizes; equal questions get equal answers.

        Raises UserError where the factory can't be called or its module can't be exported, ModelError where channels
        are to be removed and can't be.
        """
        ...


class Trainer(Protocol):
    """Trains networks apart from the controller. A finished training is kept on disk and never made twice."""

    def key(self, job: TrainingJob) -> str:
        """Return the name of the job's result, which can name a folder: equal jobs have equal keys, others do not.

        Raises UserError where a file that the task names is missing, MissingExtraError where the toolchain is.
        """
        ...

    def submit(self, job: TrainingJob, progress: TrainingProgress) -> Future[TrainedNetwork]:
        """Start a training, join one of an equal job that waits or runs, or find it finished: the future is done then.

        `progress` gets a label and a fraction from 0 to 1, which does not fall while the label is the same. The future
        raises UserError (the user's code or data), or HarnessError. A failure stays with its job, and is tried again
        when the job is submitted again.
        """
        ...

    def abandon(self, keep: str) -> None:
        """Stop every training but the one with the key `keep`; their futures are cancelled or fail."""
        ...

    def close(self) -> None:
        """Stop what waits and runs, whose futures are cancelled or fail; finished trainings stay on disk."""
        ...


class Builder(Protocol):
    """Makes files of trained networks. Several threads may call it; several builders may share one folder.

    `edgeloop.testing.contracts.builder` holds this.
    """

    def key(self, network: TrainedNetwork, lightening: str) -> str:
        """Name everything that decides the bytes of a file: equal keys give equal files, in this process and later.

        Raises MissingExtraError where the toolchain is not installed.
        """
        ...

    def build(self, network: TrainedNetwork, lightening: str) -> Artifact:
        """Build and pass the parity gate, or find what any builder built here under this key, if it is undamaged.

        Raises BuildError (the toolchain failed, died or took too long; the builder was closed), ParityError,
        StationError (this machine's disk); for a network that is a file UserError and ModelError too. A build that
        ends so leaves nothing behind but its log.
        """
        ...

    def warm_up(self) -> None:
        """Start the toolchain ahead of the next build. Changes nothing of what is built; after closing it does
        nothing."""
        ...

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run a model that was built here on this host; return its outputs by name, dequantized, (n, ...) for n
        samples.

        Raises DataError where an input of the model has no array, HarnessError where running it crashes or takes too
        long.
        """
        ...

    def close(self) -> None:
        """End every child, builds that are running included: they raise BuildError. Closing again does no harm."""
        ...


class FunctionTimer(Protocol):
    """Times the functions of a compiled library on a board, each by itself."""

    @property
    def board(self) -> Board: ...

    def time(self, library: Artifact) -> NDArray[np.int64]:
        """Single calls in ns, (functions, rounds, calls); -1 for a call that was not made, as of one that crashed.

        The same library is not timed twice. Raises as `Bench.measure`, and BuildError where nothing came of it.
        """
        ...


Score = Callable[[Arrays, Arrays], NDArray[np.float64]]
"""(outputs, targets) -> one score for each sample (n,), or a 0-dimensional array for a score of the whole set."""


class Strategy(Protocol):
    """Chooses candidates; knows nothing of boards.

    What is asked is a function of the trials told and of what was asked: a run that is walked again asks the same. No
    candidate is asked twice, and what was not measured moves nothing. `edgeloop.testing.contracts.strategy` holds this.

    Each is made for one run, from M1 as it was built, by a `search.strategies.StrategyFactory`.
    `search.space.SearchSpace` has the candidates that a campaign offers, and what is predicted of each;
    `search.moves.result_of` reads a trial.
    """

    def ask(self) -> tuple[Candidate, str] | None:
        """The next candidate and why, in a sentence for people; None where nothing is left to ask.

        Asking again without telling asks another candidate.
        """
        ...

    def rating(self, candidate: Candidate) -> tuple[float | None, int | None]:
        """Size difference evaluation E and predicted deployed bytes of a candidate; None where there is none."""
        ...

    def tell(self, trial: Trial) -> tuple[Direction, str]:
        """Learn a finished trial; return the direction of the move and its sentence, which has the trial's figures.

        A trial may be told that was not asked here: an earlier walk asked it. One of another search moves nothing.
        """
        ...

    def likely(self) -> list[Candidate]:
        """Return what may be asked next, likeliest first; may be empty."""
        ...


class Observer(Protocol):
    """Is told what a run is doing; decides nothing."""

    def stage(self, trial: int, what: str) -> None:
        """A step of a trial begins: `training`, `building`, `measuring on pi4 (quick, validation)`."""
        ...

    def progress(self, progress: Progress) -> None:
        """The step goes on."""
        ...

    def entry(self, entry: Entry) -> None:
        """An event was written to the ledger."""
        ...


class Ledger(Protocol):
    """Append-only events; each append is on disk when it returns."""

    def append(self, event: Event) -> Entry: ...

    def entries(self) -> list[Entry]: ...

    @property
    def wall_s_spent(self) -> float:
        """Seconds that the ledger was open, over all the processes that wrote it, up to now."""
        ...

    def close(self) -> None: ...
