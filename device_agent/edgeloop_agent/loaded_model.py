"""A model that runs in this process, call by call: what timing, evaluating and profiling need of an engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Callable, Optional

from edgeloop_agent.wire import Tensor


class LoadedModel(ABC):
    """One model, ready to run. Functions are bound before any timing, so that a timed call does nothing else."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Name and version of its engine, such as `litert 2.3.0`."""

    @abstractmethod
    def inputs(self) -> list[Tensor]:
        """Inputs in the model's own order."""

    @abstractmethod
    def outputs(self) -> list[Tensor]:
        """Outputs in the model's own order."""

    @abstractmethod
    def setters(self) -> list[tuple[Callable[[int, Any], None], int]]:
        """For each input the function that sets it, and its number."""

    @abstractmethod
    def getters(self) -> list[tuple[Callable[[int], Any], int]]:
        """For each output the function that returns a copy, and its number."""

    @abstractmethod
    def invoker(self) -> Callable[[], None]:
        """The call that runs one inference."""

    @abstractmethod
    def places(self) -> dict[int, Optional[tuple[int, int]]]:
        """Address and bytes of every tensor, scratch buffers included, by its number; None where it has no memory
        that is known. Empty where the engine tells nothing of its memory."""

    @abstractmethod
    def part(self, content: bytes, threads: int) -> LoadedModel:
        """A part of a model by itself, in the same engine. Raises RefusedError where the engine takes none."""
