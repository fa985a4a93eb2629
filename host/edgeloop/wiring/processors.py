"""The processor of a board, for the engines that compile a network for one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeloop.board.board_words import BoardWords
from edgeloop.builders.tvm.versions import NATIVE, TvmTarget
from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign
from edgeloop.engines.registry import ENGINES, TVM, EngineRow
from edgeloop.errors import ConfigError, Fault, raise_faults
from edgeloop.ports import Bench


def check_processors(campaign: Campaign, boards: Sequence[Board]) -> None:
    """Raise ConfigError where a board's file says that it can't be compiled for: before hours of training."""
    for engine in campaign.engines:
        where = "reference.engine" if campaign.reference.engine == engine else "search.engines"
        raise_faults([fault for board in boards for fault in _unfit_board(ENGINES[engine], board, where)])


def tvm_target(bench: Bench, where: str = "search.engines") -> TvmTarget:
    """Return the processor of a board; `where` names what asked for TVM.

    Raises ConfigError where TVM's runtime is not to be had there.
    """
    board = bench.board
    machine = BoardWords(bench.facts()).text("machine") or "of no known machine"
    if machine not in TVM.cores:
        raise ConfigError([_no_wheel(TVM, board, machine, where)])
    raise_faults(list(_unfit_board(TVM, board, where)))
    return TvmTarget(machine=machine, mcpu=board.model.mcpu or TVM.cores[machine])


def _unfit_board(row: EngineRow, board: Board, where: str) -> Iterator[Fault]:
    if not row.per_processor:
        return
    model = board.model
    if model.architectures and not set(model.architectures) & set(row.cores):
        yield _no_wheel(row, board, " or ".join(model.architectures), where)
    if model.mcpu == NATIVE and board.kind != "local":
        what = f"{board.name} is another machine, and mcpu of {model.name} is {NATIVE}, which is this one"
        yield Fault(where, what, "give its file LLVM's name of its cores, as cortex-a72")


def _no_wheel(row: EngineRow, board: Board, machine: str, where: str) -> Fault:
    what = f"{board.name} is {machine}, which {row.title}'s runtime has no wheel for"
    return Fault(where, what, f"leave {row.name} out")
