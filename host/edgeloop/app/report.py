"""Reports from a run's ledger, made again at any time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from edgeloop.core.events import Entry
from edgeloop.errors import UserError
from edgeloop.records.ledger import LEDGER, read_ledger
from edgeloop.reports import csv as csv_report
from edgeloop.reports import document as documents
from edgeloop.reports import html as html_report
from edgeloop.reports import junit as junit_report
from edgeloop.reports import text
from edgeloop.sentences import command_line


def read(folder: Path) -> list[Entry]:
    """The entries of a run folder. Raises UserError where it is none, or holds nothing yet."""
    if not (folder / LEDGER).is_file():
        raise UserError(
            f"{folder}: no {LEDGER} in it",
            next_step=f"name the folder that `{command_line('run', out=True)}` was given",
        )
    entries = read_ledger(folder)
    if not entries:
        raise UserError(f"{folder}: its ledger is empty", next_step="start the run again")
    return entries


def write(entries: Sequence[Entry], *, html: Path | None, junit: Path | None, csv: Path | None) -> list[str]:
    """Write the files that are asked for; return a line for each. Raises UserError where one can't be written."""
    lines = []
    for path, report in ((html, html_report), (junit, junit_report), (csv, csv_report)):
        if path is not None:
            try:
                report.write(entries, path)
            except OSError as error:
                raise UserError(f"{path}: can't be written: {error.strerror}") from error
            lines.append(f"wrote {path}")
    return lines


def document(entries: Sequence[Entry]) -> dict[str, Any]:
    return documents.run(entries)


def terminal_report(entries: Sequence[Entry]) -> RenderableType:
    return text.run_report(entries)
