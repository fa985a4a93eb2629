"""A job's file is checked before anything runs: one line, with the field and an owner."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgeloop_agent import folder, job, job_checks, session_process, wire
from edgeloop_agent.errors import AgentError

ID = "1" * 32
JOB: dict[str, Any] = {
    "schema": 1,
    "id": ID,
    "agent_sha256": "3" * 64,
    "lease_token": "t" * 16,
    "lease_owner": "o",
    "subjects": [
        {
            "label": "a",
            "engine": "litert",
            "model_sha256": "4" * 64,
            "model_suffix": ".tflite",
            "threads": 1,
            "inputs": ["x"],
            "outputs": ["y"],
            "parts_sha256": None,
            "shapes": None,
            "delegate": None,
        }
    ],
    "schedule": [{"index": 0, "subject": 0, "kind": "latency"}],
    "session_plan": {
        "warmup_runs_min": 1,
        "warmup_s_min": 0.5,
        "warmup_s_max": 5.0,
        "runs_min": 10,
        "time_s_min": 1.0,
        "timing": "invoke",
        "period_ms": None,
        "energy_window_s": 0.0,
        "deadline_s": 10.0,
    },
    "conditions": {
        "cores": [],
        "governor": "as-found",
        "idle_gate": False,
        "start_temperature_max_c": None,
        "cool_down_max_s": 0.0,
        "foreign_load_max_pct": None,
        "soak_max_s": None,
        "soak_window_s": 120.0,
        "soak_slope_max_c_per_min": 0.2,
    },
    "data_sha256": None,
    "python_path": [],
    "power_sensor": None,
    "seed": 0,
    "deadline_s": 10.0,
    "pipeline": None,
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return folder.open_state_dir(str(tmp_path / "state"))


def written(state: Path, path: str, value: Any) -> Path:
    changed = json.loads(json.dumps(JOB))
    target, keys = changed, path.split("/")
    for key in keys[:-1]:
        target = target[int(key)] if isinstance(target, list) else target[key]
    target[keys[-1]] = value
    place = state / wire.JOBS_DIR / ID
    place.mkdir()
    (place / wire.JOB_FILE).write_text(json.dumps(changed))
    return place


@pytest.mark.parametrize(
    ("path", "value", "line", "owner"),
    [
        ("id", "2" * 32, "it is the job 2222", "harness"),
        ("schema", 9, "schema 9, this side speaks 1", "harness"),
        ("extra", 1, "unknown field extra", "harness"),
        ("subjects", [], "it has 0 subjects", "harness"),
        ("deadline_s", 0, "deadline_s is 0", "harness"),
        ("subjects/0/engine", "other", "no engine is called 'other'", "harness"),
        ("subjects/0/model_sha256", "../../etc/passwd", "is not a hash and a suffix", "harness"),
        ("subjects/0/model_suffix", "/../x", "is not a hash and a suffix", "harness"),
        ("subjects/0/threads", 0, "0 threads", "harness"),
        ("subjects/0/inputs", [1], "field inputs is not of type", "harness"),
        ("schedule/0/index", 3, "step 0 has the index 3", "harness"),
        ("schedule/0/subject", 1, "step 0 names subject 1 of 1", "harness"),
        ("schedule/0/kind", "dance", "of the kind 'dance'", "harness"),
        ("schedule/0/kind", "evaluate", "there are no data", "harness"),
        ("schedule/0/kind", "profile", "profiles, and its subject has no parts", "harness"),
        ("subjects/0/parts_sha256", "../x", "the name of its parts is not a hash", "harness"),
        ("subjects/0/parts_sha256", "6" * 64, "is not in the board's cache", "harness"),
        ("session_plan/timing", "all_of_it", "no timing is called 'all_of_it'", "harness"),
        ("session_plan/runs_min", 0, "at least one run", "harness"),
        ("session_plan/period_ms", 0, "must be more than 0", "harness"),
        ("session_plan/time_s_min", -1, "time_s_min is -1", "harness"),
        ("session_plan/timing", "end_to_end", "a pipeline and the timing end_to_end go together", "harness"),
        ("pipeline", {"sha256": "5" * 64, "class_name": "P", "label": "p.py:P"}, "go together", "harness"),
        ("pipeline", {"sha256": "../x", "class_name": "P"}, "field label is missing", "harness"),
        ("schedule/0/kind", "energy", "step 0 measures energy, and energy_window_s is 0", "harness"),
        ("session_plan/energy_window_s", -1, "energy_window_s is -1", "harness"),
        ("power_sensor", "../../etc", "'../../etc' is not the name of a power sensor", "harness"),
        ("power_sensor", 7, "field power_sensor is not of type", "harness"),
        ("python_path", ["../../etc"], "is not a hash", "harness"),
        ("python_path", ["e" * 64], "is not in the board's cache", "harness"),
        ("conditions/cores", [9999], r"cores \[9999\] are asked for, this board lets us use", "user"),
    ],
)
def test_a_fault_is_one_line_with_an_owner(state: Path, path: str, value: Any, line: str, owner: str) -> None:
    written(state, path, value)
    with pytest.raises(AgentError, match=line) as raised:
        job_checks.read_job(state, ID)
    assert raised.value.owner == owner
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("job_id", ["", "..", "../../etc", "XYZ", "1" * 15, "1" * 65, "1" * 32 + "\n"])
def test_an_id_that_is_a_path_is_refused(state: Path, job_id: str) -> None:
    with pytest.raises(AgentError, match="is not a job's id"):
        job.look(state, job_id, -1, 0)


def test_a_session_counts_only_with_its_record(state: Path) -> None:
    place = written(state, "seed", 1)
    sessions = place / wire.SESSIONS_DIR
    sessions.mkdir()
    for name in ("000.json", "000.latency.npy", "000.out.12.npy", "001.latency.npy", "002.json.tmp12", "rubbish"):
        (sessions / name).write_bytes(b"12345")
    answer = job.look(state, ID, -1, 0)
    files = {f"sessions/{name}": 5 for name in ("000.json", "000.latency.npy", "000.out.12.npy")}
    assert answer["sessions"] == [{"index": 0, "files": files}]
    assert job.look(state, ID, 0, 0)["sessions"] == []
    assert answer["supervisor_alive"] is False


def test_what_is_done_is_never_replaced(state: Path) -> None:
    place = written(state, "seed", 1)
    (place / wire.DONE_FILE).write_bytes(wire.encode(wire.Done(ID, "complete", "harness", "", "b", 1)))
    before = (place / wire.JOB_FILE).read_bytes()
    import io

    assert job.start(state, ID, io.BytesIO(b"{}"), 2) == {"started": False, "why": "done", "pid": None}
    assert (place / wire.JOB_FILE).read_bytes() == before
    assert job.cancel(state, ID) == {"cancelled": False, "outcome": "complete"}


def test_a_job_that_never_ran_can_be_cancelled(state: Path) -> None:
    place = written(state, "seed", 1)
    assert job.cancel(state, ID) == {"cancelled": True, "outcome": "cancelled"}
    assert wire.decode(wire.Done, (place / wire.DONE_FILE).read_bytes()).sessions == 0


def test_a_job_file_that_is_cut_short_starts_nothing(state: Path) -> None:
    import io

    with pytest.raises(AgentError, match="ended after 2 of 10 bytes"):
        job.start(state, ID, io.BytesIO(b"{}"), 10)
    with pytest.raises(AgentError, match="at most"):
        job.start(state, ID, io.BytesIO(b""), wire.MESSAGE_BYTES_MAX + 1)


def test_a_reader_of_links_reads_nothing(state: Path) -> None:
    place = written(state, "seed", 1)
    (place / wire.SESSIONS_DIR).mkdir()
    (place / "sessions/000.json").symlink_to("/etc/passwd")
    sink = os.open(os.devnull, os.O_WRONLY)
    with pytest.raises(AgentError, match="has no"):
        job.read(state, ID, ["sessions/000.json"], sink)
    os.close(sink)


def test_a_long_session_keeps_a_bounded_number_of_samples() -> None:
    kept = session_process.ConditionTrace()
    for moment in range(5000):
        kept.add({"monotonic_ns": moment, "padding": "x" * 1000})
    assert len(json.dumps(kept.samples)) < 1_600_000
    assert len(kept.samples) >= 700
    assert kept.stride >= 2
    moments = [sample["monotonic_ns"] for sample in kept.samples]
    assert moments == sorted(moments)
