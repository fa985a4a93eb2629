"""The parent's half of the TVM builder: the .tflite of a trained network, compiled for the board's processor."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from edgeloop.builders import parity
from edgeloop.builders.store import ArtifactStore
from edgeloop.builders.tvm.jobs import BuildLibraryAnswer, BuildLibraryJob, RunLibraryJob
from edgeloop.builders.tvm.processor import this_processor
from edgeloop.builders.tvm.tuning import Tuner
from edgeloop.builders.tvm.versions import FORMAT, MODEL, TvmTarget, host_library_name, tool_versions
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays
from edgeloop.host_runtime.sample_files import SampleFiles
from edgeloop.host_runtime.tflite import predict_in_child
from edgeloop.ports import Builder, TrainedNetwork
from edgeloop.processes.json_child import python_module
from edgeloop.processes.limits import ProcessLimits

CHILD = python_module("edgeloop.builders.tvm.compile_child")
_LIMITS: Final = ProcessLimits(deadline_s=600.0)


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
        limits: ProcessLimits = _LIMITS,
        command: Sequence[str] = CHILD,
    ) -> None:
        """`tflite` makes what TVM imports; `target` is asked once, when something is to be built.

        Without a tuner a rule chooses all schedules.
        """
        self._store = ArtifactStore(root, command, limits)
        self._limits = limits
        self._command = tuple(command)
        self._gate = gate
        self._tflite = tflite
        self._target = functools.cache(target)
        self._tuner = tuner

    def key(self, network: TrainedNetwork, lightening: str) -> str:
        """Raises MissingExtraError where the toolchain is not installed."""
        source = self._tflite.key(network, lightening)
        tuning = [] if self._tuner is None else [self._tuner.key]
        processors = [self._target().model_dump(), this_processor()]
        return key_of("artifact", "tvm", FORMAT, source, tool_versions(), processors, self._gate.rule, *tuning)

    def build(self, network: TrainedNetwork, lightening: str) -> Artifact:
        key = self.key(network, lightening)
        before = self._store.find(key)
        if before is not None:
            return before
        source, target = self._tflite.build(network, lightening), self._target()
        choices = None if self._tuner is None else self._tuner.tune(source, target, self._store)
        with self._store.new_folder() as folder:
            job = BuildLibraryJob(
                model=Path(source.path),
                inputs=source.inputs,
                outputs=source.outputs,
                target=target,
                choices=choices,
                probe=Path(network.folder).resolve() / "probe.npz",
                rule=self._gate.rule,
                folder=folder.resolve(),
            )
            what = f"{lightening} with TVM for {target}"
            answer = self._store.run(key, what, job, BuildLibraryAnswer, folder)
            return self._store.keep(key, folder, self._gate.judge(answer.artifact, Path(network.folder), folder))

    def warm_up(self) -> None:
        """Start the toolchains ahead of the next build."""
        self._tflite.warm_up()
        self._store.warm_up()

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs of the network compiled for this host, by name, (n, ...): equal to the board's but for rounding.

        Raises DataError where an input has no array, HarnessError where running it crashes or takes too long.
        """
        return predict_library(artifact, inputs, self._limits, command=self._command)

    def close(self) -> None:
        """End every child of this builder, builds that are running included."""
        self._store.close()


def predict_library(
    artifact: Artifact, inputs: Arrays, limits: ProcessLimits = _LIMITS, *, command: Sequence[str] = CHILD
) -> dict[str, NDArray[Any]]:
    """Return the outputs of a compiled network on this host, as `TvmBuilder.predict` does."""

    def job(samples: SampleFiles) -> RunLibraryJob:
        library = host_library(artifact)
        return RunLibraryJob(library=library, inputs=artifact.inputs, outputs=artifact.outputs, samples=samples)

    return predict_in_child(command, job, artifact, inputs, limits)


def host_library(artifact: Artifact) -> Path:
    """The library of a compiled network that runs on this machine."""
    path = Path(artifact.path)
    beside = path.with_name(host_library_name())
    return beside if beside.is_file() else path.with_name(MODEL)
