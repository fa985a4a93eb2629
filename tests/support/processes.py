"""Which processes are left."""

from __future__ import annotations

import os
import time
from pathlib import Path


def alive(folder: Path, within_s: float = 20) -> list[str]:
    """Command lines of processes that still mention a folder, after a while for those that are on their way out."""
    ends = time.monotonic() + within_s
    while True:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(folder) in words and path.parent.name != str(os.getpid()):
                found.append(words)
        if not found or time.monotonic() > ends:
            return found
        time.sleep(0.1)
