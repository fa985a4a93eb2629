"""This host: Python, toolchains and their versions against what edgeloop asks for, disk, programs.

Nothing heavy is imported: versions come from what the installer recorded, so a broken toolchain can't break this.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from platformdirs import user_cache_path

from edgeloop.board.virtual import needs
from edgeloop.core.check import Check, note, ok, wrong
from edgeloop.engines.registry import DEFAULT, ENGINES
from edgeloop.sentences import command_line

_TRAIN = "train"
_EXTRAS = {
    _TRAIN: "training",
    "tensorflow": "Keras and SavedModel references",
    "onnx": "ONNX files, compiled by TVM",
    "search": "Optuna as the strategy",
    "ray": "fan-out over several hosts",
}
"""Beside those of the engines."""
_PROGRAMS = {
    "ssh": "logging in by hand; edgeloop itself does not use it",
    "ssh-keygen": "making keys and reading fingerprints: apt-get install openssh-client",
    "sshd": "only edgeloop's own tests: apt-get install openssh-server",
    "scp": "only the comparison in make bench: apt-get install openssh-client",
}
_DISK_MIB_MIN = 2048

VersionOf = Callable[[str], str | None]
"""Gives the version of an installed distribution, or None."""


def version_here(distribution: str) -> str | None:
    """Return the version that is installed on this host."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def host_checks(folder: Path) -> list[Check]:
    """Look at this host. `folder` is where runs would be written."""
    requirements = importlib.metadata.requires("edgeloop") or []
    return [
        *interpreter_checks(),
        *package_checks(requirements, version_here),
        *pair_checks(version_here),
        *program_checks(),
        *virtual_board_checks(),
        *disk_checks(folder),
    ]


def interpreter_checks() -> Iterator[Check]:
    yield ok("python", f"{platform.python_version()} ({sys.executable})", "3.11 or newer")
    if importlib.util.find_spec("pip") is None:
        step = f"{sys.executable} -m ensurepip; boards get their runtimes through pip's download"
        yield note("pip", "not in this environment", step)
    else:
        yield ok("pip", version_here("pip") or "found")
    yield ok("machine", f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores")


def package_checks(requirements: list[str], version_of: VersionOf) -> Iterator[Check]:
    """Compare the packages that edgeloop asks for with those that are there, the base install first, then extras."""
    items = [Requirement(text) for text in requirements]
    of_engines = {row.extra: row.purpose for row in ENGINES.values() if row.extra is not None}
    purposes = {_TRAIN: _EXTRAS[_TRAIN], **of_engines, **_EXTRAS}
    yield _check_of_extra("", "", items, version_of)
    for extra, purpose in purposes.items():
        yield _check_of_extra(extra, purpose, items, version_of)


def _check_of_extra(extra: str, purpose: str, items: list[Requirement], version_of: VersionOf) -> Check:
    """The packages of one extra; of the base install for ""."""
    name = f"extra {extra}" if extra else "base install"
    command = f"pip install 'edgeloop[{extra}]'" if extra else "pip install --force-reinstall edgeloop"
    versions = [(item, version_of(item.name)) for item in items if _belongs(item, extra)]
    absent = [item.name for item, version in versions if version is None]
    unfit = [
        f"{item.name} {version} (wanted {item.specifier})"
        for item, version in versions
        if version is not None and not item.specifier.contains(version, prereleases=True)
    ]
    if unfit:
        return wrong(name, ", ".join(unfit), command)
    if absent and not extra:
        return wrong(name, f"missing: {', '.join(absent)}", command)
    if absent:
        return note(name, f"missing: {', '.join(absent)}", f"for {purpose}: {command}")
    return ok(name, ", ".join(f"{item.name} {version}" for item, version in versions))


def pair_checks(version_of: VersionOf) -> Iterator[Check]:
    """Combinations that install without complaint and then crash, or cost gigabytes for nothing."""
    for bad in (bad for row in ENGINES.values() for bad in row.bad_versions):
        if version_of(bad.distribution) == bad.version:
            yield wrong(bad.distribution, f"{bad.version} {bad.problem}", bad.next_step)
    numpy = version_of("numpy")
    for row in ENGINES.values():
        package = row.wheels[0].distribution if row.wheels else None
        if numpy is None or row.numpy_below is None or package is None or version_of(package) is None:
            continue
        if int(numpy.partition(".")[0]) >= row.numpy_below:
            step = f"pip uninstall {package}: the engine {DEFAULT.name} is in the base install"
            yield wrong(package, f"crashes beside numpy {numpy}; it needs numpy below {row.numpy_below}", step)
    torch = importlib.util.find_spec("torch") if version_of("torch") else None
    if torch is not None and torch.origin is not None:
        cuda = (Path(torch.origin).parent / "lib" / "libtorch_cuda.so").exists()
        build = f"{version_of('torch')}, {'a CUDA build' if cuda else 'a CPU build'}"
        if cuda:
            yield note("torch", build, "a CPU build is enough for small networks and takes several GB less")
        else:
            yield ok("torch", build)


def program_checks() -> Iterator[Check]:
    for program, use in _PROGRAMS.items():
        path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/sbin")
        yield ok(program, path) if path else note(program, "not found", f"for {use}")


def virtual_board_checks() -> Iterator[Check]:
    """The programs that virtual boards need of this host."""
    for need in needs.ALL:
        path = needs.find(need.program)
        step = f"for {need.use}: apt-get install {need.package}"
        yield ok(need.program, path) if path else note(need.program, "not found", step)


def disk_checks(folder: Path) -> Iterator[Check]:
    for name, place in (("disk for runs", folder), ("disk for wheels", user_cache_path("edgeloop"))):
        nearest = next(path for path in (place.absolute(), *place.absolute().parents) if path.is_dir())
        free_mib = shutil.disk_usage(nearest).free >> 20
        free, least = f"{free_mib} MiB free at {place}", f"{_DISK_MIB_MIN} MiB"
        if free_mib < _DISK_MIB_MIN:
            step = f"make room there, or give `{command_line('run', out=True)}` another folder"
            yield note(name, free, step, least)
        else:
            yield ok(name, free, least)


def _belongs(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return not extra
    in_base = requirement.marker.evaluate({"extra": ""})
    return in_base if not extra else not in_base and requirement.marker.evaluate({"extra": extra})
