"""The compiler of the tests' own delegate: `dense_compiler.py network.tflite [compiled.tflite]`.

Every float dense layer becomes an operator of the delegate's own: what it writes runs nowhere without the delegate.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

NAME = b"dense-for-tests"


def compiled(content: bytes) -> bytes:
    """The model with its FULLY_CONNECTED operators renamed, their activation kept beside them."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode, code.version = NAME, 1
    model.operatorCodes.append(code)
    for operator in model.subgraphs[0].operators:
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED:
            operator.opcodeIndex = len(model.operatorCodes) - 1
            operator.customOptions = np.array([operator.builtinOptions.fusedActivationFunction], np.uint8)
            operator.builtinOptions, operator.builtinOptionsType = None, schema.BuiltinOptions.NONE
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


if __name__ == "__main__":
    source = Path(sys.argv[1])
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else source.with_name(f"{source.stem}_dense.tflite")
    target.write_bytes(compiled(source.read_bytes()))
    print("compiled", target.name)
