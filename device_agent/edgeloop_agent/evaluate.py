"""All samples through one model or pipeline, the outputs into .npy files.

Memory does not grow with the number of samples.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from edgeloop_agent.errors import PipelineError, RefusedError
from edgeloop_agent.loaded_model import LoadedModel
from edgeloop_agent.pipeline import StagedPipeline
from edgeloop_agent.samples import EncodedData, SampleData
from edgeloop_agent.text import one_line
from edgeloop_agent.wire import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESULTS_BYTES_MAX = 1 << 30
"""The most that the host takes of one session."""


def evaluate(model: LoadedModel, data: SampleData, folder: Path) -> None:
    """Run every sample and write out.<i>.npy for each output.

    Raises RefusedError where the engine fails or an output changes its shape; OSError where the disk is full.
    """
    setters, getters, invoke = model.setters(), model.getters(), model.invoker()
    outputs = model.outputs()
    with contextlib.ExitStack() as stack:
        sinks = []
        for index, tensor in enumerate(outputs):
            handle = stack.enter_context(open(folder / ("out.%d.npy" % index), "wb"))
            shape = tuple(tensor.shape)
            sinks.append(
                _Sink(handle, shape, shape[1:] if shape[:1] == (1,) else shape, np.dtype(tensor.dtype), data.count)
            )
        for at, sample in enumerate(data):
            try:
                for place, (set_input, number) in enumerate(setters):
                    set_input(number, sample[place])
                invoke()
                results = [get(number) for get, number in getters]
            except (ValueError, RuntimeError) as error:
                raise RefusedError("%s failed at sample %d: %s" % (model.version, at, one_line(error))) from error
            for index, result in enumerate(results):
                if not sinks[index].write(result):
                    raise RefusedError(
                        "output %s has the shape %s, then %s; only fixed shapes can be evaluated"
                        % (outputs[index].name, tuple(outputs[index].shape), result.shape)
                    )


def through_pipeline(pipeline: StagedPipeline, model: LoadedModel, data: EncodedData, folder: Path) -> list[Tensor]:
    """Run every sample through the user's pipeline and write out.<i>.npy for each of its results; say what they are.

    Shapes are those of one sample. Raises PipelineError where the results are no arrays, change their names, shapes or
    types, or are too many bytes; OSError where the disk is full.
    """
    copy_in, copy_out = pipeline.bind(model)
    invoke, where = model.invoker(), "%s.postprocess" % pipeline.label
    sinks: dict[str, _Sink] = {}
    tensors: list[Tensor] = []
    with contextlib.ExitStack() as stack:
        for index, sample in enumerate(data):
            copy_in(pipeline.preprocess(pipeline.load(sample)))
            invoke()
            results = pipeline.results(pipeline.postprocess(copy_out()))
            if not sinks:
                size = data.count * sum(int(result.nbytes) for result in results.values())
                if size > RESULTS_BYTES_MAX:
                    raise PipelineError(
                        "%s gave %d bytes in all for %d samples, at most %d are taken: give less, or score fewer"
                        % (where, size, data.count, RESULTS_BYTES_MAX)
                    )
                for number, (name, result) in enumerate(results.items()):
                    handle = stack.enter_context(open(folder / ("out.%d.npy" % number), "wb"))
                    sinks[name] = _Sink(handle, result.shape, result.shape, result.dtype, data.count)
                    tensors.append(Tensor(name, result.dtype.name, list(result.shape), None, None))
            if set(results) != set(sinks):
                raise PipelineError(
                    "%s gave %s for the first sample, %s for sample %d"
                    % (where, ", ".join(sinks), ", ".join(results), index)
                )
            for name, result in results.items():
                if not sinks[name].write(result):
                    raise PipelineError(
                        "%s gave %s of shape %s for the first sample, %s %s for sample %d; results have one shape: "
                        "pad them, or give counts" % (where, name, sinks[name].shape, result.dtype, result.shape, index)
                    )
    return tensors


def write_npy_header(handle: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write the header of an .npy, which the bytes of the array follow."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(handle, header)


class _Sink:
    """One .npy, written from its start to its end: (n, *inner) of one type."""

    def __init__(
        self, handle: IO[bytes], shape: tuple[int, ...], inner: tuple[int, ...], dtype: np.dtype[Any], count: int
    ) -> None:
        self._handle = handle
        self.shape = shape
        self._dtype = np.dtype(dtype)
        write_npy_header(self._handle, (count, *inner), self._dtype)

    def write(self, result: NDArray[Any]) -> bool:
        """Append one sample's; False where its shape or type is another one."""
        if result.shape != self.shape or result.dtype != self._dtype:
            return False
        self._handle.write(np.ascontiguousarray(result).tobytes())
        return True
