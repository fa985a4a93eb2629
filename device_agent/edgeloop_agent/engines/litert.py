"""LiteRT: the package ai-edge-litert."""

from __future__ import annotations

from edgeloop_agent.engines.interpreter import Engine


class LiteRt(Engine):
    name = "litert"
    package = "ai-edge-litert"

    def __init__(self) -> None:
        from ai_edge_litert.interpreter import Interpreter, load_delegate

        super().__init__(Interpreter, load_delegate)
