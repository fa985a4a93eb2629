"""`edgeloop run`: the loop, from a campaign to a network that proved itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    campaign: Annotated[Path, typer.Argument(metavar="CAMPAIGN.toml", help="`edgeloop init` writes one.")],
    target: Annotated[
        list[str] | None, typer.Option(help="A board's name, user@host, tag:NAME or local; replaces the campaign's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME where absent.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print samples, minutes and undecidable limits; measure nothing.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Lighten, train, build, push, measure and judge until a network passes on the board."""
    from rich.console import Console

    import edgeloop
    from edgeloop.app import preview as running
    from edgeloop.cli.display import Display
    from edgeloop.cli.output import print_json, print_report
    from edgeloop.config.campaign_file import load_campaign

    loaded = running.with_targets(load_campaign(campaign), tuple(target or ()))
    stdout = Console()
    if dry_run:
        preview = running.preview(loaded, campaign.resolve().parent)
        if json:
            print_json(preview.document())
        else:
            for line in preview.lines():
                stdout.print(line, soft_wrap=True, highlight=False)
        raise typer.Exit(2 if preview.faults else 0)
    with Display(Console(stderr=True), loaded.budget) as display:
        result = edgeloop.run(loaded, beside=campaign.resolve().parent, out=out, resume=resume, observer=display)
    if json:
        print_json(result.document())
    else:
        print_report(result.rendered())
        for line in result.whereabouts():
            stdout.print(line, soft_wrap=True, highlight=False)
    raise typer.Exit(result.exit_code)
