"""However a child ends, the parent gets an error that says how, and no process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import BaseModel

from edgeloop.errors import ParityError
from edgeloop.processes.json_child import ChildError, ChildProcess, FaultKind, JobError
from edgeloop.processes.limits import ProcessLimits

SERVE = """
from pydantic import BaseModel
from edgeloop.processes import json_child
class Job(BaseModel):
    n: int = 2
class Answer(BaseModel):
    twice: int = 0
def work(job):
    {work}
json_child.serve(work, Job, prepare=lambda: None)
"""


class Job(BaseModel):
    n: int = 2


class Answer(BaseModel):
    twice: int


def _python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def _finish(code: str, folder: Path, deadline_s: float = 20) -> Answer:
    child = ChildProcess(_python(code), folder / "log", ProcessLimits(deadline_s))
    return child.finish(Job(), Answer, folder / "result.json")


def _gone(pid: int, within_s: float = 10) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_a_job_goes_in_and_its_result_comes_out(tmp_path: Path) -> None:
    answer = _finish(SERVE.format(work="return Answer(twice=2 * job.n)"), tmp_path)
    assert answer.twice == 4
    assert not (tmp_path / "result.json.partial").exists()


def test_an_error_of_ours_travels_with_its_kind_and_next_step(tmp_path: Path) -> None:
    work = "from edgeloop.errors import ParityError; raise ParityError('no', next_step='look')"
    with pytest.raises(JobError) as caught:
        _finish(SERVE.format(work=work), tmp_path)
    assert caught.value.fault.model_dump(mode="json") == {"kind": "ParityError", "message": "no", "next_step": "look"}
    error = caught.value.fault.error("m.tflite")
    assert isinstance(error, ParityError)
    assert error.lines() == ["m.tflite: no; look"]


def test_an_error_of_another_class_of_ours_travels_as_its_nearest_base(tmp_path: Path) -> None:
    work = "from edgeloop.errors import MissingExtraError; raise MissingExtraError('onnx', 'onnx', 'reading it')"
    with pytest.raises(JobError) as caught:
        _finish(SERVE.format(work=work), tmp_path)
    assert caught.value.fault.kind is FaultKind.USER
    assert caught.value.fault.next_step == "pip install 'edgeloop[onnx]'"


@pytest.mark.parametrize(
    ("work", "how"),
    [
        ("class Other(BaseModel): pass\n    return Other()", "left a result that is no Answer: Field required"),
        ("return 3", "status 1 and no result: AttributeError"),
    ],
)
def test_an_answer_of_another_type_is_none(tmp_path: Path, work: str, how: str) -> None:
    with pytest.raises(ChildError, match=how):
        _finish(SERVE.format(work=work), tmp_path)


def test_a_job_of_another_type_is_refused_by_the_child(tmp_path: Path) -> None:
    class OtherJob(BaseModel):
        n: str = "two"

    child = ChildProcess(_python(SERVE.format(work="return Answer()")), tmp_path / "log")
    with pytest.raises(ChildError, match="ended with status 1 and no result"):
        child.finish(OtherJob(), Answer, tmp_path / "result.json")
    assert "Input should be a valid integer" in (tmp_path / "log").read_text()


def test_what_a_toolchain_raises_is_told_by_the_last_line_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="ended with status 1 and no result: ZeroDivisionError: division by zero"):
        _finish(SERVE.format(work="return 1 / 0"), tmp_path)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
def test_a_crash_is_named_by_its_signal_with_the_last_words(tmp_path: Path, name: str) -> None:
    work = f"import os, signal; print('about to convert', flush=True); os.kill(os.getpid(), signal.{name})"
    with pytest.raises(ChildError, match=f"was ended by {name}.*about to convert"):
        _finish(SERVE.format(work=work), tmp_path)


def test_a_child_that_dies_before_its_job_is_told_like_any_other(tmp_path: Path) -> None:
    process = ChildProcess(_python("raise SystemExit('no toolchain here')"), tmp_path / "log", ProcessLimits(5))
    while process.alive:
        time.sleep(0.01)
    with pytest.raises(ChildError, match="status 1 and no result: no toolchain here"):
        process.finish(Job(), Answer, tmp_path / "result.json")


def test_an_endless_loop_ends_at_the_deadline_with_its_whole_group(tmp_path: Path) -> None:
    work = (
        "import subprocess, sys; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(p.pid, flush=True)\n"
        "    while True: pass"
    )
    with pytest.raises(ChildError, match=r"was not done after 2 s and was stopped: \d+") as caught:
        _finish(SERVE.format(work=work), tmp_path, deadline_s=2)
    assert _gone(int(caught.value.last_line))


def test_what_a_killed_child_left_in_its_temporary_folder_is_gone(tmp_path: Path) -> None:
    work = "import os, signal, tempfile; print(tempfile.mkdtemp(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(ChildError) as caught:
        _finish(SERVE.format(work=work), tmp_path)
    assert tmp_path in Path(caught.value.last_line).parents
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone holds a process to an amount of memory")
def test_a_child_and_its_own_children_are_held_to_their_memory(tmp_path: Path) -> None:
    work = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'bytearray(1 << 30)'], check=True)"
    child = ChildProcess(_python(SERVE.format(work=work)), tmp_path / "log", ProcessLimits(20, 1 << 29))
    with pytest.raises(ChildError, match="ended with status 1 and no result, held to 512 MiB") as caught:
        child.finish(Job(), Answer, tmp_path / "result.json")
    assert caught.value.more == "toolchain.memory_max_mib"
    assert "MemoryError" in (tmp_path / "log").read_text()


def test_a_waiting_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent_code = (
        "import sys, time; from pathlib import Path; from edgeloop.processes.json_child import ChildProcess\n"
        f"code, log = {SERVE.format(work='return Answer()')!r}, Path({str(tmp_path / 'log')!r})\n"
        "c = ChildProcess((sys.executable, '-c', code), log)\n"
        "print(c._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(_python(parent_code), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    assert _gone(pid)


def test_a_busy_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = SERVE.format(work="import os; print(os.getpid(), flush=True)\n    while True: pass")
    log = tmp_path / "log"
    parent_code = (
        "import sys; from pathlib import Path; from pydantic import BaseModel\n"
        "from edgeloop.processes.json_child import ChildProcess\nclass Job(BaseModel): pass\n"
        f"c = ChildProcess((sys.executable, '-c', {code!r}), Path({str(log)!r}))\n"
        f"c.finish(Job(), Job, Path({str(tmp_path / 'r.json')!r}))"
    )
    with subprocess.Popen(_python(parent_code)) as parent:
        until = time.monotonic() + 20
        while not (log.exists() and log.read_text().strip()) and time.monotonic() < until:
            time.sleep(0.02)
        pid = int(log.read_text())
        os.kill(parent.pid, signal.SIGKILL)
    assert _gone(pid)


def test_what_a_busy_child_started_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    said = "print('begun', file=o); time.sleep(60); print('ended', file=o)"
    own = f"import time; o = open({str(told)!r}, 'w', 1); {said}"
    code = SERVE.format(work=f"import subprocess, sys; subprocess.call([sys.executable, '-c', {own!r}])")
    parent_code = (
        "import sys; from pathlib import Path; from pydantic import BaseModel\n"
        "from edgeloop.processes.json_child import ChildProcess\nclass Job(BaseModel): pass\n"
        f"c = ChildProcess((sys.executable, '-c', {code!r}), Path({str(tmp_path / 'log')!r}))\n"
        f"c.finish(Job(), Job, Path({str(tmp_path / 'r.json')!r}))"
    )
    with subprocess.Popen(_python(parent_code)) as parent, told.open() as pipe:
        assert pipe.readline() == "begun\n"
        os.kill(parent.pid, signal.SIGKILL)
        assert pipe.read() == "", "it was ended, since it holds the pipe no more, and did not come to its end"
