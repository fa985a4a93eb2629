"""Kills children of a campaign: every Python of an environment made here looks whether it is one that is to die.

Nothing of edgeloop is told of it: the environment's site folder imports `fault.py`, which finds out from its command
line which child it is in and wraps the work that the child is given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WAYS = ("segv", "kill", "memory", "loop")

_FAULT = '''
import ctypes, fcntl, functools, json, os, resource, signal, sys, traceback

FOLDER = os.path.dirname(os.path.abspath(__file__))
HEAVY = ("torch", "tensorflow", "litert_torch", "tvm")
BUILDERS = {"edgeloop.builders.tflite.convert_child": "tflite", "edgeloop.builders.tvm.compile_child": "tvm",
            "edgeloop.host_runtime.litert_child": "runtime", "edgeloop.ready_models.tensorflow_child": "tensorflow"}

def faults():
    try:
        with open(os.path.join(FOLDER, "faults.json")) as file:
            return json.load(file)
    except FileNotFoundError:
        return {}

def counted(child, job):
    """How many jobs this kind of child was given, this one included; each is written down."""
    with open(os.path.join(FOLDER, child + ".jobs"), "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = file.read().splitlines()
        file.write(json.dumps(job) + "\\n")
        file.flush()
    return before

def die(way, child):
    if way == "segv":
        ctypes.string_at(0)
    if way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if way == "memory":
        if child in ("session", "agent"):
            resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
        assert resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY, "nothing holds its memory"
        held = []
        while True:
            held.append(bytearray(1 << 26))
    while way == "loop":
        pass

def strike(child, job):
    number = len(counted(child, job)) + 1
    asked = faults().get(child, {})
    way = asked.get(str(number)) or asked.get("every")
    if way is not None:
        print("about to fall:", way, flush=True)
        try:
            die(way, child)
        except MemoryError:
            if child not in ("session", "agent"):
                raise
            traceback.print_exc()  # the interpreter is still starting: there it would be printed and passed over
            os._exit(1)

def seen(child):
    with open(os.path.join(FOLDER, "imports.jsonl"), "a") as file:
        file.write(json.dumps([child, [name for name in HEAVY if name in sys.modules]]) + "\\n")

def struck(child, work):
    @functools.wraps(work)
    def wrapped(*arguments):
        job = getattr(arguments[0], "do", "")
        name = child if job in ("", "build") else child + " " + job
        strike(name, job)
        try:
            return work(*arguments)
        finally:
            seen(name)
    return wrapped

words = sys.orig_argv
module = words[words.index("-m") + 1] if "-m" in words else ""
if module in BUILDERS:
    from edgeloop.processes import json_child
    serve = json_child.serve
    json_child.serve = lambda work, *jobs, **more: serve(struck(BUILDERS[module], work), *jobs, **more)
if module == "edgeloop.training.training_child":
    from edgeloop.wiring import training_worker as worker
    worker.train, worker.describe = struck("training", worker.train), struck("describing", worker.describe)
if "session" in words and "--folder" in words:
    with open(os.path.join(words[words.index("--folder") + 1], "args.json")) as file:
        model = json.load(file)["model"]
    before = [json.loads(line) for line in counted("sessions", model)]
    if model not in before:
        strike("session", model)
if "run" in words and "--lock-fd" in words:
    strike("agent", "")
'''


class FaultyPython:
    """A Python environment in a folder, with all that this one can import, whose children die as `faults` say.

    `faults`: by child, the way that its n-th job dies, or that every one does. Children are `training`, `describing`,
    `tflite`, `tvm`, `tvm predict`, `tensorflow`, `runtime inspect`, `runtime count`, `runtime predict`, `agent`, and
    `session`, of which the first one of each model counts.
    """

    def __init__(self, folder: Path, faults: Mapping[str, Mapping[str, str]]) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=60)
        site = next(folder.glob("lib/python*/site-packages"))
        # The modules of this process, in its order; the last line is run by every interpreter of the environment.
        lines = [path for path in sys.path if Path(path).is_dir()] + ["import edgeloop_fault"]
        (site / "edgeloop_fault.pth").write_text("\n".join(lines) + "\n")
        (site / "edgeloop_fault.py").write_text(_FAULT)
        self._site = site
        self.executable = folder / "bin" / "python"
        self.temporary, self.cache = folder / "tmp", folder / "cache"
        self.temporary.mkdir()
        self.fault(faults)

    def fault(self, faults: Mapping[str, Mapping[str, str]]) -> None:
        """From now on children die so."""
        (self._site / "faults.json").write_text(json.dumps(faults))

    def jobs(self, child: str) -> int:
        """How many jobs a kind of child was given."""
        path = self._site / f"{child}.jobs"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def imports(self) -> list[tuple[str, set[str]]]:
        """Of every job that was done: the child, and which toolchains its process had imported in the end."""
        lines = (self._site / "imports.jsonl").read_text().splitlines()
        return [(child, set(modules)) for child, modules in map(json.loads, lines)]

    def run(self, *words: str | Path, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """The real command in this environment."""
        return subprocess.run(
            [str(self.executable), "-m", "edgeloop", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=timeout,
            env={**os.environ, "COLUMNS": "120", "TMPDIR": str(self.temporary), "XDG_CACHE_HOME": str(self.cache)},
            check=False,
        )


def left_behind(folder: Path) -> list[Any]:
    """Files in a run's folder that nobody would ever take up again."""
    patterns = (".building-*", ".part-*", ".making-*", "*.partial", "*.part")
    return [path for pattern in patterns for path in folder.rglob(pattern)]
