"""The agent that runs on the board: standard library, numpy, and one inference runtime. Python 3.9 and later."""

from __future__ import annotations

import os
from typing import Optional

ARCHIVE: Optional[str] = getattr(globals().get("__loader__"), "archive", None)
"""The zip that this agent runs from, None where it runs from its sources."""


def unpacked_beside(archive: str) -> Optional[str]:
    """Where an agent at cache/<sha256>.pyz keeps its own unpacked modules; None for a zip that lies elsewhere."""
    folder, name = os.path.split(os.path.abspath(archive))
    stem, suffix = os.path.splitext(name)
    if suffix != ".pyz" or len(stem) != 64 or os.path.basename(folder) != "cache":
        return None
    return os.path.join(os.path.dirname(folder), "runtimes", stem)


def _prefer_unpacked() -> None:
    """Import modules from files where they are unpacked: a zip is compiled anew in every process, files are not."""
    folder = unpacked_beside(ARCHIVE) if ARCHIVE else None
    if folder is not None and os.path.isdir(folder):
        __path__.insert(0, os.path.join(folder, "edgeloop_agent"))


_prefer_unpacked()
