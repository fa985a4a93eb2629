"""LiteRT: the package ai-edge-litert."""

from __future__ import annotations

from typing import Any, Callable

from edgeloop_agent.engines.interpreter import TfliteInterpreter


class LiteRt(TfliteInterpreter):
    name = "litert"
    package = "ai-edge-litert"

    @staticmethod
    def import_runtime() -> tuple[Callable[..., Any], Callable[..., Any]]:
        from ai_edge_litert.interpreter import Interpreter, load_delegate

        return Interpreter, load_delegate
