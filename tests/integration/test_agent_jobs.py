"""Jobs on a real agent: its zip, its supervisor and its sessions as processes, in a state folder of the test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from agent_board import DATA, OWNER, TOKEN, AgentBoard, children_of, lives, reference, wait_for

from edgeloop_agent import footprint, wire


def test_a_latency_session_keeps_raw_samples_and_says_how_it_came_by_them(board: AgentBoard) -> None:
    job = board.job([board.subject((DATA / "tiny_float.tflite").read_bytes())], [(0, "latency")])
    assert board.finish(job).outcome == "complete"
    record = board.record(job)
    latencies, warmups = board.array(job, "latency.npy"), board.array(job, "warmup.npy")
    assert record.outcome == "ok", record.detail
    assert latencies.dtype == np.int64
    assert len(latencies) == record.runs >= 20
    assert len(warmups) == record.warmups >= 2
    assert latencies.min() > 0
    window = record.conditions["timed_window_monotonic_ns"]
    assert 0.1e9 <= window[1] - window[0] < 5e9
    assert latencies.sum() <= window[1] - window[0]
    assert record.load_ns
    assert record.first_ns
    assert record.runtime_rss_bytes
    assert record.peak_rss_bytes
    assert 5e6 < record.runtime_rss_bytes < record.peak_rss_bytes < 500e6
    assert record.engine_version.startswith("litert ")
    assert record.inputs[0].shape == [1, 4, 4, 1]
    assert record.conditions["pinned_cores"] is None
    assert all(value > 0 for value in record.conditions["calibration_ns"])
    assert record.conditions["before"]["boot_id"] == record.boot_id == record.conditions["after"]["boot_id"]
    assert set(record.conditions["unknown"]) <= set(record.conditions["before"]["unknown"])


def test_a_session_on_named_cores_says_them_and_keeps_its_period(board: AgentBoard) -> None:
    core = min(os.sched_getaffinity(0))
    job = board.job(
        [board.subject((DATA / "tiny_two.tflite").read_bytes(), ("left", "right"), outputs=("sum", "mean"))],
        [(0, "latency")],
        cores=[core],
        timing="copy_in_out",
        period_ms=10.0,
        runs_min=30,
    )
    assert board.finish(job).outcome == "complete"
    record = board.record(job)
    window = record.conditions["timed_window_monotonic_ns"]
    assert record.outcome == "ok", record.detail
    assert record.conditions["pinned_cores"] == [core]
    assert window[1] - window[0] >= 28 * 10e6
    assert np.median(board.array(job, "latency.npy")) < 5e6


@pytest.mark.parametrize("model", ["tiny_float.tflite", "tiny_int8.tflite"])
def test_evaluation_gives_each_sample_the_output_of_an_independent_one(board: AgentBoard, model: str) -> None:
    x = np.random.default_rng(1).random((40, 4, 4, 1), np.float32)
    job = board.job([board.subject((DATA / model).read_bytes())], [(0, "evaluate")], data_sha256=board.put_data(x=x))
    assert board.finish(job).outcome == "complete"
    found = board.array(job, "out.0.npy")
    expected = reference(model, x)[0]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert board.record(job).runs == 0


def test_two_inputs_are_taken_by_name_in_the_models_own_order(board: AgentBoard) -> None:
    rng = np.random.default_rng(2)
    left, right = rng.random((9, 4), np.float32), rng.random((9, 1, 2), np.float32)
    data = board.put_data(x__right=right, x__left=left)
    subject = board.subject((DATA / "tiny_two.tflite").read_bytes(), ("left", "right"), outputs=("sum", "mean"))
    job = board.job([subject], [(0, "evaluate"), (0, "latency")], data_sha256=data)
    assert board.finish(job).outcome == "complete"
    first, second = reference("tiny_two.tflite", left, right[:, 0])
    np.testing.assert_array_equal(board.array(job, "out.0.npy"), first)
    np.testing.assert_array_equal(board.array(job, "out.1.npy"), second)
    assert board.record(job, 1).conditions["samples_cycled"] == 9


def test_data_that_do_not_fit_are_refused_with_one_line(board: AgentBoard) -> None:
    subject = board.subject((DATA / "tiny_int8.tflite").read_bytes())
    data = board.put_data(x=np.zeros((3, 5, 5, 1), np.float32))
    job = board.job([subject], [(0, "evaluate")], data_sha256=data)
    assert board.finish(job).outcome == "complete"
    record = board.record(job)
    assert record.outcome == "refused"
    assert record.detail == "x: samples have the shape (5, 5, 1), the model's input takes (4, 4, 1)"


def test_a_damaged_model_is_one_line_and_the_other_subjects_are_measured(board: AgentBoard) -> None:
    whole = (DATA / "tiny_float.tflite").read_bytes()
    damaged = [b"", b"hello, I am a text file", whole[:900]]
    subjects = [board.subject(raw, label=f"damaged{i}") for i, raw in enumerate(damaged)]
    job = board.job([*subjects, board.subject(whole)], [(i, "latency") for i in range(4)])
    assert board.finish(job).outcome == "complete"
    for index in range(3):
        record = board.record(job, index)
        assert record.outcome in {"refused", "crashed"}
        assert record.detail
        assert "\n" not in record.detail
    assert board.record(job, 3).outcome == "ok"


def test_a_crash_is_an_outcome_with_its_signal_and_the_remaining_steps_run(board: AgentBoard) -> None:
    runtime = board.fake_runtime()
    job = board.job(
        [board.subject(b"segv"), board.subject(b"sleep 0.001", label="b"), board.subject(b"exit", label="c")],
        [(0, "latency"), (1, "latency"), (2, "latency")],
        python_path=[runtime],
    )
    assert board.finish(job).outcome == "complete"
    crashed, ok, left = (board.record(job, index) for index in range(3))
    assert (crashed.outcome, crashed.signal) == ("crashed", signal.SIGSEGV)
    assert crashed.detail.startswith("killed by SIGSEGV")
    assert crashed.inputs[0].shape == [1, 2]
    assert ok.outcome == "ok"
    assert (left.outcome, left.signal) == ("crashed", None)
    assert left.detail == "ended with status 7: something broke inside"


def test_a_session_that_ignores_sigterm_is_killed_with_its_children_at_the_deadline(
    board: AgentBoard, tmp_path: Path
) -> None:
    pid_file = tmp_path / "child.pid"
    job = board.job(
        [board.subject(f"endless {pid_file}".encode()), board.subject(b"sleep 0.001", label="b")],
        [(0, "latency"), (1, "latency")],
        python_path=[board.fake_runtime()],
        plan={"deadline_s": 1.5},
    )
    assert board.finish(job).outcome == "complete"
    record = board.record(job)
    assert record.outcome == "timeout"
    assert record.detail == "killed at the session's deadline of 1.5 s"
    assert record.runs == 0
    wait_for(lambda: not lives(int(pid_file.read_text())))
    assert board.record(job, 1).outcome == "ok"


def test_what_a_runtime_prints_never_reaches_the_answers(board: AgentBoard) -> None:
    job = board.job([board.subject(b"print")], [(0, "latency")], python_path=[board.fake_runtime()])
    assert board.finish(job).outcome == "complete"
    assert "rubbish on stdout" in board.log(job)
    assert len(board.log(job)) < 40_000


def test_conditions_are_sampled_while_a_session_runs(board: AgentBoard) -> None:
    subject = board.subject((DATA / "tiny_float.tflite").read_bytes())
    job = board.job([subject], [(0, "latency")], warmup_s_min=1.2, warmup_s_max=2.0, time_s_min=1.5)
    assert board.finish(job).outcome == "complete"
    during = board.record(job).conditions["during"]
    assert 1 <= sum(sample["timed"] for sample in during) <= 4
    assert not all(sample["timed"] for sample in during)
    assert all(sample["foreign_load_pct"] is not None for sample in during)


def test_the_job_deadline_ends_it_and_keeps_what_was_recorded(board: AgentBoard) -> None:
    runtime = board.fake_runtime()
    job = board.job(
        [board.subject(b"sleep 0.001"), board.subject(b"sleep 20", label="b")],
        [(0, "latency"), (1, "latency")],
        python_path=[runtime],
        deadline_s=3.0,
    )
    done = board.finish(job)
    assert (done.outcome, done.owner, done.sessions) == ("deadline", "user", 1)
    assert "deadline of 3 s passed while session 2 of 2" in done.detail


def test_a_stale_lease_token_is_refused_before_anything_is_measured(board: AgentBoard) -> None:
    job = board.job([board.subject((DATA / "tiny_float.tflite").read_bytes())], [(0, "latency")])
    board.take("another-token-here")
    board.start(job)
    done = board.done(job)
    assert (done.outcome, done.owner, done.sessions) == ("lease_lost", "lab", 0)
    assert OWNER in done.detail


def test_a_lease_that_is_lost_while_measuring_ends_the_session_and_frees_the_board(board: AgentBoard) -> None:
    job = board.job([board.subject(b"sleep 30")], [(0, "latency")], python_path=[board.fake_runtime()])
    board.take()
    board.start(job)
    session = wait_for(lambda: children_of(board.supervisor(job)))[0]
    assert board.call("lease release", "--token", TOKEN) == {"released": True}
    assert board.done(job).outcome == "lease_lost"
    assert not lives(session)
    assert board.call("lease show")["job"] is None


def test_a_second_job_waits_for_the_boards_lock_and_says_for_whom(board: AgentBoard) -> None:
    runtime = board.fake_runtime()
    first = board.job([board.subject(b"sleep 0.5")], [(0, "latency")], python_path=[runtime], runs_min=2)
    second = board.job([board.subject(b"sleep 0.001")], [(0, "latency")], python_path=[runtime])
    board.take()
    board.start(first)
    wait_for(lambda: board.call("lease show")["job"] == first.id)
    board.start(second)
    state = wait_for(lambda: (board.look(second)["state"] or {}).get("message", "").endswith("to end") or None)
    assert state
    assert board.look(second)["state"]["message"] == f"waiting for job {first.id} to end"
    assert board.done(second).outcome == "complete"
    assert board.done(first).outcome == "complete"
    ended = board.record(first).conditions["after"]["monotonic_ns"]
    assert board.record(second).conditions["before"]["monotonic_ns"] > ended


def test_starting_a_job_twice_adopts_it(board: AgentBoard) -> None:
    job = board.job([board.subject(b"sleep 0.2")], [(0, "latency")], python_path=[board.fake_runtime()], runs_min=2)
    board.take()
    started = board.start(job)
    again = board.start(job)
    assert started["started"] is True
    assert again == {"started": False, "why": "running", "pid": started["pid"]}
    assert board.done(job).outcome == "complete"
    wait_for(lambda: not lives(started["pid"]))
    assert board.start(job) == {"started": False, "why": "done", "pid": None}


def test_after_a_killed_supervisor_the_next_one_goes_on_and_repeats_nothing(board: AgentBoard) -> None:
    job = board.job(
        [board.subject(b"sleep 0.001"), board.subject(b"sleep 0.6", label="b")],
        [(0, "latency"), (1, "latency")],
        python_path=[board.fake_runtime()],
        runs_min=1,
    )
    board.take()
    pid = board.start(job)["pid"]
    board.look(job, after=-1, wait_s=20)
    session = wait_for(lambda: children_of(pid))[0]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not lives(session))
    first = (board.state / wire.JOBS_DIR / job.id / wire.session_file(0, "json")).stat()
    answer = board.look(job)
    assert answer["done"] is None
    assert answer["supervisor_alive"] is False
    assert board.start(job)["started"] is True
    assert board.done(job).sessions == 2
    kept = (board.state / wire.JOBS_DIR / job.id / wire.session_file(0, "json")).stat()
    assert (kept.st_ino, kept.st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    assert board.record(job, 1).outcome == "ok"


def test_a_job_that_began_before_a_reboot_is_closed(board: AgentBoard) -> None:
    job = board.job([board.subject(b"sleep 0.001")], [(0, "latency")], python_path=[board.fake_runtime()])
    place = board.state / wire.JOBS_DIR / job.id
    place.mkdir(parents=True)
    (place / "begun.json").write_text(json.dumps({"boot_id": "an earlier boot", "boottime_ns": 1}))
    done = board.finish(job)
    assert (done.outcome, done.owner, done.sessions) == ("failed", "board", 0)
    assert "restarted" in done.detail


def test_cancelling_ends_supervisor_and_session(board: AgentBoard) -> None:
    job = board.job([board.subject(b"sleep 30")], [(0, "latency")], python_path=[board.fake_runtime()])
    board.take()
    pid = board.start(job)["pid"]
    session = wait_for(lambda: children_of(pid))[0]
    assert board.call("cancel", "--job", job.id) == {"cancelled": True, "outcome": "cancelled"}
    assert not lives(pid)
    assert not lives(session)
    assert board.done(job).outcome == "cancelled"


def test_a_session_killed_from_outside_is_a_crash_by_sigkill(board: AgentBoard) -> None:
    job = board.job([board.subject(b"sleep 30")], [(0, "latency")], python_path=[board.fake_runtime()])
    board.take()
    pid = board.start(job)["pid"]
    os.kill(wait_for(lambda: children_of(pid))[0], signal.SIGKILL)
    assert board.done(job).outcome == "complete"
    record = board.record(job)
    assert (record.outcome, record.signal) == ("crashed", signal.SIGKILL)


def test_a_job_written_for_another_agent_is_refused(board: AgentBoard) -> None:
    job = board.job([board.subject(b"sleep 1")], [(0, "latency")], agent_sha256="a" * 64)
    done = board.finish(job)
    assert (done.outcome, done.owner, done.sessions) == ("failed", "harness", 0)
    assert "another agent" in done.detail


def test_an_engine_that_the_board_lacks_is_the_boards_error(board: AgentBoard) -> None:
    subject = board.subject((DATA / "tiny_float.tflite").read_bytes())
    job = board.job([wire.WireSubject(**{**subject.__dict__, "engine": "tflite-runtime"})], [(0, "latency")])
    done = board.finish(job)
    assert (done.outcome, done.owner) == ("failed", "board")
    assert "tflite-runtime can't be imported" in done.detail


def test_a_gate_that_is_asked_for_is_said_in_the_record(board: AgentBoard) -> None:
    subject = board.subject((DATA / "tiny_float.tflite").read_bytes())
    job = board.job([subject], [(0, "latency")], idle_gate=True, foreign_load_max_pct=100.0, cool_down_max_s=5.0)
    assert board.finish(job).outcome == "complete"
    gate = board.record(job).conditions["gate"]
    assert (gate["asked"], gate["passed"]) == (True, True)
    assert 1.5 <= gate["waited_s"] <= 5.5


def test_files_are_read_whole_one_after_the_other_and_no_others(board: AgentBoard) -> None:
    job = board.job([board.subject(b"sleep 0.001")], [(0, "latency")], python_path=[board.fake_runtime()])
    board.finish(job)
    session = board.look(job, after=-1)["sessions"][0]
    names = sorted(session["files"])
    done = board.run("read", "--job", job.id, "--file", *names)
    assert names == ["sessions/000.json", "sessions/000.latency.npy", "sessions/000.warmup.npy"]
    assert len(done.stdout) == sum(session["files"].values())
    assert done.stdout.startswith((board.state / wire.JOBS_DIR / job.id / names[0]).read_bytes())
    for name in ("../../lease.json", "sessions/../job.json", "/etc/passwd", "sessions/009.json"):
        refused = board.run("read", "--job", job.id, "--file", name)
        assert refused.returncode == 1
        assert json.loads(refused.stdout)["owner"] == "harness"


def test_the_heartbeat_is_never_older_than_two_seconds(board: AgentBoard) -> None:
    job = board.job([board.subject(b"sleep 30")], [(0, "latency")], python_path=[board.fake_runtime()])
    board.take()
    pid = board.start(job)["pid"]
    wait_for(lambda: children_of(pid))
    beats = set()
    end = time.monotonic() + 3.5
    while time.monotonic() < end:
        state = board.look(job)["state"]
        age_s = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - state["heartbeat_ns"]) / 1e9
        assert age_s < 2.5
        beats.add(state["heartbeat_ns"])
        time.sleep(0.2)
    assert len(beats) >= 2


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores to keep one of them free")
def test_supervisor_and_looks_keep_off_the_measuring_core_and_are_accounted_for(board: AgentBoard) -> None:
    measuring, *others = sorted(os.sched_getaffinity(0))
    job = board.job(
        [board.subject(b"sleep 30")], [(0, "latency")], python_path=[board.fake_runtime()], cores=[measuring]
    )
    board.take()
    pid = board.start(job)["pid"]
    session = wait_for(lambda: children_of(pid))[0]
    assert os.sched_getaffinity(session) == {measuring}
    wait_for(lambda: os.sched_getaffinity(pid) == set(others))
    before = footprint.total(board.state)
    board.look(job)
    board.look(job)
    assert footprint.total(board.state) > before
    command = [sys.executable, "-E", str(board.agent), "look", "--state-dir", str(board.state), "--job", job.id]
    look = subprocess.Popen([*command, "--after", "9", "--wait-s", "20"], stdout=subprocess.DEVNULL)
    wait_for(lambda: os.sched_getaffinity(look.pid) == set(others))
    board.call("cancel", "--job", job.id)
    assert look.wait(20) == 0
