"""Ready models of other formats, converted to .tflite once and kept: Keras files, SavedModels, torch.export archives.

A file is known by its content, the form and shapes that are asked for, and the versions of the tools.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeloop.builders.tflite import versions as tflite
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import key_of
from edgeloop.core.lightening import Lightening
from edgeloop.core.measurement import Arrays
from edgeloop.core.model_format import Converter, ModelFormat
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import BuildError, ModelError, UserError
from edgeloop.host_runtime.model_files import digest
from edgeloop.host_runtime.shapes import NO_SHAPES, InputShapes
from edgeloop.host_runtime.tflite import read_tflite
from edgeloop.processes.json_child import ChildError, faults_at, python_module, run_in_child
from edgeloop.processes.limits import DEFAULT_LIMITS, ProcessLimits
from edgeloop.ready_models import tensorflow_versions as tensorflow
from edgeloop.ready_models.jobs import ConvertAnswer, ConvertJob
from edgeloop.ready_models.model_cache import cache_root, find_or_make


@dataclass(frozen=True, slots=True)
class _ConverterRow:
    command: tuple[str, ...]
    tool_versions: Callable[[str], dict[str, str]]
    """Of a purpose; raises MissingExtraError."""
    revision: int
    """Raised when the converter itself changes what it writes."""


_CONVERTERS: Mapping[Converter, _ConverterRow] = {
    Converter.TENSORFLOW: _ConverterRow(
        python_module("edgeloop.ready_models.tensorflow_child"), tensorflow.tool_versions, tensorflow.FORMAT
    ),
    Converter.LITERT_TORCH: _ConverterRow(
        python_module("edgeloop.ready_models.torch_export_child"), tflite.tool_versions, tflite.FORMAT
    ),
}
_LOG, _CALIBRATION, _MODEL = "child.log", "calibration.npz", "model.tflite"


@dataclass(frozen=True, slots=True)
class ConversionOptions:
    """Options of a conversion. Calibration samples are channel-last arrays by the names of the data."""

    form: str = "fp32"
    shapes: InputShapes = NO_SHAPES
    calibration: Arrays = field(default_factory=dict)

    @property
    def needs_calibration(self) -> bool:
        return not Lightening.parse(self.form).is_float


def conversion_cache() -> Path:
    """The folder of converted files, for every run and command of this user."""
    return cache_root("converted")


def convert(path: Path, options: ConversionOptions, cache: Path, limits: ProcessLimits = DEFAULT_LIMITS) -> Artifact:
    """Convert a file, or find it converted below `cache`. Names of inputs and outputs are the file's own.

    Raises MissingExtraError where the toolchain is not installed, UserError, ModelError where the file can't be
    converted, BuildError where the toolchain crashes or takes too long.
    """
    model_format = ModelFormat.of(path)
    if model_format is None or model_format.row.converter is None:
        raise UserError(f"{path}: no model that can be converted to a .tflite")
    converter = _CONVERTERS[model_format.row.converter]
    tools = converter.tool_versions(f"reading {path.name}")
    key = key_of(
        "converted",
        converter.revision,
        digest(path),
        options.form,
        options.shapes.inputs,
        options.shapes.samples,
        _content(options.calibration) if options.needs_calibration else [],
        tools,
    )

    def make(folder: Path) -> Artifact:
        return _convert(path, options, folder, converter.command, limits).model_copy(update={"tools": tools})

    return find_or_make(path, cache / key, make)


def _content(arrays: Arrays) -> list[list[str]]:
    """Names and digests."""
    return [[n, hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()] for n, a in sorted(arrays.items())]


def _convert(
    path: Path, options: ConversionOptions, folder: Path, command: Sequence[str], limits: ProcessLimits
) -> Artifact:
    model, calibration = folder / _MODEL, None
    if options.needs_calibration:
        calibration = folder / _CALIBRATION
        np.savez(calibration, **options.calibration)  # type: ignore[arg-type]
    job = ConvertJob(
        source=path.resolve(), model=model, form=options.form, shapes=options.shapes, calibration=calibration
    )
    try:
        with faults_at(str(path)):
            answer = run_in_child(command, job, ConvertAnswer, folder, limits, log=_LOG)
    except ChildError as failure:
        raise BuildError(
            f"{path}: converting it to .tflite: the process {failure}",
            next_step=failure.more and f"in a campaign {failure.more} gives it more",
        ) from failure
    for name in (_LOG, _CALIBRATION):
        (folder / name).unlink(missing_ok=True)
    artifact = read_tflite(model)
    return artifact.model_copy(
        update={
            "inputs": _with_names(artifact.inputs, answer.inputs, path, "inputs"),
            "outputs": _with_names(artifact.outputs, answer.outputs, path, "outputs"),
            "bytes_before_strip": answer.bytes_before_strip,
            "converted_from": str(path.resolve()),
        }
    )


def _with_names(specs: Sequence[TensorSpec], names: Sequence[str], path: Path, what: str) -> tuple[TensorSpec, ...]:
    """The converted file's tensors under the names that the original has for them."""
    if len(specs) != len(names):
        raise ModelError(
            f"{path}: converted it has {len(specs)} {what}, the model has {len(names)}",
            next_step="an input that nothing reads, or one tensor returned twice, can't be kept",
        )
    return tuple(spec.model_copy(update={"name": name}) for spec, name in zip(specs, names, strict=True))
