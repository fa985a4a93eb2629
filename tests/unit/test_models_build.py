"""Families and a user's factory: shapes, names, layouts, sizes, weights, and what is refused in a line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from edgeloop.core.network import NetworkIO, NetworkSpec, TensorShape
from edgeloop.errors import UserError
from edgeloop.models import FAMILIES
from edgeloop.models.build import _FAMILIES, build_network
from edgeloop.models.sizing import channels, halvings

pytestmark = pytest.mark.train


def io(
    *shape: int, kind: str = "classification", outputs: dict[str, tuple[int, ...]] | None = None, dtype: str = "float32"
) -> NetworkIO:
    named = outputs or ({"x": shape} if kind == "autoencoder" else {"y": (10,)})
    return NetworkIO.model_validate(
        {
            "kind": kind,
            "inputs": (TensorShape(name="x", shape=shape, dtype=dtype),),
            "outputs": tuple(TensorShape(name=name, shape=asked) for name, asked in named.items()),
        }
    )


CASES = [
    ("ds_cnn", io(28, 28, 1)),
    ("ds_cnn", io(3, 3, 2)),
    ("ds_cnn", io(49, 10, 1)),
    ("ds_cnn", io(224, 224, 3)),
    ("resnet", io(32, 32, 3)),
    ("resnet", io(4, 4, 1)),
    ("conv1d", io(25, 12)),
    ("conv1d", io(3, 1)),
    ("mlp", io(8, 8, 1)),
    ("mlp", io(5)),
    ("autoencoder", io(8, 8, 2, kind="autoencoder")),
    ("autoencoder", io(7, kind="autoencoder")),
]


@pytest.mark.parametrize(("family", "asked"), CASES, ids=lambda v: v if isinstance(v, str) else str(v.inputs[0].shape))
def test_a_family_takes_channel_last_data_and_gives_what_is_asked(family: str, asked: NetworkIO) -> None:
    network = build_network(NetworkSpec(family=family), asked, 4)
    assert network.training
    outputs = network(torch.randn(3, *asked.inputs[0].shape))
    assert [tuple(output.shape) for output in outputs] == [(3, *asked.outputs[0].shape)]
    assert network.signature.inputs == ("x",)
    assert network.signature.outputs == (asked.outputs[0].name,)


def test_the_names_that_need_no_torch_are_the_families() -> None:
    assert set(FAMILIES) == set(_FAMILIES)


@pytest.mark.parametrize("family", ["ds_cnn", "resnet", "conv1d", "mlp"])
def test_a_family_has_a_head_for_each_target(family: str) -> None:
    shape = {"conv1d": (25, 12), "mlp": (9,)}.get(family, (16, 16, 1))
    asked = io(*shape, kind="regression", outputs={"speed": (1,), "map": (4, 4, 2)})
    network = build_network(NetworkSpec(family=family), asked, 4)
    assert network.signature.outputs == ("speed", "map")
    assert [tuple(output.shape) for output in network(torch.randn(2, *shape))] == [(2, 1), (2, 4, 4, 2)]


@pytest.mark.parametrize(("family", "asked"), [case for case in CASES if case[1].inputs[0].shape[0] > 5])
def test_more_width_and_more_depth_are_more_parameters(family: str, asked: NetworkIO) -> None:
    def parameters(width: float, depth: int) -> int:
        return sum(
            p.numel()
            for p in build_network(NetworkSpec(family=family, width=width, depth=depth), asked, 4).parameters()
        )

    sizes = [parameters(width, 0) for width in (1.0, 1.19, 1.41, 1.68, 2.0, 2.83)]
    assert sizes == sorted(set(sizes))
    assert parameters(1.0, 1) > parameters(1.0, 0)
    assert parameters(1.0, 2) > parameters(1.0, 1)


def test_the_reference_ds_cnn_is_small_enough_to_train_in_seconds() -> None:
    network = build_network(NetworkSpec(family="ds_cnn"), io(28, 28, 1), 4)
    assert 5_000 < sum(p.numel() for p in network.parameters()) < 20_000


def test_channels_are_rounded_to_the_targets_multiple() -> None:
    assert [channels(16, 1.41, 4), channels(16, 1.41, 8), channels(16, 0.01, 8), channels(16, 1.125, 4)] == [
        24,
        24,
        8,
        20,
    ]
    network = build_network(NetworkSpec(family="resnet", width=1.19), io(32, 32, 3), 8)
    sizes = {m.out_channels for m in network.modules() if isinstance(m, torch.nn.Conv2d)}
    assert all(size % 8 == 0 for size in sizes)


def test_sides_are_halved_until_about_four_are_left() -> None:
    assert [halvings(side) for side in (1, 4, 8, 28, 32, 96, 224)] == [0, 0, 1, 3, 3, 5, 6]
    final = build_network(NetworkSpec(family="ds_cnn"), io(224, 224, 3), 4).network.features
    assert tuple(final(torch.zeros(1, 3, 224, 224)).shape[2:]) == (4, 4)


def test_the_seed_decides_the_weights() -> None:
    def first(seed: int) -> torch.Tensor:
        return next(build_network(NetworkSpec(family="mlp", seed=seed), io(5), 4).parameters())

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


@pytest.mark.parametrize(
    ("family", "asked", "said"),
    [
        ("ds_cn", io(8, 8, 1), "did you mean 'ds_cnn'?"),
        ("ds_cnn", io(64), "takes one input of shape (height, width, channels), the data have x (64,)"),
        ("conv1d", io(8, 8, 1), "takes one input of shape (time, channels), the data have x (8, 8, 1)"),
        ("ds_cnn", io(8, 8, 1, dtype="uint8"), "takes float32, the input x is uint8"),
        ("autoencoder", io(8, 8, 1), "gives back its input (8, 8, 1), the data ask for y (10,)"),
    ],
)
def test_a_family_that_does_not_fit_the_data_says_why(family: str, asked: NetworkIO, said: str) -> None:
    with pytest.raises(UserError) as error:
        build_network(NetworkSpec(family=family), asked, 4)
    (line,) = error.value.lines()
    assert said in line
    assert "\n" not in line


def factory(folder: Path, body: str, **spec: object) -> NetworkSpec:
    lines = "import torch\nfrom torch import nn\n\n\n" + body
    (folder / "net.py").write_text(lines)
    return NetworkSpec.model_validate({"factory": f"{folder / 'net.py'}:build", **spec})


FORWARD = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 10, 1)
        self.line = nn.Linear(2, 10)

    def forward(self, {arguments}):
        {body}


def build(width, depth):
    return Net()
"""
MEAN = "return self.conv(x).mean((2, 3))"

TWO_INPUTS = NetworkIO(
    kind="classification",
    inputs=(TensorShape(name="meta", shape=(2,)), TensorShape(name="image", shape=(6, 5, 3))),
    outputs=(TensorShape(name="y", shape=(10,)),),
)


def test_width_and_depth_reach_the_factory(tmp_path: Path) -> None:
    body = "def build(width, depth):\n    return nn.Sequential(*[nn.Linear(10, 10) for _ in range(int(width) + depth)])"
    network = build_network(factory(tmp_path, body, width=2.0, depth=3), io(10), 4)
    assert len(network.network) == 5


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_users_network_sees_its_own_layout_and_the_data_stay_channel_last(tmp_path: Path, layout: str) -> None:
    body = "def build(width, depth):\n    return nn.Identity()"
    asked = io(4, 6, 3, kind="autoencoder")
    network = build_network(factory(tmp_path, body, layout=layout), asked, 4)
    seen = []
    network.network.register_forward_hook(lambda module, given, made: seen.append(tuple(made.shape)))
    x = torch.randn(2, 4, 6, 3)
    assert torch.equal(network(x)[0], x)
    assert seen == [(2, 3, 4, 6) if layout == "channels_first" else (2, 4, 6, 3)]


def test_inputs_are_matched_by_the_names_of_forwards_arguments(tmp_path: Path) -> None:
    spec = factory(
        tmp_path,
        FORWARD.format(
            arguments="image, *, meta, scale=1.0", body="return self.conv(image).mean((2, 3)) + self.line(meta)"
        ),
    )
    network = build_network(spec, TWO_INPUTS, 4)
    assert network.signature.inputs == ("image", "meta")
    assert tuple(network(torch.randn(2, 6, 5, 3), torch.randn(2, 2))[0].shape) == (2, 10)


def test_a_single_input_may_have_any_name(tmp_path: Path) -> None:
    network = build_network(
        factory(tmp_path, FORWARD.format(arguments="picture, /", body=MEAN.replace("x", "picture"))), io(6, 5, 3), 4
    )
    assert network.signature.inputs == ("x",)
    assert tuple(network(torch.zeros(1, 6, 5, 3))[0].shape) == (1, 10)


@pytest.mark.parametrize(
    ("returned", "names"),
    [("{'logits': z}", ("y",)), ("(z,)", ("y",)), ("[z]", ("y",)), ("z", ("y",))],
)
def test_a_single_output_is_named_as_its_target(tmp_path: Path, returned: str, names: tuple[str, ...]) -> None:
    body = f"z = self.conv(x).mean((2, 3))\n        return {returned}"
    assert (
        build_network(factory(tmp_path, FORWARD.format(arguments="x", body=body)), io(6, 5, 3), 4).signature.outputs
        == names
    )


@pytest.mark.parametrize(
    ("returned", "kind", "names"),
    [
        ("{'b': z, 'a': z}", "classification", ("b", "a")),
        ("z, z", "classification", ("a", "b")),
        ("{'boxes': z, 'scores': z, 'n': z}", "custom", ("boxes", "scores", "n")),
        ("z, z, z", "custom", ("output_0", "output_1", "output_2")),
    ],
)
def test_several_outputs_are_named_by_the_dictionary_or_in_the_order_of_targets(
    tmp_path: Path, returned: str, kind: str, names: tuple[str, ...]
) -> None:
    body = f"z = self.conv(x).mean((2, 3))\n        return {returned}"
    asked = io(6, 5, 3, kind=kind, outputs={"a": (10,), "b": (10,)})
    network = build_network(factory(tmp_path, FORWARD.format(arguments="x", body=body)), asked, 4)
    assert network.signature.outputs == names


@pytest.mark.parametrize(
    ("arguments", "body", "said"),
    [
        ("x", "return 3", "forward returned a int"),
        ("x", "return None", "forward returned a NoneType"),
        ("x", "return {}", "forward returned nothing"),
        ("x", "return self.conv(x)", "output y has the shape (6, 5, 10) for a sample, the data ask for (10,)"),
        ("x", "return self.conv(x).mean()", "output 0 has shape () for 2 samples"),
        ("x", "return self.conv(x).mean((2, 3)), x", "forward returns output_0, output_1, the targets are y"),
        ("x", "return self.conv(x).mean((2, 3)).double()", "output y is torch.float64"),
        ("x", "return self.conv(x.flatten(1))", "net.py:build, line 13: RuntimeError"),
        ("x, mask", MEAN, "forward takes x, mask, the data have the inputs x"),
        ("*args", "return args[0]", "forward takes *args, the data have the inputs x"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused_in_one_line(
    tmp_path: Path, arguments: str, body: str, said: str
) -> None:
    with pytest.raises(UserError) as error:
        build_network(factory(tmp_path, FORWARD.format(arguments=arguments, body=body)), io(6, 5, 3), 4)
    (line,) = error.value.lines()
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def build(width, depth):\n    return 3", "returned a int, not a torch.nn.Module"),
        ("def build(width):\n    return nn.Identity()", "unexpected keyword argument 'depth'"),
        ("def build(width, depth):\n    return nn.Linear(-1, 2)", "line 6: RuntimeError"),
        ("def make(width, depth):\n    return 3", "there is no 'build' in it"),
        ("def build(width, depth):\n    retrun 3", "line 6: can't be imported: SyntaxError"),
    ],
)
def test_a_factory_that_fails_is_named_with_its_line(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        build_network(factory(tmp_path, body), io(5), 4)
    (line,) = error.value.lines()
    assert said in line
    assert "\n" not in line


def test_weights_are_loaded_into_the_users_own_module(tmp_path: Path) -> None:
    spec = factory(tmp_path, FORWARD.format(arguments="x", body=MEAN))
    state = build_network(spec, io(6, 5, 3), 4).network.state_dict()
    state["conv.bias"] = torch.full((10,), 7.0)
    torch.save(state, tmp_path / "m1.pt")
    network = build_network(spec.model_copy(update={"weights": str(tmp_path / "m1.pt")}), io(6, 5, 3), 4)
    assert torch.equal(network.network.conv.bias, torch.full((10,), 7.0))


def bad_weights(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("hello")
    elif kind == "whole network":
        torch.save(torch.nn.Linear(5, 5), path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"a": Path("x")}))
    elif kind == "cut":
        torch.save(torch.nn.Linear(50, 50).state_dict(), path)
        path.write_bytes(path.read_bytes()[:900])
    elif kind == "numbers":
        torch.save({"epoch": 3}, path)
    elif kind == "list":
        torch.save([torch.zeros(2)], path)


@pytest.mark.parametrize("kind", ["none", "text", "whole network", "pickle", "cut", "numbers", "list"])
def test_weights_that_are_no_state_dict_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    bad_weights(tmp_path / "w.pt", kind)
    with pytest.raises(UserError) as error:
        build_network(NetworkSpec(family="mlp", weights=str(tmp_path / "w.pt")), io(5), 4)
    assert len(error.value.lines()) == 1
    assert "torch.save(network.state_dict(), FILE)" in error.value.lines()[0]


def test_weights_of_another_network_are_refused_with_the_differences(tmp_path: Path) -> None:
    state = build_network(NetworkSpec(family="mlp", width=2.0), io(5), 4).network.state_dict()
    state["extra"] = torch.zeros(1)
    del state["hidden.0.bias"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError) as error:
        build_network(NetworkSpec(family="mlp", weights=str(tmp_path / "w.pt")), io(5), 4)
    (line,) = error.value.lines()
    assert "hidden.0.bias is missing" in line
    assert "extra is not in the network" in line
    assert "hidden.0.weight is (128, 5), the network has (64, 5)" in line


@pytest.mark.parametrize("family", ["ds_cnn", "conv1d", "autoencoder"])
def test_a_built_network_exports_with_a_free_batch(family: str) -> None:
    asked = {"ds_cnn": io(8, 8, 1), "conv1d": io(25, 12), "autoencoder": io(4, 4, 1, kind="autoencoder")}[family]
    network = build_network(NetworkSpec(family=family), asked, 4).eval()
    x = torch.randn(4, *asked.inputs[0].shape)
    batch = torch.export.Dim("batch", min=1, max=64)
    module = torch.export.export(network, (x,), dynamic_shapes=(({0: batch},),)).module()
    more = torch.randn(9, *asked.inputs[0].shape)
    assert torch.allclose(module(more)[0], network(more)[0], atol=1e-6)
