"""The child process that converts a torch.export archive nobody trained here: one job on stdin.

In: a .pt2, and shapes for dynamic dimensions. Out: a float .tflite, and the names of its inputs and outputs in order.
`python -m edgeloop.ready_models.torch_export_child`. The archive holds a graph: no user code runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeloop.builders.tflite import float_model
from edgeloop.errors import BuildError, ModelError
from edgeloop.host_runtime import shapes
from edgeloop.host_runtime.tflite_pack import stripped
from edgeloop.processes import json_child
from edgeloop.ready_models import torch_export


def _prepare() -> None:
    import litert_torch
    import torch

    torch.set_num_threads(1)
    _ = litert_torch


def _work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Convert one archive. Raises ModelError, UserError."""
    import litert_torch
    import torch

    program = torch_export.loaded(Path(job["source"]))
    names, declared, dtypes = torch_export.inputs(program)
    wanted = shapes.settled(names, declared, job["shapes"], {})
    samples = tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in zip(wanted, dtypes, strict=True))
    try:
        module = program.module()
        results = module(*samples)
        content = bytes(litert_torch.convert(module, samples).model_content())
        outputs = len(results) if isinstance(results, list | tuple) else 1
        prepared = float_model.prepare(content, len(names), outputs)
    except BuildError as error:
        raise ModelError(error.message, next_step=error.next_step) from error
    except Exception as error:
        raise ModelError(f"litert-torch can't convert it: {json_child.one_line(error)}") from error
    Path(job["target"]).write_bytes(stripped(prepared.content))
    return {
        "inputs": names,
        "outputs": [f"output_{place}" for place in range(outputs)],
        "bytes_before_strip": len(content),
    }


if __name__ == "__main__":
    json_child.serve(_work, prepare=_prepare)
