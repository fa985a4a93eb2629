"""A packed TFLite file says what the usual writer's says, and says equal vectors once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

schema: Any = pytest.importorskip("ai_edge_litert.schema_py_generated", exc_type=ImportError)
flatbuffer_utils: Any = pytest.importorskip("ai_edge_litert.tools.flatbuffer_utils", exc_type=ImportError)
from edgeloop.host_runtime.tflite_pack import pack  # noqa: E402 -- it needs the packages above

CHANNELS = st.integers(0, 3).map(lambda n: 4 * n)


def model_of(channels: list[int], weights: list[bytes], operators: list[tuple[int, int]]) -> Any:
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [schema.OperatorCodeT()]
    model.buffers = [schema.BufferT()]
    graph.tensors, graph.operators = [], []
    for count, content in zip(channels, weights, strict=True):
        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.data = np.frombuffer(content, np.uint8)
        model.buffers.append(buffer)
        tensor.buffer, tensor.shape = len(model.buffers) - 1, np.array([count, 3], np.int32)
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale = np.full(count, 0.5, np.float32)
        tensor.quantization.zeroPoint = np.zeros(count, np.int64)
        graph.tensors.append(tensor)
    for inputs in operators:
        operator = schema.OperatorT()
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array([0], np.int32)
        graph.operators.append(operator)
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([0], np.int32)
    return model


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return {key: plain(item) for key, item in vars(value).items()} if hasattr(value, "__dict__") else value


@given(st.data())
def test_reading_it_gives_the_same_model_as_the_usual_file_and_it_is_no_longer(data: st.DataObject) -> None:
    channels = data.draw(st.lists(CHANNELS, min_size=1, max_size=6))
    weights = data.draw(st.lists(st.binary(max_size=8), min_size=len(channels), max_size=len(channels)))
    operators = data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=4))
    model = model_of(channels, weights, operators)
    usual, ours = bytes(flatbuffer_utils.convert_object_to_bytearray(model)), pack(model)
    read = [plain(flatbuffer_utils.read_model_from_bytearray(bytearray(file))) for file in (usual, ours)]
    assert read[0] == read[1]
    assert len(ours) <= len(usual)


def test_zero_points_of_layers_of_one_width_are_stored_once() -> None:
    one, two = (pack(model_of([64] * n, [bytes([n, k]) * 20 for k in range(n)], [])) for n in (1, 2))
    assert len(two) - len(one) < 64 * 4  # a second layer of 64 channels adds neither scales nor zero points of its own
    assert pack(model_of([64], [b"a"], [])) == pack(model_of([64], [b"a"], []))
