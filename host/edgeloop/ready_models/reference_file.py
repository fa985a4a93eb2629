"""M1 as a fixed file: opened, checked against the data, counted, built as the baseline. Nothing of it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from edgeloop.builders.tvm.processor import this_processor
from edgeloop.builders.tvm.versions import TvmTarget, host_library_name, host_target
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Campaign
from edgeloop.core.dataset import DataSet
from edgeloop.core.frozen import key_of
from edgeloop.core.lightening import DYNAMIC
from edgeloop.core.measurement import Arrays
from edgeloop.core.model_format import ModelFormat
from edgeloop.core.network import NetworkIO, NetworkSizes, NetworkSpec
from edgeloop.data.shapes import network_io
from edgeloop.errors import ConfigError, Fault, ModelError, UserError, kept_on_disk
from edgeloop.host_runtime.model_files import write_description
from edgeloop.host_runtime.shapes import InputShapes
from edgeloop.host_runtime.tflite import count_tflite, read_tflite
from edgeloop.ports import Builder, TrainedNetwork, TrainingJob
from edgeloop.processes.files import copy_whole, sha256_of
from edgeloop.processes.limits import DEFAULT_LIMITS, ProcessLimits
from edgeloop.ready_models.compilation import compilation_cache, compile_model, inspect_model, predict_compiled
from edgeloop.ready_models.conversion import ConversionOptions, conversion_cache, convert
from edgeloop.ready_models.reference_tensors import name_as_data
from edgeloop.training.summary import read_trained

_FLOAT: Final = "fp32"


def check_reference_file(campaign: Campaign, data: DataSet) -> tuple[Campaign, Artifact | None]:
    """Open M1 where it is a file, so that what is wrong with it is said early: the campaign as it then is, and what M1
    is measured as; None where M1 is trained.

    A .tflite is measured as it is: the form that it is stored in becomes `reference.lightening`. Raises UserError and
    its kind, ModelError.
    """
    reference, limits = campaign.reference, campaign.toolchain.build_limits
    if reference.file is None:
        return campaign, None
    io = network_io(data, campaign.task)
    spec = NetworkSpec(file=reference.file)
    model = open_reference_file(spec, io, limits)
    if model.resized and reference.setting.delegate is not None:
        what = f"{reference.file} leaves dimensions open, which a delegate does not take"
        raise ConfigError([Fault("reference.delegate", what, "give it shapes of its own when it is converted")])
    if ModelFormat.of(Path(reference.file)) is ModelFormat.TFLITE:
        lightening = count_tflite(model)[1]
        return campaign.model_copy(update={"reference": reference.model_copy(update={"lightening": lightening})}), model
    return campaign, _baseline(spec, reference.lightening, io, data, model, limits)


def open_reference_file(network: NetworkSpec, io: NetworkIO, limits: ProcessLimits = DEFAULT_LIMITS) -> Artifact:
    """Return M1's file as a model that this host can run, its tensors called as the data call them: as it is where it
    is a .tflite, else converted in float, or compiled for this host.

    Raises UserError for a file that is no such model, or takes other data, MissingExtraError, ModelError, BuildError
    where the process that converts it dies or takes too long.
    """
    assert network.file is not None
    path = Path(network.file)
    model_format = ModelFormat.of(path)
    if model_format is ModelFormat.TFLITE:
        return name_as_data(read_tflite(path, _sample_shapes(io)), io, path)
    if model_format is None or not model_format.row.can_be_reference:
        raise UserError(
            f"{path}: no model that can be M1",
            next_step="name a .tflite, .onnx, .keras or .h5 file, or the folder of a SavedModel",
        )
    if model_format.runs_compiled:
        return _compile_reference(path, io, host_target(), limits)
    return _convert_reference(path, io, ConversionOptions(shapes=_sample_shapes(io)), limits)


def count_reference_file(network: NetworkSpec, io: NetworkIO) -> NetworkSizes:
    """Return what M1's file costs, counted on its own graph.

    Raises as `open_reference_file`, and ModelError where channels are to be removed, which a file keeps.
    """
    if network.pruned_pct:
        raise ModelError(f"{network.label} is a file: no channels are removed from it")
    if network.file is not None and _runs_compiled(network):
        return inspect_model(Path(network.file), _sample_shapes(io))[1]
    return count_tflite(open_reference_file(network, io))[0]


def is_compiled_file(model: Artifact) -> bool:
    """Return whether a model is a library that a file given as M1 was compiled to."""
    return model.converted_from is not None and ModelFormat.from_name(model.path) is ModelFormat.TVM_LIBRARY


def _sample_shapes(io: NetworkIO) -> InputShapes:
    return InputShapes(samples={shape.name: shape.shape for shape in io.inputs})


def _convert_reference(path: Path, io: NetworkIO, options: ConversionOptions, limits: ProcessLimits) -> Artifact:
    return name_as_data(convert(path, options, conversion_cache(), limits), io, path)


def _compile_reference(path: Path, io: NetworkIO, target: TvmTarget, limits: ProcessLimits) -> Artifact:
    return name_as_data(compile_model(path, _sample_shapes(io), target, compilation_cache(), limits), io, path)


def _runs_compiled(network: NetworkSpec) -> bool:
    model_format = ModelFormat.of(Path(network.file)) if network.file is not None else None
    return model_format is not None and model_format.runs_compiled


def _baseline(
    network: NetworkSpec, form: str, io: NetworkIO, data: DataSet, model: Artifact, limits: ProcessLimits
) -> Artifact:
    """M1's file in the form that it is measured as; `model` is the float one. Raises as `open_reference_file`, and
    UserError for a form it can't have."""
    assert network.file is not None
    path = Path(network.file)
    model_format = ModelFormat.of(path)
    if model_format is None or model_format.row.converter is None or form == _FLOAT:
        return model
    forms = model_format.row.forms
    if form not in forms:
        raise UserError(
            f"reference.lightening: TFLiteConverter makes no {form} of a file",
            next_step=f"it makes {', '.join(forms)}",
        )
    calibration = _by_own_names(data.calibration.x, model, path)
    options = ConversionOptions(form, _sample_shapes(io), calibration)
    baseline = _convert_reference(path, io, options, limits)
    if form == DYNAMIC and count_tflite(baseline)[1] == _FLOAT:
        raise UserError(
            f"{path}: as dynamic it stays float: TFLiteConverter leaves layers of fewer than 1,024 weights as they are",
            next_step='measure it as reference.lightening = "fp32" or "w8a8"',
        )
    return baseline


def _by_own_names(x: Arrays, model: Artifact, path: Path) -> Arrays:
    """Calibration samples by the names that the file itself has for its inputs."""
    if len(model.inputs) == 1:
        return {model.inputs[0].name: x[model.inputs[0].name]}
    missing = [spec.name for spec in model.inputs if spec.name not in x]
    if missing:
        raise UserError(f"{path}: no data for input {', '.join(missing)}")
    return {spec.name: x[spec.name] for spec in model.inputs}


@dataclass(frozen=True, slots=True)
class ReferenceFileBuilder:
    """A `ports.Builder` that gives M1's file as the baseline, and leaves every other network to another builder."""

    others: Builder
    data: DataSet
    artifacts: Path
    limits: ProcessLimits
    processor: Callable[[], TvmTarget]
    """Of the board; asked when a file is to be compiled for it."""

    def key(self, network: TrainedNetwork, lightening: str) -> str:
        job = _file_job(network)
        if job is None:
            return self.others.key(network, lightening)
        processors = [self.processor().model_dump(), this_processor()] if _runs_compiled(job.network) else []
        return key_of("fixed artifact", network.key, lightening, *processors)

    def build(self, network: TrainedNetwork, lightening: str) -> Artifact:
        """Return the file in the form that it is measured as, kept in the run's folder. Raises as
        `open_reference_file`."""
        job = _file_job(network)
        if job is None:
            return self.others.build(network, lightening)
        io = network_io(self.data, job.task)
        if _runs_compiled(job.network):
            baseline = _compile_reference(Path(str(job.network.file)), io, self.processor(), self.limits)
        else:
            model = open_reference_file(job.network, io, self.limits)
            baseline = _baseline(job.network, lightening, io, self.data, model, self.limits)
        return self._keep(baseline)

    def warm_up(self) -> None:
        self.others.warm_up()

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, NDArray[Any]]:
        if is_compiled_file(artifact):
            return predict_compiled(artifact, inputs, self.limits)
        return self.others.predict(artifact, inputs)

    def close(self) -> None:
        self.others.close()

    def _keep(self, baseline: Artifact) -> Artifact:
        """Copy a model, with what lies beside it for this host, into the run's folder."""
        model_format = ModelFormat.TVM_LIBRARY if is_compiled_file(baseline) else ModelFormat.TFLITE
        copy = self.artifacts / baseline.sha256 / f"model{model_format.suffix}"
        artifact = baseline.model_copy(update={"path": str(copy.resolve())})
        with kept_on_disk(copy):
            if copy.is_file() and sha256_of(copy) == baseline.sha256:
                return artifact
            copy.parent.mkdir(parents=True, exist_ok=True)
            host_library = Path(baseline.path).with_name(host_library_name())
            if model_format is ModelFormat.TVM_LIBRARY and host_library.is_file():
                copy_whole(host_library, copy.with_name(host_library.name))
            write_description(copy.parent, artifact)
            copy_whole(Path(baseline.path), copy)
        return artifact


def _file_job(network: TrainedNetwork) -> TrainingJob | None:
    """The job of an M1 that is a file; None for a network that was trained."""
    summary = read_trained(Path(network.folder))
    return summary[1] if summary is not None and summary[1].network.file is not None else None
