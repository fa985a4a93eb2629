"""What a campaign's search would ask: its networks in four sizes under every rung, and what is real of the rungs.

Describing a network runs the user's code in a process of its own, as a run does; nothing is trained.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeloop.config.campaign_file import larger_networks, reference_network
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Campaign
from edgeloop.core.lightening import Lightening
from edgeloop.core.network import NetworkSizes, NetworkSpec
from edgeloop.engines.capabilities import Capability
from edgeloop.search.engine_rungs import builds, capability
from edgeloop.search.size_model import degree, predicted_bytes
from edgeloop.search.space import SearchSpace
from edgeloop.training.pool import TrainingPool


@dataclass(frozen=True, slots=True)
class NetworkRow:
    """One network under one rung, as far as it is known before anything is trained."""

    role: str
    """M1 or M2."""
    network: str
    lightening: str
    parameters: int
    macs: int
    predicted_bytes: int
    peak_activation_bytes: int
    degree: float
    evaluation: float | None
    """E; None for M1."""


@dataclass(frozen=True, slots=True)
class RungRow:
    """One rung on one engine."""

    lightening: str
    engine: str
    real: Capability


@dataclass(frozen=True, slots=True)
class SearchPreview:
    """M1, every candidate network, every rung, and a sentence for each that is left out."""

    networks: tuple[NetworkRow, ...]
    rungs: tuple[RungRow, ...]
    left_out: tuple[str, ...]
    points: int
    """Candidates in all: networks, rungs, engines, threads and delegates."""

    def document(self) -> dict[str, Any]:
        return {
            "candidates": self.points,
            "networks": [asdict(row) for row in self.networks],
            "rungs": [{"lightening": r.lightening, "engine": r.engine, **asdict(r.real)} for r in self.rungs],
            "left_out": list(self.left_out),
        }

    def lines(self) -> list[str]:
        return [
            f"  {self.points} candidates: parameters, MACs, predicted bytes, bytes of activations at the peak",
            *_table(self.networks),
            *(f"  {', '.join(rungs)} on {engine}: {told}" for (engine, told), rungs in self._alike().items()),
            *(f"  {sentence}" for sentence in self.left_out),
        ]

    def _alike(self) -> dict[tuple[str, str], list[str]]:
        """Rungs by engine and by what is real of them."""
        found: dict[tuple[str, str], list[str]] = {}
        for row in self.rungs:
            found.setdefault((row.engine, row.real.summary), []).append(row.lightening)
        return found


def searched(
    campaign: Campaign, channel_multiple: int, baseline: Artifact | None = None, compiling: Collection[str] = ()
) -> SearchPreview | None:
    """Return what would be asked; None where torch is not installed, which describing a network needs. `baseline` is
    M1 where it is a file; `compiling` are the delegates that have a compiler.

    Raises UserError where a network can't be built, exported or widened, ConfigError where no candidate is left.
    """
    if importlib.util.find_spec("torch") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        limits = campaign.toolchain.build_limits  # an idle process that would train looks at networks too
        pool = TrainingPool(Path(folder), training_limits=limits, describe_limits=limits)
        try:

            def sizes_of(network: NetworkSpec) -> NetworkSizes:
                plain = network.model_copy(update={"weights": None, "weights_sha256": None})
                return pool.describe(plain, campaign.task, campaign.data, channel_multiple)

            return _preview(campaign, sizes_of, baseline, compiling)
        finally:
            pool.close()


def _preview(
    campaign: Campaign,
    sizes_of: Callable[[NetworkSpec], NetworkSizes],
    baseline: Artifact | None,
    compiling: Collection[str],
) -> SearchPreview:
    m1 = reference_network(campaign)
    m1_sizes, deployed = sizes_of(m1), Lightening.parse(campaign.reference.lightening)
    m1_bytes = predicted_bytes(m1_sizes, deployed) if baseline is None else baseline.deployed_bytes
    space = SearchSpace(
        search=campaign.search,
        m1=m1,
        m1_sizes=m1_sizes,
        m1_lightening=deployed.name,
        m1_setting=campaign.reference.setting,
        compiling=compiling,
        m1_bytes=m1_bytes,
        larger=larger_networks(campaign),
        teacher=campaign.training.teacher,
        limits=campaign.limits,
        sizes_of=sizes_of,
    )
    rows = [_row("M1", m1.label, deployed, m1_sizes, m1_sizes, m1_bytes, None)]
    for point in {(p.network, p.rung): p for p in space.points}.values():
        network = space.networks[point.network]
        predicted, evaluation = space.predicted(point), space.evaluation(point)
        role = "M1" if evaluation is None else "M2"
        rung = space.rungs[point.rung]
        rows.append(_row(role, network.label, rung, space.sizes(point), network.sizes, predicted, evaluation))
    engines = dict.fromkeys(setting.engine for setting in space.settings)
    rungs = [
        RungRow(rung.name, engine, capability(engine, rung))
        for engine in engines
        for rung in space.rungs
        if builds(engine, rung)
    ]
    return SearchPreview(tuple(rows), tuple(rungs), tuple(space.left_out), len(space.points))


def _row(
    role: str,
    label: str,
    rung: Lightening,
    sizes: NetworkSizes,
    before: NetworkSizes,
    predicted: int,
    evaluation: float | None,
) -> NetworkRow:
    return NetworkRow(
        role=role,
        network=label,
        lightening=rung.name,
        parameters=sizes.parameters,
        macs=sizes.macs,
        predicted_bytes=predicted,
        peak_activation_bytes=sizes.peak_activation_bytes(rung),
        degree=degree(sizes, rung, before=before),
        evaluation=evaluation,
    )


def _table(rows: Sequence[NetworkRow]) -> Iterator[str]:
    named = [f"{row.role} {row.network} {row.lightening}" for row in rows]
    wide = max(map(len, named), default=0)
    for name, row in zip(named, rows, strict=True):
        figures = (row.parameters, row.macs, row.predicted_bytes, row.peak_activation_bytes)
        told = "".join(f"{figure:14,}" for figure in figures)
        evaluated = f"  E {row.evaluation:.2f}" if row.evaluation is not None else ""
        yield f"    {name:{wide}}{told}  G {row.degree:.3f}{evaluated}"
