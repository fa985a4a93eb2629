"""The parent's half of the TVM builder: the .tflite of a trained network, compiled for the board's processor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeloop.builders import parity
from edgeloop.builders.store import ArtifactStore
from edgeloop.builders.tvm.compile_child import MODEL
from edgeloop.builders.tvm.processor import this_processor
from edgeloop.builders.tvm.tuning import Tuner
from edgeloop.builders.tvm.versions import FORMAT, TvmTarget, on_host, tool_versions
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays
from edgeloop.host_runtime.tflite import predict_in_child
from edgeloop.ports import Builder, TrainedNetwork
from edgeloop.processes.json_child import python_module

CHILD = python_module("edgeloop.builders.tvm.compile_child")


class TvmBuilder:
    """A `ports.Builder` of `model.so`. Safe to call from several threads; each build is a process of its own."""

    def __init__(
        self,
        root: Path,
        gate: parity.Gate,
        tflite: Builder,
        target: Callable[[], TvmTarget],
        *,
        tuner: Tuner | None = None,
        deadline_s: float = 600.0,
        memory_max_bytes: int | None = None,
        command: Sequence[str] = CHILD,
    ) -> None:
        """`tflite` makes what TVM imports; `target` is asked once, when something is to be built.

        Without a tuner a rule chooses all schedules.
        """
        self._store = ArtifactStore(root, command, deadline_s, memory_max_bytes)
        self._deadline_s, self._memory_max_bytes = deadline_s, memory_max_bytes
        self._command = tuple(command)
        self._gate = gate
        self._tflite = tflite
        self._target = functools.cache(target)
        self._tuner = tuner

    def key(self, trained: TrainedNetwork, lightening: str) -> str:
        """Raises MissingExtraError where the toolchain is not installed."""
        imported = self._tflite.key(trained, lightening)
        tuned = [] if self._tuner is None else [self._tuner.key]
        processors = [self._target().model_dump(), this_processor()]
        return key_of("artifact", "tvm", FORMAT, imported, tool_versions(), processors, self._gate.rule, *tuned)

    def build(self, trained: TrainedNetwork, lightening: str) -> Artifact:
        key = self.key(trained, lightening)
        found = self._store.found(key)
        if found is not None:
            return found
        imported = self._tflite.build(trained, lightening)
        tuned = None if self._tuner is None else self._tuner.tuned(imported, self._target(), self._store)
        with self._store.building() as folder:
            job = {
                "do": "build",
                "model": imported.path,
                **_tensors(imported),
                "processor": self._target().model_dump(),
                "tuned": None if tuned is None else {w: choice.model_dump() for w, choice in tuned.items()},
                "probe": str(Path(trained.folder).resolve() / "probe.npz"),
                "rule": self._gate.rule,
                "target": str(folder.resolve()),
            }
            artifact = self._store.run_child(key, f"{lightening} with TVM for {self._target()}", job, folder)
            return self._store.keep(key, folder, self._gate.by_task(artifact, Path(trained.folder), folder))

    def warm_up(self) -> None:
        """Start the toolchains ahead of the next build."""
        self._tflite.warm_up()
        self._store.warm_up()

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs of the network compiled for this host, by name, (n, ...): equal to the board's but for rounding.

        Raises DataError where an input has no array, HarnessError where running it crashes or takes too long.
        """
        return predict_in_child(
            self._command,
            running(artifact),
            artifact,
            inputs,
            deadline_s=self._deadline_s,
            memory_max_bytes=self._memory_max_bytes,
        )

    def close(self) -> None:
        """End every child of this builder, builds that are running included."""
        self._store.close()


def running(artifact: Artifact) -> dict[str, Any]:
    """What the child is told to run a compiled network on this host."""
    path = Path(artifact.path)
    here = path.with_name(on_host())
    library = here if here.is_file() else path.with_name(MODEL)
    return {"model": str(library), "tensors": _tensors(artifact)}


def _tensors(artifact: Artifact) -> dict[str, Any]:
    return {
        key: [spec.model_dump(mode="json") for spec in specs]
        for key, specs in (("inputs", artifact.inputs), ("outputs", artifact.outputs))
    }
