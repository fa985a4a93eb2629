"""Holding a process of this host to an amount of private memory (RLIMIT_DATA); Linux alone can."""

from __future__ import annotations

import contextlib
import resource
import sys


def apply_limit(pid: int, memory_max_bytes: int | None) -> None:
    """Bound a process that was just started, and each that it starts; nothing without a bound."""
    if memory_max_bytes is not None and sys.platform == "linux":
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_DATA, (memory_max_bytes, memory_max_bytes))


def describe_limit(memory_max_bytes: int | None) -> str:
    """For a message on how it ended: `, held to 512 MiB`."""
    return "" if memory_max_bytes is None else f", held to {memory_max_bytes / 2**20:g} MiB"
