"""The command line: words in, exit code out. Command modules import what they need when they run, so that
`edgeloop --help` stays quick."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeloop import __version__
from edgeloop.cli import board, compare, doctor, init, measure, report, run, targets

app = typer.Typer(
    name="edgeloop",
    help="Finds a neural network that proves itself on the board.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"edgeloop {__version__}")
        raise typer.Exit


@app.callback()
def _edgeloop(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Exit codes: 0 passed; 1 measured and none passed; 2 bad input; 3 could not tell."""


app.command()(init.init)
app.command()(run.run)
app.command()(measure.measure)
app.command()(compare.compare)
app.command()(report.report)
app.command()(doctor.doctor)
app.add_typer(targets.app, name="targets")
app.add_typer(board.app, name="board")
