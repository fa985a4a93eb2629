"""Reading the nodes of a `torch.export` graph: operator, arguments, shape. Shapes are for one sample."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node
from torch.fx.node import Argument


def operator_of(node: Node) -> str:
    """`conv2d` for torch.ops.aten.conv2d.default; empty for what is no operator."""
    return operator_name(node.target) if node.op == "call_function" else ""


def operator_name(target: object) -> str:
    text = str(target)
    return text.split(".")[1] if text.startswith("aten.") else getattr(target, "__name__", "")


def argument(node: Node, place: int, name: str, default: object = None) -> Any:
    """An argument by its place or its name, or the operator's default; torch's schema says its type."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def shape_of(node: Argument) -> torch.Size:
    """The shape that export saw at a node."""
    assert isinstance(node, Node)
    shape: torch.Size = node.meta["val"].shape
    return shape
