"""The parent's half of the TFLite builder: keys, the artifact store, and one child process a build.

Layout below `root`: `<sha256>/` with `model.tflite`, `artifact.json` and `build.log`; `keys/<artifact key>.json`
says which of them a key led to; `failed/` keeps the logs of builds that did not end well. Everything appears by
rename, so a half-built folder is never seen under its final name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.builders.child import ChildError, ChildProcess, python_module
from edgeloop.builders.prebuilt import predict_tflite
from edgeloop.builders.tflite import parity
from edgeloop.builders.tflite.versions import FORMAT, tool_versions
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Task
from edgeloop.core.frozen import key_of
from edgeloop.core.lightening import Lightening
from edgeloop.core.measurement import Arrays
from edgeloop.errors import BuildError, ParityError, kept_on_disk
from edgeloop.ports import TrainedNetwork

Agreement = Callable[[Arrays, Arrays], NDArray[np.bool_]]
"""(outputs, others) -> bool array (n,): the task's own."""

CHILD = python_module("edgeloop.builders.tflite.child")
_BUILDING = ".building-"


class TfliteBuilder:
    """A `ports.Builder`. Safe to call from several threads; each build is a process of its own."""

    def __init__(
        self,
        root: Path,
        task: Task,
        *,
        agreement: Agreement | None = None,
        deadline_s: float = 600.0,
        command: Sequence[str] = CHILD,
    ) -> None:
        """`agreement` is the loaded function that `task.agreement` names; it runs here, never in the child."""
        self._root = root
        self._task = task
        self._agreement = agreement
        self._deadline_s = deadline_s
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._waiting: ChildProcess | None = None
        self._running: set[ChildProcess] = set()
        (root / "keys").mkdir(parents=True, exist_ok=True)
        self._clear_abandoned()

    def key(self, trained: TrainedNetwork, lightening: str) -> str:
        """Raises MissingExtraError where the toolchain is not installed."""
        rung = Lightening.parse(lightening)
        return key_of("artifact", "tflite", FORMAT, trained.key, rung, tool_versions(), self._rule())

    def build(self, trained: TrainedNetwork, lightening: str) -> Artifact:
        key = self.key(trained, lightening)
        found = self._found(key)
        if found is not None:
            return found
        with kept_on_disk(self._root):
            target = Path(tempfile.mkdtemp(prefix=f"{_BUILDING}{os.getpid()}-", dir=self._root))
            try:
                return self._keep(key, target, self._run(key, trained, lightening, target))
            finally:
                shutil.rmtree(target, ignore_errors=True)

    def warm_up(self) -> None:
        """Start a child that imports the toolchain and waits: the next build costs its own time only."""
        with self._lock:
            if self._waiting is None or not self._waiting.alive:
                self._waiting = self._spawn()

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return predict_tflite(artifact, inputs)

    def close(self) -> None:
        """End every child, builds that are running included."""
        with self._lock:
            children = [*self._running, *([self._waiting] if self._waiting else [])]
            self._waiting = None
        for process in children:
            process.kill()
            process.log.unlink(missing_ok=True)

    def _found(self, key: str) -> Artifact | None:
        """The artifact that a key led to before, if its file is still what it was."""
        try:
            record = json.loads((self._root / "keys" / f"{key}.json").read_bytes())
        except FileNotFoundError:
            return None
        artifact = Artifact.model_validate(record["artifact"])
        path = self._root / artifact.sha256 / artifact.path
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != artifact.sha256:
            return None
        return artifact.model_copy(update={"path": str(path.resolve())})

    def _run(self, key: str, trained: TrainedNetwork, lightening: str, target: Path) -> Artifact:
        wanted = Lightening.parse(lightening)
        recipe = json.loads((Path(trained.folder) / "recipe.json").read_bytes())
        if recipe["lightening"] != wanted.model_dump(mode="json"):
            raise BuildError(f"{trained.folder}: was trained as {recipe['lightening']['name']}, not as {wanted.name}")
        rule = self._rule()
        job = {"source": str(Path(trained.folder).resolve()), "target": str(target.resolve()), "rule": rule}
        with self._child() as process:
            try:
                answer = process.finish(job, target / "result.json", self._deadline_s)
            except ChildError as failure:
                log = self._keep_failed_log(key, process)
                raise BuildError(
                    f"building {wanted.name} as .tflite: the process {failure}", next_step=f"its log is {log}"
                ) from failure
            if error := answer.get("error"):
                log = self._keep_failed_log(key, process)
                raise _ERRORS[error["kind"]](error["message"], next_step=error["next_step"] or f"its log is {log}")
            process.log.replace(target / "build.log")
        (target / "result.json").unlink()
        artifact = Artifact.model_validate_json((target / "artifact.json").read_bytes())
        return self._judged_by_task(artifact, trained, target) if rule == "custom" else artifact

    def _rule(self) -> parity.Rule:
        if self._agreement is not None:
            return "custom"
        return "top1" if self._task.kind == "classification" else "steps"

    def _judged_by_task(self, artifact: Artifact, trained: TrainedNetwork, target: Path) -> Artifact:
        assert self._agreement is not None
        assert artifact.parity is not None
        with np.load(target / "outputs.npz") as arrays:
            built = {spec.name: arrays[spec.name] for spec in artifact.outputs}
        with np.load(Path(trained.folder) / "probe.npz") as arrays:
            expected = {spec.name: arrays[f"parity/y/{spec.name}"] for spec in artifact.outputs}
        agrees = self._agreement(built, expected)
        judged = parity.from_agreement(agrees, artifact.parity, str(self._task.agreement).rpartition("/")[2])
        parity.gate(judged)
        artifact = artifact.model_copy(update={"parity": judged})
        (target / "artifact.json").write_text(json.dumps(artifact.model_dump(mode="json"), indent=1))
        (target / "outputs.npz").unlink()
        return artifact

    def _keep(self, key: str, target: Path, artifact: Artifact) -> Artifact:
        """Give the folder its final name (equal bytes are kept once), then write the key: the build is done."""
        final = self._root / artifact.sha256
        if not (final / artifact.path).is_file():
            shutil.rmtree(final, ignore_errors=True)
            target.rename(final)
        record = self._root / "keys" / f"{key}.json"
        partial = record.with_name(f"{record.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps({"schema": 1, "artifact": artifact.model_dump(mode="json")}))
        partial.replace(record)
        return artifact.model_copy(update={"path": str((final / artifact.path).resolve())})

    @contextlib.contextmanager
    def _child(self) -> Iterator[ChildProcess]:
        with self._lock:
            process, self._waiting = self._waiting, None
            if process is None or not process.alive:
                process = self._spawn()
            self._running.add(process)
        try:
            yield process
        finally:
            process.kill()
            process.log.unlink(missing_ok=True)
            with self._lock:
                self._running.discard(process)

    def _spawn(self) -> ChildProcess:
        handle, name = tempfile.mkstemp(prefix=f"{_BUILDING}{os.getpid()}-", suffix=".log", dir=self._root)
        os.close(handle)
        return ChildProcess(self._command, Path(name))

    def _keep_failed_log(self, key: str, process: ChildProcess) -> Path:
        log = self._root / "failed" / f"{key[:16]}.log"
        log.parent.mkdir(exist_ok=True)
        process.log.replace(log)
        return log

    def _clear_abandoned(self) -> None:
        """Remove what a killed controller left half-built."""
        for path in self._root.glob(f"{_BUILDING}*"):
            owner = path.name.removeprefix(_BUILDING).partition("-")[0]
            if owner.isdigit() and _alive(int(owner)):
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()


_ERRORS: dict[str, type[BuildError | ParityError]] = {"BuildError": BuildError, "ParityError": ParityError}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
