"""ONNX files for tests, written node by node from weights that torch drew or trained: no exporter is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 9


class Graph:
    """Nodes and what they read, in order."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._stored: list[Any] = []

    def store(self, name: str, values: Any) -> str:
        array = values.detach().numpy() if hasattr(values, "detach") else np.asarray(values)
        self._stored.append(numpy_helper.from_array(array, name))
        return name

    def add(self, operator: str, reads: Sequence[str], gives: str, *, domain: str = "", **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, list(reads), [gives], name=gives, domain=domain, **attributes))
        return gives

    def convolution(self, layer: Any, x: str, gives: str) -> str:
        """A torch Conv2d or ConvTranspose2d."""
        operator = "ConvTranspose" if type(layer).__name__ == "ConvTranspose2d" else "Conv"
        reads = [x, self.store(f"{gives}.weight", layer.weight)]
        reads += [] if layer.bias is None else [self.store(f"{gives}.bias", layer.bias)]
        sizes = {"kernel_shape": layer.kernel_size, "strides": layer.stride, "pads": layer.padding * 2}
        return self.add(operator, reads, gives, group=layer.groups, **sizes)

    def batch_norm(self, layer: Any, x: str, gives: str) -> str:
        of = {"weight": layer.weight, "bias": layer.bias, "mean": layer.running_mean, "variance": layer.running_var}
        stored = [self.store(f"{gives}.{name}", values) for name, values in of.items()]
        return self.add("BatchNormalization", [x, *stored], gives, epsilon=layer.eps)

    def linear(self, layer: Any, x: str, gives: str) -> str:
        stored = [self.store(f"{gives}.weight", layer.weight), self.store(f"{gives}.bias", layer.bias)]
        return self.add("Gemm", [x, *stored], gives, transB=1)

    def write(
        self,
        path: Path,
        inputs: Mapping[str, Sequence[int | str]],
        outputs: Mapping[str, Sequence[int | str]],
        *,
        opset: int = OPSET,
        ir_version: int = IR_VERSION,
        kind: int = TensorProto.FLOAT,
        external: str | None = None,
    ) -> Path:
        """Dimensions that are words are open ones. With `external` the weights go into a file of that name."""
        told = [
            [helper.make_tensor_value_info(n, kind, list(s)) for n, s in each.items()] for each in (inputs, outputs)
        ]
        graph = helper.make_graph(self._nodes, "graph", *told, self._stored)
        domains = sorted({node.domain for node in self._nodes} - {""})
        used = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(graph, opset_imports=used, ir_version=ir_version)
        onnx.save_model(model, path, save_as_external_data=external is not None, location=external, size_threshold=0)
        return path


def write_digits(path: Path, network: Any, *, softmax: bool = False, batch: int | str = 1) -> Path:
    """The `Digits` of a test as an ONNX file that takes `image` and gives `scores`."""
    graph = Graph()
    x = graph.convolution(network.first, "image", "first")
    x = graph.add("Relu", [graph.batch_norm(network.norm, x, "norm")], "relu")
    x = graph.add("Relu", [graph.convolution(network.second, x, "second")], "relu_2")
    x = graph.add("Flatten", [graph.add("GlobalAveragePool", [x], "pool")], "flat")
    x = graph.linear(network.last, x, "last" if softmax else "scores")
    if softmax:
        graph.add("Softmax", [x], "scores", axis=-1)
    return graph.write(path, {"image": [batch, 1, 8, 8]}, {"scores": [batch, 10]})


def reference(path: Path, given: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """What ONNX's own reference makes of one sample."""
    from onnx.reference import ReferenceEvaluator

    return [np.asarray(one) for one in ReferenceEvaluator(str(path)).run(None, dict(given))]
