"""Room on the board: the least recently used files, runtimes and jobs go, those in use stay."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Any, Iterator, Optional

from edgeloop_agent import ARCHIVE, folder, job_needs, wire
from edgeloop_agent.cache import MARKER, remove
from edgeloop_agent.runtimes import USED


def clean(state: Path, max_mib: Optional[int], everything: bool) -> dict[str, Any]:
    """Remove the least recently used files, runtimes and finished jobs until under the quota, or all of them.

    With neither a quota nor `everything` nothing is removed and the answer says how much is used. The needs of a
    running or just created job are kept, and so is this agent's own file.
    """
    in_use = _in_use(state)
    entries = sorted((_last_use(path), _size(path), path) for path in _candidates(state))
    used_bytes = sum(size for _, size, _ in entries)
    limit = 0 if max_mib is None else max_mib << 20
    answer: dict[str, Any] = {"freed_bytes": 0, "removed": [], "kept": [], "not_removed": []}
    for _, size, path in entries:
        label = path.relative_to(state).as_posix()
        if path.name in in_use:
            answer["kept"].append(label)
        elif everything or (max_mib is not None and used_bytes > limit):
            if not remove(path):
                answer["not_removed"].append(label)
                continue
            for suffix in (MARKER, USED):
                remove(path.with_name(path.name + suffix))
            answer["removed"].append(label)
            answer["freed_bytes"] += size
            used_bytes -= size
    return {**answer, "used_bytes": used_bytes}


def _candidates(state: Path) -> Iterator[Path]:
    for name in (wire.CACHE_DIR, wire.RUNTIMES_DIR, wire.JOBS_DIR):
        for path in sorted((state / name).iterdir()):
            if not path.name.startswith(".") and path.suffix not in (MARKER, USED):
                yield path


def _last_use(path: Path) -> float:
    for other in (path.with_name(path.name + MARKER), path.with_name(path.name + USED), path / wire.DONE_FILE, path):
        with contextlib.suppress(OSError):
            return other.stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    total = 0
    stack = [path]
    while stack:
        here = stack.pop()
        with contextlib.suppress(OSError):
            total += os.lstat(here).st_blocks * 512
            if here.is_dir() and not here.is_symlink():
                stack.extend(here.iterdir())
    return total


_FRESH_JOB_S = 900  # a job's folder is made before it is started: longer than any push


def _in_use(state: Path) -> set[str]:
    """Names of files, runtimes and jobs that must stay."""
    names = set()
    if ARCHIVE is not None:
        names = {os.path.basename(ARCHIVE), os.path.basename(ARCHIVE).partition(".")[0]}
    for job in (state / wire.JOBS_DIR).iterdir():
        fresh = not (job / wire.DONE_FILE).exists() and time.time() - _last_use(job) < _FRESH_JOB_S
        if not fresh and not folder.alive(job / folder.SUPERVISOR_LOCK):
            continue
        names.add(job.name)
        try:
            content = wire.decode(wire.Job, folder.read_bounded(job / wire.JOB_FILE) or b"")
        except wire.WireError:
            continue
        names.update(job_needs.cached_files(content))
        names.update(job_needs.unpacked_folders(content))
        names.update((content.agent_sha256, content.agent_sha256 + ".pyz"))
    return names
