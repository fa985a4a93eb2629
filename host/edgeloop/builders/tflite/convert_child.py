"""The child process of the TFLite builder: `python -m edgeloop.builders.tflite.convert_child`, one job on stdin.

In: a trained folder (`network.pt2`, `recipe.json`, `probe.npz`). Out: `model.tflite` and `artifact.json` in the target
folder, `outputs.npz` where the task brings its own agreement. No user code and no training code runs here.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.builders import parity
from edgeloop.builders.tflite import float_model, quantize
from edgeloop.builders.tflite.versions import tool_versions
from edgeloop.core.artifact import Artifact
from edgeloop.core.lightening import Lightening
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import BuildError
from edgeloop.host_runtime import litert
from edgeloop.processes import json_child


def _prepare() -> None:
    import ai_edge_quantizer.quantizer
    import litert_torch
    import torch

    torch.set_num_threads(1)
    _ = (ai_edge_quantizer, litert_torch)


def _rehearse() -> None:
    """Convert a network of one layer: the first conversion of a process costs a second more than the next."""
    import litert_torch
    import torch

    layer = torch.nn.Sequential(torch.nn.Conv2d(2, 2, 3, padding=1), torch.nn.ReLU()).eval()
    litert_torch.convert(layer, (torch.zeros(1, 2, 4, 4),))


def _work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Build one folder. Raises BuildError, ParityError."""
    source, target = Path(job["source"]), Path(job["target"])
    recipe = json.loads((source / "recipe.json").read_text())
    if recipe.get("schema") != 1:
        raise BuildError(f"{source / 'recipe.json'}: schema {recipe.get('schema')!r} is not known here")
    lightening = Lightening.model_validate(recipe["lightening"])
    names_in = [i["name"] for i in recipe["inputs"]]
    names_out = [o["name"] for o in recipe["outputs"]]
    with np.load(source / "probe.npz") as arrays:
        probe = [arrays[f"fingerprint/{name}"] for name in names_in]
        inputs = [arrays[f"parity/x/{name}"] for name in names_in]
        expected = {name: arrays[f"parity/y/{name}"] for name in names_out}

    watch = _StopWatch()
    converted = float_model.convert(source / "network.pt2", recipe["inputs"])
    watch.lap("convert")
    prepared = float_model.prepare(converted, len(names_in), len(names_out))
    built = quantize.quantize(prepared, lightening, recipe, probe, inputs)
    watch.lap("quantize")
    stripped, named_bytes = float_model.strip(built.content, prepared.origins)
    interpreter = litert.open_model(stripped)
    outputs = dict(zip(names_out, litert.run(interpreter, inputs), strict=True))
    specs_in = _specs(recipe["inputs"], interpreter.get_input_details())
    specs_out = _specs(recipe["outputs"], interpreter.get_output_details())
    judged = parity.compare(outputs, expected, specs_out, job["rule"])
    watch.lap("parity")

    for name in built.unmatched:
        print(f"calibrated, since training has no range for it: {name}")  # noqa: T201 -- the child's log
    for name in built.layers_unmatched:
        print(f"trained with fewer bits, but not found in the converted model, so 8 bit: {name}")  # noqa: T201
    print(f"parity: {judged}")  # noqa: T201
    if job["rule"] == "custom":
        np.savez(target / "outputs.npz", **outputs)
    else:
        parity.gate(judged)
    artifact = Artifact(
        path="model.tflite",
        sha256=hashlib.sha256(stripped).hexdigest(),
        deployed_bytes=len(stripped),
        bytes_before_strip=named_bytes,
        inputs=specs_in,
        outputs=specs_out,
        tools=tool_versions(),
        ranges_matched=built.ranges_matched,
        parity=judged,
    )
    (target / "model.tflite").write_bytes(stripped)
    (target / "artifact.json").write_text(json.dumps(artifact.model_dump(mode="json"), indent=1))
    return {"laps": watch.laps, "unmatched": list(built.unmatched), "layers_unmatched": list(built.layers_unmatched)}


class _StopWatch:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = now - self._last
        self._last = now


def _specs(entries: list[dict[str, Any]], details: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    specs = []
    for entry, detail in zip(entries, details, strict=True):
        shape = tuple(int(d) for d in detail["shape"])
        if shape != tuple(entry["shape"]):
            raise BuildError(f"{entry['name']!r} was built with the shape {shape}, the network has {entry['shape']}")
        scale, zero = litert.quantization(detail)
        specs.append(
            TensorSpec(
                name=entry["name"],
                dtype=np.dtype(detail["dtype"]).name,
                shape=shape,
                layout=entry.get("layout", "channels_last" if len(shape) > 2 else "flat"),
                scale=scale,
                zero_point=zero,
            )
        )
    return tuple(specs)


if __name__ == "__main__":
    json_child.serve(_work, prepare=_prepare, rehearse=_rehearse)
