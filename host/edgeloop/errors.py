"""Every error edgeloop raises on purpose, its owner, and the exit code it leads to.

    EdgeloopError                owner, message, next step, exit code
    ├── UserError                what the user gave us can't be used (2)
    │   ├── ConfigError          a file the user wrote: all its faults at once
    │   ├── DataError            arrays of a wrong shape, type or content
    │   └── MissingExtraError    a toolchain that is not installed, with the command that installs it
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

    def lines(self) -> list[str]:
        """The error as the user reads it, one line for each fault."""
        return [self.message if self.next_step is None else f"{self.message}; {self.next_step}"]

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors cross process boundaries; their constructors differ, what they hold is what is sent."""
        return _restored, (type(self), self.args, dict(self.__dict__))


def _restored(kind: type[EdgeloopError], args: tuple[Any, ...], held: dict[str, Any]) -> EdgeloopError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(held)
    return error


class UserError(EdgeloopError):
    owner = Owner.USER
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a file: where (file and dotted path), what, and what to try next."""

    where: str
    what: str
    next_step: str | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.next_step}" if self.next_step else "")


class ConfigError(UserError):
    """All faults of the files that the user wrote, at once."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)

    def lines(self) -> list[str]:
        return [str(fault) for fault in self.faults]


class DataError(UserError):
    """What is wrong with arrays; the message has a line for each fault."""

    def lines(self) -> list[str]:
        return [line for text in super().lines() for line in text.splitlines()]


class MissingExtraError(UserError):
    """A package is needed that the base install does not bring."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed",
            next_step=f"pip install 'edgeloop[{extra}]'",
        )
        self.package = package
        self.extra = extra


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
    """No room, or a folder that can't be written. A run stops here and goes on with --resume."""


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
            next_step="make room, then repeat the command; a run goes on with --resume",
        ) from error


class HarnessError(EdgeloopError):
    owner = Owner.HARNESS


class TrainingError(HarnessError):
    pass


class BuildError(HarnessError):
    pass


class ParityError(HarnessError):
    pass
