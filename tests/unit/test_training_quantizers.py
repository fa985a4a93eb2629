"""Fake quantizers round to the grids of ai-edge-quantizer and let gradients through."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgeloop.errors import UserError  # noqa: E402
from edgeloop.training.quantizers import (  # noqa: E402
    ConstantQuantizer,
    HalfQuantizer,
    LearnedStepQuantizer,
    QuantizerPhase,
    RangeQuantizer,
    SameRange,
    WeightQuantizer,
    grid,
    round_to_grid,
)

pytestmark = pytest.mark.train


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_rounded_by_channel_as_the_quantizer_rounds_them(bits, axis):
    torch.manual_seed(0)
    weight = torch.randn(6, 5, 3, 3)
    top = 2 ** (bits - 1) - 1
    others = tuple(d for d in range(4) if d != axis)
    values = weight.double().numpy()
    scale = np.abs(values).max(axis=others, keepdims=True) / top
    expected = np.clip(np.rint(values / scale), -top, top) * scale
    ours = WeightQuantizer(bits, axis, 4, weight.shape[axis])(weight)
    assert np.abs(ours.numpy() - expected).max() < 1e-6
    assert torch.allclose(WeightQuantizer(bits, axis, 4, weight.shape[axis])(ours), ours, atol=1e-6)


def test_a_channel_of_zeros_stays_zero():
    assert torch.equal(WeightQuantizer(8, 0, 2, 2)(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_half_floats_are_exact_and_pass_the_gradient():
    weight = (torch.randn(1000) * 10).requires_grad_()
    half = HalfQuantizer()(weight)
    assert torch.equal(half, weight.half().float())
    half.sum().backward()
    assert torch.equal(weight.grad, torch.ones(1000))


@pytest.mark.parametrize(("low", "high"), [(-1.3, 4.1), (0.0, 6.0), (-2.0, 0.0), (0.5, 3.0), (0.0, 0.0)])
def test_activations_are_rounded_asymmetrically_with_zero_on_the_grid(low, high):
    scale, zero = grid(low, high, 8)
    assert scale == pytest.approx(max(max(high, 0) - min(low, 0), 1e-9) / 255)
    assert -128 <= zero <= 127
    values = torch.linspace(low - 1, high + 1, 1001)
    stored = np.clip(np.rint(values.double().numpy() / scale + zero), -128, 127)
    assert np.abs(round_to_grid(values, low, high, 8).numpy() - (stored - zero) * scale).max() <= scale * 1.001
    assert round_to_grid(torch.zeros(1), low, high, 8).item() == 0.0


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("low", "high"), [(-1.3, 4.1), (0.0, 6.0), (-2.0, 0.0), (-1e-3, 40.0)])
def test_rounding_is_torchs_own_bit_for_bit_and_so_is_its_gradient(bits, low, high):
    torch.manual_seed(0)
    value = (torch.randn(4, 6, 9, 9) * 3).to(memory_format=torch.channels_last).requires_grad_()
    scale, zero = grid(low, high, bits)
    limits = (-128, 127) if bits == 8 else (-32768, 32767)
    theirs = torch.fake_quantize_per_tensor_affine(value, scale, zero, *limits)
    ours = round_to_grid(value, low, high, bits)
    given = torch.randn_like(value)
    assert torch.equal(ours, theirs)
    assert torch.equal(*(torch.autograd.grad(out, value, given)[0] for out in (ours, theirs)))


def test_sixteen_bits_are_symmetric():
    assert grid(-2.0, 1.0, 16) == (2.0 / 32767, 0)


def test_gradients_pass_inside_the_range_and_stop_outside():
    value = torch.tensor([-3.0, 0.5, 9.0], requires_grad=True)
    round_to_grid(value, -1.0, 2.0, 8).sum().backward()
    assert value.grad.tolist() == [0.0, 1.0, 0.0]


def test_a_range_is_the_mean_of_the_calibration_batches_then_moves_slowly_then_stays():
    quantizer = RangeQuantizer(8, momentum=0.1)
    batch = torch.tensor([0.0, 2.0])
    assert torch.equal(quantizer(batch), batch), "calibration rounds nothing"
    quantizer(torch.tensor([-2.0, 4.0]))
    assert (quantizer.low, quantizer.high) == pytest.approx((-1.0, 3.0))
    quantizer.phase = QuantizerPhase.LEARN
    quantizer(torch.tensor([-2.0, 13.0]))
    assert (quantizer.low, quantizer.high) == pytest.approx((-1.1, 4.0))
    quantizer.freeze()
    kept = (quantizer.low, quantizer.high)
    quantizer(torch.tensor([-9.0, 99.0]))
    assert (quantizer.low, quantizer.high) == kept


def test_freezing_puts_zero_on_the_grid_so_that_any_precision_finds_the_same_zero_point():
    quantizer = RangeQuantizer(8)
    quantizer(torch.tensor([-0.50001, 1.7]))
    quantizer.freeze()
    scale, zero = grid(quantizer.low, quantizer.high, 8)
    assert -128 - quantizer.low / scale == pytest.approx(zero, abs=1e-9)


def test_a_fixed_range_never_moves():
    quantizer = RangeQuantizer(8, fixed_range=(0.0, 255 / 256))
    quantizer(torch.tensor([-5.0, 5.0]))
    quantizer.freeze()
    assert grid(quantizer.low, quantizer.high, 8) == (1 / 256, -128)


def test_values_on_their_inputs_grid_are_rounded_by_its_range_without_moving_it():
    source = RangeQuantizer(8)
    source(torch.tensor([0.0, 2.55]))
    source.phase = QuantizerPhase.LEARN
    assert SameRange(source)(torch.tensor([0.014, 9.0])).tolist() == pytest.approx([0.01, 2.55])
    assert source.high == pytest.approx(2.55)


def test_a_constant_operand_is_rounded_by_its_own_extremes():
    value = torch.tensor([0.1, 1.0, 2.55])
    assert ConstantQuantizer(8)(value).tolist() == pytest.approx([0.1, 1.0, 2.55], abs=1e-6)


def test_activations_that_are_not_finite_say_that_training_diverged():
    with pytest.raises(UserError, match="diverged"):
        RangeQuantizer(8)(torch.tensor([float("nan"), 1.0]))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_learned_step_is_the_one_that_the_largest_rounded_weight_tells(axis):
    torch.manual_seed(0)
    weight = torch.randn(6, 5, 3, 3)
    quantizer = LearnedStepQuantizer(4, axis, 4, weight.shape[axis])
    quantizer.start(weight)
    with torch.no_grad():
        quantizer.log_step.add_(torch.linspace(-0.5, 2.0, weight.shape[axis]))  # the last would exceed the largest
    rounded_weight = quantizer(weight).detach()
    others = tuple(d for d in range(4) if d != axis)
    told = rounded_weight.abs().amax(others) / 7
    assert torch.allclose(told, quantizer.scale, rtol=1e-5)
    again = WeightQuantizer(4, axis, 4, weight.shape[axis])(rounded_weight)
    assert torch.allclose(again, rounded_weight, atol=1e-6)


def test_a_learned_step_starts_where_rounding_costs_least():
    torch.manual_seed(0)
    weight = torch.randn(4, 200)
    weight[0, 0] = 20.0  # an outlier
    quantizer = LearnedStepQuantizer(4, 0, 2, 4)
    quantizer.start(weight)
    largest = WeightQuantizer(4, 0, 2, 4)
    error, before = ((q(weight) - weight).square().sum().item() for q in (quantizer, largest))
    assert error < before


def test_a_learned_step_gets_a_gradient_and_so_do_the_weights():
    weight = torch.randn(4, 50, requires_grad=True)
    quantizer = LearnedStepQuantizer(4, 0, 2, 4)
    quantizer.start(weight.detach())
    (quantizer(weight) - 1).square().sum().backward()
    assert torch.isfinite(quantizer.log_step.grad).all()
    assert (quantizer.log_step.grad != 0).any()
    assert (weight.grad != 0).any()
