"""Layout copies taken out of a converted flatbuffer: a MEAN behind a TRANSPOSE, chains of TRANSPOSE and RESHAPE.

On a board each copy is time, and none changes a value. Works on the object form of ai_edge_litert's flatbuffer_utils.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOVES = ("TRANSPOSE", "RESHAPE")


def operator_name(model: Any, op: Any) -> str:
    from ai_edge_litert.tools import flatbuffer_utils

    return str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex))


def remove_layout_copies(model: Any, graph: Any) -> None:
    """Take out copies that only turn the layout around: on a board each is time, and none changes a value.

    A channels-first network leaves them behind: MEAN behind TRANSPOSE and RESHAPE is MEAN along other axes, and a
    chain of them that keeps the order of the elements is one RESHAPE, or nothing.
    """
    copies: set[int] = set()
    for op in graph.operators:
        if operator_name(model, op) == "MEAN" and not op.builtinOptions.keepDims:
            chain = _chain_before(model, graph, op.inputs[0])
            axes = _axes_before(model, graph, chain, op) if chain else None
            if axes is not None:
                op.inputs = [chain[0].inputs[0], _add_constant(model, graph, op.inputs[1], axes)]
                copies |= {id(c) for c in chain}
    for op in graph.operators:
        if id(op) in copies or operator_name(model, op) in _MOVES:
            continue
        for position, tensor in enumerate(op.inputs):
            chain = _chain_before(model, graph, int(tensor))
            if len(chain) > 1 and _keeps_order(model, graph, chain):
                if _shape(graph, chain[0].inputs[0]) == _shape(graph, tensor):
                    op.inputs[position] = chain[0].inputs[0]
                    copies |= {id(c) for c in chain}
                elif _as_reshape(model, graph, chain):
                    copies |= {id(c) for c in chain[:-1]}
    graph.operators = [op for op in graph.operators if id(op) not in copies]
    _drop_unused(model, graph)


def _chain_before(model: Any, graph: Any, tensor: int) -> list[Any]:
    """The TRANSPOSE and RESHAPE operators that lead to a tensor, first to last, each read by nobody else."""
    chain: list[Any] = []
    while True:
        makers = [op for op in graph.operators if tensor in list(op.outputs)]
        readers = [op for op in graph.operators if tensor in list(op.inputs)]
        if (
            not makers
            or len(readers) != 1
            or tensor in list(graph.outputs)
            or operator_name(model, makers[0]) not in _MOVES
            or (
                operator_name(model, makers[0]) == "TRANSPOSE"
                and _stored_int32(model, graph, makers[0].inputs[1]) is None
            )
        ):
            return chain
        chain.insert(0, makers[0])
        tensor = int(makers[0].inputs[0])


def _apply_chain(model: Any, graph: Any, chain: Sequence[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Do to values of its source's shape what a chain does."""
    for op in chain:
        if operator_name(model, op) == "TRANSPOSE":
            order = _stored_int32(model, graph, op.inputs[1])
            assert order is not None
            values = values.transpose(order)
        else:
            values = values.reshape(_shape(graph, op.outputs[0]))
    return values


def _keeps_order(model: Any, graph: Any, chain: Sequence[Any]) -> bool:
    shape = _shape(graph, chain[0].inputs[0])
    order = np.arange(int(np.prod(shape)))
    return bool((_apply_chain(model, graph, chain, order.reshape(shape)).ravel() == order).all())


def _axes_before(model: Any, graph: Any, chain: Sequence[Any], mean: Any) -> NDArray[np.int32] | None:
    """The axes of the chain's source that give the very same MEAN: found by trying, on values that can't coincide."""
    axes = _stored_int32(model, graph, mean.inputs[1])
    if axes is None:
        return None
    shape = _shape(graph, chain[0].inputs[0])
    values = np.random.default_rng(0).integers(0, 1 << 40, size=shape)
    behind_chain = _apply_chain(model, graph, chain, values)
    sums = behind_chain.sum(axis=tuple(int(a) % behind_chain.ndim for a in axes))
    for count in range(1, len(shape) + 1):
        for own_axes in itertools.combinations(range(len(shape)), count):
            own_sums = values.sum(axis=own_axes)
            if own_sums.shape == sums.shape and (own_sums == sums).all():
                return np.asarray(own_axes, np.int32)
    return None


def _as_reshape(model: Any, graph: Any, chain: Sequence[Any]) -> bool:
    """Turn the last operator of a chain into a RESHAPE of the chain's source; False where the chain has none."""
    last = chain[-1]
    reshape = next((op for op in chain if operator_name(model, op) == "RESHAPE"), None)
    if reshape is None:
        return False
    shape = np.asarray(_shape(graph, last.outputs[0]), np.int32)
    options = copy.deepcopy(reshape.builtinOptions)
    if options is not None:
        options.newShape = shape.tolist()
    last.inputs = [chain[0].inputs[0], _add_constant(model, graph, reshape.inputs[1], shape)]
    last.opcodeIndex = reshape.opcodeIndex
    last.builtinOptionsType = reshape.builtinOptionsType
    last.builtinOptions = options
    return True


def _shape(graph: Any, tensor: int) -> tuple[int, ...]:
    return tuple(int(d) for d in graph.tensors[tensor].shape)


def _stored_int32(model: Any, graph: Any, tensor: int) -> NDArray[np.int32] | None:
    data = model.buffers[graph.tensors[tensor].buffer].data
    return None if data is None else np.frombuffer(bytes(data), np.int32)


def _add_constant(model: Any, graph: Any, like: int, values: NDArray[np.int32]) -> int:
    """Store a constant of the type of the tensor `like`, which others may still read; return its index."""
    buffer = type(model.buffers[0])()
    buffer.data = np.frombuffer(values.astype(np.int32).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor = copy.deepcopy(graph.tensors[like])
    tensor.buffer = len(model.buffers) - 1
    tensor.shape = [len(values)]
    tensor.shapeSignature = None
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _drop_unused(model: Any, graph: Any) -> None:
    """Take tensors out that nothing reads or writes, and number the rest anew."""
    tensors = sorted(
        {
            int(t)
            for t in (
                *graph.inputs,
                *graph.outputs,
                *(t for op in graph.operators for t in (*op.inputs, *op.outputs)),
            )
            if t >= 0
        }
    )
    new = {old: index for index, old in enumerate(tensors)} | {-1: -1}
    graph.tensors = [graph.tensors[t] for t in tensors]
    graph.inputs = [new[int(t)] for t in graph.inputs]
    graph.outputs = [new[int(t)] for t in graph.outputs]
    for op in graph.operators:
        op.inputs = [new[int(t)] for t in op.inputs]
        op.outputs = [new[int(t)] for t in op.outputs]
    for signature in model.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = new[int(entry.tensorIndex)]
