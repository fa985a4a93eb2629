"""Cutting a .tflite into its operators, each a model of its own: for child processes only.

The runtimes' own profilers can't be reached from Python, so a board times operators one by one. Two kinds are not what
they seem by themselves. One that works on constants alone (dequantizing stored weights) is done once by a runtime, so
it goes along with every operator that uses what it gives. Padding before a convolution costs nothing where a runtime
takes the two for one, so there is a part of both together beside the part of each.

    parts.json    the parts in the order they run, tensors by their numbers in the model, and which are activations
    NNN.tflite    part NNN
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeloop.core.profile import Operator, OperatorOutput
from edgeloop.errors import ModelError
from edgeloop.sentences import Argument, Sentence

PARTS_FILE = "parts.json"
_STAMP = (1980, 1, 1, 0, 0, 0)
_PADDING = ("PAD", "PADV2")
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_STATE = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE", "HASHTABLE")
_NEXT = Sentence("measure it without {}", Argument("per_op"))


def split(content: bytes, path: Path) -> tuple[tuple[Operator, ...], tuple[tuple[int, ...], ...]]:
    """Write the parts of a model as a .zip, equal bytes from equal models; return the operators, and those of each
    part.

    Raises ModelError for models that can't be run operator by operator: control flow, variables shared by operators.
    """
    from ai_edge_litert.tools import flatbuffer_utils as fb

    model = fb.read_model_from_bytearray(bytearray(content))
    if len(model.subgraphs) != 1:
        raise ModelError(
            f"has {len(model.subgraphs)} subgraphs (control flow): its operators can't be timed one by one"
        )
    graph = _OperatorGraph(model)
    graph.check()
    parts: list[tuple[int, ...]] = [(i,) for i in range(len(graph.operators)) if not graph.is_folded(i)]
    parts += [(before, i) for i, *_ in list(parts) if (before := graph.padding_before(i)) is not None]
    files, entries = {}, []
    for number, operators in enumerate(parts):
        name, reads = f"{number:03d}.tflite", graph.activations_into(operators[0])
        writes = [int(tensor) for tensor in graph.operators[operators[-1]].outputs]
        files[name] = bytes(fb.convert_object_to_bytearray(graph.part(operators, reads, writes)))
        entries.append({"file": name, "reads": reads, "writes": writes})
    manifest = {
        "schema": 1,
        "inputs": [int(tensor) for tensor in graph.graph.inputs],
        "outputs": [int(tensor) for tensor in graph.graph.outputs],
        "tensors": len(graph.tensors),
        "activations": graph.activations(),
        "parts": entries,
    }
    _write(path, {PARTS_FILE: json.dumps(manifest, sort_keys=True).encode(), **files})
    return tuple(graph.operator(i) for i in range(len(graph.operators))), tuple(parts)


class _OperatorGraph:
    """The only subgraph of a model, and which of its tensors are made of constants."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.graph = model.subgraphs[0]
        self.tensors = self.graph.tensors
        self.operators = self.graph.operators or []
        self._maker = {int(t): i for i, op in enumerate(self.operators) for t in op.outputs}
        constant = {
            i
            for i, tensor in enumerate(self.tensors)
            if i not in self._maker and i not in set(map(int, self.graph.inputs)) and not tensor.isVariable
        }
        self._file_constants = frozenset(constant)
        for operator in self.operators:  # in an order in which each runs after those it reads from
            if operator.outputs and all(int(t) in constant for t in operator.inputs if t >= 0):
                constant.update(map(int, operator.outputs))
        self._constant = frozenset(constant - set(map(int, self.graph.outputs)))

    def check(self) -> None:
        """Raises ModelError where parts would not do what the whole does."""
        if not self.operators:
            raise ModelError("has no operators to time")
        readers: dict[int, int] = {}
        for index, operator in enumerate(self.operators):
            name = self.name_of(index)
            if name in _STATE:
                raise ModelError(f"keeps state in {name}: its operators can't be timed one by one", next_step=_NEXT)
            for tensor in set(operator.inputs):
                if tensor >= 0 and self.tensors[tensor].isVariable:
                    readers[int(tensor)] = readers.get(int(tensor), 0) + 1
        if any(count > 1 for count in readers.values()):
            raise ModelError("has operators that share a variable: they can't be timed one by one", next_step=_NEXT)

    def is_folded(self, index: int) -> bool:
        outputs = self.operators[index].outputs
        return bool(outputs) and all(int(t) in self._constant for t in outputs)

    def padding_before(self, index: int) -> int | None:
        """The padding that feeds a convolution and nothing else."""
        if self.name_of(index) not in _CONVOLUTIONS or len(reads := self.activations_into(index)) != 1:
            return None
        maker = self._maker.get(reads[0])
        if maker is None or self.name_of(maker) not in _PADDING or reads[0] in map(int, self.graph.outputs):
            return None
        readers = [i for i in range(len(self.operators)) if reads[0] in self.activations_into(i)]
        return maker if readers == [index] else None

    def activations_into(self, index: int) -> list[int]:
        """The activations that an operator reads, once each, in its own order."""
        read = [int(t) for t in self.operators[index].inputs if t >= 0 and not self.tensors[t].isVariable]
        return [t for t in dict.fromkeys(read) if t not in self._constant]

    def part(self, indices: tuple[int, ...], reads: list[int], writes: list[int]) -> Any:
        """A model of these operators, and of those that make their constants."""
        from ai_edge_litert import schema_py_generated as schema

        together = sorted({*indices, *(maker for index in indices for maker in self._makers_of_constants(index))})
        numbers: dict[int, int] = {}
        operators, codes = [], []
        for number in together:
            old = self.operators[number]
            new = schema.OperatorT()
            new.__dict__.update(old.__dict__)
            new.inputs = [self._renumber(int(t), numbers) for t in old.inputs]
            new.outputs = [self._renumber(int(t), numbers) for t in old.outputs]
            new.intermediates = [self._renumber(int(t), numbers) for t in old.intermediates or []] or None
            if old.opcodeIndex not in codes:
                codes.append(old.opcodeIndex)
            new.opcodeIndex = codes.index(old.opcodeIndex)
            operators.append(new)
        buffers, tensors = [schema.BufferT()], []
        for number in numbers:
            tensor = schema.TensorT()
            tensor.__dict__.update(self.tensors[number].__dict__)
            tensor.buffer = 0
            if number in self._file_constants:
                tensor.buffer = len(buffers)
                buffers.append(self.model.buffers[self.tensors[number].buffer])
            tensors.append(tensor)
        graph = schema.SubGraphT()
        graph.tensors, graph.operators = tensors, operators
        graph.inputs = [numbers[t] for t in reads]
        graph.outputs = [numbers[t] for t in writes]
        model = schema.ModelT()
        model.version = self.model.version
        model.operatorCodes = [self.model.operatorCodes[code] for code in codes]
        model.subgraphs, model.buffers = [graph], buffers
        return model

    def _makers_of_constants(self, index: int) -> list[int]:
        makers: set[int] = set()
        queue = [index]
        while queue:
            for tensor in map(int, self.operators[queue.pop()].inputs):
                maker = self._maker.get(tensor)
                if tensor in self._constant and maker is not None and maker not in makers:
                    makers.add(maker)
                    queue.append(maker)
        return sorted(makers)

    @staticmethod
    def _renumber(tensor: int, numbers: dict[int, int]) -> int:
        return -1 if tensor < 0 else numbers.setdefault(tensor, len(numbers))

    def activations(self) -> list[int]:
        return [i for i in range(len(self.tensors)) if i not in self._constant and i in set(self._all_tensors())]

    def _all_tensors(self) -> Iterator[int]:
        for operator in self.operators:
            yield from (int(t) for t in (*operator.inputs, *operator.outputs) if t >= 0)

    def name_of(self, index: int) -> str:
        from ai_edge_litert.tools import flatbuffer_utils as fb

        number = self.operators[index].opcodeIndex
        custom = self.model.operatorCodes[number].customCode
        if custom:
            return str(custom.decode("utf-8", "replace") if isinstance(custom, bytes) else custom)[:64]
        return str(fb.opcode_to_name(self.model, number))

    def operator(self, index: int) -> Operator:
        from ai_edge_litert.tools import flatbuffer_utils as fb

        outputs = []
        for number in self.operators[index].outputs:
            tensor = self.tensors[number]
            shape = tuple(int(n) for n in (tensor.shape if tensor.shape is not None else []))
            outputs.append(OperatorOutput(dtype=fb.type_to_name(tensor.type).lower(), shape=shape))
        users = None
        if self.is_folded(index):
            users = tuple(i for i in range(len(self.operators)) if index in self._makers_of_constants(i))
        return Operator(index=index, operator=self.name_of(index), outputs=tuple(outputs), folded_into=users)


def _write(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=_STAMP), content)
