"""`edgeloop measure`: latency, memory and, with data, accuracy of a ready model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def measure(
    model: Annotated[Path, typer.Argument(metavar="MODEL.tflite", help="A ready model.")],
    target: Annotated[str, typer.Option(help="A board's name, user@host, tag:NAME or local.")],
    data: Annotated[Path | None, typer.Option(help=".npz with x (or x/<input>) and, for accuracy, y.")] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="As latency.p90_ms=12, top1=0.9, size_bytes=900000; repeatable.")
    ] = None,
    engine: Annotated[str, typer.Option(help="litert or tflite-runtime.")] = "litert",
    threads: Annotated[int, typer.Option(min=1, help="Threads of the engine.")] = 1,
    profile: Annotated[str, typer.Option(help="quick, standard or qualification.")] = "standard",
    timing: Annotated[str, typer.Option(help="What is timed: invoke or copy_in_out.")] = "invoke",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Measure a ready model on a board, and judge it where limits are given."""
    from rich.console import Console

    from edgeloop.bootstrap import measuring
    from edgeloop.cli.output import print_json, print_report

    asked = measuring.Asked(
        model=model,
        target=target,
        data=data,
        limits=tuple(limit or ()),
        engine=engine,
        threads=threads,
        profile=profile,
        timing=timing,
    )
    stderr = Console(stderr=True)
    with stderr.status("connecting") as status:
        results = measuring.measure(asked, lambda text, done, total: status.update(f"{text} {done}/{total}"))
    if json:
        documents = [result.document() for result in results]
        print_json(documents[0] if len(documents) == 1 else documents)
    else:
        for result in results:
            print_report(result.rendered())
            stderr.print(f"raw samples: {result.samples}", soft_wrap=True, highlight=False)
    raise typer.Exit(max(result.exit_code for result in results))
