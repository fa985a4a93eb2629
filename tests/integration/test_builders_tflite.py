"""Every rung becomes a .tflite that says what the network says; nothing is built twice; failures are values."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained_folder import write_calibrated_folder, write_trained_folder

from edgeloop.builders.parity import Gate, Rule
from edgeloop.builders.tflite.builder import TfliteBuilder
from edgeloop.builders.tflite.jobs import BuildTfliteAnswer, BuildTfliteJob
from edgeloop.core.artifact import Artifact
from edgeloop.core.campaign import Task
from edgeloop.core.lightening import Lightening
from edgeloop.core.network import NetworkIO, TensorShape
from edgeloop.errors import BuildError, ParityError
from edgeloop.host_runtime.litert import open_model
from edgeloop.models.channel_last import ChannelLast, adapt
from edgeloop.ports import TrainedNetwork
from edgeloop.processes.limits import ProcessLimits

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("litert_torch", reason="needs the tflite extra")
nn = torch.nn

pytestmark = pytest.mark.train


class Separable(nn.Module):
    """Depthwise-separable, strided with padding, pooled over a channels-first tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, 2, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.point = nn.Conv2d(8, 16, 1)
        self.middle = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Any) -> Any:
        x = self.first(x.permute(0, 3, 1, 2)).relu()
        x = self.point(self.depthwise(x).relu()).relu()
        return self.head(self.middle(x).relu().mean((2, 3)))


class TwoInputs(nn.Module):
    """Residual addition, squeeze-and-excitation, concatenation, pooling; two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.third, self.side = nn.Conv2d(16, 12, 1), nn.Linear(5, 8)
        self.head, self.other = nn.Linear(20, 6), nn.Linear(20, 2)

    def forward(self, image: Any, facts: Any) -> Any:
        x = self.first(image.permute(0, 3, 1, 2)).relu()
        y = (self.second(x) + x).relu()
        gate = torch.sigmoid(self.excite(self.squeeze(y.mean((2, 3))).relu()))
        y = torch.cat([x, y * gate[:, :, None, None]], 1)
        y = self.third(nn.functional.max_pool2d(y, 2)).relu()
        y = torch.cat([y.mean((2, 3)), self.side(facts).relu()], 1)
        return self.head(y), self.other(y)


class Signal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, 8, 5, 2, 2), nn.Conv1d(8, 16, 3, padding=1)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.second(self.first(x.permute(0, 2, 1)).relu()).relu().mean(2))


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = [(24, 16), (16, 6), (6, 16), (16, 24)]
        self.layers = nn.Sequential(*[m for i, o in sizes for m in (nn.Linear(i, o), nn.ReLU())][:-1])

    def forward(self, x: Any) -> Any:
        return self.layers(x)


_SHAPES: dict[str, tuple[type[nn.Module], dict[str, tuple[int, ...]], tuple[str, ...]]] = {
    "separable": (Separable, {"x": (16, 16, 1)}, ("y",)),
    "two_inputs": (TwoInputs, {"image": (8, 8, 3), "facts": (5,)}, ("a", "b")),
    "signal": (Signal, {"x": (32, 4)}, ("y",)),
    "squeezed": (Squeezed, {"x": (24,)}, ("x",)),
}


def _taught(module: Any, random: np.random.Generator) -> np.ndarray:
    """Teach ten patterns in noise and return fresh samples of them.

    Agreement on classes says nothing of an untrained network: one class wins everywhere, or margins are a step.
    """
    patterns = random.normal(size=(10, 16, 16, 1))

    def draw(n: int) -> tuple[Any, Any]:
        labels = random.integers(10, size=n)
        noisy = patterns[labels] + random.normal(size=(n, 16, 16, 1))
        return torch.from_numpy(noisy.astype(np.float32)), torch.from_numpy(labels)

    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(200):
        x, y = draw(128)
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    return draw(1000)[0].numpy()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Trained folders by network and rung, each made once."""
    root = tmp_path_factory.mktemp("trained")
    made: dict[tuple[str, str], TrainedNetwork] = {}

    def make(name: str, rung: str) -> TrainedNetwork:
        if (name, rung) not in made:
            torch.manual_seed(0)
            network, shapes, outputs = _SHAPES[name]
            random = np.random.default_rng(0)
            inputs = {n: random.normal(size=(1000, *s)).astype(np.float32) for n, s in shapes.items()}
            module = network()
            if name == "separable":
                inputs = {"x": _taught(module, random)}
            folder = root / f"{name}-{rung}"
            made[name, rung] = write_trained_folder(folder, module, inputs, rung, outputs=outputs, key=f"{name}-{rung}")
        return made[name, rung]

    return make


@pytest.fixture(scope="module", autouse=True)
def _converted_once() -> Any:
    """Converting is what costs in these tests: equal networks are converted once."""
    from edgeloop.builders.tflite import float_model

    convert, known = float_model.convert, {}

    def remembered(network: Path, inputs: Any) -> bytes:
        content = network.read_bytes()
        if content not in known:
            known[content] = convert(network, inputs)
        return known[content]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(float_model, "convert", remembered)
        yield


def _built_here(trained: TrainedNetwork, target: Path, rule: Rule) -> tuple[Artifact, BuildTfliteAnswer]:
    """The child's work in this process: its imports are paid once for all tests."""
    from edgeloop.builders.tflite import convert_child

    target.mkdir()
    answer = convert_child._work(BuildTfliteJob(network=Path(trained.folder), folder=target, rule=rule))
    return answer.artifact, answer


def _operators(artifact: Artifact, target: Path) -> list[str]:
    from edgeloop.host_runtime import litert

    interpreter = litert.open_model((target / "model.tflite").read_bytes(), keep_all=True)
    return [op["op_name"] for op in interpreter._get_ops_details()]


@pytest.mark.parametrize(
    ("rung", "dtype", "fraction"),
    [
        ("fp32", "float32", 1.0),
        pytest.param(*("fp16", "float32", 0.7), marks=pytest.mark.full),
        pytest.param(*("w8a16", "int16", 0.6), marks=pytest.mark.full),
        ("w8a8", "int8", 0.6),
        ("w4a8", "int8", 0.5),
    ],
)
def test_every_rung_is_built_agrees_and_weighs_what_it_should(
    trained: Any, tmp_path: Path, rung: str, dtype: str, fraction: float
) -> None:
    artifact, answer = _built_here(trained("separable", rung), tmp_path / "out", "top1")
    assert artifact.inputs[0].dtype == dtype
    assert (artifact.inputs[0].name, artifact.inputs[0].layout) == ("x", "channels_last")
    assert artifact.parity is not None
    # 4 bit: 99.6 % here, where one input more or less decides 99.5 % and another CPU trains another network.
    assert artifact.parity.agreement >= (0.99 if rung == "w4a8" else 0.995)
    assert artifact.parity.n + artifact.parity.ties_left_out == 1000
    with np.load(Path(trained("separable", rung).folder) / "probe.npz") as probe:
        assert len(np.unique(probe["parity/y/y"].argmax(1))) == 10  # else agreement would come for nothing
    assert artifact.deployed_bytes <= 13400 * fraction
    if rung in {"w8a16", "w8a8", "w4a8"}:
        assert artifact.ranges_matched == (8, 8)
        assert artifact.parity.steps_max is not None
        assert artifact.parity.steps_max <= (64 if rung == "w8a16" else 3)  # 64 of 16 bit are a quarter of one of 8 bit
    assert answer.calibrated_tensors == answer.missing_layers == ()


def test_no_layout_copy_is_left_of_a_channels_first_network(trained: Any, tmp_path: Path) -> None:
    for name in ("separable", "two_inputs"):
        artifact, _ = _built_here(trained(name, "w8a8"), tmp_path / name, "steps")
        assert "TRANSPOSE" not in _operators(artifact, tmp_path / name)
    artifact, _ = _built_here(trained("signal", "w8a8"), tmp_path / "signal", "top1")
    assert _operators(artifact, tmp_path / "signal") == [
        "RESHAPE",
        "PAD",
        "CONV_2D",
        "CONV_2D",
        "MEAN",
        "FULLY_CONNECTED",
    ]


@pytest.mark.parametrize("rung", ["w8a8", "w4a8"])
def test_residuals_gates_and_several_inputs_and_outputs_keep_their_names_order_and_ranges(
    trained: Any, tmp_path: Path, rung: str
) -> None:
    artifact, answer = _built_here(trained("two_inputs", rung), tmp_path / "out", "steps")
    assert [(s.name, s.shape) for s in artifact.inputs] == [("image", (1, 8, 8, 3)), ("facts", (1, 5))]
    assert [(s.name, s.shape) for s in artifact.outputs] == [("a", (1, 6)), ("b", (1, 2))]
    matched = artifact.ranges_matched
    assert matched is not None
    assert matched[0] == matched[1] > 10
    assert artifact.parity is not None
    assert artifact.parity.agreement >= 0.995
    assert answer.calibrated_tensors == ()


def test_an_autoencoder_is_judged_in_output_steps(trained: Any, tmp_path: Path) -> None:
    artifact, _ = _built_here(trained("squeezed", "w4a8"), tmp_path / "out", "steps")
    assert artifact.parity is not None
    assert "steps" in artifact.parity.rule
    assert artifact.parity.agreement >= 0.995


class SharedHidden(nn.Module):
    """One hidden layer, used twice on inputs of different ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 10)
        nn.init.normal_(self.hidden.bias)

    def forward(self, x: Any) -> Any:
        x = self.hidden(self.first(x).relu()).relu()
        return self.head(self.hidden(x).relu())


@pytest.mark.parametrize("rung", ["w8a8", "w4a8"])
def test_a_layer_that_is_used_twice_is_stored_once_with_a_bias_for_each_input_and_agrees(
    tmp_path: Path, rung: str
) -> None:
    torch.manual_seed(0)
    io = NetworkIO(
        kind="regression",
        inputs=(TensorShape(name="x", shape=(16,)),),
        outputs=(TensorShape(name="y", shape=(10,)),),
    )
    network = adapt(SharedHidden(), io, ChannelLast(inputs=True, outputs=True), "it")
    data = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32)
    trained = write_calibrated_folder(tmp_path / "trained", network, data, Lightening.parse(rung))
    artifact, answer = _built_here(trained, tmp_path / "out", "steps")
    assert answer.calibrated_tensors == answer.missing_layers == ()
    assert artifact.parity is not None
    assert artifact.parity.steps_mean is not None
    assert artifact.parity.steps_mean < 0.005
    interpreter = open_model((tmp_path / "out" / "model.tflite").read_bytes(), keep_all=True)
    _, weights, biases = zip(*(op["inputs"] for op in interpreter._get_ops_details()), strict=True)
    assert weights[1] == weights[2]
    assert len(set(weights)) == 3
    assert len(set(biases)) == 4


def test_names_are_stripped_and_the_bytes_of_both_are_told(trained: Any, tmp_path: Path) -> None:
    artifact, _ = _built_here(trained("separable", "w8a8"), tmp_path / "out", "top1")
    content = (tmp_path / "out" / "model.tflite").read_bytes()
    assert b"Conv2d" not in content
    assert b"serving_default" not in content
    assert artifact.deployed_bytes == len(content)
    assert artifact.bytes_before_strip is not None
    assert artifact.bytes_before_strip > len(content) + 1000


def _with_recipe(trained: TrainedNetwork, folder: Path, change: Any) -> TrainedNetwork:
    shutil.copytree(trained.folder, folder)
    recipe = json.loads((folder / "recipe.json").read_text())
    change(recipe)
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return trained.model_copy(update={"folder": str(folder), "key": "changed"})


def test_a_range_that_training_did_not_have_is_refused_by_the_gate(trained: Any, tmp_path: Path) -> None:
    def narrow(recipe: dict[str, Any]) -> None:
        for entry in recipe["activations"][1:]:
            entry["high"] *= 0.1
            entry["low"] *= 0.1

    wrong = _with_recipe(trained("separable", "w8a8"), tmp_path / "wrong", narrow)
    with pytest.raises(ParityError, match="under 99%"):
        _built_here(wrong, tmp_path / "out", "top1")


def test_a_tensor_without_a_trained_range_is_calibrated_counted_and_named(trained: Any, tmp_path: Path) -> None:
    def forget_one(recipe: dict[str, Any]) -> None:
        recipe["activations"] = [a for a in recipe["activations"] if not a["name"].startswith("mean")]

    partial = _with_recipe(trained("separable", "w8a8"), tmp_path / "partial", forget_one)
    artifact, answer = _built_here(partial, tmp_path / "out", "custom")  # the child leaves this gate to the parent
    assert artifact.ranges_matched == (7, 8)
    assert len(answer.calibrated_tensors) == 1
    assert "MEAN" in answer.calibrated_tensors[0]


def test_equal_networks_give_equal_bytes_from_a_cold_and_a_warmed_child_and_are_kept_once(
    trained: Any, tmp_path: Path
) -> None:
    first = trained("separable", "w8a8")
    builder = TfliteBuilder(tmp_path / "artifacts", Gate(Task()))
    try:
        cold = builder.build(first, "w8a8")
        builder.warm_up()
        warm = builder.build(first.model_copy(update={"key": "another"}), "w8a8")
    finally:
        builder.close()
    assert cold.sha256 == warm.sha256
    assert cold.path == warm.path
    assert Path(cold.path).parent.name == cold.sha256
    assert sorted(p.name for p in Path(cold.path).parent.iterdir()) == ["artifact.json", "build.log", "model.tflite"]
    assert sorted(p.name for p in (tmp_path / "artifacts").iterdir()) == sorted([cold.sha256, "keys"])
    crashing = TfliteBuilder(
        tmp_path / "artifacts", Gate(Task()), command=(sys.executable, "-c", "raise SystemExit(9)")
    )
    assert crashing.build(first, "w8a8") == cold  # found, not built
    Path(cold.path).write_bytes(b"rotten")
    with pytest.raises(BuildError, match="status 9"):  # what is damaged is built anew
        crashing.build(first, "w8a8")
    outputs = _predicted(builder, warm, first, tmp_path)
    assert outputs.shape == (5, 10)


def _predicted(builder: TfliteBuilder, artifact: Artifact, trained: TrainedNetwork, tmp_path: Path) -> np.ndarray:
    restored = tmp_path / "restored"
    remade, _ = _built_here(trained, restored, "top1")
    assert remade.sha256 == artifact.sha256
    with np.load(Path(trained.folder) / "probe.npz") as probe:
        inputs, expected = probe["parity/x/x"][:5], probe["parity/y/y"][:5]
    here = artifact.model_copy(update={"path": str(restored / "model.tflite")})
    outputs = builder.predict(here, {"x": inputs})["y"]
    scale = artifact.outputs[0].scale
    assert scale is not None
    assert np.abs(outputs - expected).max() <= 2 * scale
    return outputs


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"was ended by SIGKILL \(out of memory, usually\)"),
        ("while True: pass", "was not done after 1 s"),
        ("raise RuntimeError('LLVM ERROR')", "status 1 and no result: RuntimeError: LLVM ERROR"),
    ],
)
def test_a_build_that_ends_badly_is_an_error_with_its_log_and_leaves_no_folder(
    trained: Any, tmp_path: Path, code: str, said: str
) -> None:
    builder = TfliteBuilder(
        tmp_path / "artifacts", Gate(Task()), limits=ProcessLimits(1), command=(sys.executable, "-c", code)
    )
    with pytest.raises(BuildError, match=said) as caught:
        builder.build(trained("squeezed", "fp32"), "fp32")
    assert caught.value.exit_code == 3
    log = Path(str(caught.value.next_step).removeprefix("its log is ").partition(", and toolchain.")[0])
    assert log.is_file()
    assert sorted(p.name for p in (tmp_path / "artifacts").iterdir()) == ["failed", "keys"]


def test_what_a_killed_controller_left_half_built_is_removed(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    gone, own = root / ".building-4194399-x", root / f".building-{__import__('os').getpid()}-y"
    gone.mkdir(parents=True)
    own.mkdir()
    TfliteBuilder(root, Gate(Task()))
    assert not gone.exists()
    assert own.exists()


def test_a_folder_trained_for_another_rung_is_refused(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="was trained as fp32, not as w8a8"):
        TfliteBuilder(tmp_path, Gate(Task())).build(trained("squeezed", "fp32"), "w8a8")


def test_a_tasks_own_agreement_is_applied_in_the_parent(trained: Any, tmp_path: Path) -> None:
    task = Task(agreement="/somewhere/task.py:same")
    seen: dict[str, Any] = {}

    def same(outputs: Any, others: Any) -> Any:
        seen.update(outputs=outputs, others=others)
        return np.arange(1000) < answer

    answer = 1000
    gate = Gate(task, same)
    builder = TfliteBuilder(tmp_path / "artifacts", gate)
    try:
        builder.warm_up()
        artifact = builder.build(trained("squeezed", "w8a8"), "w8a8")
        assert artifact.parity is not None
        assert artifact.parity.rule == "the task's own agreement, task.py:same"
        assert seen["outputs"]["x"].shape == seen["others"]["x"].shape == (1000, 24)
        answer = 900
        with pytest.raises(ParityError, match=r"90.00% of 1000"):
            gate.judge(artifact, Path(trained("squeezed", "w8a8").folder), _with_outputs(seen, tmp_path))
    finally:
        builder.close()


def _with_outputs(seen: dict[str, Any], tmp_path: Path) -> Path:
    np.savez(tmp_path / "outputs.npz", **seen["outputs"])
    return tmp_path
