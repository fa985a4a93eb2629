"""Which builder makes a network's file for which engine of a campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from edgeloop.builders.delegate import DelegateBuilder
from edgeloop.builders.parity import Gate
from edgeloop.builders.tflite.builder import TfliteBuilder
from edgeloop.builders.tvm.builder import TvmBuilder
from edgeloop.builders.tvm.versions import TvmTarget
from edgeloop.core.campaign import Campaign
from edgeloop.core.network import Engine
from edgeloop.errors import ConfigError, Fault
from edgeloop.ports import Bench, Builder

_ANY_CORE: Final = {"aarch64": "generic", "x86_64": "x86-64-v2"}
"""Where a board's file names no core: what every one of the architecture runs, slower than need be."""


def engines_of(campaign: Campaign) -> tuple[Engine, ...]:
    """Every engine that a campaign builds for, M1's first."""
    return tuple(dict.fromkeys((campaign.reference.engine, *campaign.search.engines)))


def builders_for(campaign: Campaign, root: Path, gate: Gate, benches: Sequence[Bench]) -> dict[Engine, Builder]:
    """The builders of a campaign's engines, in one store; boards are asked for their processor when it is needed."""
    tflite = TfliteBuilder(root, gate)
    builders: dict[Engine, Builder] = {"litert": tflite, "tflite-runtime": tflite}
    if "tvm" in engines_of(campaign):
        builders["tvm"] = TvmBuilder(root, gate, tflite, lambda: tvm_target(benches))
    return builders


def compilers_for(
    builders: Mapping[Engine, Builder], root: Path, commands: Mapping[str, Sequence[str]]
) -> dict[str, Builder]:
    """The builders of delegates that have a compiler, by the delegates' names, in the same store."""
    tflite = builders["litert"]
    return {name: DelegateBuilder(root, tflite, name, command) for name, command in commands.items()}


def tvm_target(benches: Sequence[Bench]) -> TvmTarget:
    """The processor of all boards. Raises ConfigError where they differ, or TVM's runtime is not there for it."""
    found: dict[TvmTarget, str] = {}
    for bench in benches:
        board, machine = bench.board, str(bench.facts().get("machine"))
        if machine not in _ANY_CORE:
            raise ConfigError(
                [
                    Fault(
                        "search.engines",
                        f"{board.name} is {machine}, which TVM's runtime has no wheel for",
                        "leave tvm out",
                    )
                ]
            )
        found.setdefault(TvmTarget(machine=machine, mcpu=board.model.mcpu or _ANY_CORE[machine]), board.name)
    if len(found) > 1:
        told = ", ".join(f"{name} is {target}" for target, name in found.items())
        raise ConfigError([Fault("targets", f"TVM compiles for one processor: {told}", "one campaign for each kind")])
    return next(iter(found))
