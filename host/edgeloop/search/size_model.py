"""The generator's arithmetic (S703): how far a setting lightens a network, and what the built file will weigh.

The lightening itself is done to a graph, in the training and builder rooms; this module only counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgeloop.core.lightening import Lightening
from edgeloop.core.network import LayerSize, NetworkSizes

# Fitted on built files without tensor names: docs/decisions/0005-predicted-bytes.md.
CONTAINER_BYTES = 153
"""Root, version and lists of a .tflite."""
LAYER_BYTES = 23
"""What tables a layer with weights has beyond those of its activation."""
ACTIVATION_BYTES = 224
"""Tables of one activation tensor and of the operator that fills it."""
HALF_LAYER_BYTES = 54
"""The DEQUANTIZE operator and its tensor that a layer with half-float weights brings."""
QUANTIZED_LAYER_BYTES = 65
"""Quantization parameters' tables of a layer's weights and bias."""
CHANNEL_BYTES = 8
"""Per output channel: a float32 scale for the weights and one for the bias."""
DYNAMIC_CHANNEL_BYTES = 4
"""The same where only weights are quantized."""
ZERO_POINT_BYTES = 8
"""Per output channel, an int64; all are 0, and layers of equally many channels share theirs."""


def weight_bits(sizes: NetworkSizes, lightening: Lightening) -> tuple[int, ...]:
    """Return the bits of each layer's weights, in the order of `sizes`; of a mixed rung, the fewest that each may take.

    The first and the last layer take the edge bits, depthwise layers the depthwise bits; a layer that is
    both takes the larger.
    """

    def bits(index: int, layer: LayerSize) -> int:
        floors = [lightening.weight_bits]
        if sizes.is_edge(index):
            floors.append(lightening.edge_weight_bits)
        if layer.depthwise:
            floors.append(lightening.depthwise_weight_bits)
        return max(floors)

    return tuple(bits(index, layer) for index, layer in enumerate(sizes.layers))


def low_weights(sizes: NetworkSizes, lightening: Lightening) -> int:
    """Return how many weights may take the fewer bits of a rung: 0 where no layer has a choice."""
    if not lightening.has_choice:
        return 0
    bits = weight_bits(sizes, lightening)
    return sum(layer.weights for layer, width in zip(sizes.layers, bits, strict=True) if width < lightening.kept_bits)


def kept_weights(sizes: NetworkSizes, lightening: Lightening, low: int | None = None) -> float:
    """Return how many of those weights keep their bits: what the share leaves, or all but the `low` that were taken."""
    eligible = low_weights(sizes, lightening)
    return eligible * (1 - lightening.share_pct / 100) if low is None else max(0, eligible - low)


def degree(
    sizes: NetworkSizes, lightening: Lightening, *, before: NetworkSizes | None = None, low: int | None = None
) -> float:
    """Return the degree of lightening G(q), from 0 (float) to just under 1.

    G(q) = 1 - (sum(n_i b_i) + sum(a_j c_j)) / (32 (sum(n_i) + sum(a_j))), over weights n with b bits and
    activations a with c bits. Biases are no weights; parameters outside the layers stay float. `before` are the
    sizes before pruning, which both sums below the line are over: what is pruned has 0 bits. Of a mixed rung `low`
    weights took the fewer bits; None: as many as its share asks for.
    """
    whole = before or sizes
    total = sum(layer.weights for layer in whole.layers) + whole.other_parameters + sum(whole.activations)
    if total == 0:
        return 0.0
    bits: float = sum(
        layer.weights * width for layer, width in zip(sizes.layers, weight_bits(sizes, lightening), strict=True)
    )
    bits += (lightening.kept_bits - lightening.weight_bits) * kept_weights(sizes, lightening, low)
    bits += 32 * sizes.other_parameters + lightening.activation_bits * sum(sizes.activations)
    return 1 - bits / (32 * total)


def predicted_bytes(sizes: NetworkSizes, lightening: Lightening, *, low: int | None = None) -> int:
    """Return the deployed bytes to expect: weights, biases, per-channel scales and the container.

    Bits alone mislead for small networks: scales and container are half of an int8 file of 13 kB. Within 2.5 %
    on the files the constants were fitted on; `Prediction` corrects them by the files of the run at hand.
    `sizes` are those after pruning; `low` as in `degree`.
    """
    bias_bytes, channel_bytes, layer_bytes = 4, 0, LAYER_BYTES
    if not lightening.is_float:
        bias_bytes = 8 if lightening.activation_bits == 16 else 4
        channel_bytes = CHANNEL_BYTES
        layer_bytes += QUANTIZED_LAYER_BYTES
    elif lightening.weight_bits == 16:
        layer_bytes += HALF_LAYER_BYTES
    elif lightening.weight_bits == 8:
        channel_bytes = DYNAMIC_CHANNEL_BYTES
    total = CONTAINER_BYTES + 4 * sizes.other_parameters + ACTIVATION_BYTES * len(sizes.activations)
    for layer, bits in zip(sizes.layers, weight_bits(sizes, lightening), strict=True):
        total += (layer.weights * bits + 7) // 8 + layer.bias * bias_bytes
        total += layer_bytes + channel_bytes * layer.out_channels
    if not lightening.is_float:
        total += ZERO_POINT_BYTES * sum({layer.out_channels for layer in sizes.layers})
    return total + round((lightening.kept_bits - lightening.weight_bits) / 8 * kept_weights(sizes, lightening, low))


@dataclass
class Prediction:
    """Predicted deployed bytes, corrected by the files that this run has built.

    What the constants miss is tables, which grow with the number of layers: so the mean residual for each
    layer is added, of the same rung where one was built, else of rungs of the same kind (float or integer).
    """

    is_code: bool = False
    """Files are code: what they have beyond their weights is about the same under every rung, so that all are kin."""
    _per_layer: dict[str, list[float]] = field(default_factory=dict)

    @property
    def files(self) -> int:
        """Files learned from."""
        return sum(map(len, self._per_layer.values()))

    def learn(self, sizes: NetworkSizes, lightening: Lightening, real_bytes: int, *, low: int | None = None) -> None:
        """Learn the bytes of a built file; `low` as in `degree`."""
        residual = (real_bytes - predicted_bytes(sizes, lightening, low=low)) / max(1, len(sizes.layers))
        self._per_layer.setdefault(lightening.name, []).append(residual)

    def bytes_of(self, sizes: NetworkSizes, lightening: Lightening, *, low: int | None = None) -> int:
        """Return the corrected prediction, at least one byte; `low` as in `degree`."""
        residuals = self._per_layer.get(lightening.name) or [
            residual
            for name, residuals in self._per_layer.items()
            if self.is_code or Lightening.parse(name).is_float == lightening.is_float
            for residual in residuals
        ]
        correction = sum(residuals) / len(residuals) * len(sizes.layers) if residuals else 0.0
        return max(1, round(predicted_bytes(sizes, lightening, low=low) + correction))
