"""Sizes against figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeloop.core.network import NetworkIO, NetworkSizes, NetworkSpec, TensorShape
from edgeloop.errors import UserError
from edgeloop.models.describe import describe, sizes_of

pytestmark = pytest.mark.train


def sizes(network: nn.Module, *shapes: tuple[int, ...]) -> NetworkSizes:
    return sizes_of(torch.export.export(network.eval(), tuple(torch.zeros(1, *shape) for shape in shapes)))


def test_a_depthwise_separable_block_is_counted_as_it_is_built() -> None:
    block = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 16, 1),
    )
    found = sizes(block, (3, 10, 10))
    assert [(layer.weights, layer.bias, layer.out_channels, layer.depthwise) for layer in found.layers] == [
        (216, 8, 8, False),
        (72, 8, 8, True),
        (128, 16, 16, False),
    ]
    # 5x5 maps: 25 * 8 * 27, 25 * 8 * 9, 25 * 16 * 8
    assert found.macs == 5400 + 1800 + 3200
    assert (found.parameters, found.other_parameters) == (216 + 8 + 72 + 8 + 128 + 16, 0)
    assert found.activations == (300, 200, 200, 400)
    assert found.peak_activation_elements == 600
    assert [layer.name for layer in found.layers] == ["0", "3", "6"]


def test_linear_layers_and_one_dimensional_convolutions() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(4, 6, 5, 2, 2)
            self.line = nn.Linear(6, 3, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.line(self.conv(x).mean(2))

    found = sizes(Net(), (4, 20))
    assert [(layer.name, layer.weights, layer.bias) for layer in found.layers] == [("conv", 120, 6), ("line", 18, 0)]
    assert found.macs == 10 * 6 * 20 + 18
    assert found.activations == (80, 60, 6, 3)


def test_transposed_and_grouped_convolutions() -> None:
    found = sizes(nn.Sequential(nn.ConvTranspose2d(4, 6, 2, 2), nn.Conv2d(6, 4, 3, groups=2)), (4, 3, 3))
    assert found.macs == 9 * 4 * 6 * 4 + 16 * 4 * 3 * 9
    assert [(layer.out_channels, layer.depthwise) for layer in found.layers] == [(6, False), (4, False)]


def test_a_residual_keeps_its_input_alive() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.relu(x + self.b(functional.relu(self.a(x))))

    found = sizes(Residual(), (4, 2, 2))
    assert found.activations == (16, 32, 16, 16)
    # at b: the input, what a made, what b makes; at the addition: the input, b's and the sum
    assert found.peak_activation_elements == 64


def test_a_layer_used_twice_is_stored_once_and_computed_twice() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(5, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.line(functional.relu(self.line(x)))

    found = sizes(Twice(), (5,))
    assert (found.parameters, found.macs, len(found.layers)) == (30, 50, 1)
    assert found.edges is None


@pytest.mark.parametrize(
    ("order", "edges"), [("abc", None), ("abbc", None), ("abb", None), ("abcb", (0, 1)), ("abba", (0, 0))]
)
def test_the_last_layer_is_the_one_that_is_used_last(order: str, edges: tuple[int, int] | None) -> None:
    class InOrder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(5, 5) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for name in order:
                x = functional.relu(getattr(self, name)(x))
            return x

    found = sizes(InOrder(), (5,))
    assert [layer.name for layer in found.layers] == sorted(set(order))
    assert found.edges == edges
    assert [found.is_edge(place) for place in range(len(found.layers))] == [
        name in {order[0], order[-1]} for name in sorted(set(order))
    ]


def test_parameters_outside_layers_and_batch_norm_without_a_layer_before_it() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.slope = nn.PReLU(3)
            self.offset = nn.Parameter(torch.ones(3, 1, 1))
            self.factor = nn.Parameter(torch.ones(4, 7))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.slope(self.norm(x)) + self.offset).flatten(2) @ self.factor

    found = sizes(Odd(), (3, 2, 2))
    assert found.other_parameters == 2 * 3 + 3 + 3
    assert [(layer.name, layer.weights, layer.out_channels) for layer in found.layers] == [("factor", 28, 7)]
    assert found.macs == 3 * 7 * 4
    assert found.parameters == found.other_parameters + 28


def test_products_of_activations_count_as_work_and_not_as_layers() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Linear(4, 4, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.query(x) @ x.transpose(1, 2), -1) @ x

    found = sizes(Attention(), (6, 4))
    assert (len(found.layers), found.parameters) == (1, 16)
    assert found.macs == 6 * 16 + 6 * 6 * 4 + 6 * 4 * 6


IMAGE = NetworkIO(
    kind="classification",
    inputs=(TensorShape(name="x", shape=(28, 28, 1)),),
    outputs=(TensorShape(name="y", shape=(10,)),),
)


def test_the_reference_network_in_figures() -> None:
    found = describe(NetworkSpec(family="ds_cnn"), IMAGE, 4)
    layers = [
        (72, 8),
        (72, 8),
        (128, 16),
        (144, 16),
        (512, 32),
        (288, 32),
        (1024, 32),
        (288, 32),
        (2048, 64),
        (640, 10),
    ]
    assert [(layer.weights, layer.bias) for layer in found.layers] == layers
    assert sum(layer.depthwise for layer in found.layers) == 4
    # maps of 14x14 up to the second depthwise convolution, which halves them; the last one leaves 4x4
    maps = [196, 196, 196, 49, 49, 49, 49, 16, 16, 1]
    assert found.macs == sum(weights * size for (weights, _), size in zip(layers, maps, strict=True))
    assert found.parameters == sum(map(sum, layers))
    assert found.peak_activation_elements == 8 * 196 + 16 * 196


def test_names_of_layers_are_those_of_the_users_own_module() -> None:
    assert describe(NetworkSpec(family="ds_cnn"), IMAGE, 4).layers[0].name == "features.0.0"


def test_composed_operators_are_taken_apart_before_counting(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.w = nn.Parameter(torch.ones(4, 10))\n\n"
        "    def forward(self, x):\n        return torch.einsum('bi,io->bo', x, self.w)\n\n\n"
        "def build(width, depth):\n    return Net()\n"
    )
    asked = IMAGE.model_copy(update={"inputs": (TensorShape(name="x", shape=(4,)),)})
    found = describe(NetworkSpec(factory=f"{tmp_path / 'net.py'}:build"), asked, 4)
    assert (found.macs, found.parameters, [layer.name for layer in found.layers]) == (40, 40, ["w"])


def test_a_forward_that_is_no_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.a = nn.Linear(4, 10)\n\n"
        "    def forward(self, x):\n        return self.a(x) if x.sum() > 0 else self.a(-x)\n\n\n"
        "def build(width, depth):\n    return Net()\n"
    )
    asked = IMAGE.model_copy(update={"inputs": (TensorShape(name="x", shape=(4,)),)})
    with pytest.raises(UserError) as error:
        describe(NetworkSpec(factory=f"{tmp_path / 'net.py'}:build"), asked, 4)
    assert len(error.value.lines()) == 1
    assert "torch.export can't follow its forward" in error.value.lines()[0]
