"""An ONNX file that nobody vouches for, opened, checked and imported by TVM: for child processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.errors import ModelError, one_line, translated
from edgeloop.host_runtime.model_files import weights_beside
from edgeloop.host_runtime.shapes import DYNAMIC, InputShapes, resolve_shapes

_DOMAINS = ("", "ai.onnx")
_QUANTIZED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
)
_AS_FLOAT = "export it as float32"


class OnnxModel:
    """An ONNX model with the shapes of its inputs settled. All raise ModelError; shapes of a user's own, UserError."""

    def __init__(self, path: Path, shapes: InputShapes) -> None:
        self._model = _open(path)
        graph = self._model.graph
        weights = {tensor.name for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in weights]
        self.inputs = [value.name for value in inputs]
        self.outputs = [value.name for value in graph.output]
        self.dtypes = [_dtype(value) for value in inputs]
        for value in graph.output:
            _dtype(value)
        self.shapes = resolve_shapes(self.inputs, [_declared_shape(value) for value in inputs], shapes)

    def import_graph(self) -> Any:
        """Return TVM's graph of it. Raises ModelError for operators that its importer lacks."""
        import tvm
        from tvm.relax.frontend.onnx import from_onnx

        _extend_importer()
        shapes = {name: list(shape) for name, shape in zip(self.inputs, self.shapes, strict=True)}
        with translated(ModelError, "TVM's importer"):
            try:
                return from_onnx(self._model, shapes, dtype_dict={}, sanitize_input_names=False)
            except tvm.error.OpNotImplemented as error:
                missing = ", ".join(sorted(str(error).strip().rpartition(": ")[2].split(", ")))
                raise ModelError(
                    f"needs operators that TVM's importer does not have: {missing}",
                    next_step="convert it to a .tflite, or export it with other operators",
                ) from error

    def run(self, sample: Sequence[NDArray[Any]]) -> list[NDArray[Any]] | None:
        """Run ONNX's own reference on one sample; None where it has no such operator."""
        from onnx.reference import ReferenceEvaluator

        try:
            outputs = ReferenceEvaluator(self._model).run(None, dict(zip(self.inputs, sample, strict=True)))
        except (NotImplementedError, RuntimeError, ValueError, TypeError, ImportError) as error:
            print(f"not compared with ONNX's reference: {one_line(error)}")  # noqa: T201 -- the child's log
            return None
        return [np.asarray(one) for one in outputs]


def _open(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model(path, load_external_data=False)
    except (DecodeError, ValueError, UnicodeDecodeError) as error:
        raise ModelError("not an ONNX file, or cut short", next_step="compare its hash with the original's") from error
    if not model.graph.node:
        raise ModelError("not an ONNX file, or cut short: it has no graph in it")
    _refuse_newer(model)
    _refuse_operators(model)
    _read_weights(model, path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(f"ONNX's own checker refuses it: {one_line(error)}") from error
    return model


def _refuse_newer(model: Any) -> None:
    import onnx

    step = f"install a newer onnx, or export it for opset {onnx.defs.onnx_opset_version()} or older"
    if model.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"is of IR version {model.ir_version}, onnx {onnx.__version__} reads up to {onnx.IR_VERSION}",
            next_step=step,
        )
    for opset in model.opset_import:
        if opset.domain in _DOMAINS and opset.version > onnx.defs.onnx_opset_version():
            raise ModelError(
                f"is of opset {opset.version}, onnx {onnx.__version__} knows up to {onnx.defs.onnx_opset_version()}",
                next_step=step,
            )


def _refuse_operators(model: Any) -> None:
    nodes = list(_nodes(model.graph))
    own = sorted({f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in _DOMAINS})
    if own:
        raise ModelError(
            f"needs custom operators, which TVM does not have: {', '.join(own)}",
            next_step="export it with ONNX's own operators only",
        )
    quantizing = sorted({node.op_type for node in nodes} & set(_QUANTIZED))
    if quantizing:
        raise ModelError(
            f"is quantized ({', '.join(quantizing)}): TVM would compute it in float, slower than float as it is",
            next_step=f"{_AS_FLOAT}, or measure an int8 .tflite with LiteRT",
        )


def _nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those of branches and loops too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _read_weights(model: Any, path: Path) -> None:
    """Read what lies in a file beside it. Raises ModelError for other types than float32."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data

    elsewhere = {
        entry.value
        for tensor in model.graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    strange = sorted(elsewhere - {_weights_name(path)})
    if strange:
        raise ModelError(
            f"keeps weights in {', '.join(strange[:3])}, and only {_weights_name(path)} is read beside it",
            next_step="save it in one file: onnx.save_model(onnx.load(FILE), OTHER)",
        )
    try:
        load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"its weights are in {_weights_name(path)}, which can't be read: {one_line(error)}",
            next_step="keep both files together",
        ) from error
    for tensor in model.graph.initializer:
        _numeric(tensor.name, tensor.data_type)


def _weights_name(path: Path) -> str:
    weights = weights_beside(path)
    assert weights is not None, "an .onnx may have its weights beside it"
    return weights.name


def _dtype(value: Any) -> str:
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"takes or gives {value.name}, which is no tensor; edgeloop measures tensors only")
    return _numeric(value.name, value.type.tensor_type.elem_type)


def _numeric(name: str, kind: int) -> str:
    """numpy's name of a type. Raises ModelError for text, and for floats of other bits, which have no schedule."""
    import onnx

    type_name = onnx.TensorProto.DataType.Name(kind)
    other_float = "FLOAT" in type_name and type_name != "FLOAT"
    if other_float or type_name in ("DOUBLE", "STRING", "UNDEFINED") or "COMPLEX" in type_name:
        raise ModelError(f"{name} is of type {type_name.lower()}, which is not compiled here", next_step=_AS_FLOAT)
    return str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).name)


def _declared_shape(value: Any) -> list[int]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ModelError(f"input {value.name} has no shape", next_step="export it with the shapes of its inputs")
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else DYNAMIC for d in tensor.shape.dim]


def _extend_importer() -> None:
    """Give TVM's importer a Clip that is one operator: its own is two loops, around which layouts can't be changed."""
    from tvm.relax.frontend.onnx import onnx_frontend

    own = onnx_frontend._get_convert_map  # noqa: SLF001 -- where its documentation says that operators are added
    onnx_frontend._get_convert_map = lambda: own() | {"Clip": _clip(onnx_frontend)}  # noqa: SLF001


def _clip(frontend: Any) -> Any:
    from tvm import relax

    def number(limit: Any) -> float | None:
        return float(limit.value.numpy()) if type(limit).__name__ == "GenericConst" else None

    class Clip(frontend.Clip):  # type: ignore[misc]
        @classmethod
        def _impl_v1(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            bounds = [attr.get("min"), attr.get("max")]
            if None in bounds:
                return super()._impl_v1(bb, inputs, attr, params)
            return relax.op.clip(inputs[0], *map(float, bounds))

        @classmethod
        def _impl_v13(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
            low, high = (number(inputs[place]) for place in (1, 2))
            if low is None or high is None or np.isnan([low, high]).any():
                return super()._impl_v13(bb, inputs, attr, params)
            return relax.op.clip(inputs[0], low, high)

    return Clip
