"""The file that a delegate's own compiler makes of a built .tflite, and deploys in its place.

The parity gate and the metrics on this host are those of the .tflite that the compiler was given: what it writes may
run nowhere but on the board, where it is judged like every other file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeloop.builders.store import ArtifactStore
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays
from edgeloop.errors import BuildError
from edgeloop.host_runtime.tflite import is_tflite, operators_in, predict_tflite
from edgeloop.ports import Builder, TrainedNetwork
from edgeloop.processes.json_child import python_module

FORMAT = 1
"""Raised when this builder itself changes what it writes, so that old artifacts are built anew."""
SOURCE, MODEL, LOG = "network.tflite", "model.tflite", "build.log"
"""What the compiler is given, what is deployed, and what the compiler said."""
_OUTPUT = "compiled.tflite"
_CHILD = python_module("edgeloop.builders.delegate_child")
_SAID_MAX = 300


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
        deadline_s: float = 600.0,
        memory_max_bytes: int | None = None,
    ) -> None:
        self._root = root
        self._store = ArtifactStore(root, _CHILD, deadline_s, memory_max_bytes)
        self._deadline_s, self._memory_max_bytes = deadline_s, memory_max_bytes
        self._tflite = tflite
        self._delegate = delegate
        self._command = tuple(command)

    def key(self, trained: TrainedNetwork, lightening: str) -> str:
        """Raises MissingExtraError where the toolchain is not installed."""
        return key_of(
            "artifact", "delegate", FORMAT, self._tflite.key(trained, lightening), self._command, self._tools()
        )

    def build(self, trained: TrainedNetwork, lightening: str) -> Artifact:
        """Raises as the other builder, BuildError where the compiler fails, takes too long or writes no .tflite."""
        key = self.key(trained, lightening)
        found = self._store.found(key)
        if found is not None:
            return found
        given = self._tflite.build(trained, lightening)
        with self._store.building() as folder:
            shutil.copyfile(given.path, folder / SOURCE)
            self._compile(folder, key)
            content = (folder / MODEL).read_bytes()
            program = Path(self._command[0]).name
            parity = given.parity
            if parity is not None:
                parity = parity.model_copy(update={"rule": f"{parity.rule}; before {program}"})
            artifact = given.model_copy(
                update={
                    "path": MODEL,
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "deployed_bytes": len(content),
                    "tools": given.tools | {name: f"sha256 {digest[:12]}" for name, digest in self._tools()},
                    "parity": parity,
                    "compiled_operators": operators_in(given),
                }
            )
            (folder / "artifact.json").write_text(json.dumps(artifact.model_dump(mode="json"), indent=1))
            return self._store.keep(key, folder, artifact)

    def warm_up(self) -> None:
        self._tflite.warm_up()

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Outputs of what the compiler was given."""
        path = Path(artifact.path)
        source = path.with_name(SOURCE)
        return predict_tflite(
            artifact.model_copy(update={"path": str(source if source.is_file() else path)}),
            inputs,
            deadline_s=self._deadline_s,
            memory_max_bytes=self._memory_max_bytes,
        )

    def close(self) -> None:
        """End compilers that are running; the other builder is closed by who made it."""
        self._store.close()

    def _tools(self) -> list[tuple[str, str]]:
        """Name and digest of every file that the command is made of: its program, and scripts that it names."""
        words = [shutil.which(self._command[0]) or self._command[0], *self._command[1:]]
        files = [Path(word) for word in words if Path(word).is_file()]
        return [(file.name, hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]

    def _compile(self, folder: Path, key: str) -> None:
        """Leave the compiler's file as MODEL. Raises BuildError."""
        places = {"{model}": str(folder.resolve() / SOURCE), "{output}": str(folder.resolve() / _OUTPUT)}
        job = {"words": [_placed(word, places) for word in self._command], "folder": str(folder.resolve())}
        what = f"with {self._command[0]} for the delegate {self._delegate}"
        problem = self._store.run(key, what, job, folder)["problem"]
        if problem is None:
            found = [path for path in sorted(folder.glob("*.tflite")) if path.name != SOURCE]
            if len(found) == 1 and is_tflite(found[0]):
                found[0].replace(folder / MODEL)
                return
            wrote = ", ".join(path.name for path in found) or "none"
            problem = f"was to write one .tflite, found {wrote}"
        else:
            problem += _said(folder / LOG)
        log = self._root / "failed" / f"{key[:16]}.log"
        log.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / LOG, log)
        raise BuildError(
            f"compiling for the delegate {self._delegate}: {self._command[0]} {problem}", next_step=f"its log is {log}"
        )


def _placed(word: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        word = word.replace(name, path)
    return word


def _said(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1][:_SAID_MAX]}" if lines else ""
