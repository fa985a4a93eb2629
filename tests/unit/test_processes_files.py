"""Files and folders appear whole or not at all, and what was abandoned is removed by the rule of its place."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from edgeloop.processes.files import copy_whole, sha256_of, whole_file, write_whole
from edgeloop.processes.folders import (
    clear_abandoned,
    folder_to_fill,
    has_dead_owner,
    older_than,
    prefix_of_this_process,
    publish_folder,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_whole_and_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_whole(path, "ünicode")
    assert path.read_bytes() == "ünicode".encode()
    assert sha256_of(path) == hashlib.sha256("ünicode".encode()).hexdigest()
    copy_whole(path, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    assert names(tmp_path) == ["copy", "report.html"]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    write_whole(path, b"old")

    def fail() -> None:
        with whole_file(path) as partial:
            partial.write_bytes(b"new")
            assert path.read_bytes() == b"old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["data.npz"]


def test_two_who_write_one_file_at_once_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with whole_file(path) as one, whole_file(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one", "the outer block ends last"


def test_a_folder_is_seen_under_its_name_when_it_is_full_and_vanishes_where_it_fails(tmp_path: Path) -> None:
    final = tmp_path / "built"
    with folder_to_fill(tmp_path, ".making-") as folder:
        (folder / "model").write_text("1")
        assert not final.exists()
        publish_folder(folder, final)
    assert names(tmp_path) == ["built"]
    with pytest.raises(RuntimeError), folder_to_fill(tmp_path, ".making-"):
        raise RuntimeError
    assert names(tmp_path) == ["built"]


@pytest.mark.parametrize("complete", [True, False])
def test_a_complete_folder_of_another_process_stays_and_one_that_is_not_is_replaced(
    tmp_path: Path, complete: bool
) -> None:
    final = tmp_path / "built"
    final.mkdir()
    (final / "model").write_text("theirs")
    with folder_to_fill(tmp_path, ".making-") as folder:
        (folder / "model").write_text("ours")
        publish_folder(folder, final, lambda _folder: complete)
    assert (final / "model").read_text() == ("theirs" if complete else "ours")
    assert names(tmp_path) == ["built"]


def test_what_a_dead_process_left_is_abandoned_and_what_a_living_one_fills_is_not(tmp_path: Path) -> None:
    own, dead = prefix_of_this_process(".b-"), f".b-{2**22 + 1}-"
    for name in (f"{own}x", f"{dead}x", f".b-{os.getppid()}-x", ".b-strange", "kept"):
        (tmp_path / name).mkdir()
    (tmp_path / f"{dead}log").touch()
    clear_abandoned(tmp_path, ".b-", has_dead_owner(".b-"))
    assert names(tmp_path) == sorted([f"{own}x", f".b-{os.getppid()}-x", "kept"])


def test_where_processes_are_unknown_age_tells(tmp_path: Path) -> None:
    for name in (".m-old", ".m-young"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / ".m-old", (0, 0))
    clear_abandoned(tmp_path, ".m-", older_than(3600))
    assert names(tmp_path) == [".m-young"]
