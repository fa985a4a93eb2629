"""A run that ended: its sentence, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from edgeloop.core.events import Entry, RunFinished
from edgeloop.records.ledger import LEDGER
from edgeloop.reports import document, text

REPORT = "report.html"


@dataclass(frozen=True, slots=True)
class RunResult:
    """The end of a run, with the places of its files."""

    finished: RunFinished
    entries: tuple[Entry, ...]
    folder: Path
    models: tuple[Path, ...]
    """The network that passed, where one did: a file for each processor, the first target's first."""
    front: tuple[Path, ...] = ()
    """In Pareto mode every model that passed, from the most accurate."""

    @property
    def model(self) -> Path | None:
        """The first target's file of the network that passed."""
        return next(iter(self.models), None)

    @property
    def exit_code(self) -> int:
        """0 passed, 1 measured and none passed, 3 could not tell."""
        return self.finished.exit_code

    def document(self) -> dict[str, Any]:
        """The JSON document of the run."""
        return document.run(self.entries) | {
            "exit_code": self.finished.exit_code,
            "artifact": str(self.model) if self.model else None,
            "artifacts": [str(model) for model in self.models],
            "front": [str(model) for model in self.front],
            "report": str(self.folder / REPORT),
            "folder": str(self.folder),
        }

    def report(self) -> RenderableType:
        """The run as a terminal shows it."""
        return text.run_report(self.entries)

    def whereabouts(self) -> list[str]:
        """A line for each file that the run leaves."""
        lines = [f"network: {model}" for model in self.models]
        lines += [f"front:   {model}" for model in self.front]
        return [*lines, f"report:  {self.folder / REPORT}", f"ledger:  {self.folder / LEDGER}"]
