"""A job's file checked, before anything of it runs: against the protocol, and against this board."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Iterator

from edgeloop_agent import cache, conditions, folder, job_needs, power, wire
from edgeloop_agent.engines import find_engine
from edgeloop_agent.errors import AgentError
from edgeloop_agent.runtimes import runtime_path

_SUFFIX = re.compile(r"\A\.[A-Za-z0-9]{1,16}\Z")
_THREADS_MAX = 256
_SECONDS_MAX = 7 * 24 * 3600.0


def read_job(state: Path, job_id: str) -> wire.Job:
    """Return a job, checked against the protocol and this board. Raises AgentError with the first fault."""
    raw = folder.read_bounded(folder.job_dir(state, job_id) / wire.JOB_FILE)
    if raw is None:
        raise AgentError("job %s has no job.json on the board" % job_id, "harness")
    try:
        job = wire.decode(wire.Job, raw)
    except wire.WireError as error:
        raise AgentError("job.json: %s" % error, "harness") from error
    for fault in _faults(job, job_id):
        raise AgentError("job.json: %s" % fault, "harness")
    _check_board(state, job)
    return job


def _faults(job: wire.Job, job_id: str) -> Iterator[str]:
    if job.id != job_id:
        yield "it is the job %s, its folder says %s" % (job.id[:64], job_id)
    if not job.subjects or not job.schedule:
        yield "it has %d subjects and %d steps" % (len(job.subjects), len(job.schedule))
    if not 0 < job.deadline_s <= _SECONDS_MAX:
        yield "deadline_s is %g, wanted more than 0 and at most a week" % job.deadline_s
    for subject in job.subjects:
        yield from _subject_faults(subject)
    for place, step in enumerate(job.schedule):
        yield from _step_faults(job, place, step)
    if job.power_sensor is not None and not power.NAME.match(job.power_sensor):
        yield "%r is not the name of a power sensor" % job.power_sensor[:80]
    yield from _plan_faults(job.session_plan)
    yield from _conditions_faults(job.conditions)
    if (job.pipeline is not None) != (job.session_plan.timing == "end_to_end"):
        yield "a pipeline and the timing end_to_end go together"
    if job.pipeline is not None and job.data_sha256 is None:
        yield "a pipeline needs data"
    hashes = [job.data_sha256, job.pipeline.sha256 if job.pipeline is not None else None]
    for name in [*job.python_path, *(name for name in hashes if name is not None)]:
        if not wire.SHA256.match(name):
            yield "%r is not a hash" % name[:80]


def _step_faults(job: wire.Job, place: int, step: wire.WireStep) -> Iterator[str]:
    if step.index != place:
        yield "step %d has the index %d" % (place, step.index)
    if not 0 <= step.subject < len(job.subjects):
        yield "step %d names subject %d of %d" % (place, step.subject, len(job.subjects))
    if step.kind not in wire.STEP_KINDS:
        yield "step %d is of the kind %r" % (place, step.kind[:40])
    if step.kind == "evaluate" and job.data_sha256 is None:
        yield "step %d evaluates, and there are no data" % place
    if step.kind == "energy" and job.session_plan.energy_window_s <= 0:
        yield "step %d measures energy, and energy_window_s is 0" % place
    if 0 <= step.subject < len(job.subjects) and step.kind in wire.STEP_KINDS:
        yield from _engine_faults(job, place, step)


def _engine_faults(job: wire.Job, place: int, step: wire.WireStep) -> Iterator[str]:
    subject = job.subjects[step.subject]
    row = find_engine(subject.engine)
    if row is None:
        return  # said of its subject
    if step.kind not in row.session_kinds:
        if not row.in_process:
            yield "step %d is of the kind %s, which no program of the user's knows" % (place, step.kind)
        elif step.kind == "tune":
            yield "step %d times functions, which %s has none of" % (place, row.name)
        else:
            yield "step %d is of the kind %s, which %s does not know" % (place, step.kind, row.name)
    elif step.kind == "profile" and subject.parts_sha256 is None:
        yield "step %d profiles, and its subject has no parts" % place
    if job.pipeline is not None and not row.in_process:
        yield "step %d runs a pipeline, and there is none around a program of the user's" % place


def _subject_faults(subject: wire.WireSubject) -> Iterator[str]:
    where = "subject %s" % subject.label[:40]
    if find_engine(subject.engine) is None:
        yield "%s: no engine is called %r" % (where, subject.engine[:40])
    if not wire.SHA256.match(subject.model_sha256) or not _SUFFIX.match(subject.model_suffix):
        yield "%s: the model's name is not a hash and a suffix" % where
    if subject.parts_sha256 is not None and not wire.SHA256.match(subject.parts_sha256):
        yield "%s: the name of its parts is not a hash" % where
    if not 1 <= subject.threads <= _THREADS_MAX:
        yield "%s: %d threads" % (where, subject.threads)
    if subject.delegate is not None:
        yield from _delegate_faults(subject, subject.delegate, where)


def _delegate_faults(subject: wire.WireSubject, delegate: wire.WireDelegate, where: str) -> Iterator[str]:
    row = find_engine(subject.engine)
    if row is not None and not row.delegates:
        yield "%s: %s takes no delegate" % (where, subject.engine[:40])
    if subject.shapes is not None or subject.parts_sha256 is not None:
        yield "%s: a model that is resized or cut into its operators is given to no delegate" % where
    if not all(isinstance(value, str) for value in delegate.options.values()):
        yield "%s: the options of the delegate %s are not all text" % (where, delegate.name[:40])


def _plan_faults(plan: wire.SessionPlan) -> Iterator[str]:
    if plan.timing not in wire.TIMINGS:
        yield "session_plan: no timing is called %r" % plan.timing[:40]
    if plan.warmup_runs_min < 1 or plan.runs_min < 1:
        yield "session_plan: at least one run and one warm-up run are wanted"
    for name in ("warmup_s_min", "warmup_s_max", "time_s_min", "energy_window_s", "deadline_s", "period_ms"):
        value = getattr(plan, name)
        if value is not None and not 0 <= value <= _SECONDS_MAX:
            yield "session_plan: %s is %g" % (name, value)
    if plan.deadline_s == 0 or plan.period_ms == 0:
        yield "session_plan: deadline_s and period_ms must be more than 0"


def _conditions_faults(limits: wire.Conditions) -> Iterator[str]:
    for name in ("cool_down_max_s", "soak_max_s", "soak_window_s", "soak_slope_max_c_per_min"):
        value = getattr(limits, name)
        if value is not None and not 0 <= value <= _SECONDS_MAX:
            yield "conditions: %s is %g" % (name, value)


def _check_board(state: Path, job: wire.Job) -> None:
    cores = conditions.allowed_cores()
    strange = sorted(set(job.conditions.cores) - set(cores))
    if strange:
        raise AgentError("cores %s are asked for, this board lets us use %s" % (strange, cores), "user")
    for name in job_needs.cached_files(job):
        if not cache.is_present(state / wire.CACHE_DIR, name):
            raise AgentError("%s is not in the board's cache; push it first" % name, "harness")
    for name in job_needs.unpacked_folders(job):
        if runtime_path(state, name) is None:
            raise AgentError("runtime %s is not unpacked on the board" % name, "harness")
