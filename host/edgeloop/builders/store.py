"""Where builders keep what they built, and the child processes that build it.

Layout below a store's root: `<sha256>/` with the model, `artifact.json` and `build.log`; `keys/<artifact key>.json`
says which of them a key led to; `failed/` keeps the logs of builds that did not end well. Everything appears by rename,
so a half-built folder is never seen under its final name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.core.artifact import Artifact
from edgeloop.errors import BuildError, kept_on_disk
from edgeloop.processes.json_child import ChildError, ChildProcess, raise_told

_BUILDING = ".building-"


class ArtifactStore:
    """One folder of artifacts by hash. Several builders may share it; each build is a process of its own.

    Safe to call from several threads.
    """

    def __init__(
        self, root: Path, command: Sequence[str], deadline_s: float, memory_max_bytes: int | None = None
    ) -> None:
        self._root = root
        self._memory_max_bytes = memory_max_bytes
        self._command = tuple(command)
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._waiting: ChildProcess | None = None
        self._running: set[ChildProcess] = set()
        self._closed = False
        (root / "keys").mkdir(parents=True, exist_ok=True)
        self._clear_abandoned()

    def found(self, key: str) -> Artifact | None:
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

    @contextlib.contextmanager
    def building(self) -> Iterator[Path]:
        """A folder to build in, gone afterwards unless it was kept. Raises StationError for this machine's disk."""
        with kept_on_disk(self._root):
            target = Path(tempfile.mkdtemp(prefix=f"{_BUILDING}{os.getpid()}-", dir=self._root))
            try:
                yield target
            finally:
                shutil.rmtree(target, ignore_errors=True)

    def run_child(self, key: str, what: str, job: Mapping[str, Any], target: Path) -> Artifact:
        """Give a child the job and return the artifact that it left in `target`. Raises as `run`."""
        self.run(key, what, job, target)
        return Artifact.model_validate_json((target / "artifact.json").read_bytes())

    def run(self, key: str, what: str, job: Mapping[str, Any], target: Path) -> dict[str, Any]:
        """Give a child the job and return its answer; what it makes is in `target`.

        Raises BuildError and ParityError as the child told them, BuildError for a child that died or took too long, and
        where the store was closed.
        """
        with self._child(what) as process:
            try:
                answer = process.finish(job, target / "result.json", self._deadline_s)
            except ChildError as failure:
                log = self._keep_failed_log(key, process)
                raise BuildError(
                    f"building {what}: the process {failure}",
                    next_step=f"its log is {log}" + (f", and {failure.more} gives it more" if failure.more else ""),
                ) from failure
            if "error" in answer:
                raise_told(answer, next_step=f"its log is {self._keep_failed_log(key, process)}")
            process.log.replace(target / "build.log")
        (target / "result.json").unlink()
        return answer

    def keep(self, key: str, target: Path, artifact: Artifact) -> Artifact:
        """Give the folder its final name, then write the key: the build is done.

        Equal bytes are kept once; what lies beside them may be another machine's, so what that lacks is added.
        """
        final = self._root / artifact.sha256
        if (final / artifact.path).is_file():
            for file in target.iterdir():
                if file.is_file() and not (final / file.name).exists():
                    file.replace(final / file.name)
        else:
            shutil.rmtree(final, ignore_errors=True)
            target.rename(final)
        record = self._root / "keys" / f"{key}.json"
        partial = record.with_name(f"{record.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps({"schema": 1, "artifact": artifact.model_dump(mode="json")}))
        partial.replace(record)
        return artifact.model_copy(update={"path": str((final / artifact.path).resolve())})

    def warm_up(self) -> None:
        """Start a child that imports its toolchain and waits: the next build costs its own time only."""
        with self._lock:
            if not self._closed and (self._waiting is None or not self._waiting.alive):
                self._waiting = self._spawn()

    def close(self) -> None:
        """End every child, builds that are running included; no other is started."""
        with self._lock:
            self._closed = True
            running, waiting, self._waiting = [*self._running], self._waiting, None
        for process in running:  # whoever waits for one tells how it ended, and removes its log
            process.kill()
        if waiting is not None:
            waiting.kill()
            waiting.log.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _child(self, what: str) -> Iterator[ChildProcess]:
        with self._lock:
            if self._closed:  # a build of several children goes on in its thread when a run is interrupted
                raise BuildError(f"building {what}: the run was closed")
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
        return ChildProcess(self._command, Path(name), self._memory_max_bytes)

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


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
