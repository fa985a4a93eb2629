"""A quantized .tflite as a module of Relax. Runs in the builder's child process only."""

from __future__ import annotations

from typing import Any

from edgeloop.builders.tvm.quantized import elementwise, layout, reductions
from edgeloop.builders.tvm.quantized.graph import Convert, Core, Network, unsupported_error

CONVERTERS: dict[str, Convert] = {
    "ADD": elementwise.add,
    "AVERAGE_POOL_2D": reductions.average_pool,
    "CONCATENATION": layout.concatenate,
    "CONV_2D": reductions.convolution,
    "DEPTHWISE_CONV_2D": reductions.depthwise,
    "DEQUANTIZE": elementwise.dequantize,
    "EXPAND_DIMS": layout.reshape,
    "FULLY_CONNECTED": reductions.fully_connected,
    "HARD_SWISH": elementwise.hard_swish,
    "LEAKY_RELU": elementwise.leaky_relu,
    "LOGISTIC": elementwise.logistic,
    "MAX_POOL_2D": reductions.max_pool,
    "MEAN": reductions.mean,
    "MUL": elementwise.multiply,
    "PAD": layout.pad,
    "QUANTIZE": elementwise.quantize,
    "RELU": elementwise.relu,
    "RELU6": elementwise.relu6,
    "RESHAPE": layout.reshape,
    "SOFTMAX": elementwise.softmax,
    "SQUEEZE": layout.reshape,
    "SUB": elementwise.subtract,
    "TANH": elementwise.tanh,
    "TRANSPOSE": layout.transpose,
}


def import_quantized(content: bytes, core: Core) -> Any:
    """Return a quantized .tflite as a module of Relax, functions lowered and their weights laid out for a processor.

    Raises BuildError, naming the operator, for what has no integer arithmetic here.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    if len(model.subgraphs) != 1:
        raise unsupported_error(f"{len(model.subgraphs)} subgraphs (control flow)")
    return Network(model, core, CONVERTERS).module()


def is_quantized(content: bytes) -> bool:
    """Return whether activations of a .tflite are integers on a grid."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    results = {int(number) for graph in model.subgraphs for op in graph.operators for number in op.outputs}
    tensors = [(number, tensor) for graph in model.subgraphs for number, tensor in enumerate(graph.tensors)]
    return any(
        number in results and tensor.quantization is not None and tensor.quantization.scale is not None
        for number, tensor in tensors
    )
