"""The parent's half of the TFLite builder: keys, and one child process a build."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from edgeloop.builders import parity
from edgeloop.builders.store import ArtifactStore
from edgeloop.builders.tflite.jobs import BuildTfliteAnswer, BuildTfliteJob
from edgeloop.builders.tflite.recipe_file import read_recipe
from edgeloop.builders.tflite.versions import FORMAT, tool_versions
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import key_of
from edgeloop.core.lightening import Lightening
from edgeloop.core.measurement import Arrays
from edgeloop.errors import BuildError
from edgeloop.host_runtime.tflite import predict_tflite
from edgeloop.ports import TrainedNetwork
from edgeloop.processes.json_child import python_module
from edgeloop.processes.limits import ProcessLimits

CHILD = python_module("edgeloop.builders.tflite.convert_child")
_LIMITS: Final = ProcessLimits(deadline_s=600.0)


class TfliteBuilder:
    """A `ports.Builder` of `model.tflite`. Safe to call from several threads; each build is a process of its own."""

    def __init__(
        self, root: Path, gate: parity.Gate, *, limits: ProcessLimits = _LIMITS, command: Sequence[str] = CHILD
    ) -> None:
        """`root` is the store of artifacts, `limits` those of a build and of a prediction."""
        self._store = ArtifactStore(root, command, limits)
        self._gate = gate
        self._limits = limits

    def key(self, network: TrainedNetwork, lightening: str) -> str:
        """Raises MissingExtraError where the toolchain is not installed."""
        rung = Lightening.parse(lightening)
        return key_of("artifact", "tflite", FORMAT, network.key, rung, tool_versions(), self._gate.rule)

    def build(self, network: TrainedNetwork, lightening: str) -> Artifact:
        key = self.key(network, lightening)
        before = self._store.find(key)
        if before is not None:
            return before
        rung, source = Lightening.parse(lightening), Path(network.folder)
        recipe = read_recipe(source)
        if recipe.lightening != rung:
            raise BuildError(f"{network.folder}: was trained as {recipe.lightening.name}, not as {rung.name}")
        with self._store.new_folder() as folder:
            job = BuildTfliteJob(network=source.resolve(), folder=folder.resolve(), rule=self._gate.rule)
            answer = self._store.run(key, f"{rung.name} as .tflite", job, BuildTfliteAnswer, folder)
            return self._store.keep(key, folder, self._gate.judge(answer.artifact, source, folder))

    def warm_up(self) -> None:
        """Start a child that imports the toolchain and waits: the next build costs its own time only."""
        self._store.warm_up()

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return predict_tflite(artifact, inputs, self._limits)

    def close(self) -> None:
        """End every child, builds that are running included."""
        self._store.close()
