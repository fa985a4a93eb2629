"""One job on one board: the models of a request timed, interleaved, and evaluated on its samples."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_state_path

from edgeloop.analysis.accuracy import Scores
from edgeloop.analysis.plans import job_deadline_s, schedule
from edgeloop.analysis.scoring import Scorer
from edgeloop.analysis.subject_data import SubjectData, subject_data
from edgeloop.app.request import Request, RequestModel, RequestSamples
from edgeloop.core.board import Board
from edgeloop.core.dataset import DataSplit
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Attempt, MeasureRequest, Subject
from edgeloop.core.verdict import Outcome
from edgeloop.data.files import write_board_npz
from edgeloop.errors import kept_on_disk
from edgeloop.ports import Bench, Clock, Watch
from edgeloop.wiring.host_engines import model_for_board


@dataclass(frozen=True, slots=True)
class MeasurementJob:
    """A job that was carried out: its request, the attempt that came back, and the seconds it took."""

    request: MeasureRequest
    attempt: Attempt
    seconds: float

    def subject_data(self, label: str, scores: Mapping[str, Scores], agreement: Scores | None = None) -> SubjectData:
        """One subject of the job, with the scores of its outputs."""
        subject = next(subject for subject in self.request.subjects if subject.label == label)
        version = self.attempt.engine_versions.get(label, subject.engine)
        return subject_data(subject, version, self.attempt.sessions, scores, agreement)

    def scores(self, label: str, samples: RequestSamples, scorer: Scorer | None) -> dict[str, Scores]:
        """The scores of a subject's outputs; empty without labels."""
        outputs = self.attempt.outputs.get(label)
        if scorer is None or not outputs or not samples.y:
            return {}
        return scorer.scores(outputs, scorer.targets(samples.x, samples.y))


def subject_for(model: RequestModel, board: Board, bench: Bench, watch: Watch) -> Subject:
    """Return a model of a request as a board measures it: compiled for its processor, with the board's delegate.

    Raises as `wiring.host_engines.ModelCompiler`, and UserError where the board declares no such delegate.
    """
    artifact = model_for_board(model.artifact, model.engine.name, bench, watch, model.options.path_of("engine"))
    return model.subject(artifact, board.delegate_named(model.delegate))


def run_job(
    bench: Bench,
    subjects: Sequence[Subject],
    request: Request,
    clock: Clock,
    watch: Watch,
    *,
    evaluates: bool = True,
    energy: bool = False,
) -> MeasurementJob:
    """Time every subject, interleaved, and where there are samples and `evaluates` is true, evaluate each on them.

    A subject that was cut into its parts is profiled then too, after all that is timed. With `energy` each has energy
    sessions too. A measurement that is asked for is made: its key is new each time, so no earlier job answers for it.
    """
    labels, board, plan, samples = [subject.label for subject in subjects], bench.board, request.plan, request.samples
    words = [subject.words for subject in subjects]
    key = key_of("measure", board.name, words, plan, secrets.token_hex(16))
    folder = user_state_path("edgeloop") / "measure" / key[:32]
    job = MeasureRequest(
        key=key,
        subjects=tuple(subjects),
        schedule=schedule(
            labels,
            labels if samples.n and evaluates else [],
            plan,
            labels if energy else [],
            labels_profile=[s.label for s in subjects if s.parts is not None and evaluates],
        ),
        plan=plan,
        environment=request.environment,
        folder=folder / "samples",
        data=_write_samples(samples, folder / "data.npz", for_pipeline=request.pipeline is not None),
        pipeline=request.pipeline,
        deadline_s=job_deadline_s(
            plan,
            len(subjects),
            samples.n,
            energies=len(subjects) if energy else 0,
            waiting_s=request.environment.on(board.environment).waiting_s_max,
        ),
    )
    begin_s = clock.monotonic_s()
    attempt = bench.measure(job, watch)
    return MeasurementJob(job, attempt, clock.monotonic_s() - begin_s)


def _write_samples(samples: RequestSamples, path: Path, *, for_pipeline: bool) -> Path | None:
    if not samples.n:
        return None
    # A single input is the model's, whatever the two call it; a pipeline gets it by the name that the data give it.
    rename = len(samples.x) == 1 and not for_pipeline
    x = {"x": next(iter(samples.x.values()))} if rename else samples.x
    split = DataSplit(x, {}, samples.encoded)
    with kept_on_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_board_npz(split, len(split), path, for_pipeline=for_pipeline)
    return path


def exit_code(outcome: Outcome, *, limits_given: bool) -> int:
    """0 passed, 1 failed, 3 could not tell; 0 too where nothing was to be decided and all was measured."""
    match outcome:
        case Outcome.PASS:
            return 0
        case Outcome.FAIL:
            return 1
        case Outcome.INCONCLUSIVE if not limits_given:
            return 0
        case _:
            return 3
