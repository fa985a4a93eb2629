"""The face of an engine: it loads one model, and evaluates or runs it as a session asks."""

from __future__ import annotations

import array
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional

from edgeloop_agent import conditions, evaluate, intervals, runs
from edgeloop_agent.errors import RefusedError
from edgeloop_agent.loaded_model import LoadedModel
from edgeloop_agent.samples import Sample, SampleData
from edgeloop_agent.text import one_line
from edgeloop_agent.wire import SessionPlan, Tensor, WireDelegate


@dataclass(frozen=True)
class ModelFile:
    """One model as a job names it."""

    path: str
    """A file; the folder of an unpacked model for an engine that has such."""
    threads: int
    shapes: Optional[list[list[int]]] = None
    """The shapes that the inputs are resized to; None: the file's own."""
    delegate: Optional[WireDelegate] = None
    """It is given the model before any that the runtime adds by itself."""
    python_path: list[str] = field(default_factory=list)
    """For a process that the engine starts."""


class Engine(ABC):
    """One engine, and after `load` one model in it."""

    name: str
    """As in the job."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Fields of the session's record that are known before a model is there."""

    @abstractmethod
    def load(self, model: ModelFile) -> dict[str, Any]:
        """Make a model ready; return fields of the session's record. Raises RefusedError, DelegateError."""

    @abstractmethod
    def inputs(self) -> list[Tensor]:
        """Inputs in the model's own order."""

    @abstractmethod
    def outputs(self) -> list[Tensor]:
        """Outputs in the model's own order."""

    @abstractmethod
    def evaluate(self, data: SampleData, folder: Path) -> dict[str, Any]:
        """Run every sample, outputs into out.<i>.npy; return fields of the session's record.

        Raises RefusedError, CrashedError; OSError where the disk is full.
        """

    @abstractmethod
    def run(
        self, kind: str, samples: list[Sample], plan: SessionPlan, store: array.array[int], folder: Path
    ) -> dict[str, Any]:
        """Run single inferences one after the other, as `runs.run` says. Raises as `evaluate`."""

    def in_process_model(self) -> LoadedModel:
        """The model in this process. Raises RefusedError where it is in another one."""
        raise RefusedError("%s runs its model in a process of its own" % self.name)

    def functions(self, path: str, seed: int) -> list[Callable[[], None]]:  # noqa: ARG002 -- the face of every engine
        """The functions of a library, each bound to random arguments. Raises RefusedError."""
        raise RefusedError("%s has models, and no libraries of functions" % self.name)


class InProcessEngine(Engine, LoadedModel):
    """An engine whose model runs in the session's process. The agent sets inputs, times calls and gets outputs."""

    delegate_share: Optional[dict[str, Any]] = None
    """The delegate that was asked for, and the operators it took; None where none was."""

    @abstractmethod
    def open(self, model: ModelFile) -> None:
        """Load a model. Raises RefusedError, DelegateError."""

    def describe(self) -> dict[str, Any]:
        return {"engine_version": self.version, "runtime_rss_bytes": conditions.vm_bytes("VmRSS")}

    def load(self, model: ModelFile) -> dict[str, Any]:
        start = time.perf_counter_ns()
        self.open(model)
        return {"load_ns": time.perf_counter_ns() - start, "delegate": self.delegate_share}

    def in_process_model(self) -> LoadedModel:
        return self

    def evaluate(self, data: SampleData, folder: Path) -> dict[str, Any]:
        evaluate.evaluate(self, data, folder)
        return {}

    def run(
        self, kind: str, samples: list[Sample], plan: SessionPlan, store: array.array[int], folder: Path
    ) -> dict[str, Any]:
        calls = intervals.of_model(self, samples, plan.timing)
        try:
            return runs.run(kind, calls, plan, store, folder)
        except (ValueError, RuntimeError) as error:
            raise RefusedError("%s can't run the model: %s" % (self.version, one_line(error))) from error
