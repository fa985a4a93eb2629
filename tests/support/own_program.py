"""The example of the engine `exec`, built in a folder of a test's own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).parents[2] / "docs/examples/exec"


def example(folder: Path) -> Path:
    """Copy the example there, with weights and samples."""
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("net", "*.bin", "*.npz"))
    subprocess.run([sys.executable, str(folder / "make_net.py")], check=True, timeout=60)
    return folder


def build_here(folder: Path) -> None:
    """Build net.cpp for this machine, with its own compiler where it has one: that is quicker."""
    own = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    compiler = [own] if own else [sys.executable, "-m", "ziglang", "c++"]
    subprocess.run([*compiler, "-O2", "-Wall", "-Wextra", "-Werror", "net.cpp", "-o", "net"], cwd=folder, check=True)


def cross_build(folder: Path, target: str) -> None:
    """Build net.cpp by the very command that the example's page gives for this target."""
    (line,) = re.findall(rf"^python (-m ziglang .*{target} [^#\n]*)", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    # zig builds a C++ library for each target once, in minutes: the user's cache keeps it, wherever a test's own is.
    env = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(Path.home() / ".cache/zig")}
    subprocess.run([sys.executable, *shlex.split(line)], cwd=folder, check=True, timeout=1200, env=env)


def scores(folder: Path) -> np.ndarray:
    """What the network gives for its samples, computed here in float64: (samples, 10)."""
    values = np.fromfile(folder / "net.bin", "<f4").astype(float)
    w1, b1, w2, b2 = np.split(values, np.cumsum([256 * 64, 64, 64 * 10]))
    x = np.load(folder / "net.npz")["x"].astype(float)
    return np.maximum(x @ w1.reshape(256, 64) + b1, 0) @ w2.reshape(64, 10) + b2
