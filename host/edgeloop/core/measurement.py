"""What is asked of a board, what one session saw, and what sessions come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import Frozen
from edgeloop.core.network import Engine
from edgeloop.core.plan import Environment, Plan

Arrays = Mapping[str, NDArray[Any]]
"""Arrays by tensor name; the first axis is the sample."""

StepKind = Literal["latency", "evaluate"]


@dataclass(frozen=True, slots=True)
class Subject:
    """One model in a job. Labels are unique in the job: `candidate`, `reference`, `a`, `b`."""

    label: str
    artifact: Artifact
    engine: Engine = "litert"
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One session of the schedule: a fresh process for one subject."""

    index: int
    label: str
    kind: StepKind


@dataclass(frozen=True, slots=True)
class MeasureRequest:
    """A job for a board. `key` and `attempt` make the job's id, so a restarted controller finds its job again."""

    key: str
    subjects: tuple[Subject, ...]
    schedule: tuple[Step, ...]
    plan: Plan
    environment: Environment
    folder: Path
    """Where the raw samples are kept on the host; complete there, it is not measured again."""
    data: Path | None = None
    """.npz with `x` or `x/<input>` and nothing else: real inputs for latency, all of them for `evaluate`."""
    attempt: int = 0
    deadline_s: float = 3600.0
    """Of the whole job, waiting for the board's lease included."""


@dataclass(frozen=True, slots=True)
class Session:
    """What one fresh process on the board saw. Never changed after it was read."""

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
    """What the runtime alone took before the model was loaded."""
    conditions: Mapping[str, Any]
    """`before`, `during` (list), `after`, `calibration_ns`: as edgeloop_agent.conditions writes them."""
    boot_id: str


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
    as they are)."""
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


class MetricSummary(Frozen):
    metric: str
    value: float
    interval: Interval | None
    n: int


class Summary(Frozen):
    """What one subject's sessions in one attempt come to."""

    label: str
    engine: str
    threads: int
    deployed_bytes: int
    latency: LatencySummary | None
    peak_rss_bytes: int | None
    runtime_rss_bytes: int | None
    metrics: tuple[MetricSummary, ...] = ()
    agreement: MetricSummary | None = None
    """With the reference's own results on the same samples."""


class Trust(Frozen):
    """Whether the sessions stayed inside the declared environment."""

    valid: bool
    reasons: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    """Conditions that could not be read or set: said, not hidden."""
