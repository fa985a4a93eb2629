"""Inference runtimes behind one thin face. Only modules in here import a runtime, and only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop_agent import wire

if TYPE_CHECKING:
    from edgeloop_agent.engines.interpreter import Engine


def load_engine(name: str) -> Engine:
    """Import a runtime. Raises ImportError where the board has none, or one that can't be loaded."""
    if name == "litert":
        from edgeloop_agent.engines.litert import LiteRt

        return LiteRt()
    if name == "tflite-runtime":
        from edgeloop_agent.engines.tflite_runtime import TfliteRuntime

        return TfliteRuntime()
    if name == "tvm":
        from edgeloop_agent.engines.tvm import Tvm

        return Tvm()
    raise ImportError("no engine is called %s; there are %s" % (name[:40], ", ".join(wire.ENGINES)))
