"""The result of a training: a folder that builders read without any training code or user code.

`network.pt2` is plain float arithmetic for one sample, weights on their grid. Tensors are told from each other by
value, since a converter renames and reorders: `recipe.json` gives each one a fingerprint over the samples in
`probe.npz`. `weights.pt` is the float network's own state dict, which later trainings start from.
"""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.fx import GraphModule, Interpreter, Node

from edgeloop.core.dataset import DataSet
from edgeloop.core.lightening import Lightening
from edgeloop.core.network import NetworkSignature
from edgeloop.core.recipe import Fingerprint, Recipe, RecipeActivation, RecipeInput, RecipeLayer, RecipeOutput
from edgeloop.errors import HarnessError, kept_on_disk
from edgeloop.processes.folders import clear_abandoned, folder_to_fill, publish_folder
from edgeloop.training.fake_quantize import Activation, Layer
from edgeloop.training.graph import constant, single_sample_program

FINGERPRINT_SAMPLES = 8
PARITY_MIN = 1000
"""Inputs for the parity gate: at least so many, or all there are but test data."""
_MASTER = "graph.pt"
VALIDATION_MAX = 2000
"""Of the validation split, at most so many travel to the builder."""


@dataclass(frozen=True, slots=True)
class ProbeInputs:
    """Inputs that travel to the builder, none of them test data; the first `n_validation` are validation data."""

    inputs: Mapping[str, NDArray[Any]]
    labels: Mapping[str, NDArray[Any]]
    """Targets of the first `n_validation`."""
    n_validation: int

    @classmethod
    def of(cls, data: DataSet, signature: NetworkSignature) -> ProbeInputs:
        """Validation data; where those are fewer than PARITY_MIN, calibration and then training data up to it."""
        validation = data.validation.head(VALIDATION_MAX)
        parts = [validation]
        for more in (data.calibration, data.train):
            parts.append(more.head(max(0, PARITY_MIN - sum(len(part) for part in parts))))
        return cls(
            {n: np.concatenate([part.x[n] for part in parts]) for n in signature.inputs},
            dict(validation.y),
            len(validation),
        )


def write_result(
    folder: Path,
    module: GraphModule,
    *,
    lightening: Lightening,
    signature: NetworkSignature,
    probe: ProbeInputs,
    outputs: Mapping[str, NDArray[np.float32]],
    activations: Iterable[Activation],
    layers: Iterable[Layer],
    weights: Mapping[str, torch.Tensor],
    master: Mapping[str, torch.Tensor] | None,
) -> None:
    """Write everything but `training.json` into `folder`.

    `module` is the plain float graph; `outputs` are those of the network as it was trained (fake-quantized where it
    was) on `probe.inputs`; `master` are the folded graph's weights before rounding, of a network that was lightened.
    """
    if master is not None:
        torch.save(dict(master), folder / _MASTER)
    samples = [torch.from_numpy(np.ascontiguousarray(probe.inputs[n][:FINGERPRINT_SAMPLES])) for n in signature.inputs]
    torch.export.save(single_sample_program(module, samples), folder / "network.pt2")
    torch.save(dict(weights), folder / "weights.pt")
    activations = tuple(activations)
    marks = _activation_fingerprints(module, samples, {a.name for a in activations})
    recipe = Recipe(
        lightening=lightening,
        inputs=tuple(
            RecipeInput(
                name=name,
                shape=(1, *probe.inputs[name].shape[1:]),
                dtype=str(probe.inputs[name].dtype),
                layout="channels_last" if probe.inputs[name].ndim > 2 else "flat",
            )
            for name in signature.inputs
        ),
        outputs=tuple(RecipeOutput(name=name, shape=(1, *outputs[name].shape[1:])) for name in signature.outputs),
        activations=tuple(
            RecipeActivation(
                name=a.name,
                low=a.quantizer.low,
                high=a.quantizer.high,
                fixed=a.quantizer.is_fixed,
                fingerprint=marks[a.name],
            )
            for a in activations
        ),
        layers=tuple(
            RecipeLayer(
                name=layer.name,
                bits=layer.bits,
                depthwise=layer.depthwise,
                fingerprint=fingerprint([constant(module, layer.node).detach()]),
            )
            for layer in layers
        ),
        n_validation=probe.n_validation,
    )
    (folder / "recipe.json").write_text(json.dumps(recipe.model_dump(mode="json"), indent=1))
    arrays = {f"fingerprint/{n}": x[:FINGERPRINT_SAMPLES] for n, x in probe.inputs.items()}
    arrays |= {f"parity/x/{n}": x for n, x in probe.inputs.items()}
    arrays |= {f"parity/y/{n}": y for n, y in outputs.items()}
    arrays |= {f"labels/{n}": y for n, y in probe.labels.items()}
    with (folder / "probe.npz").open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # the stub takes allow_pickle from the same names


def read_master(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights that a lightened training left before rounding. Raises HarnessError where it left none."""
    file = folder / _MASTER
    try:
        weights: dict[str, torch.Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise HarnessError(f"{file}: no weights to go on from: {error}") from error
    return weights


def fingerprint(values: Iterable[torch.Tensor]) -> Fingerprint:
    """Return the fingerprint over the samples' tensors, computed in float64."""
    parts = [v.reshape(-1) for v in values]
    flat = torch.cat(parts).double()
    return (
        flat.numel() / len(parts),
        float(flat.min()),
        float(flat.max()),
        float(flat.mean()),
        float(flat.square().mean().sqrt()),
        float(flat.abs().mean()),
    )


@contextlib.contextmanager
def new_training_folder(networks: Path, key: str) -> Iterator[Path]:
    """Give an empty folder that becomes `networks/<key>` in one step when the block ends, and vanishes if it fails.

    The remains of a killed process of the same training are removed. Raises StationError where the disk refuses.
    """
    prefix = f".making-{key}-"
    with kept_on_disk(networks / key):
        networks.mkdir(parents=True, exist_ok=True)
        clear_abandoned(networks, prefix, lambda _path: True)  # a run trains a network once at a time
        with folder_to_fill(networks, prefix) as folder:
            yield folder
            publish_folder(folder, networks / key)


def _activation_fingerprints(
    module: GraphModule, samples: list[torch.Tensor], names: set[str]
) -> dict[str, Fingerprint]:
    values: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    class Watch(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if n.name in values:
                values[n.name].append(value.detach())
            return value

    watch = Watch(module)
    with torch.no_grad():
        for number in range(len(samples[0])):
            watch.run(*(s[number : number + 1] for s in samples))
    return {name: fingerprint(tensors) for name, tensors in values.items()}
