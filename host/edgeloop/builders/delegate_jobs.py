"""What the process around a delegate's compiler is asked, and what it answers: shared by both halves."""

from __future__ import annotations

from pathlib import Path

from edgeloop.core.frozen import Frozen


class CompilerJob(Frozen):
    words: tuple[str, ...]
    """The command with the files' paths in it."""
    folder: Path


class CompilerAnswer(Frozen):
    problem: str | None
    """How it failed; None where it did not."""
