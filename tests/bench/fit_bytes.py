"""Fit the constants of predicted deployed bytes on built files: `python tests/bench/fit_bytes.py`.

Builds untrained networks of all families under every rung and fits the constants of `search.size_model`,

    bytes = sum over layers (weights * bits / 8 + bias * bias bytes) + 4 * other parameters
          + container + layer * layers + activation * activation tensors
          + half * layers with half-float weights + quantized * quantized layers
          + what is known of output channels: scales, and zero points once for each number of channels

by non-negative least squares of relative errors; prints what `search.size_model` predicts of each file, and by how much
it is off. Takes some minutes; needs the train and tflite extras.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from trained_folder import write_calibrated_folder

from edgeloop.builders.tflite import float_model, quantize
from edgeloop.builders.tflite.recipe_file import read_recipe
from edgeloop.core.lightening import LADDER, Lightening
from edgeloop.core.network import NetworkIO, NetworkSizes, NetworkSpec, TensorShape
from edgeloop.models.build import build_network
from edgeloop.models.describe import describe
from edgeloop.search.size_model import CHANNEL_BYTES, ZERO_POINT_BYTES, predicted_bytes, weight_bits

GRID = (
    *(("ds_cnn", width, depth, (28, 28, 1), 10) for width, depth in ((0.5, 0), (1, 0), (1, 2), (2, 0))),
    *(("resnet", width, depth, (32, 32, 3), 10) for width, depth in ((0.5, 0), (1, 0))),
    *(("conv1d", width, depth, (25, 12), 9) for width, depth in ((0.5, 0), (1, 1))),
    *(("mlp", width, depth, (64,), 10) for width, depth in ((1, 0), (2, 1))),
    ("autoencoder", 1, 0, (64,), 0),
)
"""Family, width, depth, input shape, classes."""
CONSTANTS = ("container", "layer", "activation", "half layer", "quantized layer")


def networks() -> Iterator[tuple[str, NetworkSpec, NetworkIO]]:
    for family, width, depth, shape, classes in GRID:
        kind: Any = "classification" if classes else "autoencoder"
        io_ = NetworkIO(
            kind=kind,
            inputs=(TensorShape(name="x", shape=shape),),
            outputs=(TensorShape(name="y" if classes else "x", shape=(classes,) if classes else shape),),
        )
        yield (
            f"{family} {width:g}" + (f" +{depth}" if depth else ""),
            NetworkSpec(family=family, width=width, depth=depth),
            io_,
        )


def built_file(spec: NetworkSpec, io_: NetworkIO, rung: Lightening, folder: Path) -> bytes:
    """The stripped .tflite of an untrained network."""
    network = _as_if_trained(build_network(spec, io_, 4).eval())
    data = np.random.default_rng(0).normal(size=(16, *io_.inputs[0].shape)).astype(np.float32)
    write_calibrated_folder(folder, network, data, rung)
    recipe = read_recipe(folder)
    content = float_model.convert(folder / "network.pt2", recipe.inputs)
    model = float_model.prepare(content, 1, len(network.signature.outputs))
    made = quantize.quantize(model, recipe, [data[:8]], [data])
    if made.calibrated_tensors or made.missing_layers:
        print(f"  not matched: {made.calibrated_tensors} {made.missing_layers}", file=sys.stderr)
    return float_model.strip(made.content, model.origins)[0]


def _as_if_trained(network: torch.nn.Module) -> torch.nn.Module:
    """No two constants of a trained network are equal; equal ones, such as biases of 0, would be stored once."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return network


def known_bytes(sizes: NetworkSizes, rung: Lightening) -> float:
    """What needs no fit: weights in their bits, biases, and parameters outside the layers."""
    bias_bytes = 8 if rung.activation_bits == 16 else 4
    layers = zip(sizes.layers, weight_bits(sizes, rung), strict=True)
    return 4 * sizes.other_parameters + sum((x.weights * b + 7) // 8 + x.bias * bias_bytes for x, b in layers)


def known_quantized_bytes(sizes: NetworkSizes, rung: Lightening) -> int:
    """Scales of each output channel; its zero point once for all quantized layers of equally many channels."""
    if rung.is_float:
        return 0
    channels = [layer.out_channels for layer in sizes.layers]
    return CHANNEL_BYTES * sum(channels) + ZERO_POINT_BYTES * sum(set(channels))


def main() -> None:
    rows = [(name, spec, io_, describe(spec, io_, 4)) for name, spec, io_ in networks()]
    real, rest, features, errors = [], [], [], []
    for rung in (rung for rung in LADDER if not rung.is_mixed):
        print(f"\n{rung.name}")
        for name, spec, io_, sizes in rows:
            with tempfile.TemporaryDirectory() as folder, _quiet():
                built = len(built_file(spec, io_, rung, Path(folder)))
            layers, half = len(sizes.layers), rung.is_float and rung.weight_bits == 16
            real.append(built)
            rest.append(built - known_bytes(sizes, rung) - known_quantized_bytes(sizes, rung))
            features.append([1, layers, len(sizes.activations), layers * half, layers * (not rung.is_float)])
            predicted = predicted_bytes(sizes, rung)
            errors.append(predicted / built - 1)
            print(f"  {name:18} built {built:8} search.size_model {predicted:8} ({errors[-1]:+.1%})")
    weight = 1 / np.asarray(real, float)
    fitted, _ = nnls(np.asarray(features, float) * weight[:, None], np.asarray(rest) * weight)
    print(
        f"\nfitted to {len(real)} files: " + ", ".join(f"{n} {v:.0f}" for n, v in zip(CONSTANTS, fitted, strict=True))
    )
    print(f"search.size_model: largest error {np.abs(errors).max():.1%}, mean {np.abs(errors).mean():.1%}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter reports on stdout."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
