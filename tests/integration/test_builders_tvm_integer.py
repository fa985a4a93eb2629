"""Integer networks compiled by TVM say what LiteRT says of the same .tflite: families, odd channels, pads, strides."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained_folder import write_calibrated_folder, write_trained_folder

from edgeloop.builders.parity import Gate
from edgeloop.builders.tflite.builder import TfliteBuilder
from edgeloop.builders.tvm.builder import TvmBuilder
from edgeloop.builders.tvm.versions import TvmTarget
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Task
from edgeloop.core.lightening import Lightening
from edgeloop.core.network import NetworkIO, NetworkSpec, TensorShape
from edgeloop.errors import BuildError
from edgeloop.ports import TrainedNetwork
from edgeloop_agent.engines import load_engine
from edgeloop_agent.engines.base import ModelFile

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("litert_torch", reason="needs the tflite extra")
pytest.importorskip("tvm_ffi", reason="needs the tvm extra")
nn, functional = torch.nn, torch.nn.functional

pytestmark = pytest.mark.train
HERE = TvmTarget(machine=platform.machine(), mcpu="native")
ANY_CORE = TvmTarget(machine=platform.machine(), mcpu={"x86_64": "x86-64", "aarch64": "generic"}[platform.machine()])
FAMILIES = {
    "ds_cnn": (NetworkSpec(family="ds_cnn", width=1.41), (28, 28, 1)),
    "resnet": (NetworkSpec(family="resnet", width=0.5), (32, 32, 3)),
    "conv1d": (NetworkSpec(family="conv1d", width=1.0), (25, 12)),
    "mlp": (NetworkSpec(family="mlp", width=1.0), (8, 8, 1)),
}


class Many(nn.Module):
    """Uneven kernels, pads and strides, dilation, odd channels, pooling, tables, a softmax, two inputs and outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.point = nn.Conv2d(3, 6, (3, 5), (2, 1), (0, 1)), nn.Conv2d(6, 11, 1)
        self.depthwise = nn.Conv2d(11, 11, 3, 2, 1, groups=11)
        self.apart, self.wide = nn.Conv2d(11, 11, 3, dilation=2, padding=2), nn.Conv2d(22, 9, 3, padding=1)
        self.head, self.other = nn.Linear(14, 7), nn.Linear(14, 3)

    def forward(self, x: Any, facts: Any) -> Any:
        x = functional.avg_pool2d(functional.hardtanh(self.first(x.permute(0, 3, 1, 2)), 0, 6), 2)
        x = functional.hardswish(self.point(x))
        y = torch.tanh(self.depthwise(x))
        x = functional.max_pool2d(x, (2, 1), 2) - y
        x = self.wide(torch.cat([x * torch.sigmoid(x), self.apart(x).relu() + 0.5], 1))
        x = torch.cat([x.mean((2, 3)), torch.tanh(facts)], 1)
        return torch.softmax(self.head(x), 1), self.other(x)


class Leaky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x: Any) -> Any:
        return self.second(functional.leaky_relu(self.first(x), 0.1))


def family(name: str, folder: Path) -> TrainedNetwork:
    """A network of a family as quantization-aware training leaves it, calibrated instead of trained."""
    from edgeloop.models.build import build_network

    spec, shape = FAMILIES[name]
    classes = TensorShape(name="y", shape=(10,))
    io = NetworkIO(kind="classification", inputs=(TensorShape(name="x", shape=shape),), outputs=(classes,))
    data = np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32)
    return write_calibrated_folder(folder, build_network(spec, io, 4).eval(), data, Lightening.parse("w8a8"), key=name)


def own(
    module: type[Any], folder: Path, shapes: dict[str, tuple[int, ...]], outputs: tuple[str, ...]
) -> TrainedNetwork:
    random = np.random.default_rng(0)
    inputs = {name: random.normal(size=(64, *shape)).astype(np.float32) for name, shape in shapes.items()}
    return write_trained_folder(folder, module(), inputs, "w8a8", outputs=outputs, key=module.__name__)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("integer")


def built(room: Path, trained: TrainedNetwork, target: TvmTarget) -> tuple[Artifact, Artifact]:
    """The .tflite and the library of it."""
    gate = Gate(Task(kind="regression"))
    tflite = TfliteBuilder(room / "artifacts", gate)
    library = TvmBuilder(room / "artifacts", gate, tflite, lambda: target).build(trained, "w8a8")
    return tflite.build(trained, "w8a8"), library


def steps_apart(plain: Artifact, library: Artifact, trained: TrainedNetwork) -> np.ndarray:
    """Differences of all stored outputs: on the parity inputs, and on values all over the inputs' grids."""
    engines = [load_engine("litert"), load_engine("tvm")]
    for engine, artifact in zip(engines, (plain, library), strict=True):
        engine.load(ModelFile(artifact.path, 1))
    assert [(t.dtype, t.scale, t.zero_point) for t in engines[1].inputs()] == [
        (s.dtype, s.scale, s.zero_point) for s in plain.inputs
    ]
    random, samples = np.random.default_rng(1), []
    with np.load(Path(trained.folder) / "probe.npz") as arrays:
        for spec in plain.inputs:
            assert spec.scale is not None
            assert spec.zero_point is not None
            real = arrays[f"parity/x/{spec.name}"]
            near = np.clip(np.rint(real / np.float32(spec.scale)) + spec.zero_point, -128, 127)
            samples.append(np.concatenate([near, random.integers(-128, 128, near.shape)]).astype(np.int8))
    apart = []
    for index in range(len(samples[0])):
        found = []
        for engine in engines:
            for (put, number), values in zip(engine.setters(), samples, strict=True):
                put(number, values[index : index + 1])
            engine.invoker()()
            found.append(np.concatenate([get(number).ravel() for get, number in engine.getters()]).astype(int))
        apart.append(np.abs(found[0] - found[1]))
    return np.concatenate(apart)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "ds_cnn" else pytest.mark.full) for name in FAMILIES]
)
def test_every_family_is_within_a_step_of_litert(name: str, room: Path) -> None:
    torch.manual_seed(0)
    trained = family(name, room / name)
    plain, library = built(room, trained, HERE)
    apart = steps_apart(plain, library, trained)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.01
    log = Path(library.path).with_name("build.log").read_text()
    assert "left as plain loops" not in log


@pytest.mark.parametrize(
    "target",
    [pytest.param(HERE, id="here"), pytest.param(ANY_CORE, id="any core", marks=pytest.mark.full)],
)
def test_every_operator_is_within_a_step_of_litert(target: TvmTarget, room: Path) -> None:
    torch.manual_seed(0)
    folder = room / f"many-{target.mcpu}"
    trained = own(Many, folder, {"x": (20, 20, 3), "facts": (5,)}, ("a", "b"))
    plain, library = built(room, trained, target)
    apart = steps_apart(plain, library, trained)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.02
    assert library.parity is not None
    assert library.parity.agreement == 1.0


def test_an_operator_without_integer_arithmetic_is_named(room: Path) -> None:
    torch.manual_seed(0)
    trained = own(Leaky, room / "leaky", {"x": (6,)}, ("y",))
    with pytest.raises(BuildError, match="LEAKY_RELU: works on floats") as caught:
        built(room, trained, HERE)
    assert "\n" not in caught.value.message
