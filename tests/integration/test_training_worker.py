"""From a job to a folder, and from the folder to the runtime: what was trained is what runs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ai_edge_quantizer")

from edgeloop.builders.parity import Gate  # noqa: E402
from edgeloop.builders.tflite.builder import TfliteBuilder  # noqa: E402
from edgeloop.core.campaign import Data, Task, Training  # noqa: E402
from edgeloop.core.network import NetworkSpec  # noqa: E402
from edgeloop.data import load  # noqa: E402
from edgeloop.errors import DataError, HarnessError  # noqa: E402
from edgeloop.ports import TrainingJob  # noqa: E402
from edgeloop.training.key import training_key  # noqa: E402
from edgeloop.training.summary import read_trained  # noqa: E402
from edgeloop.wiring import training_worker  # noqa: E402

pytestmark = pytest.mark.train

OWN = '''
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

class Own(nn.Module):
    """Two inputs, a residual addition, squeeze-excite, a concatenation, two outputs."""

    def __init__(self, width):
        super().__init__()
        c = int(8 * width)
        self.stem = nn.Sequential(nn.Conv2d(1, c, 3, 2, 1, bias=False), nn.BatchNorm2d(c), nn.ReLU6())
        self.body = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1, bias=False), nn.BatchNorm2d(c))
        self.down, self.up = nn.Conv2d(c, c // 2, 1), nn.Conv2d(c // 2, c, 1)
        self.side = nn.Linear(5, c)
        self.kind, self.size = nn.Linear(2 * c, 4), nn.Linear(2 * c, 1)

    def forward(self, image, extra):
        x = self.stem(image)
        x = F.relu(x + self.body(x))
        gate = torch.sigmoid(self.up(F.silu(self.down(x.mean((2, 3), keepdim=True)))))
        x = F.avg_pool2d(x * gate, 2)
        both = torch.cat([x.mean((2, 3)), F.relu(self.side(extra))], 1)
        return {"kind": self.kind(both), "size": self.size(both)}

def build(width=1.0, depth=0):
    return Own(width)

def splits():
    rng = np.random.default_rng(0)
    def split(n):
        image = rng.normal(size=(n, 12, 12, 1)).astype("float32")
        extra = rng.normal(size=(n, 5)).astype("float32")
        kind = (image.mean((1, 2, 3)) > 0).astype("int64") * 2 + (extra[:, 0] > 0)
        return {"x/image": image, "x/extra": extra, "y/kind": kind, "y/size": extra.sum(1, keepdims=True)}
    return {"train": split(512), "validation": split(200), "calibration": split(64), "test": split(64)}

def loss(outputs, targets):
    return F.cross_entropy(outputs["kind"], targets["kind"]) + F.mse_loss(outputs["size"], targets["size"])

def right(outputs, targets):
    return outputs["kind"].argmax(1) == targets["kind"]

def agreement(outputs, other):
    return outputs["kind"].argmax(1) == other["kind"].argmax(1)

def distillation(outputs, teacher):
    return sum(F.mse_loss(outputs[name], teacher[name]) for name in outputs)
'''


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def job(network, data, task=None, lightening="fp32", parent=None, teacher=None, **recipe):
    return TrainingJob(
        network=network,
        lightening=lightening,
        task=task or Task(),
        data=data,
        data_sha256=load(data).sha256,
        recipe=Training(**recipe),
        parent=parent,
        teacher=teacher,
    )


def run(wanted, networks):
    training_worker.prepare(1)
    return training_worker.train(wanted, networks, lambda _what, _fraction: None)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A float network on 8x8 digits: (folder of networks, data, network, what was trained)."""
    networks = tmp_path_factory.mktemp("networks")
    data, network = Data(provider="digits"), NetworkSpec(family="ds_cnn")
    return networks, data, network, run(job(network, data, epochs=8), networks)


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    """One builder, whose child loads the toolchain once."""
    builder = TfliteBuilder(tmp_path_factory.mktemp("artifacts"), Gate(Task()))
    yield builder
    builder.close()


def test_a_float_network_learns_and_its_folder_says_all(digits):
    _networks, data, _network, trained = digits
    folder = Path(trained.folder)
    assert {f.name for f in folder.iterdir()} == {
        "network.pt2",
        "recipe.json",
        "probe.npz",
        "weights.pt",
        "training.json",
    }
    assert trained.validation["top1"] > 0.8
    assert trained.lightened is None
    summary = json.loads((folder / "training.json").read_text())
    assert [e["epoch"] for e in summary["history"]] == list(range(1, 9))
    recipe = json.loads((folder / "recipe.json").read_text())
    with np.load(folder / "probe.npz") as probe:
        x, y = probe["parity/x/x"], probe["parity/y/y"]
        splits = load(data)
        n = recipe["n_validation"]
        assert np.array_equal(x[:n], splits.validation.x["x"])
        assert np.array_equal(probe["labels/y"], splits.validation.y["y"])
        assert (y[:n].argmax(1) == splits.validation.y["y"]).mean() == pytest.approx(trained.validation["top1"])
        test = {sample.tobytes() for sample in splits.test.x["x"]}
        assert not any(sample.tobytes() in test for sample in x)
    alone = torch.export.load(folder / "network.pt2").module()
    with torch.no_grad():
        for number in range(5):
            assert np.allclose(alone(torch.from_numpy(x[number : number + 1]))[0].numpy(), y[number], atol=1e-4)


@pytest.mark.parametrize(("lightening", "taught"), [("w8a8", False), ("w4a8", True)])
def test_a_lightened_network_says_in_the_runtime_what_it_said_in_training(digits, builder, lightening, taught):
    networks, data, network, parent = digits
    lightened = job(network, data, None, lightening, parent.folder, parent.folder if taught else None, epochs=8)
    trained = run(lightened, networks)
    assert trained.lightened is not None
    assert trained.validation == parent.validation
    assert trained.lightened["top1"] > parent.validation["top1"] - 0.05
    assert digest(f"{trained.folder}/weights.pt") == digest(f"{parent.folder}/weights.pt")
    artifact = builder.build(trained, lightening)
    assert artifact.parity is not None
    assert artifact.parity.agreement >= 0.995
    assert artifact.ranges_matched is not None
    assert artifact.ranges_matched[0] == artifact.ranges_matched[1]


@pytest.mark.parametrize(
    "lightening", [*(pytest.param(n, marks=pytest.mark.full) for n in ("w4a8:50", "w8a8-p25")), "w4a8:50-p25"]
)
def test_layers_of_4_bit_beside_8_and_fewer_channels_say_in_the_runtime_what_they_said_in_training(
    digits, builder, lightening
):
    networks, data, *_ = digits
    network = NetworkSpec(family="mlp", width=2.0, depth=3)  # hidden fully connected layers have the choice
    parent = run(job(network, data, epochs=6), networks)
    trained = run(job(network, data, lightening=lightening, parent=parent.folder, lightened_epochs=3), networks)
    choices = [layer for layer in trained.layers if layer.loss_rise is not None]
    if lightening.startswith("w4a8"):
        assert [layer.name for layer in choices] == [f"hidden.{2 * n}" for n in range(1, 5)]
        assert {layer.bits for layer in choices} == {4, 8}
    assert [layer.bits for layer in trained.layers if layer not in choices] == [8] * (
        len(trained.layers) - len(choices)
    )
    artifact = builder.build(trained, lightening)
    assert artifact.parity is not None
    assert artifact.parity.agreement > 0.985
    assert artifact.ranges_matched is not None
    assert artifact.ranges_matched[0] == artifact.ranges_matched[1]
    assert "not found" not in (Path(artifact.path).parent / "build.log").read_text()
    again = run(job(network, data, lightening=lightening, parent=parent.folder, lightened_epochs=3), networks)
    assert again.layers == trained.layers


def test_two_processes_make_the_same_bytes(digits, tmp_path):
    _networks, data, network, _trained = digits
    wanted = job(network, data, None, "w8a8", epochs=1, lightened_epochs=1)
    script = (
        "import sys; from pathlib import Path; from edgeloop.wiring import training_worker as worker; "
        "from edgeloop.ports import TrainingJob; worker.prepare(1); "
        "worker.train(TrainingJob.model_validate_json(sys.argv[1]), Path(sys.argv[2]), lambda w, f: None)"
    )
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        subprocess.run([sys.executable, "-c", script, wanted.model_dump_json(), str(folder)], check=True, timeout=120)
        (result,) = folder.iterdir()
        made.append({f.name: digest(f) for f in result.iterdir() if f.name != "training.json"})
    assert made[0] == made[1]


def test_a_users_network_of_two_inputs_and_outputs_goes_the_whole_way(tmp_path, builder):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    task = Task(
        kind="custom",
        loss=f"{file}:loss",
        metrics={"right": f"{file}:right"},
        agreement=f"{file}:agreement",
        distillation=f"{file}:distillation",
    )
    data = Data(provider="factory", factory=f"{file}:splits")
    network = NetworkSpec(factory=f"{file}:build")
    networks = tmp_path / "networks"
    parent = run(job(network, data, task, epochs=12), networks)
    assert parent.validation["right"] > 0.5
    trained = run(job(network, data, task, "w8a8", parent.folder, parent.folder, epochs=12), networks)
    artifact = builder.build(trained, "w8a8")
    with np.load(f"{trained.folder}/probe.npz") as probe:
        inputs = {name: probe[f"parity/x/{name}"] for name in ("image", "extra")}
        expected = {name: probe[f"parity/y/{name}"] for name in ("kind", "size")}
    outputs = builder.predict(artifact, inputs)
    assert artifact.ranges_matched is not None
    assert artifact.ranges_matched[0] == artifact.ranges_matched[1]
    assert (outputs["kind"].argmax(1) == expected["kind"].argmax(1)).mean() >= 0.99
    steps = {spec.name: spec.scale for spec in artifact.outputs}
    for name, values in expected.items():
        assert np.abs(outputs[name] - values).mean() < 1.5 * (steps[name] or 0)


def test_given_weights_are_evaluated_not_trained(digits, tmp_path):
    _networks, data, network, trained = digits
    given = network.model_copy(update={"weights": f"{trained.folder}/weights.pt", "weights_sha256": "w" * 64})
    again = run(job(given, data), tmp_path)
    assert again.epochs == 0
    assert again.validation == trained.validation
    assert again.key != trained.key


def test_what_a_killed_training_left_is_cleared_away(digits, tmp_path):
    _networks, data, network, trained = digits
    given = job(
        network.model_copy(update={"weights": f"{trained.folder}/weights.pt", "weights_sha256": "w" * 64}), data
    )
    key = training_key(given)
    for name in (f".making-{key}-123", key):
        (tmp_path / name).mkdir()
        (tmp_path / name / "network.pt2").write_text("half of it")
    run(given, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == [key]
    assert read_trained(tmp_path / key) is not None


def test_data_that_changed_meanwhile_train_nothing(digits, tmp_path):
    _networks, data, network, _trained = digits
    with pytest.raises(DataError, match="data changed"):
        run(job(network, data).model_copy(update={"data_sha256": "0" * 64}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_network_name_their_file(digits, tmp_path):
    networks, data, network, trained = digits
    wider = network.model_copy(update={"width": 2.0})
    with pytest.raises(HarnessError, match=r"weights\.pt: does not fit"):
        run(job(wider, data, None, "w8a8", trained.folder), networks)
