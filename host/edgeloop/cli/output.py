"""Stdout belongs to results: one JSON document, and nothing else."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from edgeloop.bootstrap.ready import PlanCost


def print_json(document: Any) -> None:
    """Print one document. Numbers are finite; keys keep their order."""
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def print_cost(cost: PlanCost, *, json: bool) -> int:
    """Print what a plan would cost; return the exit code, 2 where it leaves a limit undecidable."""
    if json:
        print_json(cost.document())
    else:
        sys.stdout.writelines(f"{line}\n" for line in cost.lines())
    return 2 if cost.faults else 0


def print_report(report: RenderableType) -> None:
    """Print tables on a terminal; without one, lines as long as they are, so that a log can be searched."""
    from rich.console import Console

    stdout = Console()
    stdout.print(report, soft_wrap=not stdout.is_terminal)
