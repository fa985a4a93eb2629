"""The page of the architecture says what the code does."""

from __future__ import annotations

import re

import pytest
import rooms

TEXT = rooms.PAGE.read_text(encoding="utf-8")
MODULES = sorted(set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", TEXT)))


def test_the_drawing_of_the_rooms_is_that_of_the_imports() -> None:
    drawn = next(block for block in re.findall(r"```mermaid\n(.*?)\n```", TEXT, re.DOTALL) if "__main__" in block)
    assert drawn.splitlines() == rooms.diagram(), "python tests/architecture/rooms.py prints it anew"


def test_every_room_has_its_row() -> None:
    rows = set(re.findall(r"^\| `([a-z_]+)` \|", TEXT, re.MULTILINE))
    assert rows == {room for layer in rooms.layers() for room in layer} - {"__main__"}


@pytest.mark.parametrize("module", MODULES)
def test_each_named_module_is_there(module: str) -> None:
    assert (rooms.ROOT / "host/edgeloop" / module).exists()


def test_five_questions_have_one_file_each() -> None:
    walk = TEXT.split("## Where is it?")[1].split("\n## ")[0]
    answers = re.findall(r"^\| Where .*?\? \| `([\w/]+\.py)`", walk, re.MULTILINE)
    assert len(answers) == len(set(answers)) == 5
