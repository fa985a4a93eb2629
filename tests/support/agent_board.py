"""A real agent in a state folder of a test's own, called as a host calls it."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.board.bundle import agent_bundle
from edgeloop_agent import wire

DATA = Path(__file__).parent.parent / "data"
OWNER = "somebody@desk"
TOKEN = "token-of-this-test"

# Stands in for a runtime: what the model file says is what it does.
FAKE_RUNTIME = """
import ctypes, os, signal, subprocess, sys, time
import numpy as np

load_delegate = None

class Interpreter:
    def __init__(self, model_path, num_threads):
        with open(model_path) as handle:
            self.does = handle.read().split()
        self.runs = 0
    def allocate_tensors(self):
        pass
    def _detail(self, index):
        none = {"scales": np.array([], np.float32), "zero_points": np.array([], np.int32)}
        return {"name": "t%d" % index, "index": index, "dtype": np.float32, "shape": np.array([1, 2]),
                "quantization_parameters": none}
    def get_input_details(self):
        return [self._detail(0)]
    def get_output_details(self):
        return [self._detail(1)]
    def set_tensor(self, index, value):
        self.value = value.copy()
    def get_tensor(self, index):
        return self.value
    def invoke(self):
        self.runs += 1
        verb = self.does[0]
        if verb == "segv":
            ctypes.string_at(0)
        if verb == "exit":
            print("something broke inside", file=sys.stderr, flush=True)
            os._exit(7)
        if verb == "endless":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
            with open(self.does[1], "w") as handle:
                handle.write(str(child.pid))
            while True:
                time.sleep(1)
        if verb == "sleep":
            time.sleep(float(self.does[1]))
        if verb == "print":
            os.write(1, b"rubbish on stdout\\n")
"""


class AgentBoard:
    """A state folder and the agent in it, called as a host calls it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        bundle = agent_bundle()
        self.agent_sha256 = bundle.sha256
        cache = state / wire.CACHE_DIR
        cache.mkdir(parents=True)
        self.agent = cache / f"{bundle.sha256}.pyz"
        self.agent.write_bytes(bundle.data)
        self._jobs = 0

    def call(self, command: str, *argv: str, stdin: bytes = b"") -> dict[str, Any]:
        done = self.run(command, *argv, stdin=stdin)
        assert done.returncode == 0, (done.stdout, done.stderr)
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

    def run(self, command: str, *argv: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        words = command.split()
        return subprocess.run(
            [sys.executable, "-E", str(self.agent), *words, "--state-dir", str(self.state), *argv],
            input=stdin,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def put(self, raw: bytes, suffix: str) -> str:
        sha256 = hashlib.sha256(raw).hexdigest()
        self.call("receive", "--name", sha256 + suffix, "--sha256", sha256, "--bytes", str(len(raw)), stdin=raw)
        return sha256

    def put_data(self, **arrays: Any) -> str:
        buffer = io.BytesIO()
        np.savez(buffer, **{name.replace("__", "/"): array for name, array in arrays.items()})
        return self.put(buffer.getvalue(), ".npz")

    def fake_runtime(self) -> str:
        name = "f" * 64
        package = self.state / wire.RUNTIMES_DIR / name / "ai_edge_litert"
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").write_text("")
        (package / "interpreter.py").write_text(FAKE_RUNTIME)
        return name

    def subject(
        self,
        model: bytes,
        inputs: tuple[str, ...] = ("x",),
        label: str = "candidate",
        outputs: tuple[str, ...] = ("y",),
    ) -> wire.WireSubject:
        return wire.WireSubject(label, "litert", self.put(model, ".tflite"), ".tflite", 1, list(inputs), list(outputs))

    def job(self, subjects: list[wire.WireSubject], steps: list[tuple[int, str]], **changes: Any) -> wire.Job:
        self._jobs += 1
        plan = {
            "warmup_runs_min": 1,
            "warmup_s_min": 0.05,
            "warmup_s_max": 0.2,
            "runs_min": 20,
            "time_s_min": 0.1,
            "timing": "invoke",
            "period_ms": None,
            "energy_window_s": 0.1,
            "deadline_s": 30.0,
        }
        conditions = {
            "cores": [],
            "governor": "as-found",
            "idle_gate": False,
            "start_temperature_max_c": None,
            "cool_down_max_s": 0.0,
            "foreign_load_max_pct": None,
            "soak_max_s": None,
            "soak_window_s": 120.0,
            "soak_slope_max_c_per_min": 0.2,
        }
        fields: dict[str, Any] = {
            "id": f"{self._jobs:032x}",
            "agent_sha256": self.agent_sha256,
            "lease_token": TOKEN,
            "lease_owner": OWNER,
            "data_sha256": None,
            "python_path": [],
            "power_sensor": None,
            "seed": 7,
            "deadline_s": 60.0,
        }
        for name, value in changes.items():
            target = next((part for part in (plan, conditions) if name in part and name != "deadline_s"), fields)
            target[name] = value
        plan.update(changes.get("plan", {}))
        fields.pop("plan", None)
        schedule = [wire.WireStep(index, subject, kind) for index, (subject, kind) in enumerate(steps)]
        return wire.Job(
            subjects=subjects,
            schedule=schedule,
            session_plan=wire.SessionPlan(**plan),
            conditions=wire.Conditions(**conditions),
            **fields,
        )

    def take(self, token: str = TOKEN, seconds: float = 600) -> dict[str, Any]:
        return self.call("lease acquire", "--owner", OWNER, "--seconds", str(seconds), "--token", token)

    def start(self, job: wire.Job) -> dict[str, Any]:
        raw = wire.encode(job)
        return self.call("start", "--job", job.id, "--job-bytes", str(len(raw)), stdin=raw)

    def look(self, job: wire.Job, wait_s: float = 0.0, after: int = 1000) -> dict[str, Any]:
        return self.call("look", "--job", job.id, "--after", str(after), "--wait-s", str(wait_s))

    def done(self, job: wire.Job, within_s: float = 40) -> wire.Done:
        answer = self.look(job, wait_s=within_s)
        assert answer["done"] is not None, (answer, self.log(job))
        return wire.from_plain(wire.Done, answer["done"])

    def finish(self, job: wire.Job) -> wire.Done:
        self.take()
        self.start(job)
        return self.done(job)

    def record(self, job: wire.Job, index: int = 0) -> wire.SessionRecord:
        path = self.state / wire.JOBS_DIR / job.id / wire.session_file(index, "json")
        return wire.decode(wire.SessionRecord, path.read_bytes())

    def array(self, job: wire.Job, part: str, index: int = 0) -> Any:
        path = self.state / wire.JOBS_DIR / job.id / wire.session_file(index, part)
        return np.load(path, allow_pickle=False)

    def log(self, job: wire.Job) -> str:
        path = self.state / wire.JOBS_DIR / job.id / wire.LOG_FILE
        return path.read_text() if path.exists() else ""

    def supervisor(self, job: wire.Job) -> int:
        text = (self.state / wire.JOBS_DIR / job.id / "supervisor.lock").read_text()
        return int(text)


def wait_for(what: Callable[[], Any], within_s: float = 20) -> Any:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def reference(model: str, *inputs: Any) -> list[Any]:
    """Outputs of a model for arrays with the sample first, by an evaluation of the test's own."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(DATA / model))
    interpreter.allocate_tensors()
    sources, sinks = interpreter.get_input_details(), interpreter.get_output_details()
    found: list[list[Any]] = [[] for _ in sinks]
    for sample in range(len(inputs[0])):
        for source, values in zip(sources, inputs, strict=True):
            value = values[sample][None]
            if source["dtype"] is np.int8 and value.dtype != np.int8:
                scale, zero = source["quantization"]
                value = np.clip(np.rint(value / np.float32(scale)) + zero, -128, 127).astype(np.int8)
            interpreter.set_tensor(source["index"], value)
        interpreter.invoke()
        for kept, sink in zip(found, sinks, strict=True):
            kept.append(interpreter.get_tensor(sink["index"])[0])
    return [np.array(kept) for kept in found]
