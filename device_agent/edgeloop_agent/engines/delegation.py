"""The number of a model's operators that a delegate took, counted in the runtime's own graph.

A runtime keeps the operators that a delegate took beside the nodes that stand for them, and does not say which belong
to which. A node names the tensors it reads and writes: what it took is what lies between the two.
"""

from __future__ import annotations

from typing import Any, Sequence

NODE = "DELEGATE"
"""The runtime's name for a node that a delegate runs."""


def count_operators(nodes: Sequence[Any]) -> dict[str, int]:
    """Return `operators`, how many of them were `taken`, and in how many `pieces`.

    `nodes` are those of the first graph, with `op_name`, `inputs` and `outputs`, before any other delegate joined in.
    """
    operators = [node for node in nodes if node["op_name"] != NODE]
    pieces = [node for node in nodes if node["op_name"] == NODE]
    writers = {int(tensor): at for at, operator in enumerate(operators) for tensor in operator["outputs"]}
    inside: set[int] = set()
    for piece in pieces:
        inside |= _between(piece, operators, writers)
    return {"operators": len(operators), "taken": len(inside), "pieces": len(pieces)}


def _between(piece: Any, operators: Sequence[Any], writers: dict[int, int]) -> set[int]:
    """From what a node writes back to what it reads."""
    read = {int(tensor) for tensor in piece["inputs"]}
    tensors = [int(tensor) for tensor in piece["outputs"]]
    between: set[int] = set()
    while tensors:
        at = writers.get(tensors.pop())
        if at is None or at in between:
            continue
        between.add(at)
        tensors += [int(tensor) for tensor in operators[at]["inputs"] if int(tensor) not in read]
    return between
