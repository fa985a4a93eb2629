"""What the kernel reads as its first file system."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from edgeloop.board.virtual.initramfs import ALIGNMENT, Member, archive

MEMBERS = [
    Member("d", 0o700),
    Member("d/a", 0o600, b"abc"),
    Member("d/empty", 0o644, b""),
    Member("init", 0o755, b"#!x\n"),
]


def test_archives_are_whole_words_so_that_another_may_follow() -> None:
    for name in ("a", "ab", "abc", "abcd"):
        assert len(archive([Member(name, 0o644, name.encode())])) % ALIGNMENT == 0


def test_it_ends_with_the_trailer_and_begins_with_the_magic_number() -> None:
    raw = archive(MEMBERS)
    assert raw.startswith(b"070701")
    assert raw.rstrip(b"\0").endswith(b"TRAILER!!!")


@pytest.mark.skipif(shutil.which("cpio") is None, reason="apt-get install cpio compares with the real one")
def test_cpio_unpacks_it_to_the_same_files(tmp_path: Path) -> None:
    subprocess.run(["cpio", "-i", "--quiet"], input=archive(MEMBERS), cwd=tmp_path, check=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "d", "empty", "init"]
    assert (tmp_path / "d/a").read_bytes() == b"abc"
    assert stat.S_IMODE((tmp_path / "d/a").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "init").stat().st_mode) == 0o755
