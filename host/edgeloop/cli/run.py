"""`edgeloop run`: the loop, from a campaign to a network that proved itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeloop.cli import options

if TYPE_CHECKING:
    from edgeloop.app.preview import RunPreview
    from edgeloop.app.run_result import RunResult


def run(
    campaign: Annotated[Path, typer.Argument(metavar="CAMPAIGN.toml", help="`edgeloop init` writes one.")],
    target: Annotated[
        list[str] | None, typer.Option(help="A board's name, user@host, tag:NAME or local; replaces the campaign's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME where absent.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Lighten, train, build, push, measure and judge until a network passes on the board."""
    from rich.console import Console

    import edgeloop
    from edgeloop.app.preview import preview
    from edgeloop.app.run_checks import with_targets
    from edgeloop.cli.display import Display

    whole, folder = with_targets(edgeloop.load_campaign(campaign), tuple(target or ())), campaign.resolve().parent
    if dry_run:
        raise typer.Exit(_print_preview(preview(whole, folder), json=json))
    try:
        with Display(Console(stderr=True), whole.budget) as display:
            result = edgeloop.run(whole, beside=folder, out=out, resume=resume, observer=display)
    except KeyboardInterrupt:
        sys.stderr.write("edgeloop: interrupted; a run goes on with --resume\n")
        raise typer.Exit(3) from None
    _print_result(result, json=json)
    raise typer.Exit(result.exit_code)


def _print_preview(preview: RunPreview, *, json: bool) -> int:
    """Print a preview; return the exit code, 2 where it leaves a limit undecidable."""
    from dataclasses import replace

    from edgeloop.cli.output import print_json, print_lines
    from edgeloop.cli.words import in_words

    preview = replace(preview, faults=tuple(map(in_words, preview.faults)))
    if json:
        print_json(preview.document())
    else:
        print_lines(preview.lines())
    return 2 if preview.faults else 0


def _print_result(result: RunResult, *, json: bool) -> None:
    from edgeloop.cli.output import print_json, print_lines, print_report

    if json:
        print_json(result.document())
    else:
        print_report(result.report())
        print_lines(result.whereabouts())
