"""A torch.export archive that nobody trained here, opened and imported by TVM: for child processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.engines.registry import DEFAULT
from edgeloop.errors import ModelError
from edgeloop.host_runtime import shapes
from edgeloop.processes import json_child
from edgeloop.ready_models import torch_export


class TorchProgram:
    """An archive with the shapes of its inputs settled. All raise ModelError; shapes that are told, UserError."""

    def __init__(self, path: Path, told: Mapping[str, Sequence[int]], samples: Mapping[str, Sequence[int]]) -> None:
        import torch

        self._program = torch_export.loaded(path)
        self.inputs, declared, dtypes = torch_export.inputs(self._program)
        self.dtypes = [str(dtype).removeprefix("torch.") for dtype in dtypes]
        self.shapes = shapes.settled(self.inputs, declared, told, samples)
        zeros = tuple(torch.zeros(s, dtype=dtype) for s, dtype in zip(self.shapes, dtypes, strict=True))
        try:
            self._module = self._program.module()
            results = self._module(*zeros)
            if shapes.DYNAMIC in {size for one in declared for size in one}:
                self._program = torch.export.export(self._module, zeros)
        except Exception as error:
            raise ModelError(f"does not run with these shapes: {json_child.one_line(error)}") from error
        count = len(results) if isinstance(results, list | tuple) else 1
        self.outputs = [f"output_{place}" for place in range(count)]

    def imported(self) -> Any:
        """TVM's graph of it."""
        from tvm.relax.frontend.torch import from_exported_program

        try:
            return from_exported_program(self._program, unwrap_unit_return_tuple=True)
        except Exception as error:
            raise ModelError(
                f"TVM's importer: {json_child.one_line(error)}", next_step=f"measure it with the engine {DEFAULT.name}"
            ) from error

    def run(self, given: Sequence[NDArray[Any]]) -> list[NDArray[Any]] | None:
        """What torch makes of one sample."""
        import torch

        with torch.no_grad():
            results = self._module(*(torch.from_numpy(one) for one in given))
        return [np.asarray(one) for one in (results if isinstance(results, list | tuple) else [results])]
