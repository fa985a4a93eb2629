"""The folder where builders keep what they built, and the child processes that build it.

Layout below a store's root: `<sha256>/` with the model, `artifact.json` and `build.log`; `keys/<artifact key>.json`
says which of them a key led to; `failed/` keeps the logs of builds that did not end well. Everything appears by rename,
so a half-built folder is never seen under its final name.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field

from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import Frozen
from edgeloop.errors import BuildError, kept_on_disk
from edgeloop.host_runtime.model_files import write_description
from edgeloop.processes.files import copy_whole, move_file, sha256_of, write_whole
from edgeloop.processes.folders import (
    clear_abandoned,
    folder_to_fill,
    has_dead_owner,
    prefix_of_this_process,
    publish_folder,
)
from edgeloop.processes.json_child import ChildError, ChildProcess, JobError
from edgeloop.processes.limits import ProcessLimits

_BUILDING = ".building-"

_Answer = TypeVar("_Answer", bound=BaseModel)


class _KeyRecord(Frozen):
    """The artifact that a key led to."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    artifact: Artifact


class ArtifactStore:
    """One folder of artifacts by hash. Several builders may share it; each build is a process of its own.

    Safe to call from several threads.
    """

    def __init__(self, root: Path, command: Sequence[str], limits: ProcessLimits) -> None:
        """`command` is the child that builds, each of them within the `limits`."""
        self._root = root
        self._command = tuple(command)
        self._limits = limits
        self._lock = threading.Lock()
        self._idle: ChildProcess | None = None
        self._busy: set[ChildProcess] = set()
        self._is_closed = False
        (root / "keys").mkdir(parents=True, exist_ok=True)
        clear_abandoned(root, _BUILDING, has_dead_owner(_BUILDING))

    def find(self, key: str) -> Artifact | None:
        """Return the artifact that a key led to before, if its file is still what it was."""
        try:
            record = _KeyRecord.model_validate_json(self._record(key).read_bytes())
        except FileNotFoundError:
            return None
        artifact = record.artifact
        path = self._root / artifact.sha256 / artifact.path
        if not path.is_file() or sha256_of(path) != artifact.sha256:
            return None
        return artifact.model_copy(update={"path": str(path.resolve())})

    @contextlib.contextmanager
    def new_folder(self) -> Iterator[Path]:
        """Give a folder to build in, gone afterwards unless it was kept. Raises StationError where the disk refuses."""
        with (
            kept_on_disk(self._root),
            folder_to_fill(self._root, prefix_of_this_process(_BUILDING)) as folder,
        ):
            yield folder

    def run(self, key: str, what: str, job: BaseModel, answer: type[_Answer], folder: Path) -> _Answer:
        """Give a child the job and return its answer; files that it makes are in `folder`.

        Raises BuildError and ParityError as the child reports them, BuildError for a child that died or took too long,
        and where the store was closed.
        """
        with self._child(what) as process:
            try:
                result = process.finish(job, answer, folder / "result.json")
            except ChildError as failure:
                log = self._keep_log(key, process.log)
                raise BuildError(
                    f"building {what}: the process {failure}",
                    next_step=f"its log is {log}" + (f", and {failure.more} gives it more" if failure.more else ""),
                ) from failure
            except JobError as failure:
                log = self._keep_log(key, process.log)
                raise failure.fault.error(next_step=f"its log is {log}") from failure
            move_file(process.log, folder / "build.log")
        return result

    def keep(self, key: str, folder: Path, artifact: Artifact) -> Artifact:
        """Describe what is in the folder, give it its final name, then write the key: the build is over.

        Equal bytes are kept once; what lies beside them may be another machine's, so what that lacks is added.
        """
        write_description(folder, artifact)
        final = self._root / artifact.sha256

        def is_whole(other: Path) -> bool:
            model = other / artifact.path
            return model.is_file() and sha256_of(model) == artifact.sha256

        if not is_whole(final):
            publish_folder(folder, final, is_whole)
        for file in folder.iterdir() if folder.exists() else ():
            if file.is_file() and not (final / file.name).exists():
                move_file(file, final / file.name)
        write_whole(self._record(key), json.dumps(_KeyRecord(artifact=artifact).model_dump(mode="json")))
        return artifact.model_copy(update={"path": str((final / artifact.path).resolve())})

    def keep_failure(self, key: str, log: Path) -> Path:
        """Copy the log of a build that did not end well to where it stays; return that."""
        copy = self._failure_log(key)
        copy_whole(log, copy)
        return copy

    def warm_up(self) -> None:
        """Start a child that imports its toolchain and waits: the next build costs its own time only."""
        with self._lock:
            if not self._is_closed and (self._idle is None or not self._idle.alive):
                self._idle = self._spawn()

    def close(self) -> None:
        """End every child, builds that are running included; no other is started."""
        with self._lock:
            self._is_closed = True
            busy, idle, self._idle = [*self._busy], self._idle, None
        for process in busy:  # whoever waits for one says how it ended, and removes its log
            process.kill()
        if idle is not None:
            idle.kill()
            idle.log.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _child(self, what: str) -> Iterator[ChildProcess]:
        with self._lock:
            if self._is_closed:  # a build of several children goes on in its thread when a run is interrupted
                raise BuildError(f"building {what}: the run was closed")
            process, self._idle = self._idle, None
            if process is None or not process.alive:
                process = self._spawn()
            self._busy.add(process)
        try:
            yield process
        finally:
            process.kill()
            process.log.unlink(missing_ok=True)
            with self._lock:
                self._busy.discard(process)

    def _spawn(self) -> ChildProcess:
        handle, name = tempfile.mkstemp(prefix=prefix_of_this_process(_BUILDING), suffix=".log", dir=self._root)
        os.close(handle)
        return ChildProcess(self._command, Path(name), self._limits)

    def _record(self, key: str) -> Path:
        return self._root / "keys" / f"{key}.json"

    def _keep_log(self, key: str, log: Path) -> Path:
        final = self._failure_log(key)
        move_file(log, final)
        return final

    def _failure_log(self, key: str) -> Path:
        log = self._root / "failed" / f"{key[:16]}.log"
        log.parent.mkdir(exist_ok=True)
        return log
