"""Ready models as they come: open dimensions, signatures, operators that are missing, archives of torch.export."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import campaigns
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from edgeloop.app.request import ModelOptions, RequestChecks
from edgeloop.cli.words import spell
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Data, Task
from edgeloop.core.network import NetworkSpec, TensorShape
from edgeloop.data.load import load
from edgeloop.data.shapes import network_io
from edgeloop.engines.registry import LITERT
from edgeloop.errors import EdgeloopError, ModelError, UserError
from edgeloop.host_runtime.model_files import digest
from edgeloop.host_runtime.shapes import InputShapes
from edgeloop.host_runtime.tflite import count_tflite, predict_tflite, read_tflite
from edgeloop.ready_models.conversion import ConversionOptions, convert
from edgeloop.ready_models.model_cache import find_or_make
from edgeloop.ready_models.reference_file import count_reference_file, open_reference_file
from edgeloop.wiring.host_engines import ReadyModel, open_tflite

QUICK = ("--profile", "quick", "--sessions", "2", "--time-s-min", "0.05")


def write_open(
    path: Path,
    signature: tuple[int, ...] = (-1, -1, -1, 1),
    *,
    signatures: dict[str, int] | None = None,
    custom: str | None = None,
) -> Path:
    """A 3x3 convolution of ones and a mean over the map, of any height and width."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs = 3, [graph]
    stored = [np.ones(9, np.float32), np.zeros(1, np.float32), np.array([1, 2], np.int32)]
    model.buffers = [schema.BufferT() for _ in range(4)]
    for buffer, values in zip(model.buffers[1:], stored, strict=True):
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    sizes = [1 if size < 0 else size for size in signature]
    graph.tensors = []
    for name, shape, buffer, kind in (
        ("image", sizes, 0, schema.TensorType.FLOAT32),
        ("kernel", [1, 3, 3, 1], 1, schema.TensorType.FLOAT32),
        ("bias", [1], 2, schema.TensorType.FLOAT32),
        ("map", sizes, 0, schema.TensorType.FLOAT32),
        ("axes", [2], 3, schema.TensorType.INT32),
        ("score", [1, 1], 0, schema.TensorType.FLOAT32),
    ):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer, tensor.type = name, shape, buffer, kind
        tensor.shapeSignature = list(signature) if name == "image" else None
        graph.tensors.append(tensor)
    codes = [schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.MEAN]
    model.operatorCodes = []
    for builtin in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = schema.BuiltinOperator.CUSTOM if custom else builtin
        code.deprecatedBuiltinCode, code.customCode, code.version = code.builtinCode, custom, 1
        model.operatorCodes.append(code)
    convolution, mean = schema.OperatorT(), schema.OperatorT()
    convolution.opcodeIndex, convolution.inputs, convolution.outputs = 0, [0, 1, 2], [3]
    mean.opcodeIndex, mean.inputs, mean.outputs = 1, [3, 4], [5]
    if not custom:
        convolution.builtinOptionsType = schema.BuiltinOptions.Conv2DOptions
        convolution.builtinOptions = schema.Conv2DOptionsT()
        convolution.builtinOptions.strideH = convolution.builtinOptions.strideW = 1
        convolution.builtinOptions.dilationHFactor = convolution.builtinOptions.dilationWFactor = 1
        mean.builtinOptionsType, mean.builtinOptions = schema.BuiltinOptions.ReducerOptions, schema.ReducerOptionsT()
    graph.operators, graph.inputs, graph.outputs = [convolution, mean], [0], [5]
    model.signatureDefs = []
    for key, subgraph in (signatures or {}).items():
        definition = schema.SignatureDefT()
        definition.signatureKey, definition.subgraphIndex = key, subgraph
        definition.inputs, definition.outputs = [], []
        for kept, name, index in ((definition.inputs, "photo", 0), (definition.outputs, "mark", 5)):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, index
            kept.append(entry)
        model.signatureDefs.append(definition)
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    return path


def sums(x: Any) -> Any:
    """What the model should give: the mean over the map of 3x3 sums, padded with zeros."""
    padded = np.pad(x[..., 0], ((0, 0), (1, 1), (1, 1)))
    height, width = x.shape[1:3]
    return sum(padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)).mean((1, 2))


def test_open_dimensions_are_told_or_taken_from_the_data(tmp_path: Path) -> None:
    path = write_open(tmp_path / "m.tflite")
    x = np.random.default_rng(0).random((4, 6, 5, 1), np.float32)
    for artifact in (
        read_tflite(path, InputShapes(inputs={"image": (1, 6, 5, 1)})),
        read_tflite(path, InputShapes(samples={"x": (6, 5, 1)})),
    ):
        assert artifact.resized
        assert artifact.inputs[0].shape == (1, 6, 5, 1)
        np.testing.assert_allclose(predict_tflite(artifact, {"image": x})["score"][:, 0], sums(x), rtol=1e-5)
    sizes, form = count_tflite(artifact)
    assert (sizes.parameters, sizes.macs, form) == (10, 9 * 30, "fp32")
    closed = read_tflite(write_open(tmp_path / "c.tflite", (-1, 6, 5, 1)))
    assert (closed.resized, closed.inputs[0].shape) == (False, (1, 6, 5, 1)), "an open batch is 1"


def test_measure_resizes_on_the_board_and_scores_what_it_gives(tmp_path: Path) -> None:
    campaigns.write_local_board(tmp_path)
    path = write_open(tmp_path / "m.tflite")
    x = np.random.default_rng(0).random((40, 6, 5, 1), np.float32)
    np.savez(tmp_path / "d.npz", x=x, y=sums(x)[:, None].astype(np.float32))
    words = ("measure", path, "--target", "here", *QUICK)
    told = (*words, "--shape", "image=1,6,5,1")
    document = json.loads(campaigns.run(*told, "--data", "d.npz", "--json", cwd=tmp_path).stdout)
    assert document["accuracy"]["value"] < 1e-5, (document["accuracy"], "a mean error, of floats")
    assert document["model"]["converted_by"] is None
    larger = json.loads(campaigns.run(*words, "--shape", "image=1,400,400,1", "--json", cwd=tmp_path).stdout)
    assert larger["latency_ns"]["p50"] > 3 * document["latency_ns"]["p50"], "another shape is other work"
    pair = ("compare", path, path, "--target", "here", *QUICK, "--shape", "image=1,6,5,1", "--json")
    assert json.loads(campaigns.run(*pair, cwd=tmp_path).stdout)["difference"]["deployed_bytes"] == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "input image has the shape (?, ?, ?, 1), which leaves dimensions open; tell it with --shape image="),
        (("--shape", "image=1,6,5,3"), "input image takes the shape (?, ?, ?, 1), not (1, 6, 5, 3)"),
        (("--shape", "x=1,6,5,1"), "there is no input 'x'; the model's inputs are image"),
        (("--shape", "image=1,0,5,1"), "'image=1,0,5,1' is no NAME=1,28,28,1"),
        (("--shape", "image=1,6,5,1", "--shape", "image=1,6,5,1"), "input image is given twice"),
        (("--shape", "image=1,6,5,1", "--per-op"), "can't be cut into its operators"),
    ],
)
def test_a_shape_that_is_missing_or_wrong_is_one_line(tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    campaigns.write_local_board(tmp_path)
    path = write_open(tmp_path / "m.tflite")
    done = campaigns.run("measure", path, "--target", "here", *more, cwd=tmp_path, expect=2)
    assert "Traceback" not in done.stderr
    assert any(said in line for line in done.stderr.splitlines()), done.stderr


def test_the_default_signature_is_taken_of_several_and_others_are_refused(tmp_path: Path) -> None:
    shapes = {"photo": (1, 6, 5, 1)}
    several = write_open(tmp_path / "s.tflite", signatures={"other": 0, "serving_default": 0})
    assert read_tflite(several, InputShapes(inputs=shapes)).outputs[0].name == "mark"
    for signatures, said in (
        ({"f": 0, "g": 0}, "has the signatures f, g, and none is serving_default"),
        ({"f": 0, "serving_default": 1}, "is graph 1 of the file, and runtimes run the first"),
    ):
        with pytest.raises(ModelError, match=said):
            read_tflite(write_open(tmp_path / "s.tflite", signatures=signatures), InputShapes(inputs=shapes))


def test_a_tensorflow_operator_in_a_tflite_is_one_line(tmp_path: Path) -> None:
    campaigns.write_local_board(tmp_path)
    path = write_open(tmp_path / "flex.tflite", custom="FlexErfinv")
    done = campaigns.run("measure", path, "--target", "here", cwd=tmp_path, expect=2)
    assert "Traceback" not in done.stderr
    assert "operators of TensorFlow itself, which LiteRT does not have: FlexErfinv" in done.stderr


@pytest.mark.parametrize(("name", "extra"), [("m.keras", "tensorflow"), ("saved", "tensorflow"), ("m.pt2", "tflite")])
def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    path = tmp_path / name
    if path.suffix:
        path.write_bytes(b"any")
    else:
        path.mkdir()
        (path / "saved_model.pb").write_bytes(b"any")

    def absent(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", absent)
    checks = RequestChecks()
    model = ModelOptions("candidate", path, "model", "litert", threads=1, delegate="none")
    assert checks.open_model(model, LITERT, {}) is None
    (fault,) = checks.faults
    assert f"reading {name} needs the package" in str(fault)
    assert f"pip install 'edgeloop[{extra}]'" in str(fault)


@pytest.mark.parametrize(("name", "said"), [("none.keras", "no such file"), ("none.pt2", "no such file")])
def test_what_is_not_read_says_what_to_do(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(EdgeloopError, match=said):
        open_tflite(ReadyModel(tmp_path / name))


@pytest.mark.train
def test_an_archive_of_torch_export_is_converted_and_takes_channel_last_data(tmp_path: Path) -> None:
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

        def forward(self, image: torch.Tensor) -> Any:
            return self.last(torch.relu(self.first(image)).mean((2, 3), keepdim=True).flatten(1))

    torch.manual_seed(0)
    net, path = Net().eval(), tmp_path / "net.pt2"
    batch, height = torch.export.Dim("batch"), torch.export.Dim("height", min=4)
    samples = (torch.zeros(2, 3, 8, 6),)
    program = torch.export.export(net, samples, dynamic_shapes=({0: batch, 2: height},))
    torch.export.save(program, path)
    with pytest.raises(ModelError) as caught:
        convert(path, ConversionOptions(), tmp_path / "cache")
    assert "shapes=['image=1,3,32,6']" in caught.value.lines()[0]
    assert "--shape image=1,3,32,6" in caught.value.lines(spell)[0]
    with pytest.raises(UserError, match="no input 'x'"):
        convert(path, ConversionOptions(shapes=InputShapes(inputs={"x": (1, 3, 8, 6)})), tmp_path / "cache")
    artifact = convert(path, ConversionOptions(shapes=InputShapes(inputs={"image": (1, 3, 8, 6)})), tmp_path / "cache")
    x = np.random.default_rng(0).random((40, 8, 6, 3), np.float32)
    with torch.no_grad():
        wanted = net(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(predict_tflite(artifact, {"image": x})["output_0"], wanted, atol=1e-5)
    campaigns.write_local_board(tmp_path)
    np.savez(tmp_path / "d.npz", x=x, y=wanted.argmax(1))
    words = ("measure", path, "--target", "here", *QUICK, "--shape", "image=1,3,8,6", "--data", "d.npz", "--json")
    document = json.loads(campaigns.run(*words, cwd=tmp_path).stdout)
    assert (document["accuracy"]["metric"], document["accuracy"]["value"]) == ("top1", 1.0)
    assert "litert-torch" in document["model"]["converted_by"]


@pytest.mark.train
def test_a_channel_first_file_can_be_m1_and_gets_the_data_turned(tmp_path: Path) -> None:
    import torch
    from torch import nn

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10)).eval()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 1, 8, 8),)), tmp_path / "net.pt2")
    file = convert(tmp_path / "net.pt2", ConversionOptions(), tmp_path / "cache").path
    data = load(Data(provider="digits"))
    io = network_io(data, Task())
    m1 = open_reference_file(NetworkSpec(file=file), io)
    assert [(spec.name, spec.layout) for spec in m1.inputs] == [("x", "channels_first")]
    x = data.validation.x["x"][:20]
    with torch.no_grad():
        wanted = net(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(predict_tflite(m1, {"x": x})["y"], wanted, atol=1e-5)
    sizes = count_reference_file(NetworkSpec(file=file), io)
    assert (sizes.parameters, sizes.macs) == (6 * 10 + 10 * 217, 36 * 6 * 9 + 2160)
    with pytest.raises(ModelError, match=r"is a file: no channels are removed from it"):
        count_reference_file(NetworkSpec(file=file).without_channels(25), io)
    with pytest.raises(UserError, match=r"takes the shape \(1, 1, 8, 8\), the data have samples of \(9, 8, 1\)"):
        open_reference_file(
            NetworkSpec(file=file), io.model_copy(update={"inputs": (TensorShape(name="x", shape=(9, 8, 1)),)})
        )


def test_what_a_killed_conversion_left_long_ago_goes_with_the_next_one(tmp_path: Path) -> None:
    old, young = tmp_path / ".making-old", tmp_path / ".making-young"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (0, 0))
    (tmp_path / "m.tflite").write_bytes(b"m")

    def make(folder: Path) -> Artifact:
        (folder / "m.tflite").write_bytes(b"m")
        return Artifact(path="m.tflite", sha256=digest(tmp_path / "m.tflite"), deployed_bytes=1, inputs=(), outputs=())

    find_or_make(tmp_path / "m.tflite", tmp_path / "key", make)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".making-young", "key", "m.tflite"]
