"""The exported graph after folding computes what the network computes, and every layer is one node."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from edgeloop.errors import UserError  # noqa: E402
from edgeloop.training.graph import exported_graph, is_layer, kind_of  # noqa: E402

pytestmark = pytest.mark.train


class Body(nn.Module):
    """A forward given as a function, with modules and parameters by name."""

    def __init__(self, forward, **parts):
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, nn.Parameter(part) if isinstance(part, torch.Tensor) else part)
        for norm in self.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                for values in (norm.running_mean, norm.bias.data, norm.weight.data):
                    values.normal_()
                norm.running_var.uniform_(0.5, 2.0)

    def forward(self, x):
        return self._forward(self, x)


def folded(network, *shape):
    """Return the kinds of nodes after folding, having checked that the function is the same."""
    torch.manual_seed(1)
    x = torch.randn(5, *shape)
    network.eval()
    graph = exported_graph(network, [x[:3]])
    assert torch.allclose(graph(x), network(x), atol=1e-5)
    return graph, [kind_of(n) for n in graph.graph.nodes if n.op == "call_function" and kind_of(n) != "sym_size"]


@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), (3, 6, 6)),
        (nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), (4, 6, 6)),
        (nn.Conv1d(3, 8, 3, padding=1), nn.BatchNorm1d(8), (3, 9)),
        (nn.ConvTranspose2d(3, 8, 2, 2), nn.BatchNorm2d(8), (3, 4, 4)),
        (nn.Linear(6, 5), nn.BatchNorm1d(5), (6,)),
    ],
    ids=["conv2d", "depthwise", "conv1d", "transposed", "linear"],
)
def test_batch_norm_after_a_layer_becomes_part_of_it(layer, norm, shape):
    _, kinds = folded(Body(lambda s, x: functional.relu(s.norm(s.layer(x))), layer=layer, norm=norm), *shape)
    assert len(kinds) == 2
    assert kinds[1] == "relu"


def test_batch_norm_that_follows_no_layer_becomes_a_multiplication_and_an_addition():
    body = Body(lambda s, x: s.conv(torch.relu(s.norm(x))), conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(3))
    assert folded(body, 3, 5, 5)[1] == ["mul", "add", "relu", "conv2d"]


def test_batch_norm_of_a_layer_that_others_read_is_not_folded_into_it():
    def forward(s, x):
        y = s.conv(x)
        return s.norm(y) + y

    kinds = folded(Body(forward, conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)), 3, 5, 5)[1]
    assert kinds == ["conv2d", "mul", "add", "add"]


def test_batch_norm_written_as_plain_arithmetic_is_folded_too():
    def forward(s, x):
        y = torch.matmul(x, s.kernel) + s.bias
        return (y - s.mean) * (s.gamma / torch.sqrt(s.variance + 1e-3)) + s.beta

    values = {name: torch.rand(5) + 0.5 for name in ("bias", "mean", "gamma", "variance", "beta")}
    assert folded(Body(forward, kernel=torch.randn(6, 5), **values), 6)[1] == ["linear"]


@pytest.mark.parametrize("scalar", [lambda y: y / 4.0, lambda y: 3.0 - y, lambda y: 2.0 * y + 1.0, lambda y: y - 0.5])
def test_numbers_after_a_layer_are_folded_into_it(scalar):
    assert folded(Body(lambda s, x: scalar(s.conv(x)), conv=nn.Conv2d(3, 4, 1)), 3, 5, 5)[1] == ["conv2d"]


def test_a_product_with_another_activation_is_no_layer():
    graph, _ = folded(Body(lambda s, x: torch.matmul(s.linear(x), x.transpose(1, 2)), linear=nn.Linear(4, 4)), 6, 4)
    assert [kind_of(n) for n in graph.graph.nodes if is_layer(n)] == ["linear"]


def test_the_original_network_stays_as_it_was():
    network = Body(lambda s, x: s.norm(s.conv(x)), conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    exported_graph(network, [torch.randn(3, 3, 5, 5)])
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_parameters_that_folding_leaves_behind_are_neither_trained_nor_saved():
    network = Body(lambda s, x: s.norm(s.conv(x)), conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4))
    graph, _ = folded(network, 3, 5, 5)
    assert sum(p.numel() for p in graph.parameters()) == 4 * 3 + 4
    assert not list(graph.buffers())


def test_control_flow_on_values_is_one_line_about_the_network():
    network = Body(lambda s, x: s.conv(x) if x.sum() > 0 else -s.conv(x), conv=nn.Conv2d(3, 4, 1))
    with pytest.raises(UserError, match="can't be exported") as raised:
        exported_graph(network, [torch.randn(3, 3, 5, 5)])
    assert len(raised.value.lines()) == 1
    assert "\n" not in raised.value.lines()[0]
