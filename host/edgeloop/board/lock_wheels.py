"""Refresh the lock of wheels: `python -m edgeloop.board.lock_wheels` downloads each one, hashes it, writes the file.

Run it where an index can be reached, after changing a version below; about 500 MB come down.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeloop.board.wheels import DOWNLOAD_DEADLINE_S

PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
MACHINES = ("aarch64", "armv7l", "x86_64")
# numpy 1.26 is the last that tflite-runtime works with; litert runs beside it as well, so one folder serves both.
NUMPY = {**dict.fromkeys(("3.9", "3.10", "3.11", "3.12"), "1.26.4"), "3.13": "2.3.5", "3.14": "2.3.5"}
TVM = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.14.post1", "typing-extensions": "4.16.0"}
MEMBERS = {
    "apache-tvm": ("tvm/lib/libtvm_runtime.so",),
    "apache-tvm-ffi": (
        "tvm_ffi/*.py",
        "tvm_ffi/*.so",
        "tvm_ffi/utils/*.py",
        "tvm_ffi/lib/libtvm_ffi.so",
        "*.dist-info/METADATA",
    ),
}
"""Of a wheel that is mostly a compiler, headers and tests, what a board needs."""
PLATFORMS = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 40)))
HEAD = """\
# The wheels that boards are given, by hash. Written by: python -m edgeloop.board.lock_wheels
"""


def wanted() -> Iterator[tuple[str, str, str, str]]:
    """Yield distribution, version, Python and machine of each wheel that would be useful."""
    for machine in MACHINES:
        for python in PYTHONS:
            yield "ai-edge-litert", "2.3.0", python, machine
            yield "tflite-runtime", "2.14.0", python, machine
            yield "numpy", NUMPY[python], python, machine
            for distribution, version in TVM.items():
                yield distribution, version, python, machine


def fetch(distribution: str, version: str, python: str, machine: str, folder: Path) -> Path | None:
    """Download one wheel, or return None where none exists."""
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    argv += ["--disable-pip-version-check", "--implementation", "cp", "--python-version", python]
    argv += [part for platform in PLATFORMS for part in ("--platform", f"{platform}_{machine}")]
    done = subprocess.run(
        [*argv, "--dest", str(folder), f"{distribution}=={version}"],
        capture_output=True,
        text=True,
        timeout=DOWNLOAD_DEADLINE_S,
        check=False,
    )
    if done.returncode != 0 and "No matching distribution" not in done.stderr:
        raise SystemExit(done.stderr)
    return next(folder.glob("*.whl"), None)


def glibc_of(file: str) -> tuple[int, int]:
    """The oldest glibc among a wheel's platform tags; manylinux2014 is 2.17, and so is any platform."""
    found = [(int(major), int(minor)) for major, minor in re.findall(r"manylinux_(\d+)_(\d+)_", file)]
    return min([*found, *([(2, 17)] if "manylinux2014" in file else [])], default=(2, 17))


def main() -> None:
    blocks: list[str] = []
    for distribution, version, python, machine in wanted():
        with tempfile.TemporaryDirectory() as folder:
            path = fetch(distribution, version, python, machine, Path(folder))
            if path is None:
                sys.stderr.write(f"none: {distribution} {version} for Python {python} on {machine}\n")
                continue
            raw = path.read_bytes()
            blocks.append(
                f'\n[[wheel]]\ndistribution = "{distribution}"\nversion = "{version}"\n'
                f'python = "cp{python.replace(".", "")}"\nmachine = "{machine}"\nglibc = {list(glibc_of(path.name))}\n'
                f'file = "{path.name}"\nsha256 = "{hashlib.sha256(raw).hexdigest()}"\nbytes = {len(raw)}\n'
                + (f"members = {list(MEMBERS[distribution])}\n".replace("'", '"') if distribution in MEMBERS else "")
            )
    Path(__file__).with_name("wheels.lock.toml").write_text(HEAD + "".join(blocks), encoding="utf-8")


if __name__ == "__main__":
    main()
