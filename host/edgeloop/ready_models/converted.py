"""Ready models of other formats, converted to .tflite once and kept: Keras files, SavedModels, torch.export archives.

A file is known by its content, the form that is asked, the shapes that are told and the versions of the tools. Below
`root` lies `<key>/` with `model.tflite` and `artifact.json`; a folder appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from platformdirs import user_cache_path
from pydantic import ValidationError

from edgeloop.builders.tflite import versions as tflite
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays
from edgeloop.errors import BuildError, ModelError, UserError, kept_on_disk
from edgeloop.host_runtime.model_files import digest
from edgeloop.host_runtime.tflite import read_tflite
from edgeloop.processes.json_child import ChildError, ChildProcess, python_module, raise_told
from edgeloop.ready_models import tensorflow_versions as tensorflow

FORMS = ("fp32", "fp16", "dynamic", "w8a16", "w8a8")
"""What TFLiteConverter makes of a Keras file or a SavedModel."""
_CALIBRATED = ("w8a16", "w8a8")
_KERAS = (".keras", ".h5")
_SAVED_MODEL = "saved_model.pb"
_ARCHIVE = ".pt2"
_DEADLINE_S = 900.0
_MAKING = ".making-"
_ABANDONED_S = 7 * 24 * 3600.0
"""Much longer than any deadline."""
_TENSORFLOW = python_module("edgeloop.ready_models.tensorflow_child")
_TORCH = python_module("edgeloop.ready_models.torch_export_child")


@dataclass(frozen=True, slots=True)
class Conversion:
    """How a file is converted. Calibration samples are channel-last arrays by the names of the data."""

    form: str = "fp32"
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Whole shapes of inputs by the model's names, for dynamic dimensions."""
    samples: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Shapes of one channel-last sample by the names of the data, for those that nobody told."""
    calibration: Arrays = field(default_factory=dict)


def converted_root() -> Path:
    """Where converted files are kept, for every run and command of this user."""
    return user_cache_path("edgeloop") / "converted"


def is_convertible(path: Path) -> bool:
    """Whether this is a format that is converted."""
    return is_tensorflow(path) or path.suffix == _ARCHIVE


def is_tensorflow(path: Path) -> bool:
    """Whether TensorFlow reads it: a .keras or .h5 file, or the folder of a SavedModel."""
    return (path.suffix in _KERAS and not path.is_dir()) or (path / _SAVED_MODEL).is_file()


def converted(
    path: Path,
    asked: Conversion,
    root: Path,
    *,
    deadline_s: float = _DEADLINE_S,
    memory_max_bytes: int | None = None,
) -> Artifact:
    """Convert a file, or find it converted below `root`. Names of inputs and outputs are the file's own.

    Raises MissingExtraError where the toolchain is not installed, UserError, ModelError where the file can't be
    converted, BuildError where the toolchain crashes or takes too long.
    """
    purpose = f"reading {path.name}"
    if is_tensorflow(path):
        command, tools, written = _TENSORFLOW, tensorflow.tool_versions(purpose), tensorflow.FORMAT
    else:
        command, tools, written = _TORCH, tflite.tool_versions(purpose), tflite.FORMAT
    calibrated = asked.form in _CALIBRATED
    key = key_of(
        "converted",
        written,
        digest(path),
        asked.form,
        {name: list(shape) for name, shape in asked.shapes.items()},
        {name: list(shape) for name, shape in asked.samples.items()},
        _content(asked.calibration) if calibrated else [],
        tools,
    )

    def convert(making: Path) -> Artifact:
        return _convert(path, asked, making, command, tools, deadline_s, memory_max_bytes, calibrated=calibrated)

    return kept(path, root / key, convert)


def kept(source: Path, folder: Path, make: Callable[[Path], Artifact]) -> Artifact:
    """What a file was made into: found in `folder` where it was made before, else made in another and renamed.

    `make` leaves files in the folder that it is given, and says which of them is the model. Raises what it raises,
    StationError for this machine's disk.
    """
    found = _found(folder, source)
    if found is not None:
        return found
    root = folder.parent
    with kept_on_disk(root):
        root.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(root)
        making = Path(tempfile.mkdtemp(prefix=_MAKING, dir=root))
        try:
            artifact = make(making)
            name = Path(artifact.path).name
            content = json.dumps(artifact.model_dump(mode="json") | {"path": name}, indent=1)
            (making / "artifact.json").write_text(content)
            _published(making, folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return artifact.model_copy(update={"path": str(folder / name)})


def _clear_abandoned(root: Path) -> None:
    """Remove what a killed process left half-made; it may have been another machine's, so that its age tells."""
    for path in root.glob(f"{_MAKING}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)


def _published(making: Path, final: Path) -> None:
    """Give the folder its name; where another process was faster, its folder is the same and stays."""
    if final.exists() and _found(final, final) is None:
        shutil.rmtree(final)
    try:
        making.replace(final)
    except OSError:
        if _found(final, final) is None:
            raise


def _content(arrays: Arrays) -> list[list[str]]:
    """Names and digests."""
    return [[n, hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()] for n, a in sorted(arrays.items())]


def _found(folder: Path, source: Path) -> Artifact | None:
    """What was made before, if the file is still what it was."""
    try:
        artifact = Artifact.model_validate_json((folder / "artifact.json").read_bytes())
        model = folder / Path(artifact.path).name
        if digest(model) != artifact.sha256:
            return None
    except (OSError, UserError, ValidationError):
        return None
    return artifact.model_copy(update={"path": str(model), "converted_from": str(source.resolve())})


def _convert(
    path: Path,
    asked: Conversion,
    making: Path,
    command: Sequence[str],
    tools: dict[str, str],
    deadline_s: float,
    memory_max_bytes: int | None,
    *,
    calibrated: bool,
) -> Artifact:
    model, calibration = making / "model.tflite", making / "calibration.npz"
    if calibrated:
        np.savez(calibration, **asked.calibration)  # type: ignore[arg-type]
    job: dict[str, Any] = {
        "source": str(path.resolve()),
        "target": str(model),
        "form": asked.form,
        "shapes": {name: list(shape) for name, shape in asked.shapes.items()},
        "samples": {name: list(shape) for name, shape in asked.samples.items()},
        "calibration": str(calibration) if calibrated else None,
    }
    log = making / "log"
    try:
        answer = ChildProcess(command, log, memory_max_bytes).finish(job, making / "result.json", deadline_s)
    except ChildError as failure:
        raise BuildError(
            f"{path}: converting it to .tflite: the process {failure}",
            next_step=failure.more and f"in a campaign {failure.more} gives it more",
        ) from failure
    raise_told(answer, str(path))
    for left in (log, calibration, making / "result.json"):
        left.unlink(missing_ok=True)
    read = read_tflite(model)
    names = [(read.inputs, answer["inputs"], "inputs"), (read.outputs, answer["outputs"], "outputs")]
    for found, wanted, what in names:
        if len(found) != len(wanted):
            raise ModelError(
                f"{path}: converted it has {len(found)} {what}, the model has {len(wanted)}",
                next_step="an input that nothing reads, or one tensor returned twice, can't be kept",
            )
    inputs, outputs = (
        tuple(spec.model_copy(update={"name": name}) for spec, name in zip(found, wanted, strict=True))
        for found, wanted, _ in names
    )
    return read.model_copy(
        update={
            "inputs": inputs,
            "outputs": outputs,
            "tools": tools,
            "bytes_before_strip": answer["bytes_before_strip"],
            "converted_from": str(path.resolve()),
        }
    )
