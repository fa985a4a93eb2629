"""The older tflite-runtime: no longer released, and the only one for 32-bit boards."""

from __future__ import annotations

from edgeloop_agent.engines.interpreter import Engine


class TfliteRuntime(Engine):
    name = "tflite-runtime"
    package = "tflite-runtime"

    def __init__(self) -> None:
        from tflite_runtime.interpreter import Interpreter, load_delegate

        super().__init__(Interpreter, load_delegate)
