"""The sensitivity of each layer to fewer bits: the rise in loss when it alone takes them.

Measured on the calibrated fake-quantized network before it is trained, on validation data, which selection may see.
The saving that the rise in loss is held against is bytes: time is not counted, since 4 bit saves none for
convolutions on the engines there are (engines.capabilities). After Dong et al., HAWQ, arXiv:1905.03696, with the loss
itself in the place of its curvature.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeloop.core.mixed_precision import LayerChoice, Sensitivity
from edgeloop.training.fake_quantize import FakeQuantized


def measure_sensitivities(
    fake: FakeQuantized, loss: Callable[[], float], progress: Callable[[float], None]
) -> tuple[Sensitivity, ...]:
    """Return the sensitivity of every layer that has a choice, in forward order.

    `fake` is calibrated, its ranges frozen, and has these layers at 8 bit; `loss` is that of `fake.module` on the
    samples that choose. Neither weights nor ranges are changed.
    """
    layers = [layer for layer in fake.layers if layer.has_choice]
    base = loss()
    sensitivities = []
    for number, layer in enumerate(layers, start=1):
        with fake.trial_bits(layer, fake.lightening.weight_bits):
            rise = loss() - base
        sensitivities.append(Sensitivity(name=layer.origin, weights=layer.weights, loss_rise=rise))
        progress(number / len(layers))
    return tuple(sensitivities)


def layer_choices(fake: FakeQuantized, sensitivities: tuple[Sensitivity, ...], inside: str) -> tuple[LayerChoice, ...]:
    """Return the bits of every layer of a network as it was trained, beside its sensitivities.

    `inside` is the name of the user's own module in the network, which layers are named without.
    """
    rises = {one.name: one.loss_rise for one in sensitivities}
    return tuple(
        LayerChoice(
            name=layer.origin.removeprefix(f"{inside}."),
            weights=layer.weights,
            bits=layer.bits,
            loss_rise=rises.get(layer.origin),
        )
        for layer in fake.layers
    )
