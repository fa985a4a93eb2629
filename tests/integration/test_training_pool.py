"""Trainings run in a process of their own: what goes wrong there stays there, and nothing outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import training_entry

from edgeloop.core.campaign import Data, Task, Training
from edgeloop.core.network import NetworkSpec
from edgeloop.errors import HarnessError, TrainingError, UserError
from edgeloop.ports import TrainingJob
from edgeloop.processes.limits import ProcessLimits
from edgeloop.training.pool import TrainingPool

pytest.importorskip("torch")  # its version is a part of every key


@pytest.fixture
def entry(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(training_entry.FOLDER), prepend=os.pathsep)
    return training_entry.__name__


@pytest.fixture
def networks(tmp_path):
    folder = tmp_path / "networks"
    folder.mkdir()
    return folder


@pytest.fixture
def pool(entry, networks):
    made = TrainingPool(networks, entry=entry, threads=1)
    yield made
    made.close()


def job(name="plain", seed=0):
    return TrainingJob(
        network=NetworkSpec(family=name, seed=seed),
        lightening="fp32",
        task=Task(),
        data=Data(),
        data_sha256="d" * 64,
        recipe=Training(),
    )


def quiet(_what, _fraction):
    pass


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def gone(pid):
    """Whether a process has ended (a zombie that nobody reaped has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_training_reports_and_is_never_made_twice(pool, networks):
    told = []
    first = pool.submit(job(), lambda what, fraction: told.append((what, fraction))).result(30)
    assert told == [("training", 1.0)]
    again = pool.submit(job(), quiet)
    assert again.done()
    assert again.result() == first
    assert (networks / "trained").read_text() == "plain\n"


def test_who_asks_for_a_training_that_runs_joins_it(pool, networks):
    first = pool.submit(job("slow"), quiet)
    until((networks / "started").exists)
    told = []
    assert pool.submit(job("slow"), lambda _what, fraction: told.append(fraction)) is first
    until(lambda: len(told) > 1)


def test_what_the_user_did_wrong_comes_back_as_it_was(pool):
    with pytest.raises(UserError) as raised:
        pool.submit(job("wrong"), quiet).result(30)
    assert raised.value.lines() == ["net.py: no good; write it anew"]


def test_a_fault_of_ours_is_a_line_and_the_log_has_the_rest(pool, networks):
    with pytest.raises(HarnessError, match="ValueError: a fault of ours"):
        pool.submit(job("broken"), quiet).result(30)
    log = (networks / "logs" / "train.log").read_text()
    assert "Traceback" in log
    assert "user code prints" in log


def test_a_crash_is_told_with_its_signal_and_the_next_training_gets_a_fresh_process(pool):
    with pytest.raises(HarnessError, match=r"SIGSEGV.*about to fall"):
        pool.submit(job("crash"), quiet).result(30)
    assert pool.submit(job(), quiet).result(30).epochs == 1


def test_an_endless_training_is_stopped_at_its_deadline_and_the_next_one_gets_a_fresh_process(entry, networks):
    pool = TrainingPool(networks, entry=entry, threads=1, training_limits=ProcessLimits(2))
    with pytest.raises(TrainingError, match=r"not done after 2 s and was stopped; .*round and round") as told:
        pool.submit(job("endless"), quiet).result(30)
    assert "toolchain.training_minutes_max gives it more" in told.value.next_step
    assert gone(int((networks / "started").read_text()))
    assert pool.submit(job(), quiet).result(30).epochs == 1
    pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone holds a process to an amount of memory")
def test_a_training_is_held_to_its_memory(entry, networks):
    pool = TrainingPool(networks, entry=entry, threads=1, training_limits=ProcessLimits(60, 1 << 30))
    with pytest.raises(HarnessError, match="MemoryError"):
        pool.submit(job("hungry"), quiet).result(30)
    pool.close()


def test_a_look_at_a_network_that_kills_its_process_once_is_taken_again(pool, tmp_path):
    fragile = NetworkSpec(family=f"fragile {tmp_path / 'fell'}")
    assert pool.describe(fragile, Task(), Data(), 4).macs == 1


def test_abandoning_keeps_what_is_wanted_and_the_process(pool, networks):
    running, waiting, wanted = (pool.submit(job(n, s), quiet) for n, s in (("slow", 0), ("plain", 1), ("plain", 2)))
    until((networks / "started").exists)
    process = (networks / "started").read_text()
    pool.abandon(keep=pool.key(job("plain", 2)))
    assert wanted.result(30).epochs == 1
    assert waiting.cancelled()
    assert isinstance(running.exception(1), HarnessError)
    assert (networks / "started").read_text() == process


def test_a_network_is_looked_at_while_another_one_trains_and_only_once(pool, networks):
    running = pool.submit(job("slow"), quiet)
    until((networks / "started").exists)
    sizes = pool.describe(NetworkSpec(family="x"), Task(), Data(), 4)
    assert not running.done()
    pool.close()
    again = TrainingPool(networks, entry="no_such_module")
    assert again.describe(NetworkSpec(family="x"), Task(), Data(), 4) == sizes
    again.close()


def test_closing_ends_the_process_at_once(pool, networks):
    running = pool.submit(job("slow"), quiet)
    until((networks / "started").exists)
    process = int((networks / "started").read_text())
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 5
    assert gone(process)
    assert isinstance(running.exception(1), HarnessError)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_a_controller_that_is_killed_leaves_no_training_behind(entry, networks):
    controller = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_training_pool import TrainingPool, job, quiet
        pool = TrainingPool(Path({str(networks)!r}), entry={entry!r})
        pool.submit(job("slow"), quiet)
        time.sleep(60)
    """)
    process = subprocess.Popen([sys.executable, "-c", controller])
    try:
        until((networks / "started").exists)
        child = int((networks / "started").read_text())
        assert not gone(child)
        process.send_signal(signal.SIGKILL)
        process.wait()
        until(lambda: gone(child), seconds=5)
    finally:
        process.kill()
        process.wait()
