"""The older tflite-runtime: no longer released, and the only one for 32-bit boards."""

from __future__ import annotations

from typing import Any, Callable

from edgeloop_agent.engines.interpreter import TfliteInterpreter


class TfliteRuntime(TfliteInterpreter):
    name = "tflite-runtime"
    package = "tflite-runtime"

    @staticmethod
    def import_runtime() -> tuple[Callable[..., Any], Callable[..., Any]]:
        from tflite_runtime.interpreter import Interpreter, load_delegate

        return Interpreter, load_delegate
