"""Bounds on a child process of this host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """The time and the private memory that one child process may take."""

    deadline_s: float = 900.0
    memory_max_bytes: int | None = None
    """RLIMIT_DATA, which Linux alone holds a process to; None: as much as there is."""


DEFAULT_LIMITS: Final = ProcessLimits()
