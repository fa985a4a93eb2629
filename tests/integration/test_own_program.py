"""The engine `exec`: programs that answer well, and programs that don't, on a real agent and by the real command."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import campaigns
import numpy as np
import own_program
import pytest
from agent_board import AgentBoard, lives, wait_for

from edgeloop.ready_models.exec_program import pack_program, read_program
from edgeloop_agent import wire

DECLARED = """
schema = 1
program = "fake.py"
arguments = ["{verb}"]
files = ["net.bin", "net.data/more.bin"]
period = true
[[input]]
name = "x"
dtype = "int8"
shape = [2]
scale = 0.5
zero_point = 3
[[output]]
name = "y"
dtype = "float32"
shape = [2]
"""
# What its first argument says is what it does; each inference takes about a millisecond.
FAKE = """
import array, ctypes, os, signal, subprocess, sys, time
verb, folder = sys.argv[1], sys.argv[2] + "/"
plan = dict(line.split() for line in open(folder + "plan.txt"))
number = lambda key: int(plan[key])
assert open("net.bin").read() == "weights" and open("net.data/more.bin").read() == "more"
given = array.array("b", open(folder + "input.0.bin", "rb").read())
print("a banner of the runtime")

def times(runs, time_ns):
    kept, opened = array.array("q"), time.monotonic_ns()
    while len(kept) < number(runs) or time.monotonic_ns() - opened < number(time_ns):
        start = time.monotonic_ns()
        time.sleep(0.001)
        if number("period_ns") and verb != "restless":
            time.sleep(max(0, opened + len(kept) * number("period_ns") - time.monotonic_ns()) / 1e9)
        kept.append(time.monotonic_ns() - start if not number("period_ns") else 1000000)
    return kept, opened, time.monotonic_ns()

if verb == "segv":
    ctypes.string_at(0)
if verb == "exit":
    sys.exit("the chip does not answer")
if verb == "endless":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    with open(os.environ["PIDS"], "w") as pids:
        pids.write("%d %d" % (os.getpid(), child.pid))
    while True:
        time.sleep(1)
told = {"load_ns": 5, "version": "fake\\x1b[31m 2"}
if plan["task"] == "evaluate":
    out = array.array("f", [0.5 * (value - 3) for value in given])
    open(folder + "output.0.bin", "wb").write(out.tobytes()[:7 if verb == "short" else None])
else:
    warmups, opened, _ = times("warmup_runs", "warmup_ns")
    if verb == "lazy":
        warmups = warmups[:0]
    latencies, opened, closed = times("runs", "time_ns")
    if verb == "micro":
        latencies = array.array("q", [value // 1000 for value in latencies])
    if verb == "boast":
        latencies = array.array("q", [3 * value for value in latencies])
    if verb == "few":
        latencies = latencies[:3]
    if verb == "past":
        opened -= 10**12
    if verb == "brief":
        closed = opened + sum(latencies[:20])
        latencies = latencies[:20]
    if verb == "huge":
        latencies[0] = 2**63 - 1
    open(folder + "warmup.bin", "wb").write(warmups.tobytes())
    open(folder + "latency.bin", "wb").write(latencies.tobytes()[: -3 if verb == "short" else None])
    told.update(first_ns=1000, window_start_ns=opened, window_end_ns=closed, missed_periods=0)
if verb == "silent":
    sys.exit(0)
if verb == "vague":
    told["first_ns"] = "1e3"
if verb == "mute":
    del told["load_ns"]
with open(folder + "answer.txt", "w") as answer:
    answer.writelines("%s %s\\n" % line for line in told.items())
if verb == "tidy":
    block = os.urandom(80 << 20)
    del block
    os.close(1)
    os.read(0, 1)
    os._exit(0)
"""


def subject(board: AgentBoard, folder: Path, verb: str) -> wire.WireSubject:
    """A fake program that does as `verb` says, pushed and unpacked as a host does it."""
    (folder / "net.data").mkdir(parents=True, exist_ok=True)
    (folder / "fake.py").write_text(FAKE)
    (folder / "net.bin").write_text("weights")
    (folder / "net.data/more.bin").write_text("more")
    declared = folder / "fake.toml"
    declared.write_text(DECLARED.format(verb=verb))
    artifact = pack_program(declared, read_program(declared), folder / "packs")
    sha256 = board.put(Path(artifact.path).read_bytes(), ".zip")
    board.call("unpack", "--wheels", f"{sha256}.zip", "--as", sha256)
    return wire.WireSubject("candidate", "exec", sha256, ".zip", 1, ["x"], ["y"])


def measured(board: AgentBoard, folder: Path, verb: str, kind: str = "latency", **changes: Any) -> wire.SessionRecord:
    data = board.put_data(x=np.array([[1.0, -2.0], [0.5, 100.0]], np.float32))
    job = board.job([subject(board, folder, verb)], [(0, kind)], data_sha256=data, **changes)
    assert board.finish(job).outcome == "complete"
    assert not list((board.state / wire.JOBS_DIR / job.id).glob("work/*"))
    return board.record(job)


def test_a_program_times_itself_in_an_ordinary_session(board: AgentBoard, tmp_path: Path) -> None:
    own = subject(board, tmp_path, "good")
    job = board.job([own], [(0, "latency"), (0, "latency")])
    assert board.finish(job).outcome == "complete"
    record = board.record(job)
    latencies, warmups = board.array(job, "latency.npy"), board.array(job, "warmup.npy")
    assert record.outcome == "ok", record.detail
    assert latencies.dtype == warmups.dtype == np.int64
    assert len(latencies) == record.runs >= 20
    assert len(warmups) == record.warmups >= 1
    assert latencies.min() > 900_000
    opened, closed = record.conditions["timed_window_monotonic_ns"]
    assert closed - opened >= 0.1e9
    assert latencies.sum() <= closed - opened
    assert (record.load_ns, record.first_ns, record.overhead_ns) == (5, 1000, None)
    assert record.engine_version == "exec fake [31m 2"
    assert all(value > 0 for value in record.conditions["calibration_ns"])
    assert record.conditions["samples_cycled"] == 8
    assert record.conditions["before"]["monotonic_ns"] < opened < closed < record.conditions["after"]["monotonic_ns"]
    assert "a banner of the runtime" in board.log(job)
    assert board.record(job, 1).outcome == "ok"


def test_its_inputs_are_stored_as_the_tensor_says_and_its_outputs_come_back_raw(
    board: AgentBoard, tmp_path: Path
) -> None:
    data = board.put_data(x=np.array([[1.0, -2.0], [0.5, 100.0]], np.float32))
    job = board.job([subject(board, tmp_path, "good")], [(0, "evaluate")], data_sha256=data)
    assert board.finish(job).outcome == "complete"
    assert board.record(job).outcome == "ok", board.record(job).detail
    found = board.array(job, "out.0.npy")
    np.testing.assert_array_equal(found, np.array([[1.0, -2.0], [0.5, 62.0]], np.float32))


def test_a_program_that_waits_to_be_read_tells_its_peak_memory(board: AgentBoard, tmp_path: Path) -> None:
    peak = measured(board, tmp_path, "tidy").peak_rss_bytes
    assert peak is not None
    assert 80 << 20 < peak < 120 << 20
    assert measured(board, tmp_path, "good").peak_rss_bytes is None  # it was less than the agent's own


def test_a_period_is_kept(board: AgentBoard, tmp_path: Path) -> None:
    record = measured(board, tmp_path, "good", period_ms=5.0)
    assert record.outcome == "ok", record.detail
    opened, closed = record.conditions["timed_window_monotonic_ns"]
    assert closed - opened >= 0.95 * (record.runs - 1) * 5e6


@pytest.mark.parametrize(
    ("verb", "kind", "said"),
    [
        ("short", "latency", r"wrote \d+ bytes into latency.bin: 8 for each run are wanted"),
        ("short", "evaluate", r"wrote 7 bytes into output.0.bin where 2 samples of output y \(float32 \[2\]\) are 16"),
        ("silent", "latency", "ended without writing answer.txt"),
        ("vague", "latency", "says first_ns 1e3 in answer.txt, which is no whole number"),
        ("mute", "evaluate", "does not say load_ns in answer.txt"),
        ("lazy", "latency", "wrote 0 bytes into warmup.bin"),
        ("few", "latency", "3 timed and .* where at least 20 and 1 were asked for"),
        ("brief", "latency", "it timed for .* s where at least 0.1 s were asked for"),
        ("micro", "latency", "its latencies come to .* % of its window, back to back; they are told in nanoseconds"),
        ("boast", "latency", "its latencies come to .* s in a window of .* s"),
        ("huge", "latency", "holds no times in nanoseconds"),
        ("past", "latency", "its timed window is not within the time that it ran"),
    ],
)
def test_an_answer_that_cannot_be_is_refused_with_one_line(
    board: AgentBoard, tmp_path: Path, verb: str, kind: str, said: str
) -> None:
    record = measured(board, tmp_path, verb, kind)
    assert record.outcome == "refused"
    assert "fake.py" in record.detail
    assert "\n" not in record.detail
    assert re.search(said, record.detail), record.detail


def test_a_period_that_is_not_kept_is_refused(board: AgentBoard, tmp_path: Path) -> None:
    record = measured(board, tmp_path, "restless", period_ms=20.0)
    assert record.outcome == "refused"
    assert "missed periods of 20 ms do not fill its window" in record.detail


def test_a_program_that_dies_is_told_with_its_signal_or_its_last_line(board: AgentBoard, tmp_path: Path) -> None:
    crashed = measured(board, tmp_path, "segv")
    assert (crashed.outcome, crashed.signal) == ("crashed", signal.SIGSEGV)
    assert crashed.detail.startswith("fake.py was killed by SIGSEGV")
    ended = measured(board, tmp_path, "exit")
    assert (ended.outcome, ended.detail) == ("crashed", "fake.py ended with status 1: the chip does not answer")


def test_a_program_that_hangs_is_killed_at_the_deadline_with_all_it_started(
    board: AgentBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    record = measured(board, tmp_path, "endless", plan={"deadline_s": 3.0})
    assert (record.outcome, record.detail) == ("timeout", "killed at the session's deadline of 3 s")
    program, child = map(int, (tmp_path / "pids").read_text().split())
    wait_for(lambda: not lives(program) and not lives(child))


def test_a_program_dies_with_a_killed_supervisor_and_holds_the_board_until_then(
    board: AgentBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    job = board.job([subject(board, tmp_path, "endless")], [(0, "latency")])
    board.take()
    board.start(job)
    program = int(wait_for(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text()).split()[0])
    held = [str(path.readlink()) for path in Path(f"/proc/{program}/fd").iterdir() if path.is_symlink()]
    assert str(board.state / wire.LOCK_FILE) in held
    (told,) = (board.state / wire.JOBS_DIR / job.id / "work").glob("*/program.pid")
    assert int(told.read_text()) == program  # by this its load is not foreign
    os.kill(board.supervisor(job), signal.SIGKILL)
    wait_for(lambda: not lives(program))
    os.kill(int((tmp_path / "pids").read_text().split()[1]), signal.SIGKILL)  # a grandchild: nobody tied it


def test_what_no_program_can_do_is_refused_on_the_board_too(board: AgentBoard, tmp_path: Path) -> None:
    job = board.job([subject(board, tmp_path, "good")], [(0, "energy")])
    done = board.finish(job)
    assert (done.outcome, done.owner) == ("failed", "harness")
    assert "of the kind energy, which no program of the user's knows" in done.detail


def test_a_program_of_another_processor_is_named_as_such(board: AgentBoard, tmp_path: Path) -> None:
    declared = tmp_path / "bad.toml"
    text = DECLARED.format(verb="x").replace('"fake.py"', '"fake"').replace('"net.bin", "net.data/more.bin"', "")
    declared.write_text(text)
    (tmp_path / "fake").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(200))
    artifact = pack_program(declared, read_program(declared), tmp_path / "packs")
    sha256 = board.put(Path(artifact.path).read_bytes(), ".zip")
    board.call("unpack", "--wheels", f"{sha256}.zip", "--as", sha256)
    own = wire.WireSubject("candidate", "exec", sha256, ".zip", 1, ["x"], ["y"])
    job = board.job([own], [(0, "latency")])
    assert board.finish(job).outcome == "complete"
    record = board.record(job)
    assert record.outcome == "refused"
    assert record.detail == "fake can't be started: Exec format error (it is not built for this board's processor)"


SHORT = ("--sessions", "2", "--time-s-min", "0.1", "--runs-min", "20")
ON_A_SHARED_MACHINE = 'throttling = "allow"\n'
"""Others on its processors slow the calibration loop as a throttled clock would."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = own_program.example(tmp_path_factory.mktemp("example"))
    own_program.build_here(folder)
    campaigns.write_local_board(folder)
    (folder / "declared.toml").write_text(ON_A_SHARED_MACHINE)
    return folder


def asked(*words: str | Path, cwd: Path, expect: int = 0) -> Any:
    return json.loads(campaigns.run(*words, "--json", cwd=cwd, expect=expect).stdout)


def test_the_examples_are_measured_scored_and_compared(built: Path) -> None:
    declared = ("--environment", "declared.toml")
    words = ("--target", "here", "--engine", "exec", "--data", "net.npz", *declared, *SHORT)
    found = asked("measure", "net.toml", *words, "--limit", "top1=0.9", cwd=built)
    assert found["verdict"] == "PASS"
    assert found["accuracy"]["value"] == 1.0
    assert (found["engine"], found["sessions"]) == ("exec net 1.0", 2)
    assert 0 < found["peak_rss_bytes"] < 32 << 20
    assert found["overhead_ns"] is None
    assert found["model"]["path"] == str(built / "net.toml")
    assert found["model"]["deployed_bytes"] == sum((built / name).stat().st_size for name in ("net", "net.bin"))
    both = asked("compare", "net.toml", "net-python.toml", *words, "--period-ms", "5", cwd=built)
    assert both["agreement"]["value"] == 1.0
    assert both["b"]["engine"] == "exec net.py 1.0"
    assert both["a"]["latency_ns"]["p50"] < both["b"]["latency_ns"]["p50"]


def test_it_is_compared_with_a_model_in_a_runtime(built: Path) -> None:
    model = Path(__file__).parents[1] / "data/tiny_float.tflite"
    words = ("--engine", "litert", "--engine-b", "exec", "--target", "here", *SHORT)
    both = asked("compare", model, "net.toml", *words, cwd=built)
    assert both["a"]["engine"].startswith("litert ")
    assert both["b"]["engine"] == "exec net 1.0"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--threads", "2"), "--threads: net.toml runs with 1 at most"),
        (("--timing", "copy_in_out"), "--timing: net.toml times invoke"),
        (("--per-op",), "--per-op: a program of your own can't be cut into its operators"),
        (("--energy",), "--energy: energy of a program of your own is not measured"),
        (("--limit", "energy_above_idle_mj=1"), "--limit: energy of a program of your own is not measured"),
        (("--limit", "rss_above_runtime_mib=1"), "--limit: what of a program's memory is its runtime's is not known"),
        (("--engine", "litert"), "MODEL: net.toml declares a program, litert runs a .tflite; say --engine exec"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_is_sent(built: Path, words: tuple[str, ...], said: str) -> None:
    engine = () if "--engine" in words else ("--engine", "exec")
    told = campaigns.run("measure", "net.toml", "--target", "here", *engine, *words, cwd=built, expect=2).stderr
    assert said in " ".join(told.split())
    assert "Traceback" not in told


def test_a_program_that_breaks_is_an_error_of_the_model_in_one_line(built: Path, tmp_path: Path) -> None:
    campaigns.write_local_board(tmp_path)
    (tmp_path / "net.py").write_text("import sys\nsys.exit('the chip does not answer')\n")
    declared = (built / "net-python.toml").read_text().replace('files = ["net.bin"]', "")
    (tmp_path / "net.toml").write_text(declared)
    words = ("measure", "net.toml", "--target", "here", "--engine", "exec", *SHORT)
    found = asked(*words, "--limit", "latency.p50_ms=1000", cwd=tmp_path, expect=3)
    assert found["verdict"] == "ERROR"
    assert any("net.py ended with status 1: the chip does not answer" in reason for reason in found["reasons"])
    (tmp_path / "net.py").write_text("")
    refused = campaigns.run(*words, cwd=tmp_path, expect=2).stderr
    assert "refuses the model: net.py ended without writing answer.txt" in " ".join(refused.split())
