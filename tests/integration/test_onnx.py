"""ONNX files through TVM: measured, compared, as M1; and what can't be compiled, in one line."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import campaigns
import numpy as np
import pytest

from edgeloop.app.request import ModelOptions, RequestChecks
from edgeloop.builders.tvm.versions import TvmTarget, host_target
from edgeloop.config.campaign_file import load_campaign
from edgeloop.core.campaign import Data
from edgeloop.data.load import load
from edgeloop.engines.registry import TVM
from edgeloop.errors import EdgeloopError, ModelError, UserError
from edgeloop.host_runtime.model_files import digest
from edgeloop.host_runtime.shapes import NO_SHAPES, InputShapes
from edgeloop.host_runtime.tflite import read_library
from edgeloop.ready_models.compilation import compile_model, inspect_model, predict_compiled
from edgeloop.ready_models.compile_model_child import _compare
from edgeloop.ready_models.jobs import CompileGraphJob
from edgeloop.ready_models.reference_file import check_reference_file
from edgeloop.ready_models.reference_outputs import PROBABILITIES

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("tvm_ffi", reason="needs the tvm extra")
onnx = pytest.importorskip("onnx", reason="needs the onnx extra")
import onnx_models  # noqa: E402 -- needs onnx

nn = torch.nn
pytestmark = pytest.mark.train
QUICK = ("--target", "here", "--profile", "quick", "--sessions", "2", "--time-s-min", "0.05")
TINY = Path(__file__).parents[1] / "data" / "tiny_float.tflite"


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Linear(16, 10)

    def forward(self, x: Any) -> Any:
        return self.last(self.second(self.norm(self.first(x)).relu()).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def digits() -> Any:
    """Trained for a second or two: about nine in ten are right."""
    torch.manual_seed(0)
    network, data = Digits(), load(Data(provider="digits"))
    x = torch.from_numpy(data.train.x["x"]).permute(0, 3, 1, 2)
    y = torch.from_numpy(data.train.y["y"]).long()
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(12):
        for chosen in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[chosen]), y[chosen]).backward()
            optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def test_data() -> Any:
    return load(Data(provider="digits")).test


def scores_of(network: Any, x: Any) -> Any:
    """Of channel-last samples."""
    with torch.no_grad():
        return network(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()


def test_a_file_is_measured_on_a_board_as_torch_computes_it(digits: Any, test_data: Any, tmp_path: Path) -> None:
    campaigns.write_local_board(tmp_path)
    path = onnx_models.write_digits(tmp_path / "m.onnx", digits, batch="batch")
    x = test_data.x["x"][:60]
    np.savez(tmp_path / "d.npz", x=x, y=scores_of(digits, x).argmax(1))
    done = campaigns.run("measure", path, *QUICK, "--data", "d.npz", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["engine"].startswith("tvm 0.27"), "which needs not be said"
    assert (document["accuracy"]["metric"], document["accuracy"]["value"]) == ("top1", 1.0)
    assert (document["model"]["path"], document["model"]["converted_by"]["onnx"]) == (str(path), onnx.__version__)
    found, sizes = inspect_model(path, NO_SHAPES)
    assert [(s.name, s.shape) for s in (*found.inputs, *found.outputs)] == [
        ("image", (1, 1, 8, 8)),
        ("scores", (1, 10)),
    ]
    assert sizes.parameters == 8 * 10 + 16 * 73 + 10 * 17, "batch norm is in the layer before it"
    assert sizes.macs == 64 * 8 * 9 + 16 * 16 * 72 + 160
    assert sizes.activations == (64, 8 * 64, 16 * 16, 16, 10)
    assert sizes.peak_activation_elements == 8 * 64 + 16 * 16
    pair = ("compare", path, TINY, *QUICK, "--json")
    compared = json.loads(campaigns.run(*pair, cwd=tmp_path).stdout)
    assert [compared[side]["engine"].split()[0] for side in "ab"] == ["tvm", "litert"]


def test_it_is_cross_built_once_and_what_runs_here_lies_beside_it(digits: Any, test_data: Any, tmp_path: Path) -> None:
    path = onnx_models.write_digits(tmp_path / "m.onnx", digits)
    target = TvmTarget(machine="aarch64", mcpu="cortex-a72")
    artifact = compile_model(path, NO_SHAPES, target, tmp_path / "cache")
    library = Path(artifact.path)
    assert int.from_bytes(library.read_bytes()[18:20], "little") == 183  # EM_AARCH64
    x = test_data.x["x"][:20]
    made = predict_compiled(artifact, {"image": x})["scores"]
    np.testing.assert_allclose(made, scores_of(digits, x), atol=1e-5)
    stamp = library.stat().st_mtime_ns
    assert compile_model(path, NO_SHAPES, target, tmp_path / "cache") == artifact
    assert library.stat().st_mtime_ns == stamp
    assert read_library(library).sha256 == artifact.sha256, "it is a ready library like any other"
    assert "left" not in library.with_name("build.log").read_text(), "no function as plain loops, no way left out"


def write_many(path: Path) -> Path:
    """Most of what networks of images are made of, two inputs and two outputs."""
    torch.manual_seed(1)
    graph = onnx_models.Graph()
    graph.store("zero", np.float32(0)), graph.store("six", np.float32(6))
    a = graph.convolution(nn.Conv2d(3, 8, 3, padding=1), "image", "a")
    a = graph.add("Clip", [a, "zero", "six"], "clip")
    b = graph.convolution(nn.Conv2d(8, 8, 3, padding=1, groups=8), a, "b")
    b = graph.add("Add", [graph.add("HardSwish", [b], "swish"), a], "add")
    c = graph.add("Concat", [b, a], "c", axis=1)
    d = graph.add("MaxPool", [c], "d", kernel_shape=[2, 2], strides=[2, 2])
    e = graph.convolution(nn.ConvTranspose2d(16, 8, 2, 2), d, "e")
    f = graph.add("AveragePool", [e], "f", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    g = graph.linear(nn.Linear(8 * 36, 5), graph.add("Flatten", [f], "flat"), "g")
    h = graph.linear(nn.Linear(7, 4), graph.add("Concat", [g, "facts"], "all", axis=1), "h")
    graph.add("Softmax", [h], "classes", axis=-1)
    graph.add("ReduceMean", [e], "mean", axes=[2, 3], keepdims=0)
    return graph.write(path, {"image": [1, 3, 12, 12], "facts": [1, 2]}, {"classes": [1, 4], "mean": [1, 8]})


LAYOUTS = """
import sys
from pathlib import Path
from edgeloop.builders.tvm import layout
from edgeloop.ready_models.onnx import OnnxModel
from edgeloop.host_runtime.shapes import NO_SHAPES
graph = layout.channels_last(layout.fold_constants(OnnxModel(Path(sys.argv[1]), NO_SHAPES).import_graph()))
calls = [binding.value.op.name for block in graph["main"].body.blocks for binding in block.bindings
         if hasattr(binding.value, "op")]
print(calls.count("relax.permute_dims"), calls.count("relax.minimum"))
"""


def test_operators_of_networks_of_images_keep_their_meaning_with_channels_last(tmp_path: Path) -> None:
    path = write_many(tmp_path / "many.onnx")
    artifact = compile_model(path, NO_SHAPES, host_target(), tmp_path / "cache")
    random = np.random.default_rng(0)
    image, facts = random.random((3, 12, 12, 3), np.float32), random.random((3, 2), np.float32)
    made = predict_compiled(artifact, {"image": image, "facts": facts})
    for at in range(3):
        given = {"image": np.moveaxis(image, -1, 1)[at : at + 1], "facts": facts[at : at + 1]}
        for name, expected in zip(("classes", "mean"), onnx_models.reference(path, given), strict=True):
            np.testing.assert_allclose(made[name][at : at + 1], expected, atol=1e-5)
    done = subprocess.run(
        [sys.executable, "-c", LAYOUTS, path], capture_output=True, text=True, check=True, timeout=100
    )
    turned, clips = map(int, done.stdout.split())
    assert clips == 2, "those of Clip and HardSwish, as operators of any layout"
    assert turned == 2, "the input, and before the transposed convolution, which has channels first"


FORCED = """
import sys
from edgeloop.builders.tvm import layout
from edgeloop.ready_models import compile_model_child
from edgeloop.ready_models.jobs import CompileGraphJob
def wrong(graph):
    raise ValueError("no such layout")
layout.channels_last = wrong
print(compile_model_child._work(CompileGraphJob.model_validate_json(sys.argv[1])).model_dump_json())
"""


@pytest.mark.full
def test_a_graph_whose_layout_can_t_be_changed_is_compiled_as_it_is(
    digits: Any, test_data: Any, tmp_path: Path
) -> None:
    path = onnx_models.write_digits(tmp_path / "m.onnx", digits)
    job = CompileGraphJob(source=path, shapes=NO_SHAPES, target=host_target(), folder=tmp_path)
    words = [sys.executable, "-c", FORCED, job.model_dump_json()]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=100)
    assert "left out: ValueError: no such layout" in done.stdout
    artifact = inspect_model(path, NO_SHAPES)[0].model_copy(update={"path": str(tmp_path / "model.so")})
    x = test_data.x["x"][:5]
    np.testing.assert_allclose(predict_compiled(artifact, {"image": x})["scores"], scores_of(digits, x), atol=1e-5)


def test_a_library_that_gives_other_values_than_the_model_is_not_kept() -> None:
    same = np.array([[1.0, 2.0]], np.float32)
    _compare([same * (1 + 1e-5)], [same])
    _compare([same], None)
    for other in (same + 0.1, same * np.nan, same[0]):
        with pytest.raises(ValueError, match=r"than the model|the model gives"):
            _compare([other], [same])


def test_an_archive_of_torch_is_compiled_with_open_dimensions_told(digits: Any, test_data: Any, tmp_path: Path) -> None:
    path, height = tmp_path / "m.pt2", torch.export.Dim("height", min=4)
    program = torch.export.export(digits, (torch.zeros(1, 1, 8, 8),), dynamic_shapes=({2: height},))
    torch.export.save(program, path)
    with pytest.raises(ModelError, match="leaves dimensions open"):
        inspect_model(path, NO_SHAPES)
    asked = InputShapes(samples={"x": (8, 8, 1)})
    artifact = compile_model(path, asked, host_target(), tmp_path / "cache")
    x = test_data.x["x"][:20]
    made = predict_compiled(artifact, {"x": x})["output_0"]
    np.testing.assert_allclose(made, scores_of(digits, x), atol=1e-5)
    assert inspect_model(path, asked)[1].macs == 64 * 8 * 9 + 16 * 16 * 72 + 160


def small(path: Path, operator: str = "Relu", **more: Any) -> Path:
    graph, attributes = onnx_models.Graph(), more.pop("attributes", {})
    stored = graph.store("offset", more.pop("offset", np.ones((1, 4), np.float32)))
    graph.add(operator, [graph.add("Add", ["x", stored], "sum")], "y", **attributes)
    shape = more.pop("shape", [1, 4])
    return graph.write(path, {"x": shape}, {"y": shape}, **more)


def truncated(path: Path) -> None:
    small(path, offset=np.ones((1, 4096), np.float32), shape=[1, 4096])
    path.write_bytes(path.read_bytes()[:9000])


def without_its_weights(path: Path) -> None:
    small(path, external=f"{path.name}.data")
    (path.parent / f"{path.name}.data").unlink()


BAD: dict[str, tuple[Any, str]] = {
    "truncated": (truncated, "not an ONNX file, or cut short"),
    "text": (lambda path: path.write_text("import torch\n"), "not an ONNX file, or cut short"),
    "empty": (lambda path: path.write_bytes(b""), "not an ONNX file, or cut short"),
    "operator": (lambda path: small(path, "Det", shape=["n", 4, 4]), "TVM's importer does not have: Det"),
    "custom": (
        lambda path: small(path, "Fancy", attributes={"domain": "com.vendor"}),
        "custom operators, which TVM does not have: com.vendor.Fancy",
    ),
    "external": (without_its_weights, "its weights are in external.onnx.data, which can't be read"),
    "elsewhere": (lambda path: small(path, external="weights.bin"), "keeps weights in weights.bin, and only"),
    "ir": (lambda path: small(path, ir_version=99), "is of IR version 99, onnx"),
    "opset": (lambda path: small(path, opset=99), "is of opset 99, onnx"),
    "half": (
        lambda path: small(path, kind=onnx.TensorProto.FLOAT16, offset=np.ones((1, 4), np.float16)),
        "is of type float16, which is not compiled here; export it as float32",
    ),
    "invalid": (lambda path: small(path, "Relu", attributes={"alpha": 1.0}), "ONNX's own checker refuses it"),
    "values": (lambda path: small(path, "NonZero"), "has no shape that is known before it runs"),
    "open": (
        lambda path: small(path, shape=["n", "m", 4, 4], offset=np.ones(4, np.float32)),
        "input x has the shape (?, ?, 4, 4), which leaves dimensions open; tell it with shapes=['x=1,32,4,4']",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_can_t_be_compiled_is_one_line(tmp_path: Path, name: str) -> None:
    make, said = BAD[name]
    make(tmp_path / f"{name}.onnx")
    with pytest.raises(EdgeloopError) as caught:
        inspect_model(tmp_path / f"{name}.onnx", NO_SHAPES)
    assert caught.value.exit_code == 2
    (line,) = caught.value.lines()
    assert said in line
    assert "\n" not in line


def test_a_quantized_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    graph.store("scale", np.float32(0.1)), graph.store("zero", np.int8(0))
    graph.add("DequantizeLinear", [graph.add("QuantizeLinear", ["x", "scale", "zero"], "q"), "scale", "zero"], "y")
    path = graph.write(tmp_path / "q.onnx", {"x": [1, 4]}, {"y": [1, 4]})
    with pytest.raises(
        ModelError, match=r"quantized \(DequantizeLinear, QuantizeLinear\): TVM would compute it in float"
    ):
        inspect_model(path, NO_SHAPES)


def test_faults_of_the_command_line_are_one_line_and_exit_2(tmp_path: Path) -> None:
    campaigns.write_local_board(tmp_path)
    path = small(tmp_path / "m.onnx")
    for words, said in (
        (("measure", path, "--engine", "litert"), "m.onnx: litert runs a .tflite; say --engine tvm for a .onnx"),
        (("compare", TINY, path, "--engine", "litert"), "B: "),
        (("measure", TINY, "--engine", "tvm"), "tiny_float.tflite: tvm compiles no such file"),
        (("measure", path, "--shape", "x=1,5"), "input x takes the shape (1, 4), not (1, 5)"),
        (("measure", path, "--shape", "z=1,4"), "there is no input 'z'; the model's inputs are x"),
        (
            (
                "measure",
                tmp_path / "none.onnx",
            ),
            "none.onnx: no such file",
        ),
    ):
        done = campaigns.run(*words, *QUICK, cwd=tmp_path, expect=2)
        (line,) = done.stderr.strip().splitlines()
        assert said in line


def test_weights_beside_the_file_are_a_part_of_it(tmp_path: Path) -> None:
    path = small(tmp_path / "m.onnx", external="m.onnx.data")
    before, beside = digest(path), tmp_path / "m.onnx.data"
    beside.write_bytes(np.full(4, 2, np.float32).tobytes())
    assert digest(path) != before
    artifact = compile_model(path, NO_SHAPES, host_target(), tmp_path / "cache")
    x = np.zeros((2, 4), np.float32)
    np.testing.assert_allclose(predict_compiled(artifact, {"x": x})["y"], x + 2)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    here = metadata.version

    def without_onnx(package: str) -> str:
        if package == "onnx":
            raise metadata.PackageNotFoundError(package)
        return here(package)

    monkeypatch.setattr(metadata, "version", without_onnx)
    checks = RequestChecks()
    model = ModelOptions("candidate", small(tmp_path / "m.onnx"), "model", "tvm", threads=1, delegate="none")
    assert checks.open_model(model, TVM, {}) is None
    (fault,) = checks.faults
    assert "reading m.onnx needs the package" in str(fault)
    assert "pip install 'edgeloop[onnx]'" in str(fault)


def campaign(folder: Path) -> Path:
    path = campaigns.write_campaign(folder, target="here")
    text = path.read_text().replace('family = "ds_cnn"', 'file = "m1.onnx"\nengine = "tvm"\nfamily = "ds_cnn"')
    text = text.replace('["w8a8", "w4a8"]', '["w8a8"]').replace("[training]\n", '[training]\nteacher = "m1"\n')
    path.write_text(text.replace("limits = [", 'limits = [\n  { metric = "agreement", min_fraction = 0.3 },'))
    return path


@pytest.mark.full
def test_a_file_is_baseline_and_teacher_of_a_campaign(digits: Any, tmp_path: Path) -> None:
    campaigns.write_local_board(tmp_path)
    onnx_models.write_digits(tmp_path / "m1.onnx", digits, softmax=True)
    path = campaign(tmp_path)
    done = campaigns.run("run", path, "--out", tmp_path / "run", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    m1, m3 = document["trials"][:2]
    assert (m1["name"], m1["trained"]["epochs"]) == ("m1.onnx fp32 on tvm", 0)
    assert PROBABILITIES in done.stderr
    events = campaigns.events(tmp_path / "run")
    built = next(event for event in events if event["kind"] == "built" and event["trial"] == 0)["artifact"]
    library = Path(built["path"])
    assert (library.name, library.stat().st_size) == ("model.so", m1["deployed_bytes"])
    assert read_library(library).inputs[0].layout == "channels_first"
    top1 = m1["measurements"][0]["accuracy"]["value"]
    assert top1 == pytest.approx(m1["trained"]["validation"]["top1"], abs=1e-9), "the board's, sample for sample"
    assert m3["name"].endswith("w8a8")
    assert "M3 as w8a8, taught by M1" in [phase["what"] for phase in m3["trained"]["phases"]]
    findings = {f["text"].split()[0]: f["outcome"] for f in m3["measurements"][0]["findings"]}
    assert set(findings) == {"agreement", "top1", "latency", "deployed_size"}
    assert findings["agreement"] == "PASS"
    before = campaigns.events(tmp_path / "run")
    campaigns.run("run", path, "--out", tmp_path / "run", "--resume", cwd=tmp_path)
    assert campaigns.events(tmp_path / "run") == before


@pytest.mark.full
def test_a_baseline_is_compiled_for_the_processor_of_each_target(
    digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    any_core = {"x86_64": "x86-64-v2", "aarch64": "generic"}[platform.machine()]
    # The target `local` is of the shipped model, the other one of a model called so that lies beside the campaign.
    model = f'schema = 1\nname = "local"\narchitectures = ["{platform.machine()}"]\nmcpu = "{any_core}"\n'
    (tmp_path / "local.toml").write_text(model + '[runtime]\nsource = "system"\n')
    campaigns.write_local_board(tmp_path, "plain")
    onnx_models.write_digits(tmp_path / "m1.onnx", digits)
    path = campaign(tmp_path)
    path.write_text(path.read_text().replace('["here"]', '["local", "plain"]').replace("trials = 4", "trials = 1"))
    campaigns.run("run", path, "--out", tmp_path / "run", cwd=tmp_path)
    built = next(event for event in campaigns.events(tmp_path / "run") if event["kind"] == "built")
    assert built["trial"] == 0
    assert list(built["elsewhere"]) == ["plain"]
    assert built["elsewhere"]["plain"]["tools"]["processor"].split()[1] == any_core
    assert built["artifact"]["tools"]["processor"].split()[1] != any_core


def test_m1_that_does_not_go_with_the_data_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    small(tmp_path / "m1.onnx")
    loaded = load_campaign(campaign(tmp_path))
    with pytest.raises(UserError, match=r"input x takes the shape \(1, 4\), the data have samples of \(8, 8, 1\)"):
        check_reference_file(loaded, load(loaded.data))
