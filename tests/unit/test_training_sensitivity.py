"""What each layer minds, and the bits that follow."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from edgeloop.core.lightening import Lightening  # noqa: E402
from edgeloop.core.mixed_precision import LayerChoice  # noqa: E402
from edgeloop.training.fake_quantize import FakeQuantized  # noqa: E402
from edgeloop.training.graph import exported_graph  # noqa: E402
from edgeloop.training.quantizers import BiasQuantizer, LearnedStepQuantizer, QuantizerPhase, WeightQuantizer  # noqa: E402
from edgeloop.training.sensitivity import layer_choices, measure_sensitivities  # noqa: E402

pytestmark = pytest.mark.train


class Body(nn.Module):
    """A first and a last layer, a depthwise one, two convolutions and a hidden linear layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.wide, self.narrow = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.hidden, self.head = nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x):
        x = self.narrow(self.wide(self.depthwise(self.stem(x))).relu()).relu()
        return self.head(self.hidden(x.mean((2, 3))).relu())


def calibrated(network, taken=(), rung="w4a8:50"):
    torch.manual_seed(1)
    x = torch.randn(32, 2, 6, 6)
    fake = FakeQuantized(exported_graph(network, [x[:4]]), Lightening.parse(rung), taken)
    fake.enter(QuantizerPhase.CALIBRATE)
    fake.module(x)
    fake.enter(QuantizerPhase.FROZEN)
    return fake, x


def loss_of(fake, x, wanted):
    def loss():
        with torch.no_grad():
            return float((fake.module(x) - wanted).square().mean())

    return loss


def test_layers_keep_the_names_of_the_networks_own_code():
    fake, _ = calibrated(Body())
    assert [layer.origin for layer in fake.layers] == ["stem.0", "depthwise", "wide", "narrow", "hidden", "head"]
    assert [layer.has_choice for layer in fake.layers] == [False, False, True, True, True, False]


class Twice(nn.Module):
    """A hidden layer that is used twice, with or without a batch norm that is folded into each use."""

    def __init__(self, normed=False):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.shared, self.other = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.norm, self.head = nn.BatchNorm2d(8) if normed else nn.Identity(), nn.Linear(8, 4)

    def forward(self, x):
        for layer in (self.stem, self.shared, self.other, self.shared):
            x = self.norm(layer(x)).relu()
        return self.head(x.mean((2, 3)))


def test_a_layer_that_is_used_twice_is_one_choice_unless_folding_made_two_of_it():
    fake, _ = calibrated(Twice())
    assert [layer.origin for layer in fake.layers] == ["stem", "shared", "other", "head"]
    apart, _ = calibrated(Twice(normed=True))
    assert [layer.origin for layer in apart.layers] == ["stem", "shared", "other", "shared#2", "head"]


def test_a_look_at_a_layer_that_is_used_twice_rounds_both_uses():
    fake, x = calibrated(Twice())
    wanted = fake.module(x).detach()
    found = measure_sensitivities(fake, loss_of(fake, x, wanted), lambda _: None)
    assert [s.name for s in found] == ["shared", "other"]
    alone, _ = calibrated(Twice(), ["shared"])
    assert [layer.bits for layer in alone.layers] == [8, 4, 8, 8]
    for ours, theirs in zip(alone._ranges, fake._ranges, strict=True):
        ours.low, ours.high = theirs.low, theirs.high
    assert found[0].loss_rise == pytest.approx(loss_of(alone, x, wanted)(), rel=1e-4)


def test_bits_are_given_layer_by_layer():
    fake, _ = calibrated(Body(), ["wide", "hidden"])
    assert [layer.bits for layer in fake.layers] == [8, 8, 4, 8, 4, 8]
    kinds = [type(layer.quantizer) for layer in fake.layers]
    assert [kind is LearnedStepQuantizer for kind in kinds] == [False, False, True, False, True, False]
    whole, _ = calibrated(Body(), rung="w4a8")
    assert [layer.bits for layer in whole.layers] == [8, 8, 4, 4, 4, 8]
    assert not any(layer.has_choice for layer in whole.layers)


def test_a_look_changes_neither_weights_nor_ranges_nor_rounding():
    fake, x = calibrated(Body())
    before = copy.deepcopy(fake.module.state_dict())
    outputs = fake.module(x)
    quantizers = [layer.quantizer for layer in fake.layers]
    ranges = [(r.low, r.high, r.phase) for r in fake._ranges]
    measure_sensitivities(fake, loss_of(fake, x, torch.zeros(32, 4)), lambda _: None)
    assert torch.equal(fake.module(x), outputs)
    assert fake.module.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in fake.module.named_parameters())
    assert [(r.low, r.high, r.phase) for r in fake._ranges] == ranges
    assert [layer.quantizer for layer in fake.layers] == quantizers
    biases = [m for m in fake.module.modules() if isinstance(m, BiasQuantizer)]
    assert all(type(b.weights) is WeightQuantizer and b.weights.bits == 8 for b in biases)


def test_a_look_happens_on_the_device_that_the_network_lies_on():
    fake, _ = calibrated(Body())
    fake.module.to("meta")
    layer = next(layer for layer in fake.layers if layer.has_choice)
    with fake.trial_bits(layer, 4):
        tried = [m for m in fake.module.modules() if isinstance(m, LearnedStepQuantizer)]
        assert [m.log_step.device.type for m in tried] == ["meta"]


def test_what_is_found_is_the_rise_of_the_loss_with_that_layer_alone_at_4_bit():
    fake, x = calibrated(Body())
    wanted = fake.module(x).detach()
    found = measure_sensitivities(fake, loss_of(fake, x, wanted), lambda _: None)
    assert [s.name for s in found] == ["wide", "narrow", "hidden"]
    assert [s.weights for s in found] == [128, 128, 96]
    for one in found:
        alone, _ = calibrated(Body(), [one.name])
        for ours, theirs in zip(alone._ranges, fake._ranges, strict=True):
            ours.low, ours.high = theirs.low, theirs.high
        assert one.loss_rise == pytest.approx(loss_of(alone, x, wanted)(), rel=1e-4)
        assert one.loss_rise > 0


def test_a_layer_whose_small_weights_are_lost_beside_a_large_one_minds_more():
    def narrow(factor):
        network = Body()
        with torch.no_grad():  # the same function: what one layer shrinks the next one enlarges
            network.narrow.weight[:, 0] *= factor
            network.wide.weight[0] /= factor
            network.wide.bias[0] /= factor
        fake, x = calibrated(network)
        found = measure_sensitivities(fake, loss_of(fake, x, fake.module(x).detach()), lambda _: None)
        return max(found, key=lambda s: s.per_weight).name, next(s.loss_rise for s in found if s.name == "narrow")

    _, even = narrow(1)
    most, uneven = narrow(400)
    assert most == "narrow"
    assert uneven > 10 * even


def test_equal_networks_are_looked_at_equally_and_progress_is_told():
    told: list[float] = []
    looks = []
    for _ in range(2):
        fake, x = calibrated(Body())
        looks.append(measure_sensitivities(fake, loss_of(fake, x, torch.zeros(32, 4)), told.append))
    assert looks[0] == looks[1]
    assert told == [pytest.approx(n / 3) for n in (1, 2, 3)] * 2


def test_every_layer_is_recorded_with_its_bits_and_what_was_found():
    fake, x = calibrated(Body())
    looked = measure_sensitivities(fake, loss_of(fake, x, torch.zeros(32, 4)), lambda _: None)
    chosen, _ = calibrated(Body(), ["narrow"])
    told = layer_choices(chosen, looked, "")
    assert [(c.name, c.bits) for c in told] == [
        *(("stem.0", 8), ("depthwise", 8), ("wide", 8), ("narrow", 4), ("hidden", 8), ("head", 8))
    ]
    assert [c.loss_rise is None for c in told] == [True, True, False, False, False, True]
    assert told[0] == LayerChoice(name="stem.0", weights=144, bits=8)
