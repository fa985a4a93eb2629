"""All samples through one engine, outputs raw into .npy files. Memory does not grow with the number of samples."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgeloop_agent.engines.interpreter import Engine, RefusedError, one_line
from edgeloop_agent.samples import Data
from edgeloop_agent.wire import Tensor


def evaluate(engine: Engine, data: Data, folder: Path) -> int:
    """Run every sample and write out.<i>.npy for each output; return how many ran.

    Raises RefusedError where the engine fails or an output changes its shape; OSError where the disk is full.
    """
    setters, getters, invoke = engine.setters(), engine.getters(), engine.invoker()
    outputs = engine.outputs()
    done = 0
    with contextlib.ExitStack() as stack:
        sinks = []
        for index, tensor in enumerate(outputs):
            handle = stack.enter_context(open(folder / ("out.%d.npy" % index), "wb"))
            sinks.append(_Sink(handle, tensor, data.count))
        for sample in data:
            try:
                for place, (put, number) in enumerate(setters):
                    put(number, sample[place])
                invoke()
                results = [get(number) for get, number in getters]
            except (ValueError, RuntimeError) as error:
                raise RefusedError("%s failed at sample %d: %s" % (engine.version, done, one_line(error))) from error
            for index, result in enumerate(results):
                sinks[index].write(result)
            done += 1
    return done


class _Sink:
    """One .npy, written from its start to its end: (n, ...) of the output's own type, a batch of 1 dropped."""

    def __init__(self, handle: IO[bytes], tensor: Tensor, count: int) -> None:
        self._handle = handle
        self._name = tensor.name
        self._shape = tuple(tensor.shape)
        self._dtype = np.dtype(tensor.dtype)
        inner = self._shape[1:] if self._shape[:1] == (1,) else self._shape
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (count, *inner),
        }
        np.lib.format.write_array_header_1_0(self._handle, header)

    def write(self, result: Any) -> None:
        if result.shape != self._shape or result.dtype != self._dtype:
            raise RefusedError(
                "output %s has the shape %s, then %s; only fixed shapes can be evaluated"
                % (self._name, self._shape, result.shape)
            )
        self._handle.write(np.ascontiguousarray(result).tobytes())
