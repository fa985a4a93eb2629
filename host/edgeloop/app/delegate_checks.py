"""The delegates that a campaign or a request names: every board has to have them, and this host their compilers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

from edgeloop.core.board import Board
from edgeloop.core.campaign import Campaign
from edgeloop.errors import Fault, raise_faults

Compilers = dict[str, tuple[str, ...]]
"""By the delegate's name: the command that makes its file out of a .tflite."""


def delegate_compilers(campaign: Campaign, boards: Sequence[Board]) -> Compilers:
    """Return the compilers of the delegates that a campaign names and that have one.

    Raises ConfigError where a board does not declare one of them, where two boards would need different files, or
    where this host has no such compiler.
    """
    places: dict[str, str] = {}
    for setting, where in (
        (campaign.reference.setting, "reference.delegate"),
        *((setting, "search.delegates") for setting in campaign.search.settings),
    ):
        if setting.delegate is not None:
            places.setdefault(setting.delegate, where)
    faults = [
        fault
        for name, where in places.items()
        for fault in (*missing_delegates(name, boards, where), *_compiler_faults(name, boards, where))
    ]
    raise_faults(faults)
    delegates = [boards[0].delegate_named(name) for name in places]
    return {one.name: one.compile_command for one in delegates if one is not None and one.compile_command}


def missing_delegates(name: str, boards: Sequence[Board], where: str) -> Iterator[Fault]:
    """Yield a fault for each board that does not declare the delegate."""
    for board in boards:
        if board.find_delegate(name) is None:
            step = "add [[delegate]] to its file, or leave it out"
            yield Fault(where, f"{board.name} declares no delegate {name!r}; it has {board.delegate_names}", step)


def _compiler_faults(name: str, boards: Sequence[Board], where: str) -> Iterator[Fault]:
    delegates = [(board.name, board.find_delegate(name)) for board in boards]
    commands = {delegate.compile_command: board_name for board_name, delegate in delegates if delegate is not None}
    if len(commands) > 1:
        differ = " and ".join(commands.values())
        yield Fault(where, f"{differ} have other compilers for {name}", "one campaign for each kind of board")
    for command, board_name in commands.items():
        if command and shutil.which(command[0]) is None:
            step = "install it, or correct compile_command in the board's file"
            yield Fault(where, f"{board_name}: {command[0]}, which compiles for {name}, is not on this host", step)
