"""`edgeloop compare`: two ready models, interleaved on one board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeloop.cli import options


def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="What B is compared with: a ready model, or a program's .toml.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="The same file again shows the noise.")],
    target: options.Target,
    data: options.Data = None,
    shape: options.Shape = None,
    engine: options.EngineName = None,
    engine_b: Annotated[str | None, typer.Option(help="Of B, where it is another one.")] = None,
    threads: options.Threads = 1,
    threads_b: Annotated[int | None, typer.Option(min=1, help="Of B, where it is another number.")] = None,
    delegate: options.DelegateName = "none",
    delegate_b: Annotated[str | None, typer.Option(help="Of B, where it is another one.")] = None,
    profile: options.Profile = "standard",
    timing: options.TimingName = "invoke",
    pipeline: options.Pipeline = None,
    sessions: options.Sessions = None,
    runs_min: options.RunsMin = None,
    time_s_min: options.TimeSMin = None,
    period_ms: options.PeriodMs = None,
    seed: options.Seed = None,
    worse_by_min_pct: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="A verdict on B's latency: exit 1 where B is shown to be worse than A by more than so many percent, "
            "0 where it is shown not to be, 3 where neither.",
        ),
    ] = None,
    statistic: Annotated[str, typer.Option(help="Of --worse-by-min-pct: p50, p90, p99 or mean.")] = "p50",
    environment: options.Environment = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Measure two ready models in turn on a board, and tell B beside A: latency, memory, accuracy, bytes."""
    from edgeloop.app.compare import CompareOptions, compare_models
    from edgeloop.app.compare import dry_run as cost_of
    from edgeloop.app.request import PlanWords
    from edgeloop.cli.output import print_cost, print_measurements

    comparison = CompareOptions(
        a=a,
        b=b,
        target=target,
        data=data,
        shapes=tuple(shape or ()),
        engine=engine,
        engine_b=engine_b,
        threads=threads,
        threads_b=threads_b,
        delegate=delegate,
        delegate_b=delegate_b,
        plan=PlanWords(profile, timing, sessions, runs_min, time_s_min, period_ms, seed, pipeline),
        environment=environment,
        worse_by_min_pct=worse_by_min_pct,
        statistic=statistic,
    )
    if dry_run:
        raise typer.Exit(print_cost(cost_of(comparison), json=json))
    raise typer.Exit(print_measurements(lambda watch: compare_models(comparison, watch), json=json))
