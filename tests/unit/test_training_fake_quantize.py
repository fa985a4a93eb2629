"""Every tensor that the runtime quantizes has a fake quantizer, and no other has."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from edgeloop.core.lightening import Lightening  # noqa: E402
from edgeloop.core.network import NetworkIO, TensorShape  # noqa: E402
from edgeloop.models.channel_last import ChannelLast, adapt  # noqa: E402
from edgeloop.models.describe import export_network, sizes_of  # noqa: E402
from edgeloop.search.size_model import weight_bits  # noqa: E402
from edgeloop.training.fake_quantize import FakeQuantized  # noqa: E402
from edgeloop.training.graph import constant, exported_graph, is_constant  # noqa: E402
from edgeloop.training.quantizers import QuantizerPhase, grid  # noqa: E402

pytestmark = pytest.mark.train


class Body(nn.Module):
    def __init__(self, forward, **parts):
        super().__init__()
        self._forward = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self._forward(self, x)


def conv(inputs=4, outputs=4, **more):
    return nn.Conv2d(inputs, outputs, 1, **more)


def quantized(network, *shape, lightening="w8a8"):
    torch.manual_seed(0)
    x = torch.randn(6, *shape)
    fake = FakeQuantized(exported_graph(network, [x[:3]]), Lightening.parse(lightening))
    fake.enter(QuantizerPhase.CALIBRATE)
    fake.module(x)
    fake.enter(QuantizerPhase.FROZEN)
    return fake, x


def names(fake):
    return [a.name for a in fake.activations]


def test_an_activation_fused_into_its_layer_is_rounded_once():
    fake, _ = quantized(Body(lambda s, x: functional.relu(s.a(x)), a=conv()), 4, 5, 5)
    assert names(fake) == ["inputs_0", "relu"]


@pytest.mark.parametrize("function", [functional.relu6, functional.hardtanh, lambda x: x.clamp(0, 6), torch.relu])
def test_relu_relu6_and_their_clamps_are_fused(function):
    fake, _ = quantized(Body(lambda s, x: function(s.a(x) + s.b(x)), a=conv(), b=conv()), 4, 5, 5)
    assert len(names(fake)) == 4  # input, two convolutions, the sum after its activation


def test_an_activation_that_is_not_the_only_reader_is_not_fused():
    def forward(s, x):
        y = s.a(x)
        return functional.relu(y) * y

    fake, _ = quantized(Body(forward, a=conv()), 4, 5, 5)
    assert names(fake)[:3] == ["inputs_0", "conv2d", "relu"]
    assert len(names(fake)) == 4


def test_what_moves_values_stays_on_its_inputs_grid():
    fake, _ = quantized(
        Body(lambda s, x: s.a(functional.pad(functional.max_pool2d(x.permute(0, 3, 1, 2), 2), (1, 1))), a=conv()),
        6,
        6,
        4,
    )
    assert names(fake) == ["inputs_0", "conv2d"]


def test_an_average_pool_is_rounded_on_its_inputs_grid():
    fake, x = quantized(Body(lambda s, x: functional.avg_pool2d(s.a(x), 2), a=conv()), 4, 6, 6)
    by_name = {a.name: a.quantizer for a in fake.activations}
    assert by_name["avg_pool2d"] is by_name["conv2d"]
    steps = fake.module(x) * 255 / (by_name["conv2d"].high - by_name["conv2d"].low)
    assert torch.allclose(steps, steps.round(), atol=1e-3)


def test_a_global_average_has_a_range_of_its_own():
    fake, _ = quantized(Body(lambda s, x: functional.adaptive_avg_pool2d(s.a(x), 1), a=conv()), 4, 6, 6)
    by_name = {a.name: a.quantizer for a in fake.activations}
    assert by_name["adaptive_avg_pool2d"] is not by_name["conv2d"]


def test_what_only_a_concatenation_reads_has_its_range_and_others_keep_their_own():
    def forward(s, x):
        shared = s.b(x)
        return s.c(torch.cat([functional.relu(s.a(x)), functional.max_pool2d(s.b(x), 1), shared], 1)) + shared

    fake, _ = quantized(Body(forward, a=conv(), b=conv(), c=conv(12, 4)), 4, 6, 6)
    by_name = {a.name: a.quantizer for a in fake.activations}
    assert by_name["relu"] is by_name["cat"]
    assert by_name["conv2d_2"] is by_name["cat"]
    assert by_name["conv2d"] is not by_name["cat"]


def test_ranges_that_the_kernels_fix_are_those():
    fake, _ = quantized(Body(lambda s, x: torch.sigmoid(s.a(x)) * torch.tanh(s.b(x)), a=conv(), b=conv()), 4, 5, 5)
    fixed = {a.name: (a.quantizer.low, a.quantizer.high) for a in fake.activations if a.quantizer.is_fixed}
    assert fixed == {"sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}


def test_constant_operands_are_rounded_where_they_are_no_part_of_a_layer():
    body = Body(
        lambda s, x: s.a(x * s.scale),
        a=conv(),
        scale=nn.Parameter(torch.tensor([1.0, 0.77, 0.3, 0.1]).view(1, 4, 1, 1)),
    )
    fake, _ = quantized(body, 4, 5, 5)
    scale = next(v for v in fake.to_float().parameters() if v.shape == (1, 4, 1, 1))
    assert torch.allclose(scale.flatten() * 255, (scale.flatten() * 255).round(), atol=1e-3)


def test_bits_follow_the_rung_the_edges_and_depthwise_layers():
    body = Body(lambda s, x: s.d(s.c(s.b(s.a(x)))), a=conv(), b=nn.Conv2d(4, 4, 3, groups=4), c=conv(), d=conv())
    fake, _ = quantized(body, 4, 6, 6, lightening="w4a8")
    assert [(layer.bits, layer.depthwise) for layer in fake.layers] == [(8, False), (8, True), (4, False), (8, False)]


@pytest.mark.parametrize("lightening", ["w8a8", "w4a8", "w8a16", "fp16", "fp32"])
def test_without_quantizers_the_weights_are_on_their_grids_and_nothing_else_is_left(lightening):
    body = Body(lambda s, x: s.c(functional.relu(s.b(s.a(x)))), a=conv(), b=conv(), c=conv())
    fake, x = quantized(body, 4, 5, 5, lightening=lightening)
    expected = fake.module(x)
    plain = fake.to_float()
    assert {n.op for n in plain.graph.nodes} == {"placeholder", "get_attr", "call_function", "output"}
    assert [name for name, _ in plain.named_modules() if "range" in name or "weights_" in name] == []
    for layer in fake.layers:
        weight = plain.get_parameter(layer.name).detach()
        if layer.bits == 16:
            assert torch.equal(weight, weight.half().float())
        elif layer.bits < 16:
            steps = weight.flatten(1) / weight.flatten(1).abs().amax(1, keepdim=True) * (2 ** (layer.bits - 1) - 1)
            assert torch.allclose(steps, steps.round(), atol=1e-4)
    close = {"w8a8": 0.05, "w4a8": 0.05, "w8a16": 1e-3, "fp16": 1e-6, "fp32": 0.0}[lightening]
    assert (plain(x) - expected).abs().max() <= close * expected.abs().max()


class InOrder(nn.Module):
    """Layers `a` to `d`, called in an order."""

    def __init__(self, order):
        super().__init__()
        torch.manual_seed(0)
        self.order = order
        for name in "abcd":
            setattr(self, name, nn.Linear(6, 6))

    def forward(self, x):
        for name in self.order[:-1]:
            x = functional.relu(getattr(self, name)(x))
        return getattr(self, self.order[-1])(x)


@pytest.mark.parametrize(
    ("order", "bits"),
    [
        ("abbc", {"a": 8, "b": 4, "c": 8}),
        ("abb", {"a": 8, "b": 8}),
        ("abba", {"a": 8, "b": 4}),
        ("abcb", {"a": 8, "b": 8, "c": 4}),
        ("abcdb", {"a": 8, "b": 8, "c": 4, "d": 4}),
    ],
)
def test_a_layer_used_twice_takes_the_most_bits_that_a_use_needs_as_was_predicted(order, bits):
    fake, _ = quantized(InOrder(order), 6, lightening="w4a8")
    assert {layer.origin: layer.bits for layer in fake.layers} == bits
    io = NetworkIO(
        kind="regression",
        inputs=(TensorShape(name="x", shape=(6,)),),
        outputs=(TensorShape(name="y", shape=(6,)),),
    )
    sizes = sizes_of(export_network(adapt(InOrder(order), io, ChannelLast(inputs=True, outputs=True), "it"), io, "it"))
    predicted = weight_bits(sizes, Lightening.parse("w4a8"))
    assert dict(zip([layer.name for layer in sizes.layers], predicted, strict=True)) == bits


@pytest.mark.parametrize(("lightening", "taken"), [("w8a8", ()), ("w4a8", ()), ("w4a8:50", ("b",))])
@pytest.mark.parametrize("order", ["abbc", "abcbd", "abb"])
def test_what_is_written_of_a_layer_used_twice_is_what_was_trained(order, lightening, taken):
    torch.manual_seed(1)
    x = torch.randn(64, 6)
    fake = FakeQuantized(exported_graph(InOrder(order), [x[:3]]), Lightening.parse(lightening), taken)
    fake.enter(QuantizerPhase.CALIBRATE)
    fake.module(x)
    fake.enter(QuantizerPhase.LEARN)
    optimizer = torch.optim.AdamW(fake.module.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        (fake.module(x) - x.sin()).square().mean().backward()
        optimizer.step()
    fake.enter(QuantizerPhase.FROZEN)
    for activation in fake.activations:  # what is left are the roundings of weights and biases
        activation.quantizer.forward = lambda value: value
    trained = fake.module(x)
    plain = fake.to_float()
    assert torch.equal(plain(x), trained)
    biases = [n.args[2] for n in plain.graph.nodes if n.op == "call_function" and "linear" in str(n.target)]
    assert len({constant(plain, bias).data_ptr() for bias in biases}) == len(order)


def test_weights_of_a_convolution_and_its_transpose_are_rounded_along_their_own_axes():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.c = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 5, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            x = self.b(self.a(x)).relu()
            return self.c(functional.conv_transpose2d(x, self.b.weight).relu())

    fake, x = quantized(Tied(), 2, 4, 4, lightening="w4a8")
    assert [(layer.origin, layer.bits, layer.axis) for layer in fake.layers] == [
        *(("a", 8, 0), ("b", 4, 0), ("b#2", 4, 1), ("c", 8, 0))
    ]
    for activation in fake.activations:
        activation.quantizer.forward = lambda value: value
    trained = fake.module(x)
    assert torch.equal(fake.to_float()(x), trained)


def test_float_rungs_round_no_activation():
    fake, _ = quantized(Body(lambda s, x: s.a(x), a=conv()), 4, 5, 5, lightening="fp16")
    assert names(fake) == []
    assert not any(is_constant(n) and n.users == {} for n in fake.module.graph.nodes)


@pytest.mark.parametrize("lightening", ["w8a8", "w4a8"])
def test_biases_are_integers_in_steps_of_the_inputs_and_the_weights_scale(lightening):
    body = Body(lambda s, x: s.c(s.b(s.a(x))), a=conv(), b=conv(), c=conv())
    fake, _ = quantized(body, 4, 5, 5, lightening=lightening)
    ranges = {a.name: a.quantizer for a in fake.activations}
    source = grid(ranges["conv2d"].low, ranges["conv2d"].high, 8)[0]
    plain = fake.to_float()
    middle = [n for n in plain.graph.nodes if n.op == "call_function" and "conv2d" in str(n.target)][1]
    weight, bias = (constant(plain, middle.args[i]).detach() for i in (1, 2))
    top = 2 ** (fake.layers[1].bits - 1) - 1
    steps = bias / (source * weight.flatten(1).abs().amax(1) / top)
    assert torch.allclose(steps, steps.round(), atol=1e-3)
