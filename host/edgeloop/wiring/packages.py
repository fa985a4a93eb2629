"""The packages that a campaign needs: checked before a run, and their versions kept with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeloop.core.campaign import Campaign
from edgeloop.core.model_format import ModelFormat
from edgeloop.engines.registry import DEFAULT, ENGINES
from edgeloop.errors import MissingExtraError
from edgeloop.sentences import command_line


def needed_packages(campaign: Campaign) -> Iterator[MissingExtraError]:
    """Yield for each package that a campaign needs beside the base install the error that its absence is."""
    run = command_line("run")
    yield MissingExtraError("torch", "train", run)
    for package in DEFAULT.packages:
        yield MissingExtraError(package, str(DEFAULT.extra), run)
    for row in (ENGINES[engine] for engine in campaign.engines):
        purpose = f"{row.purpose} ({row.manual})" if row.manual else row.purpose
        for package in row.packages:
            if package not in DEFAULT.packages:
                yield MissingExtraError(package, str(row.extra), purpose)
    file = campaign.reference.file
    model_format = ModelFormat.of(Path(file)) if file is not None else None
    if file is not None and model_format is not None:
        for reader in model_format.row.packages:
            yield MissingExtraError(reader.name, reader.extra, f"reading {Path(file).name}")
    if campaign.prunes:
        yield MissingExtraError("torch-pruning", "train", "a lightening that ends in -p")
    if campaign.search.strategy == "optuna":
        yield MissingExtraError("optuna", "search", "search.strategy = 'optuna'")
