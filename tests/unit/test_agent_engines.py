"""The agent's table of engines: each row is true of its class, and importing a class imports no runtime."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from edgeloop.engines.registry import ENGINES
from edgeloop_agent import engines, wire
from edgeloop_agent.engines.base import Engine, InProcessEngine

RUNTIMES = ("ai_edge_litert", "tflite_runtime", "tvm", "tvm_ffi")


def class_of(row: engines.EngineEntry) -> type[Engine]:
    module = importlib.import_module(f"edgeloop_agent.engines.{row.module}")
    kind: type[Engine] = getattr(module, row.class_name)
    return kind


def test_there_is_a_row_for_each_engine_that_the_host_names() -> None:
    assert {row.name for row in engines.ENGINES} == set(ENGINES)


@pytest.mark.parametrize("row", engines.ENGINES, ids=lambda row: row.name)
def test_a_row_is_true_of_its_class(row: engines.EngineEntry) -> None:
    kind = class_of(row)
    assert issubclass(kind, Engine)
    assert kind.name == row.name
    assert issubclass(kind, InProcessEngine) == row.in_process
    assert set(row.session_kinds) <= set(wire.STEP_KINDS)
    assert {"latency", "evaluate"} <= set(row.session_kinds)


@pytest.mark.parametrize("row", engines.ENGINES, ids=lambda row: row.name)
def test_importing_the_module_of_an_engine_imports_no_runtime(row: engines.EngineEntry) -> None:
    script = (
        f"import sys, edgeloop_agent.engines.{row.module}; print([name for name in {RUNTIMES} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_engine_that_is_none_is_named_beside_those_there_are() -> None:
    assert engines.find_engine("other") is None
    with pytest.raises(ImportError, match="no engine is called other; there are litert, tflite-runtime, tvm, exec"):
        engines.load_engine("other")
