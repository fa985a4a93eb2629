"""The file that a delegate's own compiler makes of a built .tflite, and deploys in its place.

The parity gate and the metrics on this host are those of the .tflite that the compiler was given: what it writes may
run nowhere but on the board, where it is judged like every other file.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from edgeloop.builders.delegate_jobs import CompilerAnswer, CompilerJob
from edgeloop.builders.store import ArtifactStore
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays
from edgeloop.errors import BuildError
from edgeloop.host_runtime.tflite import count_operators, is_tflite, predict_tflite
from edgeloop.ports import Builder, TrainedNetwork
from edgeloop.processes.files import move_file, sha256_of
from edgeloop.processes.json_child import python_module
from edgeloop.processes.limits import ProcessLimits

FORMAT = 1
"""Raised when this builder itself changes what it writes, so that old artifacts are built anew."""
SOURCE, MODEL, LOG = "network.tflite", "model.tflite", "build.log"
"""The compiler's input, what is deployed, and the compiler's log."""
_OUTPUT = "compiled.tflite"
_LIMITS: Final = ProcessLimits(deadline_s=600.0)
_CHILD = python_module("edgeloop.builders.delegate_child")
_WORDS_MAX = 300


class DelegateBuilder:
    """A `ports.Builder` that lets a delegate's compiler loose on what another builder makes.

    Safe to call from several threads; each compilation is a process of its own.
    """

    def __init__(
        self,
        root: Path,
        tflite: Builder,
        delegate: str,
        command: Sequence[str],
        *,
        limits: ProcessLimits = _LIMITS,
    ) -> None:
        """`command` is the compiler's, `tflite` makes what it is given."""
        self._store = ArtifactStore(root, _CHILD, limits)
        self._limits = limits
        self._tflite = tflite
        self._delegate = delegate
        self._command = tuple(command)

    def key(self, network: TrainedNetwork, lightening: str) -> str:
        """Raises MissingExtraError where the toolchain is not installed."""
        source = self._tflite.key(network, lightening)
        return key_of("artifact", "delegate", FORMAT, source, self._command, self._tools())

    def build(self, network: TrainedNetwork, lightening: str) -> Artifact:
        """Raises as the other builder, BuildError where the compiler fails, takes too long or writes no .tflite."""
        key = self.key(network, lightening)
        before = self._store.find(key)
        if before is not None:
            return before
        source = self._tflite.build(network, lightening)
        with self._store.new_folder() as folder:
            shutil.copyfile(source.path, folder / SOURCE)
            self._compile(folder, key)
            program = Path(self._command[0]).name
            parity = source.parity
            if parity is not None:
                parity = parity.model_copy(update={"rule": f"{parity.rule}; before {program}"})
            artifact = source.model_copy(
                update={
                    "path": MODEL,
                    "sha256": sha256_of(folder / MODEL),
                    "deployed_bytes": (folder / MODEL).stat().st_size,
                    "tools": source.tools | {name: f"sha256 {digest[:12]}" for name, digest in self._tools()},
                    "parity": parity,
                    "compiled_operators": count_operators(source),
                }
            )
            return self._store.keep(key, folder, artifact)

    def warm_up(self) -> None:
        self._tflite.warm_up()

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs of what the compiler was given."""
        path = Path(artifact.path)
        source = path.with_name(SOURCE)
        model = artifact.model_copy(update={"path": str(source if source.is_file() else path)})
        return predict_tflite(model, inputs, self._limits)

    def close(self) -> None:
        """End compilers that are running; the other builder is closed by who made it."""
        self._store.close()

    def _tools(self) -> list[tuple[str, str]]:
        """Name and digest of every file that the command is made of: its program, and scripts that it names."""
        words = [shutil.which(self._command[0]) or self._command[0], *self._command[1:]]
        files = [Path(word) for word in words if Path(word).is_file()]
        return [(file.name, sha256_of(file)) for file in files]

    def _compile(self, folder: Path, key: str) -> None:
        """Leave the compiler's file as MODEL. Raises BuildError."""
        places = {"{model}": str(folder.resolve() / SOURCE), "{output}": str(folder.resolve() / _OUTPUT)}
        words = tuple(_with_paths(word, places) for word in self._command)
        job = CompilerJob(words=words, folder=folder.resolve())
        what = f"with {self._command[0]} for the delegate {self._delegate}"
        problem = self._store.run(key, what, job, CompilerAnswer, folder).problem
        if problem is None:
            models = [path for path in sorted(folder.glob("*.tflite")) if path.name != SOURCE]
            if len(models) == 1 and is_tflite(models[0]):
                move_file(models[0], folder / MODEL)
                return
            names = ", ".join(path.name for path in models) or "none"
            problem = f"was to write one .tflite, found {names}"
        else:
            problem += _last_words(folder / LOG)
        log = self._store.keep_failure(key, folder / LOG)
        raise BuildError(
            f"compiling for the delegate {self._delegate}: {self._command[0]} {problem}", next_step=f"its log is {log}"
        )


def _with_paths(word: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        word = word.replace(name, path)
    return word


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:_WORDS_MAX]}" if lines else ""
