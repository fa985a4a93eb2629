"""Messages between the controller and the training process, pickled over a socket pair of our own. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeloop.core.campaign import Data, Task
from edgeloop.core.network import NetworkSizes, NetworkSpec
from edgeloop.errors import EdgeloopError, HarnessError
from edgeloop.ports import TrainedNetwork, TrainingJob, TrainingProgress

"""Called with a label and a fraction from 0 to 1."""


class TrainingEntry(Protocol):
    """The module that does the work in the training process."""

    def prepare(self, threads: int) -> None:
        """Called once, before the first request."""
        ...

    def train(self, job: TrainingJob, networks: Path, report: TrainingProgress) -> TrainedNetwork: ...

    def describe(self, network: NetworkSpec, task: Task, data: Data, channel_multiple: int) -> NetworkSizes: ...


@dataclass(frozen=True, slots=True)
class TrainCall:
    """A training, into a folder of `networks`."""

    job: TrainingJob
    networks: Path

    @property
    def subject(self) -> str:
        return f"training {self.job.lightening}"

    def carry_out(self, entry: TrainingEntry, report: TrainingProgress) -> TrainedNetwork:
        return entry.train(self.job, self.networks, report)


@dataclass(frozen=True, slots=True)
class DescribeCall:
    """A question for a network's sizes."""

    network: NetworkSpec
    task: Task
    data: Data
    channel_multiple: int

    @property
    def subject(self) -> str:
        return "looking at a network"

    def carry_out(self, entry: TrainingEntry, report: TrainingProgress) -> NetworkSizes:  # noqa: ARG002 -- it is soon over
        return entry.describe(self.network, self.task, self.data, self.channel_multiple)


@dataclass(frozen=True, slots=True)
class NumberedCall:
    """A call under the number that an Abandon names it by."""

    number: int
    call: TrainCall | DescribeCall


@dataclass(frozen=True, slots=True)
class Abandon:
    """Nobody waits for the request with this number any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Progressed:
    """A request goes on: a label and a fraction from 0 to 1."""

    what: str
    fraction: float


@dataclass(frozen=True, slots=True)
class Returned:
    """A request is done."""

    value: TrainedNetwork | NetworkSizes


@dataclass(frozen=True, slots=True)
class Raised:
    """A request failed."""

    error: EdgeloopError


class AbandonedError(HarnessError):
    """A training was stopped because nobody waits for it any more."""

    def __init__(self) -> None:
        super().__init__("the training was stopped: nobody waits for it any more")
