"""The job of the process around a delegate's compiler and its answer, shared by both halves."""

from __future__ import annotations

from pathlib import Path

from edgeloop.core.frozen import Frozen


class CompilerJob(Frozen):
    words: tuple[str, ...]
    """The command with the files' paths in it."""
    folder: Path


class CompilerAnswer(Frozen):
    problem: str | None
    """The failure in words; None where there was none."""
