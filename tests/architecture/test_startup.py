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
        "import edgeloop.app.measure\n"
        "print([name for name in ('torch', 'tensorflow', 'tvm', 'litert_torch', 'optuna') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_imports_nothing_heavy_and_every_public_name_is_there() -> None:
    program = (
        "import sys, edgeloop\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])\n"
        "print('MISSING', [name for name in edgeloop.__all__ if not hasattr(edgeloop, name)])\n"
        "print('DIR', sorted(dir(edgeloop)) == sorted(edgeloop.__all__))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["LOADED []", "MISSING []", "DIR True"]


def test_measure_is_the_function_before_and_after_every_room_was_imported() -> None:
    program = (
        "import inspect, pickle, edgeloop\n"
        "first = edgeloop.measure\n"
        "import edgeloop.analysis.statistics, edgeloop.analysis.verdict, edgeloop.app.measure\n"
        "assert edgeloop.measure is first and inspect.isfunction(first)\n"
        "assert pickle.loads(pickle.dumps(edgeloop.measure)) is first\n"
        "try:\n    edgeloop.measure('no.tflite', 'local')\n"
        "except edgeloop.EdgeloopError as error:\n    print(error.lines()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "no.tflite" in done.stdout


def test_what_the_command_can_ask_of_a_measurement_python_can_too() -> None:
    program = (
        "import dataclasses, inspect\n"
        "from edgeloop.app.measure import MeasureOptions, measure\n"
        "asked = {field.name for field in dataclasses.fields(MeasureOptions)}\n"
        "print(sorted(asked ^ set(inspect.signature(measure).parameters)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['watch']"
