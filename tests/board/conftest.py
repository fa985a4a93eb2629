"""A virtual ARM board for a session of tests, from an image that is built for it: nothing of an earlier run is used."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeloop.testing.virtual_board import VirtualBoardHome, why_no_virtual_board

Edgeloop = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def home() -> Iterator[VirtualBoardHome]:
    """Folders for boards, keys, images and wheels of this session's own."""
    reason = why_no_virtual_board()
    if reason is not None:
        pytest.fail(reason)  # whoever runs these tests wants them run
    with tempfile.TemporaryDirectory(prefix="edgeloop-cache-") as cache, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", cache)
        with VirtualBoardHome() as made:
            yield made


@pytest.fixture(scope="session")
def virt(home: VirtualBoardHome) -> str:
    """A running 64-bit board."""
    home.create("virt")
    return "virt"


@pytest.fixture(scope="session")
def edgeloop(home: VirtualBoardHome) -> Edgeloop:
    """`edgeloop(*words, expect=0)`: the real command, in the session's folders, with its exit code required."""

    def run(
        *words: str | Path, expect: int | tuple[int, ...] = 0, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "edgeloop", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=cwd,
            timeout=1500,
            env={**home.env, "XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"], "COLUMNS": "120"},
            check=False,
        )
        assert done.returncode in (expect if isinstance(expect, tuple) else (expect,)), (
            f"exit {done.returncode}, not {expect}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        return done

    return run
