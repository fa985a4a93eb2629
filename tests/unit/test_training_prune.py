"""Channels are removed by group, by a percentage alone, and outputs stay."""

from __future__ import annotations

import copy
import runpy
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from torch import nn  # noqa: E402

from edgeloop.core.network import NetworkIO, NetworkSpec, TensorShape  # noqa: E402
from edgeloop.errors import ModelError  # noqa: E402
from edgeloop.models.build import build_network  # noqa: E402
from edgeloop.models.describe import export_network, sizes_of  # noqa: E402
from edgeloop.training.prune import kept_channels, prune, settle  # noqa: E402

pytestmark = pytest.mark.train

OWN = Path(__file__).resolve().parents[2] / "docs" / "examples" / "own-network" / "net.py"


def io_of(shape, out, kind="classification"):
    name = "x" if kind == "autoencoder" else "y"
    return NetworkIO(
        kind=kind, inputs=(TensorShape(name="x", shape=shape),), outputs=(TensorShape(name=name, shape=out),)
    )


FAMILIES = [
    ("ds_cnn", io_of((28, 28, 1), (10,)), [8, 8, 12, 12, 24, 24, 24, 24, 48, 10]),
    ("resnet", io_of((16, 16, 3), (10,)), [12, 12, 12, 24, 24, 24, 48, 48, 48, 10]),
    ("conv1d", io_of((25, 12), (9,)), [12, 24, 48, 9]),
    ("mlp", io_of((64,), (10,)), [48, 24, 10]),
    ("autoencoder", io_of((8, 8, 1), (8, 8, 1), "autoencoder"), [48, 24, 8, 24, 48, 64]),
]


def channels(network, io):
    return [layer.out_channels for layer in sizes_of(export_network(network, io, "it")).layers]


@pytest.mark.parametrize(("family", "io", "left"), FAMILIES)
def test_every_family_loses_a_quarter_of_each_groups_channels_in_multiples_and_keeps_its_outputs(family, io, left):
    network = build_network(NetworkSpec(family=family), io, 4)
    x = torch.randn(2, *io.inputs[0].shape)
    smaller = prune(network, [x], 25, 4)
    assert channels(smaller, io) == left
    assert [y.shape for y in smaller(x)] == [y.shape for y in network(x)]


def test_the_network_itself_stays_as_it_is():
    io = FAMILIES[0][1]
    network = build_network(NetworkSpec(family="ds_cnn"), io, 4)
    before = copy.deepcopy(network.state_dict())
    prune(network, [torch.randn(2, 28, 28, 1)], 50, 4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training


def test_what_is_left_depends_on_the_percentage_and_not_on_the_weights():
    io = FAMILIES[1][1]
    shapes = []
    for seed in range(3):
        network = build_network(NetworkSpec(family="resnet", seed=seed), io, 4)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(torch.rand_like(parameter) * 10 * seed + 0.1)
        shapes.append([tuple(p.shape) for p in prune(network, [torch.randn(2, 16, 16, 3)], 50, 4).parameters()])
    assert shapes[0] == shapes[1] == shapes[2]


def test_the_least_important_channels_go_and_the_others_keep_their_function():
    body = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5, bias=False))
    with torch.no_grad():
        for silent in (1, 4, 6, 7):
            body[0].weight[silent] = 0.0
    x = torch.randn(2, 3, 4, 4)
    smaller = prune(body.eval(), [x], 50, 4)
    assert smaller[0].out_channels == 4
    assert torch.allclose(smaller(x), body(x), atol=1e-6)


class Tangle(nn.Module):
    """A residual sum, a depthwise layer, a concatenation, and an output that is read further on."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.join, self.told, self.end = nn.Conv2d(32, 12, 1), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x):
        y = self.a(x)
        z = y + self.depthwise(self.b(y).relu())
        pooled = self.join(torch.cat([y, z], 1)).mean((2, 3))
        told = self.told(pooled)
        return told, self.end(told)


def test_residual_sums_depthwise_layers_and_concatenations_are_pruned_together():
    x = torch.randn(2, 4, 6, 6)
    smaller = prune(Tangle(), [x], 50, 4)
    assert (smaller.a.out_channels, smaller.b.out_channels, smaller.depthwise.groups) == (8, 8, 8)
    assert (smaller.join.in_channels, smaller.join.out_channels) == (16, 8)
    assert smaller.told.out_features == 8  # it is an output as well
    assert [y.shape for y in smaller(x)] == [(2, 8), (2, 3)]


def test_a_users_own_network_with_two_inputs_is_pruned():
    network = runpy.run_path(str(OWN))["build"](width=2, depth=0)
    inputs = [torch.randn(2, 1, 8, 8), torch.randn(2, 4)]
    smaller = prune(network, inputs, 50, 4)
    assert sum(p.numel() for p in smaller.parameters()) < 0.4 * sum(p.numel() for p in network.parameters())
    assert smaller(*inputs).shape == (2, 10)


def test_batch_norms_take_the_statistics_of_what_is_left():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 2)).train()
    x = torch.randn(40, 3, 4, 4)
    settle(network, [(part,) for part in torch.split(x, 10)])
    seen = network[0](x)
    assert torch.allclose(network[1].running_mean, seen.mean((0, 2, 3)), atol=1e-5)
    assert network[1].momentum == 0.1
    assert not network[1].training
    assert torch.allclose(network[1](seen).mean((0, 2, 3)), torch.zeros(4), atol=1e-4)


class Bare(nn.Module):
    """Weights outside modules, which say nothing of their channels."""

    def __init__(self):
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.randn(16, 4, 3, 3)), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(nn.functional.conv2d(x, self.weight).mean((2, 3)))


class Fixed(nn.Module):
    """A width written into forward."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(4, 16, 3), nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.body(x).reshape(-1, 16, 36).mean(2))


@pytest.mark.parametrize("network", [Bare, Fixed])
def test_what_cannot_be_pruned_is_one_clear_line(network):
    with pytest.raises(ModelError, match=r"^channels can't be pruned: ") as caught:
        prune(network(), [torch.randn(2, 4, 8, 8)], 50, 4)
    (line,) = caught.value.lines()
    assert "\n" not in line
    assert "leave out the lightenings that end in -p" in line


@pytest.mark.parametrize(
    ("before", "percent", "multiple", "left"),
    [(16, 25, 4, 12), (8, 25, 4, 8), (8, 50, 4, 4), (12, 50, 4, 8), (4, 75, 4, 4), (6, 50, 4, 4), (10, 25, 8, 8)],
)
def test_channels_are_left_to_the_nearest_multiple_half_up(before, percent, multiple, left):
    assert kept_channels(before, percent, multiple) == left
