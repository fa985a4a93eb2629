"""Options that several commands have, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.engines.registry import DEFAULT, ENGINES


def _engines() -> str:
    """`litert, tflite-runtime, tvm or exec (a program of your own); absent: tvm for .onnx and .so, else litert`."""
    *others, last = (name if row.builds else f"{name} ({row.title})" for name, row in ENGINES.items())
    claims = [f"{name} for {' and '.join(row.claims)}" for name, row in ENGINES.items() if row.claims]
    return f"{', '.join(others)} or {last}; absent: {', '.join(claims)}, else {DEFAULT.name}."


Target = Annotated[str, typer.Option(help="A board's name, user@host, tag:NAME or local.")]
Data = Annotated[Path | None, typer.Option(help=".npz with x (or x/<input>, or encoded) and, for accuracy, y.")]
Shape = Annotated[
    list[str] | None,
    typer.Option(help="NAME=1,28,28,1: an input's shape where the model leaves dimensions open; repeatable."),
]
EngineName = Annotated[str | None, typer.Option("--engine", help=_engines())]
Threads = Annotated[int, typer.Option(min=1, help="Threads of the engine.")]
DelegateName = Annotated[
    str, typer.Option("--delegate", help="By its name in the board's file; none: what the engine adds by itself.")
]
Profile = Annotated[str, typer.Option(help="quick, standard or qualification.")]
TimingName = Annotated[str, typer.Option("--timing", help="What is timed: invoke, copy_in_out or end_to_end.")]
Pipeline = Annotated[
    str | None, typer.Option(help="FILE.py:Class, your own code around the network; with --timing end_to_end.")
]
Sessions = Annotated[int | None, typer.Option(help="Fresh processes a model; the profile's where absent.")]
RunsMin = Annotated[int | None, typer.Option(help="Samples a session takes at the least.")]
TimeSMin = Annotated[float | None, typer.Option(help="Seconds a session times at the least.")]
PeriodMs = Annotated[float | None, typer.Option(help="Start one inference every so often; absent: back to back.")]
Seed = Annotated[int | None, typer.Option(help="Of the order of sessions and of random inputs.")]
Environment = Annotated[
    Path | None,
    typer.Option("--environment", help="TOML file with the keys of a campaign's [environment]: what is declared."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print samples, minutes and undecidable limits; measure nothing.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
