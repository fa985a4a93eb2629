"""Ready models: what a .tflite takes and gives, read in a child process, and its outputs on this host.

A file that is cut short or hostile can crash the runtime, so the controller's process never opens one.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.artifact import Artifact
from edgeloop.core.measurement import Arrays
from edgeloop.core.network import NetworkSizes
from edgeloop.core.profile import Operator, Parts
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import DataError, HarnessError, ModelError, UserError
from edgeloop.processes.json_child import ChildError, ChildProcess, python_module, raise_told

_RUNTIME = python_module("edgeloop.host_runtime.litert_child")
_INSPECT_DEADLINE_S = 30.0
_PREDICT_DEADLINE_S = 600.0
_IDENTIFIER = b"TFL3"


def read_tflite(
    path: Path,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    samples: Mapping[str, Sequence[int]] | None = None,
    delegated: bool = False,
    deadline_s: float = _INSPECT_DEADLINE_S,
) -> Artifact:
    """Return what is known of a ready .tflite: hash, bytes, and its inputs and outputs by name.

    Names come from the signature where there is one, else from the tensors, else from their positions. Dynamic
    dimensions take what `shapes` tell of inputs by name, batch included, or else the shape of one channel-last sample
    in `samples`; a batch that nobody tells is 1. A file that is `delegated` may have operators that only the delegate
    knows: it is then described, and not prepared to run.
    Raises UserError where there is no such file, or no such input, ModelError where it is no usable model.
    """
    content = _read(path)
    if content[4:8] != _IDENTIFIER:
        raise ModelError(
            f"{path}: not a .tflite file" + (" (it is empty)" if not content else " (bytes 4 to 8 are not TFL3)"),
            next_step="give a model that the TFLite or LiteRT converter wrote",
        )
    try:
        job = {
            "do": "inspect",
            "model": str(path.resolve()),
            "shapes": shapes or {},
            "samples": samples or {},
            "delegated": delegated,
        }
        answer = _ask(_RUNTIME, job, deadline_s)
    except ChildError as failure:
        raise ModelError(
            f"{path}: damaged or hostile: the process that loaded it {failure.message}",
            next_step="compare its hash with the original's",
        ) from failure
    raise_told(answer, str(path))
    return Artifact(
        path=str(path.resolve()),
        sha256=hashlib.sha256(content).hexdigest(),
        deployed_bytes=len(content),
        inputs=tuple(TensorSpec.model_validate(s) for s in answer["inputs"]),
        outputs=tuple(TensorSpec.model_validate(s) for s in answer["outputs"]),
        resized=answer["resized"],
    )


def read_library(path: Path) -> Artifact:
    """Return what is known of a model.so that edgeloop built: from `artifact.json` beside it, never by loading it.

    Raises UserError where there is no such file, ModelError where it is not the file that its description is of.
    """
    content = _read(path)
    step = "keep model.so and artifact.json together, as a run puts them out in best/"
    described = path.with_name("artifact.json")
    try:
        artifact = Artifact.model_validate_json(described.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{path}: there is no {described.name} beside it", next_step=step) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{described}: can't be read as the description of a built model", next_step=step) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != artifact.sha256:
        raise ModelError(f"{described}: describes another file than {path.name}", next_step=step)
    return artifact.model_copy(update={"path": str(path.resolve()), "deployed_bytes": len(content)})


def predict_tflite(
    artifact: Artifact,
    inputs: Arrays,
    *,
    deadline_s: float = _PREDICT_DEADLINE_S,
    memory_max_bytes: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Return the outputs of a .tflite on this host by name, (n, ...), dequantized to float32.

    Same dtype goes in raw, float is quantized by the tensor's own scale. Raises DataError where the arrays don't fit,
    ModelError where the model can't be loaded, HarnessError where running it crashes or takes too long.
    """
    job = {"model": artifact.path, "shapes": artifact.resized_to}
    return predict_in_child(_RUNTIME, job, artifact, inputs, deadline_s=deadline_s, memory_max_bytes=memory_max_bytes)


def predict_in_child(
    command: Sequence[str],
    job: Mapping[str, Any],
    artifact: Artifact,
    inputs: Arrays,
    *,
    deadline_s: float = _PREDICT_DEADLINE_S,
    memory_max_bytes: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Give a child the job `predict` with the samples, and return the outputs by name; raises as `predict_tflite`."""
    missing = [s.name for s in artifact.inputs if s.name not in inputs]
    if missing:
        raise DataError(f"{artifact.path}: no data for input {', '.join(missing)}; given: {', '.join(inputs)}")
    with tempfile.TemporaryDirectory(prefix="edgeloop-predict-") as name:
        given, made = Path(name) / "inputs.npz", Path(name) / "outputs.npz"
        np.savez(given, **{str(i): inputs[s.name] for i, s in enumerate(artifact.inputs)})  # type: ignore[arg-type]
        try:
            asked = {**job, "do": "predict", "inputs": str(given), "outputs": str(made)}
            answer = _ask(command, asked, deadline_s, memory_max_bytes)
        except ChildError as failure:
            raise HarnessError(
                f"{artifact.path}: running it on this host: the process {failure}",
                next_step=failure.more and f"{failure.more} gives it more",
            ) from failure
        raise_told(answer, artifact.path)
        with np.load(made) as arrays:
            return {s.name: arrays[str(i)] for i, s in enumerate(artifact.outputs)}


def cut_tflite(artifact: Artifact, path: Path, *, deadline_s: float = _PREDICT_DEADLINE_S) -> Parts:
    """Cut a .tflite into its operators, each a model of its own, into a .zip. Equal models give equal bytes.

    Raises ModelError where it can't be run operator by operator, HarnessError where cutting crashes or takes too long.
    """
    answer = _looked(artifact, "cutting it into its operators", {"do": "cut", "parts": str(path)}, deadline_s)
    return Parts(
        path=str(path),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        operators=tuple(Operator.model_validate(operator) for operator in answer["operators"]),
        parts=tuple(map(tuple, answer["parts"])),
    )


def count_tflite(artifact: Artifact, *, deadline_s: float = _PREDICT_DEADLINE_S) -> tuple[NetworkSizes, str]:
    """Return what a .tflite costs, counted on its own graph for one sample, and the lightening that it is stored in.

    Raises ModelError where it has nothing to count, HarnessError where counting crashes or takes too long.
    """
    answer = _looked(artifact, "counting its operators", {"do": "count", "shapes": artifact.resized_to}, deadline_s)
    return NetworkSizes.model_validate(answer["sizes"]), str(answer["lightening"])


def operators_in(artifact: Artifact, *, deadline_s: float = _INSPECT_DEADLINE_S) -> int:
    """Return how many operators a .tflite has. Raises ModelError, HarnessError where looking crashes."""
    answer = _looked(artifact, "reading its operators", {"do": "operators"}, deadline_s)
    return int(answer["operators"])


def is_tflite(path: Path) -> bool:
    """Whether a file begins as a .tflite does."""
    with path.open("rb") as handle:
        return handle.read(8)[4:] == _IDENTIFIER


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise UserError(f"{path}: is a folder, and no SavedModel", next_step="name the model's file in it")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from error


def _looked(artifact: Artifact, what: str, job: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
    """The runtime child's answer to a question about a model. Raises HarnessError where it crashes or takes too long,
    and what it tells."""
    try:
        answer = _ask(_RUNTIME, {**job, "model": artifact.path}, deadline_s)
    except ChildError as failure:
        raise HarnessError(f"{artifact.path}: {what}: the process {failure}") from failure
    raise_told(answer, artifact.path)
    return answer


def _ask(
    command: Sequence[str], job: Mapping[str, Any], deadline_s: float, memory_max_bytes: int | None = None
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="edgeloop-runtime-") as name:
        folder = Path(name)
        return ChildProcess(command, folder / "log", memory_max_bytes).finish(job, folder / "result.json", deadline_s)
