"""Stdout belongs to results: one JSON document, and nothing else."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from edgeloop.ports import Progress, Watch
    from edgeloop.reports.plan_cost import PlanCost


def print_json(document: object) -> None:
    """Print one document. Numbers are finite; keys keep their order."""
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def print_cost(cost: PlanCost, *, json: bool) -> int:
    """Print what a plan would cost; return the exit code, 2 where it leaves a limit undecidable."""
    from edgeloop.cli.words import in_words

    cost = replace(cost, faults=tuple(map(in_words, cost.faults)))
    if json:
        print_json(cost.document())
    else:
        sys.stdout.writelines(f"{line}\n" for line in cost.lines())
    return 2 if cost.faults else 0


class Result(Protocol):
    """One board of a measuring command."""

    @property
    def exit_code(self) -> int: ...
    @property
    def folders(self) -> tuple[Path, ...]:
        """Of raw samples."""
        ...

    def document(self) -> dict[str, Any]: ...

    def report(self) -> RenderableType: ...


def print_measurements(measure: Callable[[Watch], Sequence[Result]], *, json: bool) -> int:
    """Carry out a measurement with its progress on stderr, print what came of each board, return the exit code."""
    from rich.console import Console

    from edgeloop.cli.display import Waits

    stderr, waits = Console(stderr=True), Waits()
    with stderr.status("connecting") as status:

        def watch(progress: Progress) -> None:
            status.update(f"{progress.text} {progress.done:g}/{progress.total:g}")
            if waits.begins(progress) and not stderr.is_terminal:
                stderr.print(progress.text, soft_wrap=True, highlight=False)

        results = measure(watch)
    if json:
        documents = [result.document() for result in results]
        print_json(documents[0] if len(documents) == 1 else documents)
    else:
        for result in results:
            print_report(result.report())
            for folder in result.folders:
                stderr.print(f"raw samples: {folder}", soft_wrap=True, highlight=False)
    return max(result.exit_code for result in results)


def print_lines(lines: Sequence[str]) -> None:
    """Print lines as long as they are."""
    from rich.console import Console

    stdout = Console()
    for line in lines:
        stdout.print(line, soft_wrap=True, highlight=False)


def print_report(report: RenderableType) -> None:
    """Print tables on a terminal; without one, lines as long as they are, so that a log can be searched."""
    from rich.console import Console

    stdout = Console()
    stdout.print(report, soft_wrap=not stdout.is_terminal)
