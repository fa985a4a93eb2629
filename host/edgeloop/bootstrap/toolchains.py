"""Which builder makes a network's file for which engine of a campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from edgeloop.bootstrap.clock import SystemClock
from edgeloop.bootstrap.tuning import BoardTimer
from edgeloop.builders.delegate import DelegateBuilder
from edgeloop.builders.parity import Gate
from edgeloop.builders.tflite.builder import TfliteBuilder
from edgeloop.builders.tvm.builder import TvmBuilder
from edgeloop.builders.tvm.tuning import Tuner
from edgeloop.builders.tvm.versions import TvmTarget
from edgeloop.core.campaign import Campaign
from edgeloop.core.network import Engine
from edgeloop.errors import ConfigError, Fault
from edgeloop.ports import Bench, Builder, Observer

_ANY_CORE: Final = {"aarch64": "generic", "x86_64": "x86-64-v2"}
"""Where a board's file names no core: what every one of the architecture runs, slower than need be."""


def engines_of(campaign: Campaign) -> tuple[Engine, ...]:
    """Every engine that a campaign builds for, M1's first."""
    return tuple(dict.fromkeys((campaign.reference.engine, *campaign.search.engines)))


def builders_for(
    campaign: Campaign, folder: Path, gate: Gate, benches: Sequence[Bench], observer: Observer
) -> dict[Engine, Builder]:
    """The builders of a campaign's engines, in one store; boards are asked for their processor when it is needed."""
    root = folder / "artifacts"
    deadline_s, memory = campaign.toolchain.build_deadline_s, campaign.toolchain.memory_max_bytes
    tflite = TfliteBuilder(root, gate, deadline_s=deadline_s, memory_max_bytes=memory)
    builders: dict[Engine, Builder] = {"litert": tflite, "tflite-runtime": tflite}
    if "tvm" in engines_of(campaign):
        tuner = tuner_for(campaign, folder / "tuning", benches, observer) if campaign.tuning.trials else None
        builders["tvm"] = TvmBuilder(
            root,
            gate,
            tflite,
            lambda: tvm_target(benches),
            tuner=tuner,
            deadline_s=deadline_s,
            memory_max_bytes=memory,
        )
    return builders


def compilers_for(
    builders: Mapping[Engine, Builder], root: Path, commands: Mapping[str, Sequence[str]]
) -> dict[str, Builder]:
    """The builders of delegates that have a compiler, by the delegates' names, in the same store."""
    tflite = builders["litert"]
    return {name: DelegateBuilder(root, tflite, name, command) for name, command in commands.items()}


def tuner_for(campaign: Campaign, folder: Path, benches: Sequence[Bench], observer: Observer) -> Tuner:
    """Tunes on the first board: all boards of a campaign with TVM are of one kind."""
    timer = BoardTimer(benches[0], folder / "samples", campaign.environment, observer.progress)
    return Tuner(campaign.tuning, timer, folder, SystemClock(), lambda line: observer.progress(line, 0, 0))


def tvm_target(benches: Sequence[Bench], where: str = "search.engines") -> TvmTarget:
    """The processor of all boards; `where` names what asked for tvm.

    Raises ConfigError where they differ, or TVM's runtime is not there for it.
    """
    found: dict[TvmTarget, str] = {}
    for bench in benches:
        board, machine = bench.board, str(bench.facts().get("machine"))
        if machine not in _ANY_CORE:
            raise ConfigError(
                [
                    Fault(
                        where,
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
