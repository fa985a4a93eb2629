"""Each contract of imports in pyproject.toml catches a violation, and a module that stands in no layer is caught too.

The violations are planted in a copy. A contract that has none here fails the first test: plant one beside it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HOST, AGENT = "host/edgeloop", "device_agent/edgeloop_agent"
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]

VIOLATIONS = {
    "rooms import one way": (f"{HOST}/core/board.py", "import edgeloop.board.bench"),
    "what decides and what is recorded needs no torch, no paramiko, no runtime and no board": (
        f"{HOST}/records/samples.py",
        "import torch",
    ),
    "of the agent the host knows only the wire, and only the board room speaks it": (
        f"{HOST}/board/bench.py",
        "import edgeloop_agent.cache",
    ),
    "the agent stands alone: of what is installed beside it, it needs nothing but numpy": (
        f"{AGENT}/wire.py",
        "import pydantic",
    ),
    "the agent's modules import one way": (f"{AGENT}/wire.py", "import edgeloop_agent.job"),
    "of the agent's modules only engines import a runtime": (f"{AGENT}/session.py", "import tvm_ffi"),
}
"""By the contract's name: a file, and an import that has no place in it."""
MORE_VIOLATIONS = [
    (
        "of the agent the host knows only the wire, and only the board room speaks it",
        f"{HOST}/{file}",
        f"import {module}",
    )
    for file, module in (
        ("board/job.py", "edgeloop_agent.folder"),
        ("board/job.py", "edgeloop_agent.footprint"),
        ("board/job.py", "edgeloop_agent.power"),
        ("board/job.py", "edgeloop_agent.tune"),
        ("app/measure.py", "edgeloop_agent.wire"),
    )
] + [
    ("rooms import one way", f"{HOST}/search/space.py", "import edgeloop.testing.fakes.clock"),
    (
        "of the agent's modules only engines import a runtime",
        f"{AGENT}/profile.py",
        "import ai_edge_litert.interpreter",
    ),
    ("of the agent's modules only engines import a runtime", f"{AGENT}/supervise.py", "import tflite_runtime"),
]
"""Those that once passed unseen."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The packages and the contracts in a folder of their own."""
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for package in (HOST, AGENT):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=skip)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def broken_contracts(copy: Path) -> set[str]:
    """The names of the contracts that lint-imports reports as broken."""
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", script, "--no-cache"],
        cwd=copy,
        env={"PYTHONPATH": f"{copy / 'host'}:{copy / 'device_agent'}", "PATH": "", "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=False,
    )
    text = " ".join(done.stdout.split())
    assert "kept," in text, done.stdout + done.stderr
    return {contract["name"] for contract in CONTRACTS if f"{contract['name']} BROKEN" in text}


def test_each_contract_has_a_violation_planted_here() -> None:
    assert set(VIOLATIONS) == {contract["name"] for contract in CONTRACTS}


def test_the_sources_break_none(copy: Path) -> None:
    assert broken_contracts(copy) == set()


@pytest.mark.parametrize(
    ("name", "file", "line"),
    [*((name, *violation) for name, violation in VIOLATIONS.items()), *MORE_VIOLATIONS],
)
def test_a_violation_is_caught_by_its_contract(copy: Path, name: str, file: str, line: str) -> None:
    with (copy / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    assert name in broken_contracts(copy)


def a_module(folder: Path) -> None:
    (folder / "newcomer.py").write_text('"""Stands in no layer."""\n')


def a_package(folder: Path) -> None:
    (folder / "newcomer").mkdir()
    (folder / "newcomer/__init__.py").write_text('"""Stands in no layer."""\n')


@pytest.mark.parametrize("add", [a_module, a_package])
@pytest.mark.parametrize("container", ["edgeloop", "edgeloop_agent"])
def test_a_newcomer_that_stands_in_no_layer_is_caught(copy: Path, container: str, add: Callable[[Path], None]) -> None:
    add(copy / {"edgeloop": HOST, "edgeloop_agent": AGENT}[container])
    layers = {contract["name"] for contract in CONTRACTS if container in contract.get("containers", ())}
    assert layers
    assert broken_contracts(copy) == layers
