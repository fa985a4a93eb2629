"""A torch.export archive that nobody trained here, opened and imported by TVM: for child processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.engines.registry import DEFAULT
from edgeloop.errors import ModelError, translated
from edgeloop.host_runtime.shapes import DYNAMIC, InputShapes, resolve_shapes
from edgeloop.ready_models.torch_export import list_inputs, load_program


class TorchProgram:
    """An archive with the shapes of its inputs settled. All raise ModelError; shapes of a user's own, UserError."""

    def __init__(self, path: Path, shapes: InputShapes) -> None:
        import torch

        self._program = load_program(path)
        self.inputs, declared_shapes, dtypes = list_inputs(self._program)
        self.dtypes = [str(dtype).removeprefix("torch.") for dtype in dtypes]
        self.shapes = resolve_shapes(self.inputs, declared_shapes, shapes)
        zeros = tuple(torch.zeros(s, dtype=dtype) for s, dtype in zip(self.shapes, dtypes, strict=True))
        with translated(ModelError, "does not run with these shapes"):
            self._module = self._program.module()
            results = self._module(*zeros)
            if DYNAMIC in {size for shape in declared_shapes for size in shape}:
                self._program = torch.export.export(self._module, zeros)
        count = len(results) if isinstance(results, list | tuple) else 1
        self.outputs = [f"output_{place}" for place in range(count)]

    def import_graph(self) -> Any:
        """Return TVM's graph of it."""
        from tvm.relax.frontend.torch import from_exported_program

        step = f"measure it with the engine {DEFAULT.name}"
        with translated(ModelError, "TVM's importer", next_step=step):
            return from_exported_program(self._program, unwrap_unit_return_tuple=True)

    def run(self, sample: Sequence[NDArray[Any]]) -> list[NDArray[Any]] | None:
        """Run torch on one sample."""
        import torch

        with torch.no_grad():
            results = self._module(*(torch.from_numpy(one) for one in sample))
        return [np.asarray(one) for one in (results if isinstance(results, list | tuple) else [results])]
