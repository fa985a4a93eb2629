"""Archives of torch.export, opened. For child processes; an archive holds a graph, no user code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeloop.errors import ModelError, translated
from edgeloop.host_runtime.shapes import DYNAMIC


def load_program(path: Path) -> Any:
    """Return the program in an archive. Raises ModelError."""
    import torch

    step = "save it with torch.export.save(torch.export.export(module, samples), FILE)"
    with translated(ModelError, f"torch {torch.__version__} can't load it", next_step=step):
        return torch.export.load(path)


def list_inputs(program: Any) -> tuple[list[str], list[tuple[int, ...]], list[Any]]:
    """Return names, declared shapes and types of what a program takes from its caller, in order."""
    import torch

    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names, shapes, dtypes = [], [], []
    for name in program.graph_signature.user_inputs:
        value = nodes[name].meta["val"] if name in nodes else None
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"input {name!r} is no tensor", next_step="export it with tensors as its only inputs")
        names.append(name)
        shapes.append(tuple(size if isinstance(size, int) else DYNAMIC for size in value.shape))
        dtypes.append(value.dtype)
    return names, shapes, dtypes
