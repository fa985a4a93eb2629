"""A job as a folder on this machine remembers it: enough to read its samples without the artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from edgeloop.core.board import Board, Delegate, PowerMeterSpec
from edgeloop.core.frozen import Frozen
from edgeloop.core.measurement import MeasureRequest, StepKind
from edgeloop.core.profile import Parts


class JobSubject(Frozen):
    """One model of the job."""

    label: str
    engine: str
    threads: int
    model_sha256: str
    outputs: tuple[str, ...]
    """Names, in the model's order."""
    parts: Parts | None = None
    """Of a subject that is profiled."""
    delegate: Delegate | None = None


class JobStep(Frozen):
    """One session of the job."""

    index: int
    label: str
    kind: StepKind


class JobRequest(Frozen):
    """request.json."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    job_id: str
    target: str
    board_model: str
    emulated: bool
    subjects: tuple[JobSubject, ...]
    schedule: tuple[JobStep, ...]
    samples: int | None
    """Samples in the data; None without data."""
    pipeline: str | None = None
    """Digest of the pipeline that everything went through; None without one."""
    facts: dict[str, Any]
    power_meter: PowerMeterSpec | None = None
    """Of the board, where energy was measured."""

    def subject_of(self, index: int) -> JobSubject:
        step = self.schedule[index]
        return next(subject for subject in self.subjects if subject.label == step.label)


def job_request_of(
    request: MeasureRequest, board: Board, job_id: str, facts: Mapping[str, Any], samples: int | None
) -> JobRequest:
    """Return the part of a request that its samples are read by."""
    return JobRequest(
        job_id=job_id,
        target=board.name,
        board_model=board.model.name,
        emulated=board.emulated,
        subjects=tuple(
            JobSubject(
                label=subject.label,
                engine=subject.engine,
                threads=subject.threads,
                model_sha256=subject.artifact.sha256,
                outputs=tuple(spec.name for spec in subject.artifact.outputs),
                parts=subject.parts,
                delegate=subject.delegate,
            )
            for subject in request.subjects
        ),
        schedule=tuple(JobStep(index=step.index, label=step.label, kind=step.kind) for step in request.schedule),
        samples=samples,
        pipeline=None if request.pipeline is None else request.pipeline.sha256,
        facts=dict(facts),
        power_meter=board.power_meter if request.measures_energy else None,
    )
