"""The child process that converts a torch.export archive nobody trained here: one job on stdin.

`python -m edgeloop.ready_models.torch_export_child`. The archive holds a graph: no user code runs.
"""

from __future__ import annotations

from edgeloop.builders.tflite import float_model
from edgeloop.errors import BuildError, ModelError, translated
from edgeloop.host_runtime.shapes import resolve_shapes
from edgeloop.host_runtime.tflite_pack import strip
from edgeloop.processes import json_child
from edgeloop.ready_models.jobs import ConvertAnswer, ConvertJob
from edgeloop.ready_models.torch_export import list_inputs, load_program


def _prepare() -> None:
    import litert_torch
    import torch

    torch.set_num_threads(1)
    _ = litert_torch


def _work(job: ConvertJob) -> ConvertAnswer:
    """Convert one archive to a float .tflite. Raises ModelError, UserError."""
    import litert_torch
    import torch

    program = load_program(job.source)
    names, declared_shapes, dtypes = list_inputs(program)
    shapes = resolve_shapes(names, declared_shapes, job.shapes)
    samples = tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True))
    try:
        with translated(ModelError, "litert-torch can't convert it"):
            module = program.module()
            results = module(*samples)
            content = bytes(litert_torch.convert(module, samples).model_content())
            outputs = len(results) if isinstance(results, list | tuple) else 1
            model = float_model.prepare(content, len(names), outputs)
    except BuildError as error:
        raise ModelError(error.message, next_step=error.next_step) from error
    job.model.write_bytes(strip(model.content))
    return ConvertAnswer(
        inputs=tuple(names),
        outputs=tuple(f"output_{place}" for place in range(outputs)),
        bytes_before_strip=len(content),
    )


if __name__ == "__main__":
    json_child.serve(_work, ConvertJob, prepare=_prepare)
