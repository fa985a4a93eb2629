"""The delegates that a campaign, or a command, names: whether every board has them, and what compiles for them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence

from edgeloop.core.board import NO_DELEGATE, Board
from edgeloop.core.campaign import Campaign
from edgeloop.engines.registry import ENGINES
from edgeloop.errors import ConfigError, Fault

_NOTHING: Mapping[str, bool] = {}
Compilers = dict[str, tuple[str, ...]]
"""By the delegate's name: the command that makes its file out of a .tflite."""


def compilers_of(campaign: Campaign, boards: Sequence[Board]) -> Compilers:
    """What compiles for the delegates of a campaign, by name.

    Raises ConfigError where a board does not declare one of them, where two boards would need different files, or
    where this host has no such compiler.
    """
    named: dict[str, str] = {}
    for setting, where in (
        (campaign.reference.setting, "reference.delegate"),
        *((setting, "search.delegates") for setting in campaign.search.settings),
    ):
        if setting.delegate is not None:
            named.setdefault(setting.delegate, where)
    faults = [
        fault
        for name, where in named.items()
        for fault in (*undeclared(name, boards, where), *_uncompilable(name, boards, where))
    ]
    if faults:
        raise ConfigError(faults)
    first = boards[0].delegate_named
    return {
        name: found.compile_command for name in named if (found := first(name)) is not None and found.compile_command
    }


def undeclared(name: str, boards: Sequence[Board], where: str) -> Iterator[Fault]:
    """A fault for each board that does not declare the delegate."""
    for board in boards:
        if board.find_delegate(name) is None:
            step = "add [[delegate]] to its file, or leave it out"
            yield Fault(where, f"{board.name} declares no delegate {name!r}; it has {board.delegate_names}", step)


def asked_delegate(
    word: str,
    boards: Sequence[Board],
    engine: str,
    option: str,
    faults: list[Fault],
    *,
    beside: Mapping[str, bool] = _NOTHING,
) -> str | None:
    """The delegate that a command line names; None for `none`. What is wrong with it goes to `faults`.

    `beside` are other options by name, and whether they were given: none of them goes with a delegate.
    """
    if word == NO_DELEGATE:
        return None
    if engine in ENGINES and not ENGINES[engine].delegates:
        step = f"engines that do: {', '.join(sorted(name for name, row in ENGINES.items() if row.delegates))}"
        faults.append(Fault(option, f"{engine} takes no delegate", step))
    faults += undeclared(word, boards, option)
    for other, given in beside.items():
        if given:
            faults.append(Fault(other, "does not go with a delegate", f"leave it out, or {option}"))
    return word


def _uncompilable(name: str, boards: Sequence[Board], where: str) -> Iterator[Fault]:
    commands = {
        found.compile_command: board.name for board in boards if (found := board.find_delegate(name)) is not None
    }
    if len(commands) > 1:
        differ = " and ".join(commands.values())
        yield Fault(where, f"{differ} have other compilers for {name}", "one campaign for each kind of board")
    for command, board_name in commands.items():
        if command and shutil.which(command[0]) is None:
            step = "install it, or correct compile_command in the board's file"
            yield Fault(where, f"{board_name}: {command[0]}, which compiles for {name}, is not on this host", step)
