"""The board's files, programs and clocks, all under one root: `/`, or a folder that stands for a board in a test.

`EDGELOOP_AGENT_ROOT` names such a folder. Conditions are then read, and the governor is set, in its `sys` and `proc`;
`vcgencmd` is the one under it, and `clock_step_ns` in it, if there is one, is added to CLOCK_REALTIME. Every record
says so, and a verdict names it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import time
from pathlib import Path
from typing import Optional, Union

from edgeloop_agent.text import printable

ROOT_VARIABLE = "EDGELOOP_AGENT_ROOT"
_TEXT_BYTES_MAX = 1 << 20
_MORE_FOLDERS = ("/usr/bin", "/opt/vc/bin")  # a command over SSH may have a short PATH
_NAME_MAX = 100
_STEP_FILE = "clock_step_ns"


class Root:
    """Reads text and numbers of files that may be absent; never raises."""

    def __init__(self, path: Path = Path("/")) -> None:
        self.path = path
        self._prefix = str(path)  # joining strings costs a tenth of joining paths, and a scan joins hundreds

    @property
    def stands_in(self) -> bool:
        """True where this is not the board itself."""
        return self.path != Path("/")

    def content(self, path: Union[str, Path]) -> Optional[str]:
        """Return a file's text without white space around it; None where it is absent, unreadable or empty."""
        with contextlib.suppress(OSError), open(os.path.join(self._prefix, path), "rb") as handle:
            return handle.read(_TEXT_BYTES_MAX).decode("utf-8", "replace").strip("\0\n\t ") or None
        return None

    def name(self, path: Union[str, Path]) -> Optional[str]:
        """Return a file's text as something to call a thing by: printable, short."""
        text = self.content(path)
        return printable(text[:_NAME_MAX]) if text else None

    def number(self, path: Union[str, Path]) -> Optional[int]:
        """Return a file's whole number, None where it has none."""
        return whole(self.content(path))

    def folders(self, pattern: str) -> list[Path]:
        """Return what matches a pattern under the root, in the order of names."""
        return [Path(path) for path in sorted(glob.glob(os.path.join(glob.escape(self._prefix), pattern)))]

    def processes(self) -> list[int]:
        """Return the ids of all processes."""
        with contextlib.suppress(OSError):
            return [int(name) for name in os.listdir(os.path.join(self._prefix, "proc")) if name.isdigit()]
        return []

    def program(self, name: str) -> Optional[str]:
        """Return the path of a program under the root, None where there is none."""
        for folder in (*os.get_exec_path(), *_MORE_FOLDERS):
            place = self.path / folder.lstrip("/") / name
            if place.is_file() and os.access(place, os.X_OK):
                return str(place)
        return None

    def monotonic_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def realtime_ns(self) -> int:
        step = self.number(_STEP_FILE) if self.stands_in else None
        return time.clock_gettime_ns(time.CLOCK_REALTIME) + (step or 0)


def board_root() -> Root:
    """The root that this process was told to use; `/` where it was not."""
    return Root(Path(os.environ.get(ROOT_VARIABLE) or "/"))


def whole(text: Optional[str]) -> Optional[int]:
    """Return the whole number that a text is, None for anything else."""
    return int(text) if text is not None and re.match(r"\A-?\d{1,20}\Z", text) else None
