"""Archives of torch.export: opened, and what they take. For child processes; an archive holds a graph, no user code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeloop.errors import ModelError
from edgeloop.host_runtime import shapes
from edgeloop.processes import json_child


def loaded(path: Path) -> Any:
    """The program in an archive. Raises ModelError."""
    import torch

    try:
        return torch.export.load(path)
    except Exception as error:
        raise ModelError(
            f"torch {torch.__version__} can't load it: {json_child.one_line(error)}",
            next_step="save it with torch.export.save(torch.export.export(module, samples), FILE)",
        ) from error


def inputs(program: Any) -> tuple[list[str], list[tuple[int, ...]], list[Any]]:
    """Names, declared shapes and types of what a program takes from its caller, in order."""
    import torch

    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    names, declared, dtypes = [], [], []
    for name in program.graph_signature.user_inputs:
        value = nodes[name].meta["val"] if name in nodes else None
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"input {name!r} is no tensor", next_step="export it with tensors as its only inputs")
        names.append(name)
        declared.append(tuple(size if isinstance(size, int) else shapes.DYNAMIC for size in value.shape))
        dtypes.append(value.dtype)
    return names, declared, dtypes
