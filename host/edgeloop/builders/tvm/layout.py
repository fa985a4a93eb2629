"""Imported graphs made ready for the schedule rule: constants folded, and channels last where they came first.

ONNX and torch graphs have channels first. A rule that tiles what has its channels last is worth 4 to 9 times there.
"""

from __future__ import annotations

from typing import Any

_CHANNELS_LAST = {
    "relax.nn.conv2d": ["NHWC", "HWIO"],
    "relax.nn.conv1d": ["NWC", "WIO"],
    "relax.nn.conv2d_transpose": ["NCHW", "IOHW"],  # TVM has no other one
}
"""Of the data and of the filter, whose last axis is what the rule makes the lanes of vectors."""


def folded(module: Any) -> Any:
    """The graph of a network that is not trained any more: batch norm in the layer before it, one value a constant."""
    from tvm.relax import transform

    for one in (
        transform.FoldBatchnormToConv2D(),
        transform.DecomposeOpsForInference(),
        transform.FoldConstant(),
        transform.CanonicalizeBindings(),
        transform.DeadCodeElimination(),
    ):
        module = one(module)
    return module


def channels_last(module: Any) -> Any:
    """A folded graph with its convolutions, and what lies between them, channels last; inputs and outputs stay.

    Constants have to be folded: beside reshapes of a bias the pass of TVM finds no layout, or one that costs copies.
    """
    from tvm.relax import transform

    return transform.FoldConstant()(transform.ConvertLayout(_CHANNELS_LAST)(module))
