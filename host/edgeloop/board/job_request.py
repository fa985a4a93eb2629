"""What a folder on this machine remembers of a job that was asked for: enough to read it without the artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from edgeloop.core.board import Board, Delegate, PowerMeterSpec
from edgeloop.core.frozen import Frozen
from edgeloop.core.measurement import MeasureRequest, StepKind
from edgeloop.core.profile import Parts


class AskedSubject(Frozen):
    """What a folder remembers of a subject: enough to read its sessions without the artifact."""

    label: str
    engine: str
    threads: int
    model_sha256: str
    outputs: tuple[str, ...]
    """Names, in the model's order."""
    parts: Parts | None = None
    """Of a subject that is profiled."""
    delegate: Delegate | None = None


class AskedStep(Frozen):
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
    subjects: tuple[AskedSubject, ...]
    schedule: tuple[AskedStep, ...]
    samples: int | None
    """Samples in the data; None without data."""
    pipeline: str | None = None
    """Digest of the pipeline that everything went through; None without one."""
    facts: dict[str, Any]
    power_meter: PowerMeterSpec | None = None
    """Of the board, where energy was measured."""

    def subject_of(self, index: int) -> AskedSubject:
        step = self.schedule[index]
        return next(subject for subject in self.subjects if subject.label == step.label)


def asked_of(
    request: MeasureRequest, board: Board, job_id: str, facts: Mapping[str, Any], samples: int | None
) -> JobRequest:
    return JobRequest(
        job_id=job_id,
        target=board.name,
        board_model=board.model.name,
        emulated=board.emulated,
        subjects=tuple(
            AskedSubject(
                label=s.label,
                engine=s.engine,
                threads=s.threads,
                model_sha256=s.artifact.sha256,
                outputs=tuple(spec.name for spec in s.artifact.outputs),
                parts=s.parts,
                delegate=s.delegate,
            )
            for s in request.subjects
        ),
        schedule=tuple(AskedStep(index=s.index, label=s.label, kind=s.kind) for s in request.schedule),
        samples=samples,
        pipeline=None if request.pipeline is None else request.pipeline.sha256,
        facts=dict(facts),
        power_meter=board.power_meter if request.measures_energy else None,
    )
