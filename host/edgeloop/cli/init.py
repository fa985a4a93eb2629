"""`edgeloop init`: a commented campaign that runs as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write campaign.toml.")] = Path(),
) -> None:
    """Write a commented campaign that runs as it is: MNIST digits, against this machine."""
    from edgeloop.config.campaign_file import write_starter

    path = write_starter(folder)
    typer.echo(f"wrote {path}")
    typer.echo(f"next: edgeloop run {path}")
