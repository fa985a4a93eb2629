"""Recorded tables of a search space, and searches replayed on them: what each strategy costs in board measurements.

A table holds what was measured of every candidate of one campaign, so a search can be replayed on it in milliseconds,
with other limits and other seeds. The format, JSON:

    {"schema": 1, "name": "fashion, ds_cnn 1.0", "simulated": false,
     "recorded": "raspberry-pi-4, litert 2.3.0, standard plan, 2026-11-24",
     "metric": "top1", "latency": "p50",
     "m1": {"network": {...}, "sizes": {...}, "lightening": "fp32", "deployed_bytes": 25012},
     "networks": [{"width": 1.41, "depth": 0, "pruned_pct": 0, "sizes": {...}}, ...],
     "rows": [{"width": 1.41, "depth": 0, "lightening": "w8a8", "engine": "litert", "threads": 1,
               "accuracy": 0.91, "latency_ms": 1.9, "deployed_bytes": 23344, "peak_rss_bytes": 43000000}, ...]}

`sizes` are core.network.NetworkSizes, `network` is core.network.NetworkSpec. Widths are absolute. `record_table.py`
makes one of a run that asked every point (`search.strategy = "grid"`).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.core.campaign import Search
from edgeloop.core.lightening import Lightening
from edgeloop.core.limits import LimitSet
from edgeloop.core.network import Candidate, NetworkSizes, NetworkSpec
from edgeloop.core.verdict import Outcome
from edgeloop.search.size_model import predicted_bytes
from edgeloop.search.space import SearchSpace
from edgeloop.search.strategies import strategy_for
from edgeloop.testing.fakes.simulated_board import SimulatedBoard, Truth, simulated_sizes

Key = tuple[float, int, str, str, int]
"""Width, depth, lightening, engine, threads."""
WITHOUT_E = "patent-without-E"
FEASIBLE_SHARE_MAX = 0.25
"""Limits that more of the candidates meet make no search."""


@dataclass(frozen=True)
class SearchTable:
    """Every candidate of a search space, as it was measured."""

    name: str
    simulated: bool
    recorded: str
    m1: NetworkSpec
    m1_sizes: NetworkSizes
    m1_lightening: str
    m1_bytes: int
    sizes: dict[tuple[float, int, int], NetworkSizes]
    """By width, depth and percent of the channels removed."""
    rows: dict[Key, Truth]

    @cached_property
    def search(self) -> dict[str, Any]:
        """The `[search]` keys of the space, but for the strategy."""
        keys = list(self.rows)
        return {
            "widths": tuple(sorted({round(key[0] / self.m1.width, 6) for key in keys})),
            "depths": tuple(sorted({key[1] - self.m1.depth for key in keys})),
            "lightenings": tuple(dict.fromkeys(key[2] for key in keys)),
            "engines": tuple(dict.fromkeys(key[3] for key in keys)),
            "threads": tuple(sorted({key[4] for key in keys})),
            "pareto": True,  # goes on after the first pass, which is how the best one is found
        }

    def truth(self, candidate: Candidate) -> Truth:
        network = candidate.network
        return self.rows[network.width, network.depth, candidate.lightening, candidate.engine, candidate.threads]

    def space(self, strategy: str, seed: int, limits: LimitSet) -> SearchSpace:
        """The space as a strategy searches it; WITHOUT_E is `patent` with the evaluation function off.

        Odd seeds list the engines the other way round: which is listed first decides between equals.
        """
        keys: dict[str, Any] = {"strategy": strategy}
        if strategy in {"optuna", "random"}:
            keys["seed"] = seed
        if strategy == WITHOUT_E:
            keys = {"strategy": "patent", "evaluation": "off"}
        engines = self.search["engines"]
        keys["engines"] = engines[::-1] if seed % 2 else engines
        return SearchSpace(
            search=Search.model_validate({**self.search, **keys}),
            m1=self.m1,
            m1_sizes=self.m1_sizes,
            m1_lightening=self.m1_lightening,
            m1_bytes=self.m1_bytes,
            larger="factory",
            teacher="none",
            limits=limits,
            sizes_of=lambda network: self.sizes[network.width, network.depth, network.pruned_pct],
        )

    def plain(self) -> dict[str, Any]:
        """The table as its JSON."""
        return {
            "schema": 1,
            "name": self.name,
            "simulated": self.simulated,
            "recorded": self.recorded,
            "metric": "top1",
            "latency": "p50",
            "m1": {
                "network": self.m1.model_dump(mode="json", exclude_defaults=True),
                "sizes": self.m1_sizes.model_dump(mode="json"),
                "lightening": self.m1_lightening,
                "deployed_bytes": self.m1_bytes,
            },
            "networks": [
                {"width": width, "depth": depth, "pruned_pct": pruned, "sizes": sizes.model_dump(mode="json")}
                for (width, depth, pruned), sizes in self.sizes.items()
            ],
            "rows": [
                {
                    **dict(zip(("width", "depth", "lightening", "engine", "threads"), key, strict=True)),
                    "accuracy": row.accuracy,
                    "latency_ms": row.latency_ms,
                    "deployed_bytes": row.deployed_bytes,
                    "peak_rss_bytes": row.peak_rss_bytes,
                }
                for key, row in self.rows.items()
            ],
        }

    @classmethod
    def of(cls, plain: dict[str, Any], where: str) -> SearchTable:
        """Read a table's JSON. Raises ValueError where a candidate of the space was not recorded."""
        if plain.get("schema") != 1:
            raise ValueError(f"{where}: schema {plain.get('schema')!r}, this reads 1")
        rows = {
            (row["width"], row["depth"], row["lightening"], row["engine"], row["threads"]): Truth(
                row["latency_ms"], row["accuracy"], row["deployed_bytes"], row["peak_rss_bytes"]
            )
            for row in plain["rows"]
        }
        m1 = plain["m1"]
        table = cls(
            name=plain["name"],
            simulated=plain["simulated"],
            recorded=plain["recorded"],
            m1=NetworkSpec.model_validate(m1["network"]),
            m1_sizes=NetworkSizes.model_validate(m1["sizes"]),
            m1_lightening=m1["lightening"],
            m1_bytes=m1["deployed_bytes"],
            sizes={
                (one["width"], one["depth"], one["pruned_pct"]): NetworkSizes.model_validate(one["sizes"])
                for one in plain["networks"]
            },
            rows=rows,
        )
        space = table.space("grid", 0, LimitSet())
        missing = [str(c) for c in map(space.candidate, space.points) if _key(c) not in rows]
        if missing:
            raise ValueError(f"{where}: {len(missing)} candidates were not recorded, such as {missing[0]}")
        return table


def read_tables(paths: Iterable[Path]) -> list[SearchTable]:
    return [SearchTable.of(json.loads(path.read_text()), str(path)) for path in paths]


def _key(candidate: Candidate) -> Key:
    network = candidate.network
    return network.width, network.depth, candidate.lightening, candidate.engine, candidate.threads


@dataclass(frozen=True, slots=True)
class Cost:
    """Measurements that a search needed."""

    first: int
    """Until a feasible candidate was measured."""
    best: int
    """Until the best feasible candidate was."""


def drawn_limits(table: SearchTable, draw: np.random.Generator) -> LimitSet:
    """Draw limits around a candidate of the table, so that it is inside all of them and few others are.

    Each bound lies 1 to 5 % beyond what the candidate measured (of the error, for accuracy); a bound on bytes is
    there in two of three draws. Drawn again until at most FEASIBLE_SHARE_MAX of the candidates are inside.
    """
    rows = list(table.rows.values())
    while True:
        chosen = rows[int(draw.integers(len(rows)))]
        slack = draw.uniform(0.01, 0.05, 3)
        limits = [
            {"metric": "top1", "min_fraction": 1 - (1 - chosen.accuracy) * (1 + slack[0])},
            {"metric": "latency", "statistic": "p50", "max_ms": chosen.latency_ms * (1 + slack[1])},
        ]
        if draw.random() < 2 / 3:
            limits.append({"metric": "deployed_size", "max_bytes": int(chosen.deployed_bytes * (1 + slack[2]))})
        drawn = LimitSet.model_validate({"limit": limits})
        if 1 <= len(feasible(table, drawn)) <= max(1, FEASIBLE_SHARE_MAX * len(rows)):
            return drawn


def feasible(table: SearchTable, limits: LimitSet) -> list[Candidate]:
    """The candidates inside every limit, the most accurate first, of equals the fastest."""
    board = SimulatedBoard(limits, table.truth)
    space = table.space("grid", 0, limits)
    inside = [c for c in map(space.candidate, space.points) if board.passes(c)]
    return sorted(inside, key=lambda c: (-table.truth(c).accuracy, table.truth(c).latency_ms))


def replay(table: SearchTable, strategy: str, seed: int, limits: LimitSet, best: Candidate) -> Cost:
    """Search the table until the best feasible candidate was measured."""
    board = SimulatedBoard(limits, table.truth)
    searching = strategy_for(table.space(strategy, seed, limits), limits)
    first = 0
    for number in itertools.count(1):
        asked = searching.ask()
        assert asked is not None, "the best one is in the space, so it is asked before nothing is left"
        trial = board.measure(number, *asked, searching)
        if trial.outcome is Outcome.PASS and not first:
            first = number
        if asked[0] == best:
            return Cost(first, number)
        searching.tell(trial)
    raise AssertionError("unreachable")


def simulated_table(seed: int, widths: Sequence[float] = (1.19, 1.41, 1.68, 2.0, 2.83)) -> SearchTable:
    """Make up a table, to test the replay with: what a strategy costs on it says nothing of a real board.

    Latency is MACs times a factor for each rung (not monotone in the degree) and each thread count, accuracy grows with
    the parameters and falls with the degree, both with noise.
    """
    draw = np.random.default_rng(seed)
    m1 = NetworkSpec(family="ds_cnn")
    speed = {"fp32": 1.0, "fp16": 1.02, "w8a16": 1.3, "w8a8": float(draw.uniform(0.3, 0.6)), "w4a8": 0.0}
    speed["w4a8"] = speed["w8a8"] * float(draw.uniform(0.8, 2.2))
    loss = {"fp32": 0.0, "fp16": 0.0, "w8a16": 0.002, "w8a8": 0.004, "w4a8": float(draw.uniform(0.006, 0.03))}
    scale, power = float(draw.uniform(0.08, 0.2)), float(draw.uniform(0.4, 0.9))
    rows: dict[Key, Truth] = {}
    sizes = {(width, 0, 0): simulated_sizes(m1.in_size(width, 0)) for width in widths}
    for width, rung, threads in itertools.product(widths, speed, (1, 2)):
        size = sizes[width, 0, 0]
        rows[width, 0, rung, "litert", threads] = Truth(
            latency_ms=size.macs / 1e5 * speed[rung] / threads**0.7 * float(draw.uniform(0.97, 1.03)),
            accuracy=round(
                1 - scale * (size.parameters / 1000) ** -power - loss[rung] + float(draw.normal(0, 0.002)), 4
            )
            if threads == 1
            else rows[width, 0, rung, "litert", 1].accuracy,
            deployed_bytes=round(1.05 * predicted_bytes(size, Lightening.parse(rung))),
            peak_rss_bytes=10_000_000 + 8 * size.parameters,
        )
    return SearchTable(
        name=f"simulated {seed}",
        simulated=True,
        recorded="made up",
        m1=m1,
        m1_sizes=simulated_sizes(m1),
        m1_lightening="fp32",
        m1_bytes=14_000,
        sizes=sizes,
        rows=rows,
    )
