"""A ready .tflite is read in a child process; whatever is wrong with a file becomes one clear line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgeloop.errors import DataError, EdgeloopError, ModelError, UserError
from edgeloop.host_runtime.tflite import predict_tflite, read_tflite
from edgeloop.processes.limits import ProcessLimits


def _tensor(name: str | None, shape: list[int], buffer: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.buffer, tensor.type = name, shape, buffer, schema.TensorType.FLOAT32
    return tensor


def write_model(path: Path, *, names: bool = True, signature: bool = False, custom: str | None = None) -> Path:
    """`sum = left + right + weights`, written with the runtime's own schema; no converter is needed."""
    model = schema.ModelT()
    model.version = 3
    weights = np.arange(64, dtype=np.float32)
    buffers = [schema.BufferT(), schema.BufferT()]
    buffers[1].data = np.frombuffer(weights.tobytes(), np.uint8)
    code = schema.OperatorCodeT()
    code.builtinCode = schema.BuiltinOperator.CUSTOM if custom else schema.BuiltinOperator.ADD
    code.deprecatedBuiltinCode, code.customCode, code.version = code.builtinCode, custom, 1
    operators = []
    for inputs, outputs in (([0, 1], [3]), ([3, 2], [4])):
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = 0, inputs, outputs
        if not custom:
            op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
        operators.append(op)
    graph = schema.SubGraphT()
    graph.tensors = [
        _tensor(name if names else None, [1, 8, 8], 1 if name == "weights" else 0)
        for name in ("left:0", "right:0", "weights", "half", "sum:0")
    ]
    graph.inputs, graph.outputs, graph.operators = [0, 1], [4], operators
    model.subgraphs, model.buffers, model.operatorCodes = [graph], buffers, [code]
    if signature:
        definition = schema.SignatureDefT()
        definition.signatureKey, definition.subgraphIndex = "serving_default", 0
        definition.inputs, definition.outputs = [], []
        for kept, name, index in (
            (definition.inputs, "image", 0),
            (definition.inputs, "mask", 1),
            (definition.outputs, "score", 4),
        ):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, index
            kept.append(entry)
        model.signatureDefs = [definition]
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return path


@pytest.mark.parametrize(
    ("options", "inputs", "outputs"),
    [
        ({"signature": True}, ("image", "mask"), ("score",)),
        ({}, ("left", "right"), ("sum",)),
        ({"names": False}, ("input0", "input1"), ("output0",)),
    ],
)
def test_names_come_from_the_signature_else_the_tensors_else_their_positions(
    tmp_path: Path, options: dict[str, bool], inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> None:
    path = write_model(tmp_path / "m.tflite", **options)
    artifact = read_tflite(path)
    assert tuple(s.name for s in artifact.inputs) == inputs
    assert tuple(s.name for s in artifact.outputs) == outputs
    assert artifact.inputs[0].shape == (1, 8, 8)
    assert artifact.deployed_bytes == path.stat().st_size
    assert Path(artifact.path) == path


def test_reading_a_model_costs_little_more_than_the_import_of_its_runtime(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.tflite")
    imports = [sys.executable, "-c", "import numpy, pydantic, ai_edge_litert.interpreter"]
    import_s, read_s = [], []
    for _ in range(4):
        begin_s = time.monotonic()
        subprocess.run(imports, check=True)
        imported_s = time.monotonic()
        read_tflite(path)
        import_s.append(imported_s - begin_s)
        read_s.append(time.monotonic() - imported_s)
    assert min(read_s) < 4 * min(import_s)


def test_a_model_predicts_on_this_host_by_name_whatever_the_order_of_the_arrays(tmp_path: Path) -> None:
    artifact = read_tflite(write_model(tmp_path / "m.tflite"))
    left, right = np.ones((3, 8, 8), np.float32), np.full((3, 8, 8), 2, np.float32)
    outputs = predict_tflite(artifact, {"right": right, "left": left})
    np.testing.assert_allclose(outputs["sum"], np.broadcast_to(np.arange(64).reshape(8, 8) + 3, (3, 8, 8)))


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"left": np.zeros((1, 8, 8), np.float32)}, "no data for input right"),
        ({"left": np.zeros((1, 8, 9), np.float32), "right": np.zeros((1, 8, 8), np.float32)}, r"shape \(8, 8\)"),
        ({"left": np.zeros((1, 8, 8), np.uint8), "right": np.zeros((1, 8, 8), np.float32)}, "takes float32"),
    ],
)
def test_data_that_do_not_fit_are_the_datas_fault(tmp_path: Path, inputs: dict[str, Any], said: str) -> None:
    artifact = read_tflite(write_model(tmp_path / "m.tflite"))
    with pytest.raises(DataError, match=said):
        predict_tflite(artifact, inputs)


def _refused(path: Path, kind: type[EdgeloopError], said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        read_tflite(path)
    assert caught.value.exit_code == 2
    lines = caught.value.lines()
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert str(path) in lines[0]


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    _refused(tmp_path / "none.tflite", UserError, "no such file")
    _refused(tmp_path, UserError, "is a folder")


@pytest.mark.parametrize("content", [b"", b"TFL", b"schema = 1\nname = 'x'\n", b"\x80\x02}q\x00." * 50])
def test_what_is_no_tflite_is_told_without_loading_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    _refused(path, ModelError, "not a .tflite file")


@pytest.mark.parametrize("kept", [0.02, 0.3, 0.7, 0.99])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, kept: float) -> None:
    path = write_model(tmp_path / "m.tflite")
    content = path.read_bytes()
    path.write_bytes(content[: max(12, int(len(content) * kept))])
    _refused(path, ModelError, "cut short|damaged|can't be loaded|no graph")


def test_a_custom_operator_is_named(tmp_path: Path) -> None:
    _refused(
        write_model(tmp_path / "m.tflite", custom="MyOwnOp"),
        ModelError,
        "custom operators, which LiteRT does not have: MyOwnOp",
    )


def test_flipped_bits_give_an_artifact_or_one_line_and_never_end_this_process(tmp_path: Path) -> None:
    content = write_model(tmp_path / "m.tflite", signature=True).read_bytes()
    random = np.random.default_rng(0)
    refused = []
    for number in range(12):
        damaged = bytearray(content)
        for position in random.integers(8, len(damaged), size=8):
            damaged[position] ^= 1 << int(random.integers(8))
        path = tmp_path / f"{number}.tflite"
        path.write_bytes(damaged)
        try:
            read_tflite(path)
        except ModelError as error:
            refused.append(len(error.lines()))
    assert set(refused) == {1}


def test_a_file_that_keeps_the_runtime_busy_forever_ends_at_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from edgeloop.host_runtime import tflite

    monkeypatch.setattr(tflite, "_RUNTIME", (sys.executable, "-c", "while True: pass"))
    with pytest.raises(ModelError, match="was not done after 1 s"):
        read_tflite(write_model(tmp_path / "m.tflite"), limits=ProcessLimits(1))
