"""The child process of the TFLite builder: `python -m edgeloop.builders.tflite.convert_child`, one job on stdin.

No user code and no training code runs here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeloop.builders import parity
from edgeloop.builders.tflite import float_model, quantize
from edgeloop.builders.tflite.jobs import BuildTfliteAnswer, BuildTfliteJob
from edgeloop.builders.tflite.recipe_file import read_recipe
from edgeloop.builders.tflite.versions import tool_versions
from edgeloop.core.artifact import Artifact
from edgeloop.core.recipe import RecipeInput, RecipeOutput
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import BuildError
from edgeloop.host_runtime import litert
from edgeloop.processes import json_child

_MODEL = "model.tflite"


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


def _work(job: BuildTfliteJob) -> BuildTfliteAnswer:
    """Build one folder. Raises BuildError, ParityError."""
    recipe = read_recipe(job.network)
    with np.load(job.network / "probe.npz") as arrays:
        probe = [arrays[f"fingerprint/{tensor.name}"] for tensor in recipe.inputs]
        inputs = [arrays[f"parity/x/{tensor.name}"] for tensor in recipe.inputs]
        targets = {tensor.name: arrays[f"parity/y/{tensor.name}"] for tensor in recipe.outputs}

    converted_model = float_model.convert(job.network / "network.pt2", recipe.inputs)
    numbered_model = float_model.prepare(converted_model, len(recipe.inputs), len(recipe.outputs))
    quantized_model = quantize.quantize(numbered_model, recipe, probe, inputs)
    content, named_bytes = float_model.strip(quantized_model.content, numbered_model.origins)
    interpreter = litert.open_model(content)
    names = [tensor.name for tensor in recipe.outputs]
    outputs = dict(zip(names, litert.run(interpreter, inputs), strict=True))
    input_specs = _specs(recipe.inputs, interpreter.get_input_details())
    output_specs = _specs(recipe.outputs, interpreter.get_output_details())
    comparison = parity.compare(outputs, targets, output_specs, job.rule)

    for name in quantized_model.calibrated_tensors:
        print(f"calibrated, since training has no range for it: {name}")  # noqa: T201 -- the child's log
    for name in quantized_model.missing_layers:
        print(f"trained with fewer bits, but not found in the converted model, so 8 bit: {name}")  # noqa: T201
    print(f"parity: {comparison}")  # noqa: T201
    if job.rule == "custom":
        np.savez(job.folder / parity.OUTPUTS, **outputs)  # type: ignore[arg-type]
    else:
        parity.refuse_disagreement(comparison)
    (job.folder / _MODEL).write_bytes(content)
    artifact = Artifact(
        path=_MODEL,
        sha256=hashlib.sha256(content).hexdigest(),
        deployed_bytes=len(content),
        bytes_before_strip=named_bytes,
        inputs=input_specs,
        outputs=output_specs,
        tools=tool_versions(),
        ranges_matched=quantized_model.ranges_matched,
        parity=comparison,
    )
    return BuildTfliteAnswer(
        artifact=artifact,
        calibrated_tensors=quantized_model.calibrated_tensors,
        missing_layers=quantized_model.missing_layers,
    )


def _specs(tensors: Sequence[RecipeInput | RecipeOutput], details: Sequence[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    specs = []
    for tensor, detail in zip(tensors, details, strict=True):
        spec = litert.tensor_spec(detail, tensor.name)
        if spec.shape != tensor.shape:
            raise BuildError(
                f"{tensor.name!r} was built with the shape {spec.shape}, the network has {list(tensor.shape)}"
            )
        layout = tensor.layout if isinstance(tensor, RecipeInput) else None
        specs.append(spec if layout is None else spec.model_copy(update={"layout": layout}))
    return tuple(specs)


if __name__ == "__main__":
    json_child.serve(_work, BuildTfliteJob, prepare=_prepare, rehearse=_rehearse)
