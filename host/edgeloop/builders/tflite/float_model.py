"""The float .tflite: converted from the exported graph, freed of needless transposes, its tensors numbered.

Runs in the builder's child process only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.builders.tflite.layout_copies import operator_name, remove_layout_copies
from edgeloop.builders.tflite.matching import Op, fingerprint
from edgeloop.core.recipe import Fingerprint, RecipeInput
from edgeloop.errors import BuildError
from edgeloop.host_runtime.litert import open_model
from edgeloop.host_runtime.tflite_pack import pack

_NUMBERED = re.compile(r"_(\d+)$")


@dataclass(frozen=True, slots=True)
class FloatModel:
    """Tensors are named `t<index>`, so that names are unique and a name tells the index."""

    content: bytes
    ops: tuple[Op, ...]
    inputs: tuple[int, ...]
    activations: tuple[int, ...]
    """Float tensors that are computed or fed, not stored."""
    constants: Mapping[int, NDArray[Any]]
    origins: Mapping[int, str]
    """The converter's name of each tensor: for the log."""


def convert(network: Path, inputs: Sequence[RecipeInput]) -> bytes:
    """Return the float .tflite of a `network.pt2`; `inputs` are the recipe's. Raises BuildError."""
    import litert_torch
    import torch

    program = torch.export.load(network)
    samples = tuple(torch.zeros(i.shape, dtype=getattr(torch, i.dtype)) for i in inputs)
    model = litert_torch.convert(program.module(), samples)
    content = model.model_content()
    return bytes(content)


def prepare(content: bytes, input_count: int, output_count: int) -> FloatModel:
    """Drop needless transposes, number the tensors, and put the inputs in the order of the network's arguments."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    if len(model.subgraphs) != 1:
        raise BuildError(f"the converter wrote {len(model.subgraphs)} subgraphs; control flow is not supported")
    graph = model.subgraphs[0]
    remove_layout_copies(model, graph)
    _order_by_signature(model, graph, input_count, output_count)
    origins = {}
    for index, tensor in enumerate(graph.tensors):
        origins[index] = (tensor.name or b"").decode(errors="replace")
        tensor.name = f"t{index}".encode()
    constants = {
        index: _constant(model, tensor)
        for index, tensor in enumerate(graph.tensors)
        if model.buffers[tensor.buffer].data is not None
    }
    ops = tuple(
        Op(operator_name(model, op), tuple(i for i in op.inputs if i >= 0), tuple(op.outputs)) for op in graph.operators
    )
    tensors = dict.fromkeys([*graph.inputs, *(t for op in ops for t in op.outputs)])
    floats = tuple(int(t) for t in tensors if graph.tensors[t].type == 0 and t not in constants)
    return FloatModel(
        content=bytes(flatbuffer_utils.convert_object_to_bytearray(model)),
        ops=ops,
        inputs=tuple(int(i) for i in graph.inputs),
        activations=floats,
        constants=constants,
        origins=origins,
    )


def strip(content: bytes, origins: Mapping[int, str]) -> tuple[bytes, int]:
    """Return the file without names, metadata and copies of equal vectors, and its bytes as the converter writes it.

    Names are up to half of a small file. Signatures go with them; the order of inputs and outputs stays.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for tensor in model.subgraphs[0].tensors:
        number = re.match(rb"t(\d+)", tensor.name or b"")
        if number:
            tensor.name = origins[int(number[1])].encode() + tensor.name[number.end() :]
    bytes_with_names = len(flatbuffer_utils.convert_object_to_bytearray(model))
    flatbuffer_utils.strip_strings(model)
    model.metadata = None
    return pack(model), bytes_with_names


def watch(
    model: FloatModel, inputs: Sequence[NDArray[Any]], extremes_of: Sequence[NDArray[Any]] | None = None
) -> tuple[dict[int, Fingerprint], dict[int, tuple[float, float]]]:
    """Return fingerprints over all samples of `inputs`, and lowest and highest values over `extremes_of` too.

    Arrays are (n, ...) in the model's order; n of `inputs` is small, since every tensor is kept.
    """
    interpreter = open_model(model.content, keep_all=True)
    arrays_of: dict[int, list[NDArray[Any]]] = {t: [] for t in model.activations}
    extremes: dict[int, tuple[float, float]] = {}

    def step(arrays: Sequence[NDArray[Any]], index: int) -> dict[int, NDArray[Any]]:
        for tensor, values in zip(model.inputs, arrays, strict=True):
            interpreter.set_tensor(tensor, np.ascontiguousarray(values[index : index + 1]))
        interpreter.invoke()
        return {t: interpreter.get_tensor(t) for t in model.activations}

    def widen(values: Mapping[int, NDArray[Any]]) -> None:
        for tensor, array in values.items():
            low, high = extremes.get(tensor, (0.0, 0.0))
            extremes[tensor] = (min(low, float(array.min())), max(high, float(array.max())))

    for index in range(len(inputs[0])):
        values = step(inputs, index)
        widen(values)
        for tensor, array in values.items():
            arrays_of[tensor].append(array)
    if extremes_of is not None:
        for index in range(len(extremes_of[0])):
            widen(step(extremes_of, index))
    return {t: fingerprint(arrays) for t, arrays in arrays_of.items()}, extremes


def _constant(model: Any, tensor: Any) -> NDArray[Any]:
    """A stored tensor's values; of types that are neither weights nor axes, the raw bytes."""
    dtype = {0: np.float32, 2: np.int32, 4: np.int64}.get(tensor.type, np.uint8)
    return np.frombuffer(bytes(model.buffers[tensor.buffer].data), dtype)


def _order_by_signature(model: Any, graph: Any, input_count: int, output_count: int) -> None:
    """Put inputs and outputs in the order of the network's arguments and results; the converter may have moved them."""
    signature = model.signatureDefs[0]
    for what, count, maps in (("inputs", input_count, signature.inputs), ("outputs", output_count, signature.outputs)):
        places = [(int(match[1]), int(m.tensorIndex)) for m in maps if (match := _NUMBERED.search(m.name.decode()))]
        if len(places) != count or len(maps) != count:
            raise BuildError(
                f"the converted model has {len(maps)} {what}, the network has {count}",
                next_step="an input that the network does not use, or one array returned twice, can't be built",
            )
        setattr(graph, what, [tensor for _, tensor in sorted(places)])
