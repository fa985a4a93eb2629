"""A request as the board reads it: job.json, and the id that it has there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeloop.core.board import Board, PowerMeterSpec
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import MeasureRequest
from edgeloop.core.plan import SOAK_SLOPE_MAX_C_PER_MIN, SOAK_WINDOW_S
from edgeloop_agent import wire


def job_id_of(request: MeasureRequest, data_sha256: str | None, meter: PowerMeterSpec | None = None) -> str:
    """The job's name on the board: the same request always has the same, so a restarted controller finds it.

    `meter` is the board's, where energy is measured: with another one it is another job.
    """
    subjects = [subject.words for subject in request.subjects]
    steps = [[step.index, step.label, step.kind] for step in request.schedule]
    parts = [request.key, request.plan, request.environment, subjects, steps, data_sha256, request.attempt]
    if any(subject.parts is not None for subject in request.subjects):
        parts.append(["parts", [subject.parts and subject.parts.sha256 for subject in request.subjects]])
    if any(subject.artifact.resized for subject in request.subjects):
        parts.append(["shapes", [subject.artifact.resized_to for subject in request.subjects]])
    if request.pipeline is not None:
        parts.append(["pipeline", request.pipeline.sha256, request.pipeline.class_name])
    if meter is not None:
        parts.append(["meter", meter.model_dump(mode="json")])
    return key_of("job", *parts)[:32]


def wire_job(
    request: MeasureRequest,
    board: Board,
    *,
    job_id: str,
    agent_sha256: str,
    token: str,
    owner: str,
    data_sha256: str | None,
    python_path: Sequence[str],
    deadline_s: float,
) -> wire.Job:
    """Return job.json for a request. Steps must be numbered from 0 in order."""
    labels = [subject.label for subject in request.subjects]
    plan, environment = request.plan, request.environment.on(board.environment)
    has_soak = environment.throttling == "soak"
    return wire.Job(
        id=job_id,
        agent_sha256=agent_sha256,
        lease_token=token,
        lease_owner=owner,
        subjects=[
            wire.WireSubject(
                label=subject.label,
                engine=subject.engine,
                model_sha256=subject.artifact.sha256,
                model_suffix=Path(subject.artifact.path).suffix,
                threads=subject.threads,
                inputs=[spec.name for spec in subject.artifact.inputs],
                outputs=[spec.name for spec in subject.artifact.outputs],
                parts_sha256=None if subject.parts is None else subject.parts.sha256,
                shapes=subject.artifact.resized_to,
                delegate=None
                if subject.delegate is None
                else wire.WireDelegate(
                    subject.delegate.name, subject.delegate.library, subject.delegate.worded_options
                ),
            )
            for subject in request.subjects
        ],
        schedule=[wire.WireStep(step.index, labels.index(step.label), step.kind) for step in request.schedule],
        session_plan=wire.SessionPlan(
            warmup_runs_min=plan.warmup_runs_min,
            warmup_s_min=plan.warmup_s_min,
            warmup_s_max=plan.warmup_s_max,
            runs_min=plan.runs_min,
            time_s_min=plan.time_s_min,
            timing=plan.timing,
            period_ms=plan.period_ms,
            energy_window_s=plan.energy_window_s,
            deadline_s=plan.deadline_s,
        ),
        conditions=wire.Conditions(
            cores=list(board.runtime.cores),
            governor=environment.governor,
            idle_gate=plan.idle_gate,
            start_temperature_max_c=environment.start_temperature_max_c,
            cool_down_max_s=environment.cool_down_max_s or 0.0,
            foreign_load_max_pct=environment.foreign_load_max_pct,
            soak_max_s=environment.soak_max_s if has_soak else None,
            soak_window_s=SOAK_WINDOW_S,
            soak_slope_max_c_per_min=SOAK_SLOPE_MAX_C_PER_MIN,
        ),
        data_sha256=data_sha256,
        pipeline=None
        if request.pipeline is None
        else wire.WirePipeline(request.pipeline.sha256, request.pipeline.class_name, request.pipeline.label),
        python_path=list(python_path),
        power_sensor=board.power_meter.hwmon if board.power_meter is not None and request.measures_energy else None,
        seed=plan.seed,
        deadline_s=deadline_s,
    )
