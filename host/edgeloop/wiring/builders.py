"""Which builder makes a network's file for which engine of a campaign."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from edgeloop.builders.delegate import DelegateBuilder
from edgeloop.builders.parity import Gate
from edgeloop.builders.tflite.builder import TfliteBuilder
from edgeloop.builders.tvm.builder import TvmBuilder
from edgeloop.builders.tvm.tuning import Tuner
from edgeloop.builders.tvm.versions import NATIVE, TvmTarget
from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign, Toolchain
from edgeloop.core.network import Engine
from edgeloop.errors import ConfigError, Fault
from edgeloop.ports import Bench, Builder, Observer
from edgeloop.wiring.board_timer import BoardTimer
from edgeloop.wiring.clock import SystemClock

_ANY_CORE: Final = {"aarch64": "generic", "x86_64": "x86-64-v2"}
"""Where a board's file names no core: what every one of the architecture runs, slower than need be."""


def engines_of(campaign: Campaign) -> tuple[Engine, ...]:
    """Every engine that a campaign builds for, M1's first."""
    return tuple(dict.fromkeys((campaign.reference.engine, *campaign.search.engines)))


def builders_for(
    campaign: Campaign, folder: Path, gate: Gate, benches: Sequence[Bench], observer: Observer
) -> dict[tuple[Engine, str], Builder]:
    """The builders of a campaign's engines by target, in one store; a board is asked for its processor when it is
    needed, and boards of one kind get one file."""
    root = folder / "artifacts"
    limits = campaign.toolchain.build_limits
    tflite = TfliteBuilder(root, gate, limits=limits)
    interpreters: tuple[Engine, ...] = ("litert", "tflite-runtime")
    builders: dict[tuple[Engine, str], Builder] = {}
    for bench in benches:
        name = bench.board.name
        builders |= {(engine, name): tflite for engine in interpreters}
        if "tvm" in engines_of(campaign):
            builders["tvm", name] = TvmBuilder(
                root,
                gate,
                tflite,
                functools.partial(tvm_target, bench),
                tuner=tuner_for(campaign, folder / "tuning", bench, observer) if campaign.tuning.trials else None,
                limits=limits,
            )
    return builders


def compilers_for(
    tflite: Builder, root: Path, commands: Mapping[str, Sequence[str]], toolchain: Toolchain
) -> dict[str, Builder]:
    """The builders of delegates that have a compiler, by the delegates' names, in the same store as `tflite`."""
    return {
        name: DelegateBuilder(root, tflite, name, command, limits=toolchain.build_limits)
        for name, command in commands.items()
    }


def tuner_for(campaign: Campaign, folder: Path, bench: Bench, observer: Observer) -> Tuner:
    """Tunes on one board, for all boards of its model."""
    timer = BoardTimer(bench, folder / "samples", campaign.environment, observer.progress)
    return Tuner(campaign.tuning, timer, folder, SystemClock(), lambda line: observer.progress(line, 0, 0))


def check_processors(campaign: Campaign, boards: Sequence[Board]) -> None:
    """Raise ConfigError where a board's file says that TVM can't compile for it: before hours of training."""
    if "tvm" in engines_of(campaign):
        where = "reference.engine" if campaign.reference.engine == "tvm" else "search.engines"
        if faults := [fault for board in boards for fault in _not_compiled_for(board, where)]:
            raise ConfigError(faults)


def _not_compiled_for(board: Board, where: str) -> Iterator[Fault]:
    model = board.model
    if model.architectures and not set(model.architectures) & set(_ANY_CORE):
        yield _no_wheel(board, " or ".join(model.architectures), where)
    if model.mcpu == NATIVE and board.kind != "local":
        what = f"{board.name} is another machine, and mcpu of {model.name} is {NATIVE}, which is this one"
        yield Fault(where, what, "give its file LLVM's name of its cores, as cortex-a72")


def tvm_target(bench: Bench, where: str = "search.engines") -> TvmTarget:
    """The processor of a board; `where` names what asked for tvm. Raises ConfigError where its runtime is not there."""
    board, machine = bench.board, str(bench.facts().get("machine"))
    if machine not in _ANY_CORE:
        raise ConfigError([_no_wheel(board, machine, where)])
    if faults := list(_not_compiled_for(board, where)):
        raise ConfigError(faults)
    return TvmTarget(machine=machine, mcpu=board.model.mcpu or _ANY_CORE[machine])


def _no_wheel(board: Board, machine: str, where: str) -> Fault:
    return Fault(where, f"{board.name} is {machine}, which TVM's runtime has no wheel for", "leave tvm out")
