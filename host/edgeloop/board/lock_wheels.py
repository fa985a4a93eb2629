"""Refresh the lock of wheels: `python -m edgeloop.board.lock_wheels` downloads each one, hashes it, writes the file.

Run it where an index can be reached, after changing a version in an engine's row or below; about 500 MB come down.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgeloop.board.wheels import DOWNLOAD_DEADLINE_S, NUMPY
from edgeloop.engines.registry import ENGINES, Wheel

PYTHONS = ("3.9", "3.10", "3.11", "3.12", "3.13", "3.14")
MACHINES = ("aarch64", "armv7l", "x86_64")
# numpy 1.26 is the last that tflite-runtime works with; litert runs beside it as well, so one folder serves both.
NUMPY_VERSIONS = {**dict.fromkeys(("3.9", "3.10", "3.11", "3.12"), "1.26.4"), "3.13": "2.3.5", "3.14": "2.3.5"}
PLATFORMS = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 40)))
HEAD = """\
# The wheels that boards are given, by hash. Written by: python -m edgeloop.board.lock_wheels
"""


def useful_wheels() -> Iterator[tuple[Wheel, str, str]]:
    """Yield each wheel that would be useful, with its Python and its machine."""
    for machine in MACHINES:
        for python in PYTHONS:
            yield Wheel(NUMPY, NUMPY_VERSIONS[python]), python, machine
            for row in ENGINES.values():
                for wheel in row.wheels:
                    yield wheel, python, machine


def fetch(wheel: Wheel, python: str, machine: str, folder: Path) -> Path | None:
    """Download one wheel, or return None where none exists."""
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    argv += ["--disable-pip-version-check", "--implementation", "cp", "--python-version", python]
    argv += [part for platform in PLATFORMS for part in ("--platform", f"{platform}_{machine}")]
    process = subprocess.run(
        [*argv, "--dest", str(folder), f"{wheel.distribution}=={wheel.version}"],
        capture_output=True,
        text=True,
        timeout=DOWNLOAD_DEADLINE_S,
        check=False,
    )
    if process.returncode != 0 and "No matching distribution" not in process.stderr:
        raise SystemExit(process.stderr)
    return next(folder.glob("*.whl"), None)


def glibc_of(file: str) -> tuple[int, int]:
    """The oldest glibc among a wheel's platform tags; manylinux2014 is 2.17, and so is any platform."""
    versions = [(int(major), int(minor)) for major, minor in re.findall(r"manylinux_(\d+)_(\d+)_", file)]
    return min([*versions, *([(2, 17)] if "manylinux2014" in file else [])], default=(2, 17))


def main() -> None:
    blocks: list[str] = []
    for wheel, python, machine in useful_wheels():
        with tempfile.TemporaryDirectory() as folder:
            path = fetch(wheel, python, machine, Path(folder))
            if path is None:
                sys.stderr.write(f"none: {wheel.distribution} {wheel.version} for Python {python} on {machine}\n")
                continue
            raw = path.read_bytes()
            blocks.append(
                f'\n[[wheel]]\ndistribution = "{wheel.distribution}"\nversion = "{wheel.version}"\n'
                f'python = "cp{python.replace(".", "")}"\nmachine = "{machine}"\nglibc = {list(glibc_of(path.name))}\n'
                f'file = "{path.name}"\nsha256 = "{hashlib.sha256(raw).hexdigest()}"\nbytes = {len(raw)}\n'
                + (f"members = {list(wheel.members)}\n".replace("'", '"') if wheel.members else "")
            )
    Path(__file__).with_name("wheels.lock.toml").write_text(HEAD + "".join(blocks), encoding="utf-8")


if __name__ == "__main__":
    main()
