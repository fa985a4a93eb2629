"""`edgeloop doctor`: this host."""

from __future__ import annotations

from pathlib import Path

import typer

from edgeloop.cli import options
from edgeloop.cli.output import print_json


def doctor(as_json: options.Json = False) -> None:
    """Look at this host: Python, toolchains and versions, known-bad pairs, programs, disk."""
    from edgeloop.app.host_doctor import host_checks
    from edgeloop.cli.checks import checks_text

    checks = host_checks(Path.cwd())
    if as_json:
        print_json({"schema": 1, "checks": [check.model_dump(mode="json") for check in checks]})
    else:
        typer.echo(checks_text(checks))
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(2)
