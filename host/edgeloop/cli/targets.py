"""`edgeloop targets`: boards as declared and as found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeloop.cli import options
from edgeloop.cli.output import print_json
from edgeloop.engines.registry import wheel_engines
from edgeloop.errors import UserError

if TYPE_CHECKING:
    from edgeloop.app.targets import BoardKey
    from edgeloop.core.board import Board

app = typer.Typer(help="Boards as declared and as found.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="A board's name, user@host, or local.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Accept the host key that is shown, without asking.")]
_Fingerprint = Annotated[
    str | None, typer.Option(metavar="SHA256:...", help="Accept the host key only if it has this fingerprint.")
]


@app.command()
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the board.")],
    ssh: Annotated[str, typer.Option("--ssh", metavar="user@host[:port]", help="How to reach it.")],
    identity_file: Annotated[str | None, typer.Option(metavar="FILE", help="Private key to log in with.")] = None,
    jump: Annotated[str | None, typer.Option(metavar="user@host[:port]", help="Jump host.")] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Board model; detected if absent.")] = None,
    python: Annotated[str | None, typer.Option(metavar="PATH", help="Interpreter there; /usr/bin/python3.")] = None,
    state_dir: Annotated[str | None, typer.Option(metavar="DIR", help="Folder for our files there.")] = None,
    fingerprint: _Fingerprint = None,
    yes: _Yes = False,
) -> None:
    """Write down a board: show its host key, ask it what it is, write its file."""
    from edgeloop.app import targets

    key = targets.meet(
        name, ssh, identity_file=identity_file, jump=jump, model=model, python=python, state_dir=state_dir
    )
    _accept(key, fingerprint, yes=yes)
    board = targets.add(key, model=model)
    calls_itself = f" (it calls itself {board.described_as!r})" if board.described_as else ""
    typer.echo(f"{name}: {board.model}{calls_itself}")
    typer.echo(f"written to {board.path}")
    typer.echo(f"next: edgeloop targets doctor {name}")


@app.command("list")
def list_(as_json: options.Json = False) -> None:
    """List the boards that have a file, and what is wrong with files."""
    from edgeloop.app import targets

    listings = targets.list_boards(Path.cwd())
    if as_json:
        boards = [
            {
                "name": item.name,
                "path": None if item.path is None else str(item.path),
                "model": item.board and item.board.model.name,
                "address": item.board and _address(item.board),
                "tags": list(item.board.tags) if item.board else [],
                "faults": list(item.faults),
            }
            for item in listings
        ]
        print_json({"schema": 1, "folder": str(targets.boards_folder()), "boards": boards})
        return
    rows = [("NAME", "MODEL", "ADDRESS", "TAGS", "FILE")]
    for item in listings:
        if item.board is not None:
            tags = ", ".join(item.board.tags) or "-"
            rows.append((item.name, item.board.model.name, _address(item.board), tags, str(item.path or "shipped")))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        typer.echo("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[4]]))
    for item in listings:
        for line in item.faults:
            typer.echo(line, err=True)
    typer.echo(f"boards are kept in {targets.boards_folder()}", err=True)


@app.command()
def show(name: _Name, as_json: options.Json = False) -> None:
    """Show a board with the keys of its model joined."""
    import tomlkit

    from edgeloop.app import targets

    plain = targets.one_board(name, Path.cwd()).model_dump(mode="json", exclude_none=True)
    if as_json:
        print_json(plain)
    else:
        typer.echo(tomlkit.dumps(plain), nl=False)


@app.command()
def trust(name: _Name, fingerprint: _Fingerprint = None, yes: _Yes = False) -> None:
    """Pin the host key that a board shows now."""
    from edgeloop.app import targets

    key = targets.look(targets.one_board(name, Path.cwd()))
    if key.pin is not None:
        typer.echo(f"pinned now: {key.pin}", err=True)
    _accept(key, fingerprint, yes=yes)
    typer.echo(f"{name}: {key.fingerprint} is trusted, written to {targets.pin(key)}")


@app.command()
def doctor(name: _Name, as_json: options.Json = False) -> None:
    """Compare a board as declared with what is found there; each difference with its next step."""
    from edgeloop.app import targets
    from edgeloop.cli.checks import checks_text

    checks = targets.diagnose(name, Path.cwd())
    if as_json:
        print_json({"schema": 1, "target": name, "checks": [check.model_dump(mode="json") for check in checks]})
    else:
        typer.echo(checks_text(checks))
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(3)


@app.command()
def provision(
    name: _Name,
    engine: Annotated[
        list[str] | None,
        typer.Option(metavar="E", help=f"One of {', '.join(wheel_engines())}; repeatable. Default: all it can run."),
    ] = None,
) -> None:
    """Push agent and runtime to a board ahead of the first measurement."""
    from edgeloop.app import targets

    provision = targets.provision(name, tuple(engine or ()), Path.cwd(), lambda text: typer.echo(text, err=True))
    typer.echo(f"{name}: ready for {', '.join(provision.engines)}; {provision.bytes_pushed} bytes sent")


@app.command()
def clean(
    name: _Name,
    everything: Annotated[bool, typer.Option("--all", help="Down to nothing, not just to the quota.")] = False,
) -> None:
    """Remove pushed files, runtimes and finished jobs from a board, the longest unused first."""
    from edgeloop.app import targets

    cleanup = targets.clean(name, Path.cwd(), everything=everything)
    typer.echo(f"{name}: {cleanup.files} removed, {cleanup.freed_mib:.0f} MiB freed, {cleanup.used_mib:.0f} MiB in use")
    if cleanup.files_of_others:
        typer.echo(f"{cleanup.files_of_others} belong to other users there and were left", err=True)


def _accept(key: BoardKey, fingerprint: str | None, *, yes: bool) -> None:
    """Let the user judge a host key. Raises UserError where nobody can be asked, or says no."""
    from edgeloop.app import targets

    address = _address(key.board)
    typer.echo(f"{address} shows the {key.key_type} host key {key.fingerprint}", err=True)
    if fingerprint is not None:
        targets.check_fingerprint(key, fingerprint)
    elif not yes:
        if not sys.stdin.isatty():
            raise UserError(
                "nobody is here to judge this host key", next_step=f"repeat with --fingerprint {key.fingerprint}"
            )
        if not typer.confirm("Is that the board's own? (ssh-keygen -lf on the board shows it)", err=True):
            raise UserError("the host key was not accepted; nothing was written")


def _address(board: Board) -> str:
    if board.ssh is None:
        return "-"
    user = f"{board.ssh.user}@" if board.ssh.user else ""
    return f"{user}{board.ssh.host}" + (f":{board.ssh.port}" if board.ssh.port else "")
