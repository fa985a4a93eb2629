"""Files that version 0.1.0 wrote (tests/data/version-0.1.0), laid out as that version left them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "data" / "version-0.1.0"
PLACE = "/RUNS"
"""Stands in the files for the folder that the runs lay in."""


def lay_out(name: str, folder: Path) -> Path:
    """Copy a sample into a folder, where its files find each other; return the copy."""
    place = folder / name
    shutil.copytree(FOLDER / name, place)
    for file in place.rglob("*"):
        if file.suffix in {".json", ".jsonl", ".toml"}:
            file.write_text(file.read_text().replace(PLACE, str(folder)))
    return place


def ledger_events(ledger: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["event"] for line in ledger.read_text().splitlines()]


def cut_before_last(kind: str, ledger: Path) -> dict[str, Any]:
    """Take the last event of a kind, and all after it, off a ledger; return that event."""
    lines = ledger.read_text().splitlines(keepends=True)
    events = ledger_events(ledger)
    place = max(number for number, event in enumerate(events) if event["kind"] == kind)
    ledger.write_text("".join(lines[:place]))
    return events[place]
