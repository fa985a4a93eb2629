"""Which layers of a mixed rung take fewer bits: the least sensitive for each byte saved, until a share is saved.

The sets of one order are nested: what a larger share takes holds what a smaller one takes, so lowering the share
gives bits back to the most sensitive layers first.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.core.frozen import Frozen


class LayerChoice(Frozen):
    """One layer with weights, as a lightened network was trained."""

    name: str
    """As in `LayerSize`, where the network's own code names the layer."""
    weights: int
    bits: int
    loss_rise: float | None = None
    """The rise of the loss on validation data from this layer alone, in the fewer bits; None where it had no choice."""


class Sensitivity(Frozen):
    """A layer that can take fewer bits."""

    name: str
    weights: int
    loss_rise: float

    @property
    def per_weight(self) -> float:
        """Bytes saved are in proportion to weights."""
        return self.loss_rise / self.weights


def least_sensitive(layers: Sequence[Sensitivity], share_pct: int) -> tuple[Sensitivity, ...]:
    """Return the layers to lighten, the least sensitive first: the fewest that save at least the share.

    Of equals the earlier one in `layers`. All of them at 100.
    """
    weights = share_pct / 100 * sum(layer.weights for layer in layers)
    least: list[Sensitivity] = []
    for layer in sorted(layers, key=lambda layer: layer.per_weight):
        if sum(t.weights for t in least) >= weights:
            break
        least.append(layer)
    return tuple(least)


def sensitivities(choices: Sequence[LayerChoice]) -> tuple[Sensitivity, ...]:
    """Return what was found of the layers that had a choice, in their order; empty where none was looked at."""
    return tuple(
        Sensitivity(name=layer.name, weights=layer.weights, loss_rise=layer.loss_rise)
        for layer in choices
        if layer.loss_rise is not None
    )
