"""Start-up: `edgeloop --help` is quick because it imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "torch",
    "tensorflow",
    "tvm",
    "ai_edge_litert",
    "litert_torch",
    "scipy",
    "optuna",
    "paramiko",
    "numpy",
    "pydantic",
)


def test_help_imports_no_heavy_package() -> None:
    program = (
        "import sys; sys.argv = ['edgeloop', '--help']\n"
        "import edgeloop.__main__\n"
        "try:\n    edgeloop.__main__.main()\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "LOADED []" in done.stdout, done.stdout[-300:]
    assert "Usage: edgeloop" in done.stdout


def test_measuring_a_ready_model_imports_no_torch() -> None:
    program = (
        "import sys\n"
        "import edgeloop.bootstrap.measuring\n"
        "print([name for name in ('torch', 'tensorflow', 'tvm', 'litert_torch', 'optuna') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
