"""The parent's half of the TFLite builder: keys, and one child process a build."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeloop.builders import parity
from edgeloop.builders.store import ArtifactStore
from edgeloop.builders.tflite.versions import FORMAT, tool_versions
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import key_of
from edgeloop.core.lightening import Lightening
from edgeloop.core.measurement import Arrays
from edgeloop.errors import BuildError
from edgeloop.host_runtime.tflite import predict_tflite
from edgeloop.ports import TrainedNetwork
from edgeloop.processes.json_child import python_module

CHILD = python_module("edgeloop.builders.tflite.convert_child")


class TfliteBuilder:
    """A `ports.Builder`. Safe to call from several threads; each build is a process of its own."""

    def __init__(
        self,
        root: Path,
        gate: parity.Gate,
        *,
        deadline_s: float = 600.0,
        memory_max_bytes: int | None = None,
        command: Sequence[str] = CHILD,
    ) -> None:
        self._store = ArtifactStore(root, command, deadline_s, memory_max_bytes)
        self._gate = gate
        self._deadline_s, self._memory_max_bytes = deadline_s, memory_max_bytes

    def key(self, trained: TrainedNetwork, lightening: str) -> str:
        """Raises MissingExtraError where the toolchain is not installed."""
        rung = Lightening.parse(lightening)
        return key_of("artifact", "tflite", FORMAT, trained.key, rung, tool_versions(), self._gate.rule)

    def build(self, trained: TrainedNetwork, lightening: str) -> Artifact:
        key = self.key(trained, lightening)
        found = self._store.found(key)
        if found is not None:
            return found
        wanted = Lightening.parse(lightening)
        recipe = json.loads((Path(trained.folder) / "recipe.json").read_bytes())
        if recipe["lightening"] != wanted.model_dump(mode="json"):
            raise BuildError(f"{trained.folder}: was trained as {recipe['lightening']['name']}, not as {wanted.name}")
        with self._store.building() as target:
            job = {
                "source": str(Path(trained.folder).resolve()),
                "target": str(target.resolve()),
                "rule": self._gate.rule,
            }
            artifact = self._store.run_child(key, f"{wanted.name} as .tflite", job, target)
            return self._store.keep(key, target, self._gate.by_task(artifact, Path(trained.folder), target))

    def warm_up(self) -> None:
        """Start a child that imports the toolchain and waits: the next build costs its own time only."""
        self._store.warm_up()

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return predict_tflite(artifact, inputs, deadline_s=self._deadline_s, memory_max_bytes=self._memory_max_bytes)

    def close(self) -> None:
        """End every child, builds that are running included."""
        self._store.close()
