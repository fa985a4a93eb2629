"""Measurements: the job for a board, the sessions that it saw, and the summary that they come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Delegate
from edgeloop.core.conditions import SessionConditions
from edgeloop.core.frozen import Frozen
from edgeloop.core.network import BoardEngine
from edgeloop.core.plan import Environment, Plan
from edgeloop.core.profile import Parts, Profile, ProfileSamples
from edgeloop.engines.registry import DEFAULT

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by tensor name; the first axis is the sample."""

StepKind = Literal["latency", "evaluate", "energy", "profile", "tune"]

OWN_READINGS = ("peak_rss_bytes", "runtime_rss_bytes", "overhead_ns", "missed_periods")
"""Readings with fields of their own: records and ledgers had these before there were others. Every further one is in
`readings` under its key; `core.metrics` has a row for each."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One model in a job. Labels are unique in the job: `candidate`, `reference`, `a`, `b`."""

    label: str
    artifact: Artifact
    engine: BoardEngine = DEFAULT.name
    threads: int = 1
    parts: Parts | None = None
    """The model cut into its operators; needed where a step profiles it."""
    delegate: Delegate | None = None

    @property
    def words(self) -> list[Any]:
        """The parts that keys of measurements are made of; without a delegate as it was before there were any."""
        delegates = [] if self.delegate is None else [self.delegate.model_dump(mode="json")]
        return [self.label, self.artifact.sha256, self.engine, self.threads, *delegates]


@dataclass(frozen=True, slots=True)
class ScheduleStep:
    """One session of the schedule: a fresh process for one subject."""

    index: int
    label: str
    kind: StepKind


@dataclass(frozen=True, slots=True)
class PipelineFile:
    """The user's code around the network, checked: a class in one file, which runs on the board."""

    path: Path
    class_name: str
    sha256: str
    """Of the file as it was when the campaign or measurement began."""

    @property
    def label(self) -> str:
        return f"{self.path.name}:{self.class_name}"


@dataclass(frozen=True, slots=True)
class MeasureRequest:
    """A job for a board. `key` and `attempt` make the job's id, so a restarted controller finds its job again."""

    key: str
    subjects: tuple[Subject, ...]
    schedule: tuple[ScheduleStep, ...]
    plan: Plan
    environment: Environment
    folder: Path
    """Where the raw samples are kept on the host; complete there, it is not measured again."""
    data: Path | None = None
    """.npz with `x` or `x/<input>`, or `encoded` and `encoded_offsets`, and nothing else: real inputs for latency, all
    of them for `evaluate`."""
    pipeline: PipelineFile | None = None
    """Of a plan that times end to end: the code around the network."""
    attempt: int = 0
    deadline_s: float = 3600.0
    """Of the whole job, waiting for the board's lease included."""

    @property
    def measures_energy(self) -> bool:
        return any(step.kind == "energy" for step in self.schedule)


@dataclass(frozen=True, slots=True)
class PowerTrace:
    """One energy session as a power meter saw it. Times are seconds of the board's CLOCK_MONOTONIC."""

    seconds: NDArray[np.float64]
    """(n,), not decreasing; reaches beyond the windows on both sides."""
    watts: NDArray[np.float64]
    """(n,)"""
    idle_s: tuple[float, float]
    """Start and end of the window in which the process slept, its model loaded."""
    active_s: tuple[float, float]
    """Start and end of the window in which it inferred."""
    inferences: int
    """In the active window."""
    period_ms: float | None
    """The time from one start to the next that was meant; None: back to back."""
    meter: str
    accuracy_pct: float
    clock_uncertainty_s: float = 0.0
    """Of the host's clock against the board's; 0 where the board read its own sensor."""
    update_s: float | None = None
    """From one value of the meter to its next, where it says so."""
    lost: str = ""
    """Why there are no readings; empty where there are."""


@dataclass(frozen=True, slots=True)
class Session:
    """One fresh process on the board, as it was seen. Never changed after it was read."""

    index: int
    label: str
    kind: StepKind
    outcome: Literal["ok", "crashed", "timeout", "refused"]
    detail: str
    """Empty for `ok`; else one line: the signal, the deadline, what the engine said."""
    latencies_ns: NDArray[np.int64]
    warmups_ns: NDArray[np.int64]
    load_ns: int | None
    first_ns: int | None
    peak_rss_bytes: int | None
    """VmHWM of the session process."""
    runtime_rss_bytes: int | None
    """Of the runtime alone, before the model was loaded."""
    conditions: SessionConditions
    boot_id: str
    overhead_ns: int | None = None
    """The same timed interval around calls that do nothing: what of each latency is the agent's own, at most."""
    missed_periods: int = 0
    """Starts that were due while the run before was still going on."""
    stages_ns: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Of a session that is timed end to end: for each stage, in their order, its time in each run."""
    power: PowerTrace | None = None
    """Of an `energy` session that is `ok`."""
    profile: ProfileSamples | None = None
    """Of a `profile` session that is `ok`."""
    functions_ns: NDArray[np.int64] | None = None
    """Of a `tune` session that is `ok`: each single call, (functions, rounds, calls); -1 for one that was not made."""
    readings: Mapping[str, int | float] = field(default_factory=dict)
    """Further figures that the agent read, by key."""

    def reading(self, key: str) -> float | None:
        """Return a figure by its key; None where this session did not bring it."""
        value: float | None = getattr(self, key) if key in OWN_READINGS else self.readings.get(key)
        return value


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a job on one boot of one board."""

    job_id: str
    target: str
    board_model: str
    emulated: bool
    engine_versions: Mapping[str, str]
    """By label, such as `litert 2.3.0`."""
    sessions: tuple[Session, ...]
    outputs: Mapping[str, Arrays]
    """By label: outputs of the `evaluate` session, dequantized to float32 by the host (integers without a scale
    as they are); through a pipeline, its results by their own names."""
    facts: Mapping[str, Any]
    """The board as it described itself."""


class Interval(Frozen):
    low: float
    high: float


class LatencySummary(Frozen):
    """Statistics over sessions, in ns; recomputed from raw samples, never stored alone."""

    sessions: int
    samples: int
    p50: float
    p90: float
    p99: float
    mean: float
    min: float
    first: float
    load: float
    confidence: float
    interval: dict[Literal["p50", "p90", "p99"], Interval]


class StageSummary(Frozen):
    """One stage of an inference that is timed end to end."""

    stage: str
    p50: float
    """Median in ns, as for a latency: the geometric mean over sessions."""
    interval: Interval | None


class EnergySummary(Frozen):
    """Energy over sessions. What is None was not measured: `problems` says why."""

    per: Literal["period", "inference"]
    """Back to back there is no period: then it is each inference."""
    per_period_mj: float | None
    """Idle time included: what a battery sees."""
    above_idle_mj: float | None
    """Less what the board takes when the process only waits."""
    idle_mw: float | None
    active_mw: float | None
    confidence: float
    interval: dict[Literal["per_period", "above_idle"], Interval]
    """In mJ; two-sided over sessions, then widened by the meter's accuracy and the clocks' uncertainty."""
    meter: str
    accuracy_pct: float
    clock_uncertainty_ms: float
    sessions: int
    """That gave an energy."""
    samples: int
    """Readings in their windows."""
    problems: tuple[str, ...] = ()
    """Of each session that gave none."""


class Delegation(Frozen):
    """The part of a network that a delegate took; over several sessions the least."""

    name: str
    operators: int
    """Of the network, before a compiler made one of several."""
    taken: int
    pieces: int
    """Runs of operators that went to it as one."""

    @property
    def taken_pct(self) -> float:
        return 100 * self.taken / self.operators if self.operators else 0.0

    def __str__(self) -> str:
        pieces = f"{self.pieces} piece{'' if self.pieces == 1 else 's'}"
        return f"{self.name} took {self.taken} of {self.operators} operators in {pieces}"


class MetricSummary(Frozen):
    metric: str
    value: float
    interval: Interval | None
    n: int


class Summary(Frozen):
    """The figures that one subject's sessions in one attempt come to."""

    label: str
    engine: str
    threads: int
    deployed_bytes: int
    delegate: str | None = None
    """The one that was asked for."""
    delegation: Delegation | None = None
    """None where no delegate was asked for, or no session told."""
    latency: LatencySummary | None
    peak_rss_bytes: int | None = None
    runtime_rss_bytes: int | None = None
    metrics: tuple[MetricSummary, ...] = ()
    agreement: MetricSummary | None = None
    """With the reference's own results on the same samples."""
    stages_ns: tuple[StageSummary, ...] = ()
    """In their order; empty but for `end_to_end`."""
    missed_periods: int = 0
    """In all sessions: starts that were due while the run before was still going on."""
    overhead_ns: int | None = None
    """Of the session where it was the most: what of each latency is the agent's own, at most."""
    energy: EnergySummary | None = None
    """None where no energy was asked for."""
    profile: Profile | None = None
    """Of the pass of its own, where one was asked for."""
    profile_problem: str = ""
    """Why there is none, where one was asked for."""
    readings: dict[str, int | float] = {}
    """Further figures that sessions brought, by key."""

    def reading(self, key: str) -> float | None:
        """Return a figure by its key; None where no session brought it."""
        value: float | None = getattr(self, key) if key in OWN_READINGS else self.readings.get(key)
        return value

    @property
    def run_by(self) -> str:
        """`litert 2.3.0, 1 thread`; `litert 2.3.0, 4 threads, coral took 11 of 12 operators in 1 piece`."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        delegate = str(self.delegation) if self.delegation is not None else self.delegate
        return ", ".join(filter(None, (self.engine, threads, delegate)))


class Trust(Frozen):
    """A judgement on the sessions: did they stay inside the declared environment?"""

    valid: bool
    reasons: tuple[str, ...] = ()
    lasting: bool = False
    """True where a reason is one that measuring again meets again."""
    unknown: tuple[str, ...] = ()
    """Conditions that could not be read or set: said, not hidden."""
