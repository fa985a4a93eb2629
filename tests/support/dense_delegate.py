"""The tests' own TFLite delegate, built by the machine's C compiler or zig's: a real one, for float dense layers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("dense_delegate.c")
COMPILER = Path(__file__).with_name("dense_compiler.py")


def build_delegate(folder: Path) -> Path:
    """Compile it into a folder; return the library."""
    library = folder / "libdense.so"
    compiler = [found] if (found := shutil.which("cc")) else [sys.executable, "-m", "ziglang", "cc"]
    words = [*compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return library


def board_file(folder: Path, library: Path, *delegates: str, name: str = "here") -> Path:
    """A board file for this machine that declares delegates, each a table's lines after its library."""
    path = folder / f"{name}.toml"
    tables = "".join(f'[[delegate]]\nlibrary = "{library}"\n{lines}\n' for lines in delegates)
    path.write_text(
        f'schema = 1\nname = "{name}"\nextends = "local"\n[runtime]\nstate_dir = "{folder / "state"}"\n{tables}'
    )
    return path
