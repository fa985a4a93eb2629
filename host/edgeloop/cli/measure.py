"""`edgeloop measure`: latency, memory and, with data, accuracy of a ready model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.cli import options


def measure(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="A ready .tflite, .onnx, .keras, .h5, SavedModel or .pt2; a model.so that edgeloop compiled; "
            "with --engine exec the .toml of a program.",
        ),
    ],
    target: options.Target,
    data: options.Data = None,
    shape: options.Shape = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="As latency.p90_ms=12, top1=0.9, size_bytes=900000; repeatable.")
    ] = None,
    engine: options.EngineName = None,
    threads: options.Threads = 1,
    delegate: options.DelegateName = "none",
    profile: options.Profile = "standard",
    timing: options.TimingName = "invoke",
    pipeline: options.Pipeline = None,
    sessions: options.Sessions = None,
    runs_min: options.RunsMin = None,
    time_s_min: options.TimeSMin = None,
    period_ms: options.PeriodMs = None,
    seed: options.Seed = None,
    energy: Annotated[
        bool, typer.Option("--energy", help="Energy too, by the board's power meter; a limit on it implies this.")
    ] = False,
    per_op: Annotated[
        bool, typer.Option("--per-op", help="A pass of its own: the time of each operator, and where memory goes.")
    ] = False,
    extend: Annotated[
        bool,
        typer.Option("--extend", help="Twice the sessions where a limit is left open; both looks share the error."),
    ] = False,
    environment: options.Environment = None,
    allow_emulated: Annotated[
        bool, typer.Option("--allow-emulated", help="Judge absolute limits on time on an emulated board too.")
    ] = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Measure a ready model on a board, and judge it where limits are given."""
    from edgeloop.app.measure import MeasureOptions, measure_as
    from edgeloop.app.measure import dry_run as cost_of
    from edgeloop.app.request import PlanWords
    from edgeloop.cli.output import print_cost, print_measurements

    measurement = MeasureOptions(
        model=model,
        target=target,
        data=data,
        shapes=tuple(shape or ()),
        limits=tuple(limit or ()),
        engine=engine,
        threads=threads,
        delegate=delegate,
        plan=PlanWords(profile, timing, sessions, runs_min, time_s_min, period_ms, seed, pipeline),
        environment=environment,
        energy=energy,
        per_op=per_op,
        extend=extend,
        allow_emulated=allow_emulated,
    )
    if dry_run:
        raise typer.Exit(print_cost(cost_of(measurement), json=json))
    raise typer.Exit(print_measurements(lambda watch: measure_as(measurement, watch), json=json))
