"""The tensors of M1's file beside those of the data: names, shapes, types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeloop.core.artifact import Artifact
from edgeloop.core.network import NetworkIO, TensorShape
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import UserError
from edgeloop.host_runtime.shapes import format_shape, is_channels_first


def name_as_data(model: Artifact, io: NetworkIO, path: Path) -> Artifact:
    """Return the model with its tensors called as the data call them. Raises UserError where they don't fit."""
    inputs = _match_names(model.inputs, io.inputs, path, "inputs")
    outputs = _match_names(model.outputs, io.outputs, path, "outputs") if _named_by_data(model, io) else model.outputs
    shapes = {shape.name: shape for shape in io.inputs}
    inputs = tuple(_with_layout(spec, shapes[spec.name], path) for spec in inputs)
    if io.kind != "custom":
        targets = {shape.name: shape for shape in io.outputs}
        for spec in outputs:
            _check_output(spec, targets[spec.name], io, path)
    return model.model_copy(update={"inputs": inputs, "outputs": outputs})


def _named_by_data(model: Artifact, io: NetworkIO) -> bool:
    """True where outputs are the targets': a custom task's may be its own."""
    return io.kind != "custom" or len(model.outputs) == len(io.outputs) == 1


def _match_names(
    specs: Sequence[TensorSpec], shapes: Sequence[TensorShape], path: Path, what: str
) -> tuple[TensorSpec, ...]:
    """The only one is the data's only one, whatever the two call it; several go by name."""
    if len(specs) == len(shapes) == 1:
        return (specs[0].model_copy(update={"name": shapes[0].name}),)
    own, of_data = [spec.name for spec in specs], [shape.name for shape in shapes]
    if sorted(own) != sorted(of_data):
        raise UserError(
            f"{path}: its {what} are {', '.join(own)}, those of the data {', '.join(of_data)}",
            next_step="give both the same names",
        )
    return tuple(specs)


def _with_layout(spec: TensorSpec, shape: TensorShape, path: Path) -> TensorSpec:
    first = is_channels_first(spec.shape, shape.shape)
    if spec.shape[0] != 1 or (spec.shape[1:] != shape.shape and not first):
        raise UserError(
            f"{path}: input {spec.name} takes the shape {format_shape(spec.shape)}, the data have samples of "
            f"{format_shape(shape.shape)}",
            next_step="data are channel-last; a model that takes them one by one, channels last or first, can be M1",
        )
    floats = np.dtype(shape.dtype).kind == "f"
    if spec.dtype != shape.dtype and not (floats and (spec.scale is not None or np.dtype(spec.dtype).kind == "f")):
        raise UserError(f"{path}: input {spec.name} takes {spec.dtype}, the data are {shape.dtype}")
    return spec.model_copy(update={"layout": "channels_first"}) if first else spec


def _check_output(spec: TensorSpec, target: TensorShape, io: NetworkIO, path: Path) -> None:
    if spec.shape == (1, *target.shape):
        return
    what = (
        f"{target.shape[0]} classes"
        if io.kind == "classification"
        else f"values of the shape {format_shape(target.shape)}"
    )
    raise UserError(f"{path}: output {spec.name} has the shape {format_shape(spec.shape)}, the data ask for {what}")
