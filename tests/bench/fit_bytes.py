"""Fit the constants of predicted deployed bytes on built files: `python tests/bench/fit_bytes.py`.

Builds untrained networks of all families under every rung and prints, for each rung, the constants of

    bytes = sum over layers (weights * bits / 8 + bias * bias bytes) + 4 * other parameters
          + container + layer * layers + tensor * activation tensors + channel * output channels
          + 8 * output channels of each width once (zero points, which layers of one width share)

fitted by least squares, and what is left over for each file. Takes some minutes; needs the train and tflite extras.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeloop.builders.tflite import float_model, quantize
from edgeloop.core.lightening import LADDER, Lightening
from edgeloop.core.network import NetworkIO, NetworkSizes, NetworkSpec, TensorShape
from edgeloop.method.lighten import predicted_bytes, weight_bits
from edgeloop.models.build import build_network
from edgeloop.models.describe import describe
from edgeloop.training.graph import exported_graph
from edgeloop.training.insert import FakeQuantized
from edgeloop.training.quantizers import Phase
from edgeloop.training.result import ProbeInputs, write_result

GRID = (
    *(("ds_cnn", width, depth, (28, 28, 1), 10) for width, depth in ((0.5, 0), (1, 0), (1, 2), (2, 0))),
    *(("resnet", width, depth, (32, 32, 3), 10) for width, depth in ((0.5, 0), (1, 0))),
    *(("conv1d", width, depth, (25, 12), 9) for width, depth in ((0.5, 0), (1, 1))),
    *(("mlp", width, depth, (64,), 10) for width, depth in ((1, 0), (2, 1))),
    ("autoencoder", 1, 0, (64,), 0),
)
"""Family, width, depth, input shape, classes."""


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
    sample = torch.from_numpy(data)
    fake = FakeQuantized(exported_graph(network, [sample[:4]]), rung)
    fake.enter(Phase.CALIBRATE)
    with torch.no_grad():
        fake.module(sample)
        fake.enter(Phase.FROZEN)
        result = fake.module(sample)
    outputs = result if isinstance(result, tuple | list) else [result]
    names = network.signature.outputs
    write_result(
        folder,
        fake.to_float(),
        lightening=rung,
        signature=network.signature,
        probe=ProbeInputs({network.signature.inputs[0]: data}, {}, len(data)),
        outputs={n: o.numpy() for n, o in zip(names, outputs, strict=True)},
        activations=fake.activations,
        layers=fake.layers,
        weights={},
        master=None,
    )
    recipe = json.loads((folder / "recipe.json").read_text())
    content = float_model.convert(folder / "network.pt2", recipe["inputs"])
    model = float_model.prepare(content, 1, len(names))
    made = quantize.quantize(model, rung, recipe, [data[:8]], [data])
    if made.unmatched or made.layers_unmatched:
        print(f"  not matched: {made.unmatched} {made.layers_unmatched}", file=sys.stderr)
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


def zero_point_bytes(sizes: NetworkSizes, rung: Lightening) -> int:
    """Zeros of 64 bit for each output channel, once for all weights and biases of equally many channels."""
    return 0 if rung.is_float else 8 * sum({layer.out_channels for layer in sizes.layers})


def main() -> None:
    rows = [(name, spec, io_, describe(spec, io_, 4)) for name, spec, io_ in networks()]
    for rung in (rung for rung in LADDER if not rung.is_mixed):
        real, known, features = [], [], []
        for _, spec, io_, sizes in rows:
            with tempfile.TemporaryDirectory() as folder, _quiet():
                real.append(len(built_file(spec, io_, rung, Path(folder))))
            known.append(known_bytes(sizes, rung) + zero_point_bytes(sizes, rung))
            channels = 0 if rung.is_float else sum(layer.out_channels for layer in sizes.layers)
            features.append([1, len(sizes.layers), len(sizes.activations), channels])
        table = np.asarray(features, float)
        used = [0, 1, 2] if rung.is_float else [0, 1, 2, 3]
        fitted, *_ = np.linalg.lstsq(table[:, used], np.asarray(real) - known, rcond=None)
        print(f"\n{rung.name}: container {fitted[0]:.0f}, layer {fitted[1]:.0f}, tensor {fitted[2]:.0f}", end="")
        print("" if rung.is_float else f", channel {fitted[3]:.1f}")
        for (name, _, _, sizes), bytes_, base, row in zip(rows, real, known, table, strict=True):
            guess = base + row[used] @ fitted
            method = predicted_bytes(sizes, rung)
            print(
                f"  {name:18} built {bytes_:8} known {base:8.0f} fitted {guess:8.0f} ({guess / bytes_ - 1:+.1%}),"
                f" method.lighten {method:8} ({method / bytes_ - 1:+.1%}); {row[1]:.0f} layers {row[2]:.0f} tensors"
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The converter reports on stdout."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
