"""The board protocol: names of files and folders, and the JSON messages in them. Shared by host and agent.

Layout of a state folder on the board (one for the whole board, not one for each user)::

    board.lock  lease.json                      who holds the board
    cache/<sha256><suffix>                      pushed files: agent .pyz, models, data; named by content
    runtimes/<sha256>/                          unpacked wheel sets, put on sys.path; unpacked programs of users
    jobs/<job id>/job.json                      written by the host
                  agent.log state.json done.json        written by the agent, each atomically
                  sessions/NNN.json NNN.latency.npy NNN.warmup.npy NNN.stages.npy NNN.operators.npy
                                NNN.power.npy NNN.functions.npy NNN.out.<i>.npy

Arrays are .npy without pickle. Messages are JSON objects of bounded size; what does not fit is refused with
WireError. Standard library only; Python 3.9.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, Optional, TypeVar

SCHEMA = 1
MESSAGE_BYTES_MAX = 4 * 1024 * 1024
INTEGER_DIGITS_MAX = 20  # what 64 bits and a sign need: larger ones would overflow where they are used
JOB_ID = re.compile(r"\A[0-9a-f]{16,64}\Z")
SHA256 = re.compile(r"\A[0-9a-f]{64}\Z")

LOCK_FILE = "board.lock"
LEASE_FILE = "lease.json"
CACHE_DIR = "cache"
RUNTIMES_DIR = "runtimes"
JOBS_DIR = "jobs"
SESSIONS_DIR = "sessions"
JOB_FILE = "job.json"
STATE_FILE = "state.json"
DONE_FILE = "done.json"
LOG_FILE = "agent.log"

SESSION_OUTCOMES = ("ok", "crashed", "timeout", "refused")
STEP_KINDS = ("latency", "evaluate", "energy", "profile", "tune")
TIMINGS = ("invoke", "copy_in_out", "end_to_end")
STAGES = ("load", "preprocess", "copy_in", "invoke", "copy_out", "postprocess")
"""Of an inference that is timed end to end, in this order."""
NOT_CALLED_NS = -1
"""In NNN.functions.npy (int64, ns; functions, rounds, calls): a call that was not made."""
PROGRAM_FILE = "program.json"
PROGRAM_DIR = "program"
"""In the .zip of a user's own program: its description, and the folder with its files."""


class Phase(str, Enum):  # noqa: UP042 -- Python 3.9
    """The phases of a supervisor, in their order."""

    STARTING = "starting"
    WAITING = "waiting"
    """Another job holds the board."""
    GATE = "gate"
    """The board is not yet idle and cool."""
    SOAK = "soak"
    """The board is not yet evenly warm."""
    RUNNING = "running"
    DONE = "done"


class ErrorCode(str, Enum):  # noqa: UP042 -- Python 3.9
    """The kinds of error that a host does something about; `code` in an answer that tells an error."""

    DISK_FULL = "disk_full"
    """No space or no quota is left, or the file system is read-only."""
    LEASE = "lease"
    """The lease is over, or somebody else's."""
    NO_SUCH_JOB = "no_such_job"
    OTHER = "other"


class WireError(Exception):
    """A message that is not what the protocol says: one line, naming the field."""


@dataclass(frozen=True)
class WireDelegate:
    """A TFLite delegate that a model is given to."""

    name: str
    library: str
    """On the board: a path, or a name that its loader finds."""
    options: dict[str, str]


@dataclass(frozen=True)
class WireSubject:
    """One model of a job. `inputs` and `outputs` are names in the order of the model's own tensors."""

    label: str
    engine: str
    model_sha256: str
    model_suffix: str
    threads: int
    inputs: list[str]
    outputs: list[str]
    parts_sha256: Optional[str] = None
    """A cached .zip of the model cut into its operators, for `profile` sessions."""
    shapes: Optional[list[list[int]]] = None
    """Each input is resized to it before the tensors are allocated; None: the file's own shapes."""
    delegate: Optional[WireDelegate] = None
    """None: only what the engine adds by itself."""


@dataclass(frozen=True)
class WireStep:
    """One session: a fresh process for `subjects[subject]`."""

    index: int
    subject: int
    kind: str


@dataclass(frozen=True)
class SessionPlan:
    """Numbers of a session; times in seconds unless the name says otherwise."""

    warmup_runs_min: int
    warmup_s_min: float
    warmup_s_max: float
    runs_min: int
    time_s_min: float
    timing: str
    period_ms: Optional[float]
    energy_window_s: float
    """Of the idle and of the active window of an `energy` session; whole periods where there is one."""
    deadline_s: float


@dataclass(frozen=True)
class Conditions:
    """The demands of the environment on the board, before and while it measures."""

    cores: list[int]
    governor: str
    idle_gate: bool
    start_temperature_max_c: Optional[float]
    cool_down_max_s: float
    foreign_load_max_pct: Optional[float]
    soak_max_s: Optional[float]
    """The model runs at most so long until the temperature is flat; None: no soak."""
    soak_window_s: float
    soak_slope_max_c_per_min: float
    """Flat: the slope of the hottest temperature over the window is within this."""


@dataclass(frozen=True)
class WirePipeline:
    """The user's own code around the network: a class in the cached file <sha256>.py, and its name for people."""

    sha256: str
    class_name: str
    label: str


@dataclass(frozen=True)
class Job:
    """job.json."""

    id: str
    agent_sha256: str
    lease_token: str
    lease_owner: str
    subjects: list[WireSubject]
    schedule: list[WireStep]
    session_plan: SessionPlan
    conditions: Conditions
    data_sha256: Optional[str]
    """A cached .npz with `x` or `x/<input>`, or `encoded` and `encoded_offsets`; None: random inputs in the tensor's
    type and range."""
    python_path: list[str]
    """Folder names under runtimes/ to put on sys.path of sessions."""
    power_sensor: Optional[str]
    """The board's own, read during `energy` sessions, as power.py names it; None: nothing on the board is read."""
    seed: int
    deadline_s: float
    pipeline: Optional[WirePipeline] = None
    """Code that is timed end to end, and evaluated; None for the other timings."""
    schema: int = SCHEMA


@dataclass(frozen=True)
class State:
    """state.json: the supervisor's heartbeat."""

    job_id: str
    phase: str
    """A value of Phase."""
    step: int
    """Sessions finished."""
    steps: int
    message: str
    heartbeat_ns: int
    """CLOCK_BOOTTIME where there is one, else CLOCK_MONOTONIC."""
    pid: int
    boot_id: str
    schema: int = SCHEMA


@dataclass(frozen=True)
class Done:
    """done.json: the last thing a supervisor writes."""

    job_id: str
    outcome: str
    """complete | failed | deadline | lease_lost | cancelled."""
    owner: str
    """user | model | board | lab | harness, of a job that is not complete."""
    detail: str
    boot_id: str
    sessions: int
    schema: int = SCHEMA


@dataclass(frozen=True)
class Tensor:
    """One input or output as the runtime reports it. scale and zero_point are None where not quantized."""

    name: str
    dtype: str
    shape: list[int]
    scale: Optional[float]
    zero_point: Optional[int]


@dataclass(frozen=True)
class WireProgram:
    """program.json: the user's own program, for the engine `exec`."""

    path: str
    """Of the program itself under program/."""
    arguments: list[str]
    inputs: list[Tensor]
    outputs: list[Tensor]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Energy:
    """The windows of an `energy` session, and the sensor of the board that was read meanwhile; CLOCK_MONOTONIC."""

    idle_ns: list[int]
    """[start, end] of the window in which the process slept."""
    active_ns: list[int]
    """[start, end] of the window in which it inferred; `runs` of the record is how often."""
    period_ms: Optional[float]
    """The period that was meant; None: back to back."""
    sensor: Optional[str]
    """None: a meter on the host saw it, or nobody."""
    update_s: Optional[float]
    """From one value of the sensor to its next, where it says so."""
    readings: int
    """Columns of NNN.power.npy (float64, 2 rows: seconds of CLOCK_MONOTONIC, watts); 0 without a sensor."""
    reading_cpu_s: float
    """Processor time that reading took, on the board itself."""


@dataclass(frozen=True)
class SessionRecord:
    """sessions/NNN.json."""

    job_id: str
    index: int
    subject: int
    kind: str
    outcome: str
    detail: str
    signal: Optional[int]
    engine_version: str
    python_version: str
    load_ns: Optional[int]
    first_ns: Optional[int]
    peak_rss_bytes: Optional[int]
    runtime_rss_bytes: Optional[int]
    runs: int
    """Length of NNN.latency.npy (int64, ns)."""
    warmups: int
    """Length of NNN.warmup.npy (int64, ns)."""
    inputs: list[Tensor]
    outputs: list[Tensor]
    """Tensors; of an `evaluate` session, output i is in NNN.out.<i>.npy, raw, the sample first."""
    energy: Optional[Energy]
    """Of an `energy` session that is `ok`."""
    conditions: dict[str, Any]
    """before, during, after, calibration_ns, pinned_cores, governor, gate, soak, delegate, unknown:
    docs/reference/agent.md."""
    boot_id: str
    started_utc: str
    overhead_ns: Optional[int] = None
    """Median of the same timed interval around calls that do nothing: what of each latency is the agent's at most."""
    missed_periods: int = 0
    """Starts in the timed window that were due while the run before was still going on."""
    stages: list[str] = field(default_factory=list)
    """Rows of NNN.stages.npy (int64, ns, a column for each run); empty but for `end_to_end`."""
    profile: Optional[dict[str, Any]] = None
    """Of a `profile` session: `memory`; `outputs_equal`; `runs`, a list for each round of how many of NNN.operators.npy
    (int64, ns, flat) belong to the whole model and then to each part."""
    results: list[Tensor] = field(default_factory=list)
    """Of an `evaluate` session through a pipeline: what is in NNN.out.<i>.npy instead; shapes of one sample."""
    readings: dict[str, Any] = field(default_factory=dict)
    """Further figures that a probe read, by key with the unit in it: numbers, one each for the whole session."""
    schema: int = SCHEMA


_T = TypeVar("_T")


def encode(message: Any) -> bytes:
    """One message as JSON bytes. Raises WireError where it is too large or holds NaN or infinities."""
    try:
        raw = json.dumps(asdict(message), allow_nan=False, sort_keys=True).encode()
    except ValueError as error:
        raise WireError("%s: %s" % (type(message).__name__, error)) from error
    if len(raw) > MESSAGE_BYTES_MAX:
        raise WireError("%s: %d bytes, at most %d" % (type(message).__name__, len(raw), MESSAGE_BYTES_MAX))
    return raw


def load_json(raw: bytes) -> Any:
    """Parse bounded JSON without NaN. Raises WireError for anything else, deep nesting included."""
    if len(raw) > MESSAGE_BYTES_MAX:
        raise WireError("%d bytes, at most %d" % (len(raw), MESSAGE_BYTES_MAX))

    def refuse(word: str) -> Any:
        raise WireError("%s is not a number of this protocol" % word[:40])

    def finite(word: str) -> float:
        number = float(word)
        return refuse(word) if math.isinf(number) else number

    def whole(word: str) -> int:
        return refuse(word) if len(word) > INTEGER_DIGITS_MAX else int(word)

    try:
        return json.loads(raw.decode("utf-8"), parse_constant=refuse, parse_float=finite, parse_int=whole)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise WireError("not JSON: %s" % type(error).__name__) from error


_NESTED: dict[str, dict[str, type[Any]]] = {
    "Job": {
        "subjects": WireSubject,
        "schedule": WireStep,
        "session_plan": SessionPlan,
        "conditions": Conditions,
        "pipeline": WirePipeline,
    },
    "WireSubject": {"delegate": WireDelegate},
    "WireProgram": {"inputs": Tensor, "outputs": Tensor},
    "SessionRecord": {"inputs": Tensor, "outputs": Tensor, "results": Tensor, "energy": Energy},
}
_LATER: dict[str, dict[str, Any]] = {"SessionRecord": {"readings": {}}}
"""Fields that came later: messages on disk from before lack them, and then have this."""
_SCALAR = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}


def decode(kind: type[_T], raw: bytes) -> _T:
    """Return the message of this kind in raw bytes. Raises WireError that names the field."""
    return from_plain(kind, load_json(raw))


def from_plain(kind: type[_T], value: Any) -> _T:
    """Return the message of this kind in parsed JSON. Raises WireError that names the field."""
    name = kind.__name__
    fields_by_name = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(value, dict):
        raise WireError("%s: an object is wanted" % name)
    strange = sorted(set(value) - set(fields_by_name))
    if strange:
        raise WireError("%s: unknown field %s" % (name, str(strange[0])[:40]))
    if "schema" in fields_by_name and value.get("schema", SCHEMA) != SCHEMA:
        schema = str(value.get("schema"))[:40]
        raise WireError("%s: schema %s, this side speaks %d" % (name, schema, SCHEMA))
    out = {}
    value = {**_LATER.get(name, {}), **value}
    for key, item in fields_by_name.items():
        if key not in value:
            raise WireError("%s: field %s is missing" % (name, key))
        out[key] = _field(name, key, str(item.type), value[key])
    return kind(**out)


def _field(name: str, key: str, type_name: str, value: Any) -> Any:
    inner = _NESTED.get(name, {}).get(key)
    if inner is not None:
        if value is None and type_name.startswith("Optional["):
            return None
        if not type_name.startswith("list["):
            return from_plain(inner, value)
        if not isinstance(value, list):
            raise WireError("%s: field %s is not a list" % (name, key))
        return [from_plain(inner, part) for part in value]
    if type_name.startswith("Optional["):
        if value is None:
            return None
        type_name = type_name[len("Optional[") : -1]
    if not _is(type_name, value):
        raise WireError("%s: field %s is not of type %s" % (name, key, type_name))
    return value


def _is(type_name: str, value: Any) -> bool:
    outer, _, inner = type_name.partition("[")
    types = _SCALAR[outer]
    right = isinstance(value, types) and (bool in types or not isinstance(value, bool))
    return right and (outer != "list" or all(_is(inner[:-1], part) for part in value))


def write_atomically(path: Path, raw: bytes, *, durable: bool = True) -> None:
    """Write, fsync, rename: a reader sees the old file or the new one, never half of it.

    `durable=False` leaves out the fsync, for what means nothing after a reboot (a heartbeat).
    """
    temporary = path.with_name(path.name + ".tmp%d" % os.getpid())
    try:
        with open(temporary, "wb") as handle:
            handle.write(raw)
            handle.flush()
            if durable:
                os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def session_file(index: int, part: str) -> str:
    """`sessions/007.json`, `sessions/007.latency.npy`, ... relative to the job's folder."""
    return "%s/%03d.%s" % (SESSIONS_DIR, index, part)
