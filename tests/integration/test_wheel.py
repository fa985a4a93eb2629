"""The built wheel, in an environment of its own: no torch, board models found, a model measured."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "tests" / "data" / "tiny_float.tflite"


def _run(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_board_models_templates_and_the_agent(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "edgeloop/targets/raspberry-pi-4.toml",
        "edgeloop/config/starter.toml",
        "edgeloop/board/wheels.lock.toml",
        "edgeloop/py.typed",
        "edgeloop_agent/__main__.py",
    ):
        assert wanted in names


def test_a_fresh_environment_measures_a_model_without_torch(wheel: Path, tmp_path: Path) -> None:
    _run(sys.executable, "-m", "venv", "env", cwd=tmp_path)
    python, edgeloop = tmp_path / "env/bin/python", tmp_path / "env/bin/edgeloop"
    _run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    has_torch = _run(python, "-c", "import importlib.util as u; print(u.find_spec('torch'))", cwd=tmp_path).stdout
    assert has_torch.strip() == "None"
    assert (
        "raspberry-pi-4"
        in _run(
            python, "-c", "from edgeloop.config.board_models import model_names; print(model_names())", cwd=tmp_path
        ).stdout
    )
    done = _run(edgeloop, "measure", MODEL, "--target", "local", "--profile", "quick", "--json", cwd=tmp_path)
    document = json.loads(done.stdout)
    assert document["latency_ns"]["p50"] > 0
    assert document["model"]["deployed_bytes"] == MODEL.stat().st_size
    # Bytecode is Python's own doing, pip and setuptools came with the environment.
    own = [
        path
        for path in (tmp_path / "env/lib").rglob("*")
        if path.is_file() and not {"__pycache__", "pip", "setuptools"} & set(path.parts)
    ]
    assert sum(path.stat().st_size for path in own) < 300e6
    lacks = subprocess.run(
        [edgeloop, "run", ROOT / "docs/examples/fashion-mnist.toml", "--out", tmp_path / "run"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert lacks.returncode == 2
    assert (
        lacks.stderr.strip()
        == "edgeloop: edgeloop run needs the package torch, which is not installed; pip install 'edgeloop[train]'"
    )
