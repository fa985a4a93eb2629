"""Every page of docs/decisions opens with its number and title, the day it was written, and its status."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "decisions"
PAGES = sorted(FOLDER.glob("*.md"))
HEADING = re.compile(
    r"# (?P<number>\d{4}): \S.*\n"
    r"\n"
    r"Date: (?P<date>\d{4}-\d{2}-\d{2})\n"
    r"Status: (?P<status>accepted|superseded by (?P<successor>\d{4}))\n"
    r"\n"
)


def numbers() -> list[str]:
    return [page.name[:4] for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name[:4])
def test_a_decision_opens_with_number_title_date_and_status(page: Path) -> None:
    heading = HEADING.match(page.read_text(encoding="utf-8"))
    assert heading is not None, "write: # NNNN: Title, an empty line, Date: YYYY-MM-DD, Status: accepted"
    assert heading["number"] == page.name[:4]
    date.fromisoformat(heading["date"])
    assert heading["successor"] is None or heading["successor"] in numbers()


def test_no_two_decisions_share_a_number() -> None:
    assert len(set(numbers())) == len(PAGES) > 20
