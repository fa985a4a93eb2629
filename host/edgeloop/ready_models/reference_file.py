"""M1 as a fixed file: opened and checked against the data, counted, run on them once, and built as the baseline.

Nothing of it is trained. What it gives on the training samples is what M3 is taught.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.analysis.scoring import Scorer
from edgeloop.builders.tvm.compile_child import MODEL
from edgeloop.builders.tvm.processor import this_processor
from edgeloop.builders.tvm.versions import TvmTarget, on_host, this_host
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Campaign, Toolchain
from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.core.frozen import key_of
from edgeloop.core.measurement import Arrays
from edgeloop.core.network import NetworkIO, NetworkSizes, NetworkSpec, TensorShape
from edgeloop.core.tensors import TensorSpec
from edgeloop.data.shapes import network_io
from edgeloop.errors import ConfigError, Fault, HarnessError, ModelError, UserError, kept_on_disk
from edgeloop.host_runtime.model_files import ONNX
from edgeloop.host_runtime.shapes import is_channels_first, shown
from edgeloop.host_runtime.tflite import count_tflite, predict_tflite, read_tflite
from edgeloop.ports import Builder, TrainedNetwork, TrainingJob
from edgeloop.ready_models.converted import FORMS, Conversion, converted, converted_root, is_tensorflow
from edgeloop.ready_models.tvm import compiled, compiled_root, inspected, predict_compiled
from edgeloop.training.summary import read_trained, write_trained

if TYPE_CHECKING:
    from edgeloop.training.train import TeacherOutputs

_OUTPUTS = "outputs.npz"
_SECONDS_A_SAMPLE = 0.5
_PREDICT_S_MIN = 600.0
_SUM_TOLERANCE = 0.01
"""Of the sum of a row of probabilities from 1."""
_PROBABILITY_MIN = 1e-6
PROBABILITIES = "its outputs are probabilities, whose logarithms teach as logits"


def check_fixed(campaign: Campaign, data: DataSet) -> tuple[Campaign, Artifact | None]:
    """Open M1 where it is a file, so that what is wrong with it is said early: the campaign as it then is, and what M1
    is measured as; None where M1 is trained.

    A .tflite is measured as it is: the form that it is found in becomes `reference.lightening`. Raises UserError and
    its kind, ModelError.
    """
    reference = campaign.reference
    if reference.file is None:
        return campaign, None
    io = network_io(data, campaign.task)
    spec = NetworkSpec(file=reference.file)
    opened = open_fixed(spec, io, campaign.toolchain)
    if opened.resized and reference.setting.delegate is not None:
        what = f"{reference.file} leaves dimensions open, which a delegate does not take"
        raise ConfigError([Fault("reference.delegate", what, "give it shapes of its own when it is converted")])
    if Path(reference.file).suffix == ".tflite":
        found = count_tflite(opened)[1]
        return campaign.model_copy(update={"reference": reference.model_copy(update={"lightening": found})}), opened
    return campaign, _baseline(spec, reference.lightening, io, data, opened, campaign.toolchain)


def open_fixed(network: NetworkSpec, io: NetworkIO, toolchain: Toolchain = Toolchain()) -> Artifact:  # noqa: B008 -- frozen
    """M1's file as a model that this host can run, its tensors called as the data call them: float where it is
    converted, as it is where it is a .tflite, compiled for this host where it is an .onnx.

    Raises UserError for a file that is no such model, or takes other data, MissingExtraError, ModelError, BuildError
    where the process that converts it dies or takes too long.
    """
    assert network.file is not None
    path = Path(network.file)
    samples = {shape.name: shape.shape for shape in io.inputs}
    if path.suffix == ".tflite":
        return _as_data(read_tflite(path, samples=samples), io, path)
    if path.suffix == ONNX:
        return _compiled(path, io, this_host(), toolchain)
    if not is_tensorflow(path):
        raise UserError(
            f"{path}: no model that can be M1",
            next_step="name a .tflite, .onnx, .keras or .h5 file, or the folder of a SavedModel",
        )
    return _as_data(_converted(path, Conversion(samples=samples), toolchain), io, path)


def _converted(path: Path, asked: Conversion, toolchain: Toolchain) -> Artifact:
    return converted(
        path,
        asked,
        converted_root(),
        deadline_s=toolchain.build_deadline_s,
        memory_max_bytes=toolchain.memory_max_bytes,
    )


def fixed_sizes(network: NetworkSpec, io: NetworkIO) -> NetworkSizes:
    """What M1's file costs, counted on its own graph.

    Raises as `open_fixed`, and ModelError where channels are to be removed, which a file keeps.
    """
    if network.pruned_pct:
        raise ModelError(f"{network.label} is a file: no channels are removed from it")
    if network.file is not None and Path(network.file).suffix == ONNX:
        return inspected(Path(network.file), _sampled(io))[1]
    return count_tflite(open_fixed(network, io))[0]


def _compiled(path: Path, io: NetworkIO, target: TvmTarget, toolchain: Toolchain) -> Artifact:
    made = compiled(
        path,
        _sampled(io),
        target,
        compiled_root(),
        deadline_s=toolchain.build_deadline_s,
        memory_max_bytes=toolchain.memory_max_bytes,
    )
    return _as_data(made, io, path)


def _sampled(io: NetworkIO) -> Conversion:
    return Conversion(samples={shape.name: shape.shape for shape in io.inputs})


def run_fixed(
    job: TrainingJob, key: str, data: DataSet, networks: Path, report: Callable[[str, float], None]
) -> TrainedNetwork:
    """Run M1's file on validation data and, where it teaches, on training and unlabelled data; write `networks/<key>`.

    Raises UserError and its kind, ModelError, HarnessError.
    """
    from edgeloop.training.result import new_training_folder

    began = time.monotonic()
    model = open_fixed(job.network, network_io(data, job.task))
    splits = {"validation": data.validation}
    if job.recipe.teacher == "m1":
        splits |= {"train": data.train}
        splits |= {"unlabelled": data.unlabelled} if data.unlabelled is not None else {}
    given = {}
    for done, (name, split) in enumerate(splits.items()):
        report("running M1 on the data", done / len(splits))
        given[name] = _run_on(model, split)
    scorer = Scorer(job.task)
    metrics = scorer.values(given["validation"], scorer.targets(data.validation.x, data.validation.y))
    note = None
    steps = {spec.name: spec.scale or 0.0 for spec in model.outputs}
    if "train" in given and job.task.kind == "classification" and _are_probabilities(given["train"], steps):
        note = PROBABILITIES
        given = {name: _logits(outputs, steps) for name, outputs in given.items()}
    trained = TrainedNetwork(
        key=key,
        folder=str(networks / key),
        seconds=time.monotonic() - began,
        epochs=0,
        validation=metrics,
        note=note,
    )
    with new_training_folder(networks, key) as made:
        taught = {f"{name}/{n}": y for name, ys in given.items() if name != "validation" for n, y in ys.items()}
        if taught:
            np.savez(made / _OUTPUTS, **taught)  # type: ignore[arg-type]
        write_trained(made, trained, job, [])
    return trained


def read_opinions(folder: Path) -> TeacherOutputs:
    """What M1 gave on the samples that are taught. Raises HarnessError where it was not asked."""
    from edgeloop.training.train import TeacherOutputs

    try:
        with np.load(folder / _OUTPUTS) as arrays:
            held = dict(arrays)
    except (OSError, ValueError) as error:
        raise HarnessError(f"{folder / _OUTPUTS}: can't be read: {error}") from error

    def of(split: str) -> Arrays:
        return {name.partition("/")[2]: values for name, values in held.items() if name.startswith(f"{split}/")}

    return TeacherOutputs(of("train"), of("unlabelled") or None)


def _run_on(model: Artifact, split: DataSplit) -> dict[str, NDArray[Any]]:
    predict = predict_compiled if _is_compiled(model) else predict_tflite
    return predict(model, split.x, deadline_s=max(_PREDICT_S_MIN, _SECONDS_A_SAMPLE * len(split)))


def _is_compiled(model: Artifact) -> bool:
    """Whether M1 was an .onnx."""
    return model.converted_from is not None and model.path.endswith(".so")


def _are_probabilities(outputs: Arrays, steps: Mapping[str, float]) -> bool:
    """Whether every row of every output is nonnegative and sums to 1; quantized parts are each off by half a step."""
    return all(
        bool((values >= 0).all())
        and bool((np.abs(values.sum(axis=-1) - 1) <= _SUM_TOLERANCE + steps[name] / 2 * values.shape[-1]).all())
        for name, values in outputs.items()
    )


def _logits(outputs: Arrays, steps: Mapping[str, float]) -> dict[str, NDArray[Any]]:
    """Logarithms of probabilities, those that were stored as 0 taken as half a step."""
    return {
        name: np.log(np.maximum(values, max(_PROBABILITY_MIN, steps[name] / 2))).astype(np.float32)
        for name, values in outputs.items()
    }


# the file's tensors beside those of the data


def _as_data(model: Artifact, io: NetworkIO, path: Path) -> Artifact:
    """The model with its tensors called as the data call them. Raises UserError where they don't fit."""
    inputs = _matched(model.inputs, io.inputs, path, "inputs")
    outputs = _matched(model.outputs, io.outputs, path, "outputs") if _named_by_data(model, io) else model.outputs
    by_name = {shape.name: shape for shape in io.inputs}
    checked = tuple(_checked_input(spec, by_name[spec.name], path) for spec in inputs)
    if io.kind != "custom":
        asked = {shape.name: shape for shape in io.outputs}
        for spec in outputs:
            _check_output(spec, asked[spec.name], io, path)
    return model.model_copy(update={"inputs": checked, "outputs": outputs})


def _named_by_data(model: Artifact, io: NetworkIO) -> bool:
    """Whether outputs are the targets': a custom task's may be its own."""
    return io.kind != "custom" or len(model.outputs) == len(io.outputs) == 1


def _matched(
    specs: Sequence[TensorSpec], shapes: Sequence[TensorShape], path: Path, what: str
) -> tuple[TensorSpec, ...]:
    """The only one is the data's only one, whatever the two call it; several go by name."""
    if len(specs) == len(shapes) == 1:
        return (specs[0].model_copy(update={"name": shapes[0].name}),)
    found, wanted = [spec.name for spec in specs], [shape.name for shape in shapes]
    if sorted(found) != sorted(wanted):
        raise UserError(
            f"{path}: its {what} are {', '.join(found)}, those of the data {', '.join(wanted)}",
            next_step="give both the same names",
        )
    return tuple(specs)


def _checked_input(spec: TensorSpec, shape: TensorShape, path: Path) -> TensorSpec:
    moved = is_channels_first(spec.shape, shape.shape)
    if spec.shape[0] != 1 or (spec.shape[1:] != shape.shape and not moved):
        raise UserError(
            f"{path}: input {spec.name} takes the shape {shown(spec.shape)}, the data have samples of "
            f"{shown(shape.shape)}",
            next_step="data are channel-last; a model that takes them one by one, channels last or first, can be M1",
        )
    floats = np.dtype(shape.dtype).kind == "f"
    if spec.dtype != shape.dtype and not (floats and (spec.scale is not None or np.dtype(spec.dtype).kind == "f")):
        raise UserError(f"{path}: input {spec.name} takes {spec.dtype}, the data are {shape.dtype}")
    return spec.model_copy(update={"layout": "channels_first"}) if moved else spec


def _check_output(spec: TensorSpec, asked: TensorShape, io: NetworkIO, path: Path) -> None:
    if spec.shape == (1, *asked.shape):
        return
    what = f"{asked.shape[0]} classes" if io.kind == "classification" else f"values of the shape {shown(asked.shape)}"
    raise UserError(f"{path}: output {spec.name} has the shape {shown(spec.shape)}, the data ask for {what}")


# the baseline: what is measured


def _baseline(
    network: NetworkSpec, form: str, io: NetworkIO, data: DataSet, opened: Artifact, toolchain: Toolchain
) -> Artifact:
    """M1's file in the form that it is measured as. Raises as `open_fixed`, and UserError for a form it can't have."""
    assert network.file is not None
    path = Path(network.file)
    if path.suffix in (".tflite", ONNX) or form == "fp32":
        return opened
    if form not in FORMS:
        raise UserError(
            f"reference.lightening: TFLiteConverter makes no {form} of a file",
            next_step=f"it makes {', '.join(FORMS)}",
        )
    samples = {shape.name: shape.shape for shape in io.inputs}
    asked = Conversion(form, samples=samples, calibration=_for_model(data.calibration.x, opened, path))
    made = _as_data(_converted(path, asked, toolchain), io, path)
    if form == "dynamic" and count_tflite(made)[1] == "fp32":
        raise UserError(
            f"{path}: as dynamic it stays float: TFLiteConverter leaves layers of fewer than 1,024 weights as they are",
            next_step='measure it as reference.lightening = "fp32" or "w8a8"',
        )
    return made


def _for_model(x: Arrays, opened: Artifact, path: Path) -> Arrays:
    """Calibration samples by the names that the file itself has for its inputs."""
    if len(opened.inputs) == 1:
        return {opened.inputs[0].name: x[opened.inputs[0].name]}
    missing = [spec.name for spec in opened.inputs if spec.name not in x]
    if missing:
        raise UserError(f"{path}: no data for input {', '.join(missing)}")
    return {spec.name: x[spec.name] for spec in opened.inputs}


@dataclass(frozen=True, slots=True)
class ReferenceFileBuilder:
    """A `ports.Builder` that gives M1's file as the baseline, and leaves every other network to another builder."""

    others: Builder
    data: DataSet
    artifacts: Path
    toolchain: Toolchain
    processor: Callable[[], TvmTarget]
    """Of the board; asked when an .onnx is to be compiled for it."""

    def key(self, trained: TrainedNetwork, lightening: str) -> str:
        job = _file_of(trained)
        if job is None:
            return self.others.key(trained, lightening)
        compiled_for = [self.processor().model_dump(), this_processor()] if _is_onnx(job) else []
        return key_of("fixed artifact", trained.key, lightening, *compiled_for)

    def build(self, trained: TrainedNetwork, lightening: str) -> Artifact:
        """The file in the form that it is measured as, kept in the run's folder. Raises as `open_fixed`."""
        job = _file_of(trained)
        if job is None:
            return self.others.build(trained, lightening)
        io = network_io(self.data, job.task)
        if _is_onnx(job):
            made = _compiled(Path(str(job.network.file)), io, self.processor(), self.toolchain)
        else:
            opened = open_fixed(job.network, io, self.toolchain)
            made = _baseline(job.network, lightening, io, self.data, opened, self.toolchain)
        name = MODEL if _is_compiled(made) else "model.tflite"
        kept = self.artifacts / made.sha256 / name
        with kept_on_disk(kept):
            kept.parent.mkdir(parents=True, exist_ok=True)
            _copy(Path(made.path), kept)
            beside = Path(made.path).with_name(on_host())
            if name == MODEL and beside.is_file():
                _copy(beside, kept.with_name(beside.name))
            told = made.model_dump(mode="json") | {"path": kept.name}
            (kept.parent / "artifact.json").write_text(json.dumps(told, indent=1))
        return made.model_copy(update={"path": str(kept.resolve())})

    def warm_up(self) -> None:
        self.others.warm_up()

    def predict(self, artifact: Artifact, inputs: Arrays) -> dict[str, NDArray[Any]]:
        if _is_compiled(artifact):
            bounds = self.toolchain
            return predict_compiled(
                artifact, inputs, deadline_s=bounds.build_deadline_s, memory_max_bytes=bounds.memory_max_bytes
            )
        return self.others.predict(artifact, inputs)

    def close(self) -> None:
        self.others.close()


def _copy(source: Path, copy: Path) -> None:
    """As a whole or not at all."""
    partial = copy.with_name(f"{copy.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(copy)


def _is_onnx(job: TrainingJob) -> bool:
    return job.network.file is not None and Path(job.network.file).suffix == ONNX


def _file_of(trained: TrainedNetwork) -> TrainingJob | None:
    """The job of an M1 that is a file; None for a network that was trained."""
    found = read_trained(Path(trained.folder))
    return found[1] if found is not None and found[1].network.file is not None else None
