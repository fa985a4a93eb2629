"""A wider network starts with the function of the small one, whatever its operators are."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from edgeloop.core.network import NetworkIO, NetworkSpec, TensorShape  # noqa: E402
from edgeloop.errors import UserError  # noqa: E402
from edgeloop.models.build import build_network  # noqa: E402
from edgeloop.models.channel_last import ChannelLast, adapt  # noqa: E402
from edgeloop.models.channel_maps import follow_moves, place, repeating  # noqa: E402
from edgeloop.models.widen import widen  # noqa: E402

pytestmark = pytest.mark.train

OWN = Path(__file__).resolve().parents[2] / "docs" / "examples" / "own-network" / "net.py"


def io_of(shape, out, kind="classification"):
    name = "x" if kind == "autoencoder" else "y"
    return NetworkIO(
        kind=kind, inputs=(TensorShape(name="x", shape=shape),), outputs=(TensorShape(name=name, shape=out),)
    )


NETWORKS = {
    "ds_cnn": ({"family": "ds_cnn"}, io_of((12, 12, 1), (10,))),
    "resnet": ({"family": "resnet"}, io_of((8, 8, 3), (10,))),
    "conv1d": ({"family": "conv1d"}, io_of((25, 12), (9,))),
    "mlp": ({"family": "mlp"}, io_of((64,), (10,))),
    "autoencoder": ({"family": "autoencoder"}, io_of((8, 8, 1), (8, 8, 1), "autoencoder")),
    "own": (
        {"factory": f"{OWN}:build"},
        NetworkIO(
            kind="classification",
            inputs=(TensorShape(name="image", shape=(8, 8, 1)), TensorShape(name="metadata", shape=(4,))),
            outputs=(TensorShape(name="digit", shape=(10,)),),
        ),
    ),
}


def as_if_trained(network):
    """Every parameter and statistic away from where it began."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator))
    return network.eval()


def inputs_of(io, count=5):
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(count, *tensor.shape, generator=generator) for tensor in io.inputs]


def apart(one, other, inputs):
    with torch.no_grad():
        pairs = list(zip(one.eval()(*inputs), other.eval()(*inputs), strict=True))
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(width=st.floats(1.0, 3.0), seed=st.integers(0, 9))
def test_every_family_and_a_users_network_keep_their_function_at_any_width(name, width, seed):
    source, io = NETWORKS[name]
    small = as_if_trained(build_network(NetworkSpec(**source), io, 4))
    wide = build_network(NetworkSpec(**source, width=width, seed=seed), io, 4)
    widen(small, wide, io, seed=seed, source="it")
    assert apart(small, wide, inputs_of(io)) < 1e-5


def test_equal_widths_copy_every_weight():
    source, io = NETWORKS["resnet"]
    small = as_if_trained(build_network(NetworkSpec(**source), io, 4))
    wide = build_network(NetworkSpec(**source, seed=5), io, 4)
    widen(small, wide, io, seed=0, source="it")
    assert all(torch.equal(value, small.state_dict()[name]) for name, value in wide.state_dict().items())


def test_equal_seeds_widen_equally_and_repeated_channels_part_from_the_first_step():
    source, io = NETWORKS["ds_cnn"]
    small = as_if_trained(build_network(NetworkSpec(**source), io, 4))
    twins = []
    for _ in range(2):
        wide = build_network(NetworkSpec(**source, width=2.0), io, 4)
        widen(small, wide, io, seed=7, source="it")
        twins.append(wide)
    assert all(torch.equal(v, twins[1].state_dict()[n]) for n, v in twins[0].state_dict().items())
    wide = twins[0].train()
    stem = next(m for m in wide.modules() if isinstance(m, nn.Conv2d))
    half = len(stem.weight) // 2
    assert torch.equal(stem.weight[:half], stem.weight[half:])  # the same features, read with uneven shares
    optimizer = torch.optim.AdamW(wide.parameters(), 1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(wide(torch.randn(16, 12, 12, 1))[0], torch.arange(16) % 10).backward()
        optimizer.step()
    moved_apart = (stem.weight[:half] - stem.weight[half:]).abs().flatten(1).amax(1)
    assert (moved_apart > 1e-5).float().mean() > 0.5


class Tangle(nn.Module):
    """What families have not: a sum after a concatenation, a transposed layer, PReLU, a scale, groups, a flatten."""

    def __init__(self, wide):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4 * wide, 3, padding=1), nn.Conv2d(4 * wide, 4 * wide, 3, padding=1)
        self.multiply = nn.Conv2d(8 * wide, 16 * wide, 3, padding=1, groups=8 * wide)
        self.same = nn.Conv2d(16 * wide, 8 * wide, 1)
        self.up = nn.ConvTranspose2d(8 * wide, 6 * wide, 2, stride=2)
        self.scale = nn.Parameter(torch.ones(1, 6 * wide, 1, 1))
        self.prelu = nn.PReLU(6 * wide)
        self.kernel = nn.Parameter(torch.randn(6 * wide * 16, 5 * wide))
        self.head = nn.Linear(5 * wide, 4)

    def forward(self, x):
        y = self.a(x)
        both = torch.cat([y, self.b(y).relu()], 1)
        z = self.same(self.multiply(both)) + both  # repeats what the concatenation repeats
        z = self.prelu(self.up(z) * self.scale)
        z = functional.avg_pool2d(functional.pad(z, (1, 1, 1, 1)), 2)[:, :, :4, :4]
        return self.head((z.flatten(1) @ self.kernel).relu())


def both(network, io=None, small=1, wide=2):
    io = io or io_of((6, 6, 3), (4,))
    layout = ChannelLast(inputs=False, outputs=False)
    return [adapt(network(width), io, layout, "it") for width in (small, wide)], io


def test_sums_after_concatenations_multipliers_transposed_layers_and_bare_parameters_keep_the_function():
    (small, wide), io = both(Tangle)
    widen(as_if_trained(small), wide, io, seed=0, source="it")
    assert apart(small, wide, inputs_of(io)) < 1e-5


class OneChannel(nn.Module):
    """Layers of one channel at M1's width, beside axes of one that are broadcast at every width."""

    def __init__(self, wide):
        super().__init__()
        self.squeeze, self.norm, self.prelu = nn.Conv2d(3, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.PReLU(wide)
        self.alike, self.depthwise = nn.Conv2d(wide, wide, 1), nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.scale, self.single = nn.Parameter(torch.full((1, wide, 1, 1), 0.7)), nn.Parameter(torch.ones(1, 1, 1, 1))
        self.grow, self.attend = nn.Conv2d(2 * wide, 8 * wide, 1), nn.Conv2d(8 * wide, 1, 1)
        self.reduce, self.expand = nn.Conv2d(8 * wide, wide, 1), nn.Conv2d(wide, 8 * wide, 1)
        self.hidden, self.head = nn.Linear(8 * wide, wide), nn.Linear(wide, 4)

    def forward(self, x):
        y = self.prelu(self.norm(self.squeeze(x))) * self.scale + self.single
        y = self.depthwise(self.alike(y) + y * y.mean((2, 3), keepdim=True))
        y = self.grow(torch.cat([y, y.relu()], 1))
        y = y * self.attend(y).sigmoid()  # one channel at any width
        gate = self.expand(self.reduce(y.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return self.head(self.hidden((y * gate).mean((2, 3))).tanh())


@pytest.mark.parametrize("wide", [2, 3])
def test_layers_of_one_channel_keep_the_function_and_an_axis_of_one_that_is_broadcast_stays_one(wide):
    (small, wider), io = both(OneChannel, wide=wide)
    widen(as_if_trained(small), wider, io, seed=0, source="it")
    assert apart(small, wider, inputs_of(io)) < 1e-5


class Grouped(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8 * wide, 1), nn.Conv2d(8 * wide, 8 * wide, 1, groups=4)
        self.head = nn.Linear(8 * wide, 4)

    def forward(self, x):
        return self.head(self.b(self.a(x)).mean((2, 3)))


class Normed(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.a, self.norm, self.head = nn.Linear(3, 8 * wide), nn.LayerNorm(8 * wide), nn.Linear(8 * wide, 4)

    def forward(self, x):
        return self.head(self.norm(self.a(x.mean((2, 3)))))


class Summed(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 8 * wide, 1), nn.Linear(36, 4)

    def forward(self, x):
        return self.head(self.a(x).mean(1).flatten(1))


class Deeper(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.body = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(wide)])
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Kernel(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 2 * wide - 1, padding=wide - 1), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))


class Shared(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(3, 8 * wide), nn.Linear(8 * wide, 8 * wide), nn.Linear(8 * wide, 4)

    def forward(self, x):
        return self.head(self.b(self.b(self.a(x.mean((2, 3)))).relu()))


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (Grouped, "a grouped convolution mixes channels within groups"),
        (Normed, "layer_norm of repeated channels is not known"),
        (Summed, "it sums over repeated channels"),
        (Deeper, "M1 can't be widened: "),
        (Kernel, "kernels are"),
        (Shared, "it shares its weights with another layer"),
    ],
)
def test_what_cannot_be_widened_is_one_clear_line_and_the_wide_network_stays_as_it_was(network, why):
    (small, wide), io = both(network)
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    with pytest.raises(UserError) as caught:
        widen(small, wide, io, seed=0, source="net.py:build")
    (line,) = caught.value.lines()
    assert line.startswith("net.py:build: ")
    assert why in line
    assert line.endswith('set reference.larger = "factory": M2 is then trained from the start')
    assert all(torch.equal(value, before[name]) for name, value in wide.state_dict().items())


@given(small=st.integers(1, 20), more=st.integers(0, 50))
def test_every_channel_is_kept_and_none_is_repeated_much_more_often_than_another(small, more):
    chosen = repeating(small, small + more)
    counts = torch.bincount(chosen, minlength=small)
    assert chosen[:small].tolist() == list(range(small))
    assert int(counts.max() - counts.min()) <= 1


def test_moves_are_read_off_whatever_they_do():
    maps = {1: torch.tensor([0, 1, 0])}

    def flat(tensors):
        return tensors[0].permute(0, 2, 1).flatten(1)

    (found,) = follow_moves([((1, 2, 3), maps)], flat, flat)
    numbers = torch.arange(6).reshape(1, 2, 3)
    assert torch.equal(place(flat([numbers]), found), flat([place(numbers, maps)]))
    assert follow_moves([((1, 2, 3), maps)], lambda t: t[0][:, :1], lambda t: t[0][:, 1:2]) is None
