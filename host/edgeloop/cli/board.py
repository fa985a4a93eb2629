"""`edgeloop board`: virtual ARM boards under QEMU, for trying and testing; always marked as emulated."""

from __future__ import annotations

from typing import Annotated

import typer

from edgeloop.cli import options
from edgeloop.cli.output import print_json

app = typer.Typer(help="Virtual ARM boards under QEMU.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="A virtual board's name.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call the board.")],
    cpu: Annotated[str, typer.Option(help="cortex-a53 (Pi 3), cortex-a72 (Pi 4) or cortex-a76 (Pi 5).")] = "cortex-a72",
    arch: Annotated[str, typer.Option(help="arm64, or armhf: a 32-bit system under a 64-bit kernel.")] = "arm64",
    memory: Annotated[int, typer.Option(metavar="MIB", help="Memory of the board.")] = 1024,
    mirror: Annotated[
        str | None, typer.Option(metavar="URL", help="Debian mirror; that of this host's apt where absent.")
    ] = None,
) -> None:
    """Make a board of Debian packages with keys of its own, and write its board file."""
    from edgeloop.app import virtual_boards

    file = virtual_boards.boards().create(
        name, arch=arch, cpu=cpu, memory_mib=memory, mirror=mirror, say=lambda text: typer.echo(text, err=True)
    )
    typer.echo(f"{name}: {arch}, {cpu}, {memory} MiB, emulated")
    typer.echo(f"written to {file}")
    typer.echo(f"next: edgeloop board start {name}")


@app.command()
def start(name: _Name) -> None:
    """Start a board and wait until it answers; it runs on until it is stopped."""
    from edgeloop.app import virtual_boards

    answer = virtual_boards.start(name)
    typer.echo(f"{name}: answers at 127.0.0.1:{answer.port} after {answer.seconds:.1f} s")
    typer.echo(f"next: edgeloop targets provision {name}")


@app.command()
def stop(name: _Name) -> None:
    """Have a board power itself off; end it where it does not."""
    from edgeloop.app import virtual_boards

    typer.echo(f"{name}: {virtual_boards.stop(name)}")


@app.command()
def remove(name: _Name) -> None:
    """Delete a stopped board with its disk, its keys and its board file."""
    from edgeloop.app import virtual_boards

    virtual_boards.boards().remove(name)
    typer.echo(f"{name}: removed")


@app.command("list")
def list_(as_json: options.Json = False) -> None:
    """List virtual boards: running, stopped, or stale (gone without having been stopped)."""
    from edgeloop.app import virtual_boards

    states, faults = virtual_boards.boards().all_boards()
    for line in faults:
        typer.echo(line, err=True)
    if as_json:
        boards = [
            {
                "name": item.declaration.name,
                "state": item.state,
                "pid": item.pid,
                "port": item.declaration.port,
                "arch": item.declaration.arch,
                "cpu": item.declaration.cpu,
                "memory_mib": item.declaration.memory_mib,
                "emulated": True,
                "path": str(item.file),
            }
            for item in states
        ]
        print_json({"schema": 1, "boards": boards, "faults": faults})
        return
    rows = [("NAME", "STATE", "ADDRESS", "ARCH", "CPU", "MEMORY")]
    for item in states:
        own = item.declaration
        address = f"127.0.0.1:{own.port}" if item.state == "running" else "-"
        rows.append((own.name, item.state, address, own.arch, own.cpu, f"{own.memory_mib} MiB"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
