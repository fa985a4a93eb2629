"""`edgeloop report`: reports from a run folder, made again from its ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.cli import options


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder.")],
    html: Annotated[Path | None, typer.Option(help="Write the HTML report here.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here, one case for each limit.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a row for each trial here.")] = None,
    json: options.Json = False,
) -> None:
    """Print what a run found; write it as HTML, JUnit or CSV."""
    from edgeloop.app import report as reporting
    from edgeloop.cli.output import print_json, print_report

    entries = reporting.read(folder)
    for line in reporting.write(entries, html=html, junit=junit, csv=csv):
        typer.echo(line, err=True)
    if json:
        print_json(reporting.document(entries))
    else:
        print_report(reporting.terminal_report(entries))
