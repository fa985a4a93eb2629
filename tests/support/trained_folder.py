"""A trained folder without training: what a Trainer leaves behind, made of any torch module in a second.

Ranges are observed instead of learned; everything else is as after quantization-aware training: weights on
their grid, outputs of the fake-quantized network as the expectation of the parity gate. For tests of builders and
for fitting predicted bytes; needs torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.lightening import Lightening
from edgeloop.ports import TrainedNetwork

_RELU = ("aten.relu.default", "aten.hardtanh.default", "aten.relu_.default", "aten.hardtanh_.default")
_WEIGHTED = ("aten.conv2d.default", "aten.conv1d.default", "aten.linear.default", "aten.conv2d.padding")
_QUANTIZED = (*_WEIGHTED, *_RELU, "aten.add.Tensor", "aten.mul.Tensor", "aten.sub.Tensor", "aten.cat.default")
_MEAN = ("aten.mean.dim",)
_FIXED = {
    "aten.sigmoid.default": (0.0, 255 / 256),
    "aten.softmax.int": (0.0, 255 / 256),
    "aten.tanh.default": (-1.0, 127 / 128),
}
_SAME_RANGE = ("aten.avg_pool2d.default", "aten.adaptive_avg_pool2d.default")
_FINGERPRINT_SAMPLES = 8


def fingerprint(values: NDArray[Any], samples: int) -> list[float]:
    """[elements a sample, min, max, mean, root mean square, mean magnitude]; the layout does not matter."""
    flat = np.asarray(values, np.float64).ravel()
    return [
        flat.size / samples,
        float(flat.min()),
        float(flat.max()),
        float(flat.mean()),
        float(np.sqrt((flat**2).mean())),
        float(np.abs(flat).mean()),
    ]


def write_trained_folder(
    folder: Path,
    network: Any,
    inputs: Mapping[str, NDArray[np.float32]],
    lightening: str,
    *,
    outputs: Sequence[str] = ("y",),
    key: str = "0" * 64,
) -> TrainedNetwork:
    """Write `network.pt2`, `recipe.json` and `probe.npz` of `network` (a torch module) under a rung of the ladder.

    `inputs` are channel-last arrays (n, ...) by name, in the order of `network.forward`; the first eight are the
    fingerprint's samples and all of them the parity gate's.
    """
    import torch

    rung = Lightening.parse(lightening)
    folder.mkdir(parents=True, exist_ok=True)
    samples = [torch.from_numpy(np.ascontiguousarray(v)) for v in inputs.values()]
    batch = torch.export.Dim("batch", min=1, max=1 << 16)
    exported = torch.export.export(
        network.eval(), tuple(s[:4] for s in samples), dynamic_shapes=tuple({0: batch} for _ in samples)
    )
    module = exported.module()
    with torch.no_grad():
        layers = _put_weights_on_grid(module, rung)
        observed = _Watcher(module)
        observed.run(*samples)
        probed = _Watcher(module)
        probed.run(*(s[:_FINGERPRINT_SAMPLES] for s in samples))
        bits = {layer["name"]: layer["bits"] for layer in layers}
        quantized = _Watcher(module, observed.ranges, rung.activation_bits, bits)
        result = quantized.run(*samples)
    single = torch.export.export(_Wrapped.of(module), tuple(s[:1] for s in samples))
    torch.export.save(single, folder / "network.pt2")
    expected = [result] if isinstance(result, torch.Tensor) else list(result)
    recipe = {
        "schema": 1,
        "lightening": rung.model_dump(),
        "inputs": [
            {
                "name": n,
                "shape": [1, *v.shape[1:]],
                "dtype": "float32",
                "layout": "channels_last" if v.ndim > 2 else "flat",
            }
            for n, v in inputs.items()
        ],
        "outputs": [{"name": n, "shape": [1, *e.shape[1:]]} for n, e in zip(outputs, expected, strict=True)],
        "activations": []
        if rung.is_float
        else [
            {
                "name": name,
                "low": low,
                "high": high,
                "fixed": name in observed.fixed,
                "fingerprint": fingerprint(probed.values[name], _FINGERPRINT_SAMPLES),
            }
            for name, (low, high) in observed.ranges.items()
        ],
        "layers": layers,
        "n_validation": len(samples[0]),
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    arrays = {f"fingerprint/{n}": v[:_FINGERPRINT_SAMPLES] for n, v in inputs.items()}
    arrays |= {f"parity/x/{n}": v for n, v in inputs.items()}
    arrays |= {f"parity/y/{n}": e.numpy() for n, e in zip(outputs, expected, strict=True)}
    np.savez(folder / "probe.npz", **arrays)  # type: ignore[arg-type]
    return TrainedNetwork(key=key, folder=str(folder), seconds=0.0, epochs=0, validation={})


def write_calibrated_folder(
    folder: Path, network: Any, data: NDArray[np.float32], rung: Lightening, *, key: str = "0" * 64
) -> TrainedNetwork:
    """Write what quantization-aware training leaves of a built network of one input, which is calibrated instead.

    `data` are channel-last samples (n, ...): ranges are observed on all of them, and they are the parity gate's.
    """
    import torch

    from edgeloop.training.fake_quantize import FakeQuantized
    from edgeloop.training.graph import exported_graph
    from edgeloop.training.quantizers import QuantizerPhase
    from edgeloop.training.result import ProbeInputs, write_result

    signature, sample = network.signature, torch.from_numpy(data)
    fake = FakeQuantized(exported_graph(network, [sample[:4]]), rung)
    fake.enter(QuantizerPhase.CALIBRATE)
    with torch.no_grad():
        fake.module(sample)
        fake.enter(QuantizerPhase.FROZEN)
        result = fake.module(sample)
    outputs = result if isinstance(result, tuple | list) else [result]
    folder.mkdir(parents=True, exist_ok=True)
    write_result(
        folder,
        fake.to_float(),
        lightening=rung,
        signature=signature,
        probe=ProbeInputs({signature.inputs[0]: data}, {}, len(data)),
        outputs={name: made.numpy() for name, made in zip(signature.outputs, outputs, strict=True)},
        activations=fake.activations,
        layers=fake.layers,
        weights={},
        master=None,
    )
    return TrainedNetwork(key=key, folder=str(folder), seconds=0.0, epochs=0, validation={})


class _Wrapped:
    """A module that can be exported anew: what `ExportedProgram.module()` returns has guards on its batch."""

    @staticmethod
    def of(module: Any) -> Any:
        import torch

        class Single(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = module

            def forward(self, *x: Any) -> Any:
                return self.net(*x)

        return Single()


def _put_weights_on_grid(module: Any, rung: Lightening) -> list[dict[str, Any]]:
    """Round every layer's weights to what its bits can hold; return the recipe's entries."""
    nodes = [n for n in module.graph.nodes if str(n.target) in _WEIGHTED]
    layers = []
    for position, node in enumerate(nodes):
        weight = module.get_parameter(node.args[1].target)
        groups = node.args[6] if str(node.target).startswith("aten.conv2d") and len(node.args) > 6 else 1
        depthwise = groups > 1 and weight.shape[1] == 1
        edge = position in {0, len(nodes) - 1}
        bits = rung.depthwise_weight_bits if depthwise else rung.edge_weight_bits if edge else rung.weight_bits
        if bits == 16:
            weight.copy_(weight.half().float())
        elif bits < 16:
            top = 2 ** (bits - 1) - 1
            scale = weight.abs().flatten(1).amax(1).clamp_min(1e-8).view(-1, *[1] * (weight.dim() - 1)) / top
            weight.copy_((weight / scale).round().clamp(-top, top) * scale)
        layers.append(
            {
                "name": str(node.args[1].target),
                "bits": bits,
                "depthwise": depthwise,
                "fingerprint": fingerprint(weight.numpy(), 1),
            }
        )
    return layers


class _Watcher:
    """Runs a graph and, where it has ranges, rounds every tensor that the runtime keeps as integers."""

    def __init__(
        self,
        module: Any,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        bits: int = 32,
        weight_bits: Mapping[str, int] | None = None,
    ) -> None:
        self._weight_bits = weight_bits or {}
        self._module = module
        self._given = ranges
        self._bits = bits
        self.ranges: dict[str, tuple[float, float]] = {}
        self.values: dict[str, NDArray[Any]] = {}
        self.fixed: set[str] = set()

    def run(self, *samples: Any) -> Any:
        import torch

        watcher = self

        class Run(torch.fx.Interpreter):
            def run_node(self, n: torch.fx.Node) -> Any:
                if str(n.target) not in _WEIGHTED:
                    return watcher._seen(n, super().run_node(n))
                args, kwargs = self.fetch_args_kwargs_from_env(n)
                return watcher._seen(n, self.call_function(n.target, watcher._with_stored_bias(n, args), kwargs))

        return Run(self._module).run(*samples)

    def _seen(self, node: Any, value: Any) -> Any:
        kind = str(node.target)
        source = kind if node.op == "call_function" else node.op
        if source in _SAME_RANGE:
            found = self._inherited(node)
        elif source in _FIXED:
            found = _FIXED[source]
            self.fixed.add(node.name)
        elif source == "placeholder" or source in (*_QUANTIZED, *_MEAN):
            users = [str(u.target) for u in node.users]
            if source not in (*_RELU, "placeholder") and len(users) == 1 and users[0] in _RELU:
                return value
            found = (min(float(value.min()), 0.0), max(float(value.max()), 0.0))
        else:
            return value
        self.ranges[node.name] = found
        self.values[node.name] = value.numpy()
        if self._given is None or self._bits == 32:
            return value
        return _round(value, *self._given[node.name], self._bits)

    def _with_stored_bias(self, node: Any, args: Any) -> Any:
        """The runtime keeps a bias as an integer in steps of input scale x weight scale."""
        if self._given is None or self._bits == 32 or len(args) < 3 or args[2] is None:
            return args
        low, high = self._inherited(node)
        step_in = max(abs(low), abs(high)) / 32767 if self._bits == 16 else (high - low) / 255
        top = 2 ** (self._weight_bits[str(node.args[1].target)] - 1) - 1
        step = step_in * args[1].abs().flatten(1).amax(1) / top
        return (*args[:2], (args[2] / step).round() * step, *args[3:])

    def _inherited(self, node: Any) -> tuple[float, float]:
        before = node.args[0]
        while before.name not in self.ranges:
            before = before.args[0]
        return self.ranges[before.name]


def _round(value: Any, low: float, high: float, bits: int) -> Any:
    if bits == 16:
        scale = max(abs(low), abs(high), 1e-9) / 32767
        return (value / scale).round().clamp(-32767, 32767) * scale
    scale = max(high - low, 1e-9) / 255
    zero = round(-128 - low / scale)
    return ((value / scale).round() + zero).clamp(-128, 127).sub(zero) * scale
