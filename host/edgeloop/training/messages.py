"""What the controller and the training process say to each other, pickled over a socket pair of our own. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeloop.errors import EdgeloopError, HarnessError


@dataclass(frozen=True, slots=True)
class Request:
    """A call of `function(*arguments)` in the entry module; a training gets a way to report as well."""

    number: int
    function: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Abandon:
    """The request with this number is not wanted any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Progressed:
    what: str
    fraction: float


@dataclass(frozen=True, slots=True)
class Returned:
    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    error: EdgeloopError


class AbandonedError(HarnessError):
    """A training was stopped because nobody waits for it any more."""

    def __init__(self) -> None:
        super().__init__("the training was stopped: nobody waits for it any more")
