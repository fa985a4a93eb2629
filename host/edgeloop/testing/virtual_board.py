"""A virtual ARM board for tests: made from nothing, with folders of its own, and gone when its test is.

A guard process holds the other end of a pipe. When the test process ends, by a crash or SIGKILL too, the pipe closes,
and the guard kills every machine of the folders, whoever started it, and deletes them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from edgeloop.board.virtual import needs
from edgeloop.board.virtual.boards import Places, VirtualBoards
from edgeloop.errors import UserError


def why_no_virtual_board() -> str | None:
    """A reason to skip, with the command that helps, or None."""
    missing = [need for need in needs.ALL if needs.find(need.program) is None]
    if not missing:
        return None
    return f"virtual boards need: apt-get install {' '.join(sorted({need.package for need in missing}))}"


class VirtualBoardHome:
    """`with VirtualBoardHome() as home`: folders for virtual boards, with everything in them ended at the end.

    `env` makes the command `edgeloop` use the same folders. Images come from the user's own cache, and are built where
    it has none.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="edgeloop-virtual-"))
        self.boards = VirtualBoards(_places(self.folder))
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        """This process's environment, with the user's folders but the cache moved here."""
        return {
            **os.environ,
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "XDG_DATA_HOME": str(self.folder / "data"),
            "XDG_STATE_HOME": str(self.folder / "state"),
        }

    def __enter__(self) -> Self:
        self._guard = subprocess.Popen(
            [sys.executable, "-m", __name__, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._guard is not None
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def create(
        self, name: str, *, arch: str = "arm64", cpu: str = "cortex-a72", memory_mib: int = 1024, start: bool = True
    ) -> Path:
        """Make a board, start it unless told otherwise, and return its board file."""
        file = self.boards.create(name, arch=arch, cpu=cpu, memory_mib=memory_mib, mirror=None, say=lambda _text: None)
        if start:
            self.boards.start(name)
        return file


def _places(folder: Path) -> Places:
    return Places(data=folder / "data/edgeloop/boards", board_files=folder / "config/edgeloop/targets")


def _end_all(folder: Path) -> None:
    boards = VirtualBoards(_places(folder))
    for item in boards.all_boards()[0]:
        with contextlib.suppress(UserError):  # removed since it was listed
            boards.kill(item.declaration.name)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    _end_all(Path(sys.argv[1]))
