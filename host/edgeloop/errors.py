"""Every error edgeloop raises on purpose, its owner, and the exit code it leads to.

    EdgeloopError                owner, message, next step, exit code
    ├── UserError                what the user gave us can't be used (2)
    │   ├── ConfigError          a file the user wrote: all its faults at once
    │   ├── DataError            arrays of a wrong shape, type or content
    │   ├── MissingExtraError    a package that is not installed, with the command that installs it
    │   └── MissingExtrasError   several of them
    ├── ModelError               the network or the model file itself is unusable (2)
    ├── BoardError               the board could not be measured (3)
    │   ├── UnreachableError     no answer before the deadline, or the connection was refused
    │   └── BoardFullError       no space, or a read-only file system
    ├── LabError                 keys, leases, power, wiring, this machine's disk (3)
    │   ├── HostKeyError         the board showed another key than the pinned one
    │   ├── LeaseError           somebody else holds the board
    │   └── StationError         this machine can't keep a run's files
    └── HarnessError             our own toolchain failed (3)
        ├── TrainingError        the training process crashed or ran past its deadline
        ├── BuildError           the converter failed, crashed or ran past its deadline
        └── ParityError          the built model does not agree with the trained network

Only measured numbers say anything about a network: none of these is ever turned into a lightening move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from edgeloop.sentences import Sentence, Spell, spelled_by


class Owner(StrEnum):
    """Who has to act on an error."""

    USER = "user"
    MODEL = "model"
    BOARD = "board"
    LAB = "lab"
    HARNESS = "harness"


class EdgeloopError(Exception):
    """The base: a sentence that says what and where, and a next step."""

    owner: Owner = Owner.HARNESS
    exit_code: int = 3

    def __init__(self, message: str, *, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def lines(self, spell: Spell = str) -> list[str]:
        """Return the error as a reader of `spell` has it, one line for each fault."""
        return ["; ".join(spelled_by(spell, text) for text in (self.message, self.next_step) if text is not None)]

    def at(self, where: str) -> list[Fault]:
        """Return the error as faults of a file, or of an argument of the request."""
        return [Fault(where, self.message, self.next_step)]

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process boundaries; their constructors differ, so their attributes are sent."""
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(kind: type[EdgeloopError], args: tuple[Any, ...], attributes: dict[str, Any]) -> EdgeloopError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class UserError(EdgeloopError):
    owner = Owner.USER
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong: where it is, what it is, and what to try next.

    `where` is a file with a dotted path in it, or an `Argument` of the request.
    """

    where: str
    what: str
    next_step: str | None = None

    def line(self, spell: Spell = str) -> str:
        """Return the fault as a reader of `spell` has it."""
        where, what = spelled_by(spell, self.where), spelled_by(spell, self.what)
        return f"{where}: {what}" + (f"; {spelled_by(spell, self.next_step)}" if self.next_step else "")

    def __str__(self) -> str:
        return self.line()


class ConfigError(UserError):
    """All faults of a request and of the files that the user wrote, at once."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)

    def lines(self, spell: Spell = str) -> list[str]:
        return [fault.line(spell) for fault in self.faults]

    def at(self, where: str) -> list[Fault]:
        return [Fault(where, Sentence("{}: {}", fault.where, fault.what), fault.next_step) for fault in self.faults]


def raise_faults(faults: Sequence[Fault]) -> None:
    """Raise ConfigError with all faults, if there are any."""
    if faults:
        raise ConfigError(faults)


class DataError(UserError):
    """Arrays that can't be used; the message has a line for each fault."""

    def lines(self, spell: Spell = str) -> list[str]:
        return [line for text in super().lines(spell) for line in text.splitlines()]

    def at(self, where: str) -> list[Fault]:
        *others, last = self.message.splitlines()
        return [*(Fault(where, line) for line in others), Fault(where, last, self.next_step)]


class MissingExtraError(UserError):
    """A package is needed that the base install does not bring."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed",
            next_step=f"pip install 'edgeloop[{extra}]'",
        )
        self.package = package
        self.extra = extra
        self.purpose = purpose


class MissingExtrasError(UserError):
    """Several packages that the base install does not bring, a line for each purpose that they are needed for."""

    def __init__(self, errors: Sequence[MissingExtraError]) -> None:
        purposes = dict.fromkeys(error.purpose for error in errors)
        self.faults = [_without(purpose, [e for e in errors if e.purpose == purpose]) for purpose in purposes]
        super().__init__("\n".join(fault.message for fault in self.faults))

    def lines(self, spell: Spell = str) -> list[str]:
        return [line for fault in self.faults for line in fault.lines(spell)]

    def at(self, where: str) -> list[Fault]:
        return [fault for error in self.faults for fault in error.at(where)]


def _without(purpose: str, errors: Sequence[MissingExtraError]) -> UserError:
    if len(errors) == 1:
        return errors[0]
    packages = ", ".join(error.package for error in errors)
    extras = dict.fromkeys(error.extra for error in errors)
    return UserError(
        f"{purpose} needs the packages {packages}, which are not installed",
        next_step=f"pip install 'edgeloop[{','.join(extras)}]'",
    )


class ModelError(EdgeloopError):
    owner = Owner.MODEL
    exit_code = 2


class BoardError(EdgeloopError):
    owner = Owner.BOARD


class UnreachableError(BoardError):
    pass


class BoardFullError(BoardError):
    pass


class LabError(EdgeloopError):
    owner = Owner.LAB


class HostKeyError(LabError):
    pass


class LeaseError(LabError):
    pass


class StationError(LabError):
    """No room, or a folder that can't be written. A run stops here and can be resumed."""


FOREIGN_LINE_MAX = 300


def one_line(error: BaseException) -> str:
    """Return the kind of a foreign error and the begin of its message, in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:FOREIGN_LINE_MAX]}" + ("..." if len(text) > FOREIGN_LINE_MAX else "")


@contextmanager
def translated(
    kind: type[EdgeloopError],
    what: str,
    *,
    next_step: str | None = None,
    explain: Callable[[Exception], EdgeloopError | None] = lambda _error: None,
) -> Iterator[None]:
    """Raise what foreign code raises as an error of ours: `what` says where it happened, the cause is kept.

    Our own errors pass as they are. `explain` returns a better error for one whose cause it knows. This is the one
    place for a broad `except` around a library or a user's code.
    """
    try:
        yield
    except EdgeloopError:
        raise
    except Exception as error:
        raise explain(error) or kind(f"{what}: {one_line(error)}", next_step=next_step) from error


@contextmanager
def kept_on_disk(path: Path) -> Iterator[None]:
    """Translate what the file system of this machine refuses, with the path that a run's files go to."""
    try:
        yield
    except OSError as error:
        raise StationError(
            f"{path}: can't be written on this machine: {error.strerror or error}",
            next_step="make room",
        ) from error


class HarnessError(EdgeloopError):
    owner = Owner.HARNESS


class TrainingError(HarnessError):
    pass


class BuildError(HarnessError):
    pass


class ParityError(HarnessError):
    pass
