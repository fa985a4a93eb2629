"""Folders that appear whole or not at all: filled under another name, and renamed.

What a killed process left half-filled is removed by the next one that fills a folder in the same place. Who may be sure
that it is abandoned depends on the place: each caller says its rule.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

IsAbandoned = Callable[[Path], bool]
"""Of a file or folder that was being filled: whether nobody fills it any more."""


@contextlib.contextmanager
def folder_to_fill(root: Path, prefix: str) -> Iterator[Path]:
    """Give a new folder below `root`, gone when the block ends unless it was renamed. Raises OSError."""
    folder = root / f"{prefix}{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish_folder(folder: Path, final: Path, is_complete: Callable[[Path], bool] = lambda _folder: False) -> None:
    """Give a folder its final name in one step, in place of one that is there and not complete.

    Where another process was faster, its folder is the same and stays. Raises OSError.
    """
    if final.exists() and not is_complete(final):
        shutil.rmtree(final)
    try:
        folder.replace(final)
    except OSError:
        if not is_complete(final):
            raise


def clear_abandoned(root: Path, prefix: str, is_abandoned: IsAbandoned) -> None:
    """Remove what was left half-filled below `root` under names that begin so."""
    for path in root.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            if is_abandoned(path):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def prefix_of_this_process(prefix: str) -> str:
    """A prefix that `has_dead_owner` reads."""
    return f"{prefix}{os.getpid()}-"


def has_dead_owner(prefix: str) -> IsAbandoned:
    """For a place that one machine uses: no process has the number that stands behind the prefix."""

    def is_abandoned(path: Path) -> bool:
        owner = path.name.removeprefix(prefix).partition("-")[0]
        return not (owner.isdigit() and _is_alive(int(owner)))

    return is_abandoned


def older_than(seconds: float) -> IsAbandoned:
    """For a place that several machines may share, which don't know each other's processes."""
    return lambda path: time.time() - path.stat().st_mtime > seconds


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
