"""Imported graphs made ready for the schedule rule: constants folded, and channels last where they came first.

ONNX and torch graphs have channels first, which the rule has no good tiles for.
"""

from __future__ import annotations

from typing import Any

_CHANNELS_LAST = {
    "relax.nn.conv2d": ["NHWC", "HWIO"],
    "relax.nn.conv1d": ["NWC", "WIO"],
    "relax.nn.conv2d_transpose": ["NCHW", "IOHW"],  # TVM has no other one
}
"""Of the data and of the filter, whose last axis is what the rule makes the lanes of vectors."""


def fold_constants(module: Any) -> Any:
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

    return transform.FoldConstant()(transform.ConvertLayout(_CHANNELS_LAST)(_plain(module)))


def _plain(module: Any) -> Any:
    """The graph without what TVM's pass trips over: a negative axis, which it takes for a letter before `A` ("Invalid
    layout A@BC"), and clips, around which it turns back and forth: a minimum of a maximum has any layout.
    """
    import tvm
    from tvm import relax
    from tvm.relax.expr_functor import PyExprMutator, mutator

    @mutator
    class Plain(PyExprMutator):  # type: ignore[misc]
        def visit_call_(self, call: Any) -> Any:
            call = self.visit_expr_post_order(call)
            name = getattr(call.op, "name", "")
            if name not in ("relax.permute_dims", "relax.clip", "relax.nn.relu6"):
                return call
            x = call.args[0]
            if name == "relax.permute_dims":
                if call.attrs.axes is None:
                    return call
                return relax.op.permute_dims(x, [int(axis) % x.ty.ndim for axis in call.attrs.axes])
            if name == "relax.clip":
                return self._clamp(x, *(float(limit.value) for limit in call.args[1:]))
            return self._clamp(x, 0.0, 6.0)

        def _clamp(self, x: Any, low: float, high: float) -> Any:
            kind = str(x.ty.dtype)
            above = relax.op.nn.relu(x) if low == 0 else relax.op.maximum(x, relax.const(low, kind))
            return relax.op.minimum(self.builder_.normalize(above), relax.const(high, kind))

    plain = Plain(module)
    plain_module = tvm.IRModule(
        {
            name: plain.visit_expr(function) if isinstance(function, relax.Function) else function
            for name, function in module.functions.items()
        }
    )
    return relax.transform.CanonicalizeBindings()(relax.transform.Normalize()(plain_module))
