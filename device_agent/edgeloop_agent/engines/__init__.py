"""The engines of the agent, one row each. Only modules in here import a runtime, and only when it is asked for.

Another engine is a module with a class of `base.Engine`, mostly by way of `base.InProcessEngine`, and a row here.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from edgeloop_agent.engines.base import Engine


@dataclass(frozen=True)
class EngineEntry:
    """One engine: where it is, and what it can."""

    name: str
    """As in a job."""
    module: str
    """In this package."""
    class_name: str
    session_kinds: tuple[str, ...]
    delegates: bool = False
    """It takes a TFLite delegate."""
    unpacks: bool = False
    """Its model is a .zip, unpacked under runtimes/ by its hash."""
    in_process: bool = True
    """The model runs in the session's process, call by call: the agent times it, and a pipeline may be around it."""


_TFLITE_KINDS = ("latency", "evaluate", "energy", "profile")

ENGINES = (
    EngineEntry("litert", "litert", "LiteRt", _TFLITE_KINDS, delegates=True),
    EngineEntry("tflite-runtime", "tflite_runtime", "TfliteRuntime", _TFLITE_KINDS, delegates=True),
    EngineEntry("tvm", "tvm", "Tvm", ("latency", "evaluate", "energy", "tune")),
    EngineEntry("exec", "program", "Program", ("latency", "evaluate"), unpacks=True, in_process=False),
)


def find_engine(name: str) -> Optional[EngineEntry]:
    """The row of an engine, None for a name that is none's."""
    return next((row for row in ENGINES if row.name == name), None)


def load_engine(name: str) -> Engine:
    """Import an engine. Raises ImportError where the board has no such runtime, or one that can't be loaded."""
    row = find_engine(name)
    if row is None:
        names = ", ".join(row.name for row in ENGINES)
        raise ImportError("no engine is called %s; there are %s" % (name[:40], names))
    module = importlib.import_module("%s.%s" % (__name__, row.module))
    engine: Engine = getattr(module, row.class_name)()
    return engine
