"""Which inference runtime a board's interpreter can have, and the very wheels that bring it there.

The lock file beside this module names every wheel with its hash; `lock_wheels` refreshes it. A wheel comes to
the host's cache through pip once and is used offline from then on. Pushing and unpacking is left to the bench:
nothing here needs root, pip or the internet on the board.
"""

from __future__ import annotations

import fnmatch
import functools
import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from platformdirs import user_cache_path

from edgeloop.core.frozen import Frozen, key_of
from edgeloop.core.parse import validated
from edgeloop.errors import BoardError, LabError

ENGINE_DISTRIBUTIONS = {"litert": "ai-edge-litert", "tflite-runtime": "tflite-runtime", "tvm": "apache-tvm"}
"""The wheel that each engine is, or the most of it."""
BESIDE = {"tvm": ("apache-tvm-ffi", "typing-extensions")}
"""Wheels that an engine needs beside its own and numpy."""
NUMPY = "numpy"
EXEC = "exec"
"""The engine that is the user's own program, and no wheel."""
DOWNLOAD_DEADLINE_S = 900.0

Source = Literal["pushed", "system"]


class LockedWheel(Frozen):
    """One wheel file, exactly."""

    distribution: str
    version: str
    python: str
    """The interpreter tag it is for, `cp311`."""
    machine: Literal["aarch64", "armv7l", "x86_64"]
    glibc: tuple[int, int]
    """The oldest glibc it runs with."""
    file: str
    sha256: str
    bytes: int
    members: tuple[str, ...] = ()
    """Patterns of the files that a board needs of it; all where empty."""

    @property
    def runtime(self) -> str:
        """Its folder under runtimes/ on a board: known before anything is downloaded."""
        return key_of("runtime", self.sha256, self.members) if self.members else self.sha256


class WheelLock(Frozen):
    """wheels.lock.toml."""

    wheel: tuple[LockedWheel, ...]

    def find(self, distribution: str, python: str, machine: str) -> LockedWheel | None:
        """The wheel for an interpreter, or None."""
        wanted = (distribution, python, machine)
        return next((w for w in self.wheel if (w.distribution, w.python, w.machine) == wanted), None)

    def pythons(self, distribution: str, machine: str) -> list[str]:
        """Versions of Python that a distribution has wheels for, such as `3.11`, oldest first."""
        tags = {w.python for w in self.wheel if (w.distribution, w.machine) == (distribution, machine)}
        return [f"3.{minor}" for minor in sorted(int(tag.removeprefix("cp3")) for tag in tags)]

    def version(self, distribution: str) -> str:
        return next(w.version for w in self.wheel if w.distribution == distribution)


@functools.cache
def wheel_lock() -> WheelLock:
    """The lock that is shipped."""
    path = Path(__file__).with_name("wheels.lock.toml")
    return validated(WheelLock, tomllib.loads(path.read_text(encoding="utf-8")), str(path))


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python as it describes itself. The kernel is not asked: a 32-bit system can run a 64-bit one."""

    version: tuple[int, int]
    machine: str
    """aarch64 | armv7l | x86_64: what wheels for this interpreter are tagged with."""
    glibc: tuple[int, int] | None
    """None where its C library is another one."""
    implementation: str = "cpython"
    numpy: str | None = None
    """The version that is installed there, or None."""
    engines: tuple[str, ...] = ()
    """Engines that are installed there."""

    @property
    def tag(self) -> str:
        return f"cp{self.version[0]}{self.version[1]}"

    @property
    def shown(self) -> str:
        libc = "no glibc" if self.glibc is None else f"glibc {self.glibc[0]}.{self.glibc[1]}"
        return f"Python {self.version[0]}.{self.version[1]}, {self.machine}, {libc}"


@dataclass(frozen=True, slots=True)
class EngineSupport:
    """Whether an engine can run there, why (not), and what brings it."""

    engine: str
    usable: bool
    detail: str
    next_step: str | None = None
    wheels: tuple[LockedWheel, ...] = ()
    """What has to be pushed."""


@dataclass(frozen=True, slots=True)
class WheelSet:
    """Wheels in the host's cache. Each is pushed as `<its hash>.whl` and unpacked into a folder in runtimes/, so that
    engines share a numpy; those folders go on sys.path in this order. Empty: the board has everything itself."""

    paths: tuple[Path, ...] = ()
    sha256: tuple[str, ...] = ()
    runtimes: tuple[str, ...] = ()


Download = Callable[[LockedWheel, Path], None]
"""Put the wheel into a folder under its own file name. Raises LabError."""


def engine_support(interpreter: Interpreter, source: Source = "pushed") -> dict[str, EngineSupport]:
    """What each engine comes to on this interpreter."""
    judge = _pushed if source == "pushed" else _installed
    return {engine: judge(engine, interpreter) for engine in ENGINE_DISTRIBUTIONS}


def program_support(interpreter: Interpreter, source: Source = "pushed") -> EngineSupport:
    """Whether the user's own program can be measured on this interpreter: the agent needs numpy beside it, no more."""
    numpy = wheel_lock().find(NUMPY, interpreter.tag, interpreter.machine)
    ordinary = interpreter.implementation == "cpython" and interpreter.glibc is not None
    if source == "pushed" and ordinary and numpy is not None and (interpreter.glibc or (0, 0)) >= numpy.glibc:
        return _usable(EXEC, f"a program of your own; numpy {numpy.version} is pushed", (numpy,))
    return _beside_system_numpy(EXEC, interpreter, "a program of your own", ())


def wheels_for(
    facts: Mapping[str, Any],
    engines: Sequence[str],
    source: Source,
    *,
    cache: Path | None = None,
    download: Download | None = None,
) -> WheelSet:
    """Return the wheels that these engines need on the board that gave `facts`; none where it has them itself.

    Raises BoardError, naming everything that is missing, before anything is downloaded; LabError where a wheel
    can't be had.
    """
    interpreter = interpreter_of(facts)
    support = {**engine_support(interpreter, source), EXEC: program_support(interpreter, source)}
    refused = [support[engine] for engine in dict.fromkeys(engines) if not support[engine].usable]
    if refused:
        steps = list(dict.fromkeys(item.next_step for item in refused if item.next_step))
        raise BoardError(
            "; ".join(f"engine {item.engine}: {item.detail}" for item in refused), next_step="; or ".join(steps) or None
        )
    wanted = dict.fromkeys(wheel for engine in engines for wheel in support[engine].wheels)
    folder = cache if cache is not None else user_cache_path("edgeloop") / "wheels"
    paths = tuple(_for_board(wheel, cached_wheel(wheel, folder, download or pip_download)) for wheel in wanted)
    return WheelSet(
        paths,
        tuple(_sha256(path) if wheel.members else wheel.sha256 for wheel, path in zip(wanted, paths, strict=True)),
        tuple(wheel.runtime for wheel in wanted),
    )


def _for_board(wheel: LockedWheel, path: Path) -> Path:
    """What a board is given of a wheel, as a wheel of its own: of apache-tvm one library."""
    if not wheel.members:
        return path
    kept = path.with_name(f"board-{wheel.runtime[:16]}-{path.name}")
    if kept.is_file():
        return kept
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
        part = Path(folder) / kept.name
        with zipfile.ZipFile(path) as whole, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as sink:
            for name in sorted(whole.namelist()):
                if any(fnmatch.fnmatch(name, pattern) for pattern in wheel.members):
                    member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                    member.compress_type, member.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
                    sink.writestr(member, whole.read(name))
        return part.replace(kept)


def interpreter_of(facts: Mapping[str, Any]) -> Interpreter:
    """Read the agent's probe (docs/reference/agent.md). Raises BoardError where it says too little."""
    version, machine = _numbers(facts.get("python")), facts.get("machine")
    if version is None or not isinstance(machine, str):
        raise BoardError("the board does not say which Python it has", next_step="see edgeloop targets doctor")
    implementation = str(facts.get("implementation") or "cpython").lower()
    abi = facts.get("abi_tag")
    if abi and abi != f"cp{version[0]}{version[1]}":
        implementation = f"the build {abi}"  # free-threaded and debug builds load no ordinary wheel
    numpy, engines = facts.get("numpy"), facts.get("engines")
    return Interpreter(
        version=version,
        machine={"arm64": "aarch64"}.get(machine, machine),
        glibc=_numbers(facts.get("glibc")),
        implementation=implementation,
        numpy=numpy if isinstance(numpy, str) else None,
        engines=tuple(engine for engine in ENGINE_DISTRIBUTIONS if _imports(engines, engine)),
    )


def _imports(engines: Any, engine: str) -> bool:
    found = engines.get(engine) if isinstance(engines, dict) else None
    return isinstance(found, dict) and found.get("error") is None and found.get("version") is not None


def cached_wheel(wheel: LockedWheel, folder: Path, download: Download) -> Path:
    """The wheel's path in the cache, its hash checked against the lock; fetched where it is not there yet."""
    path = folder / wheel.file
    if path.is_file() and _sha256(path) == wheel.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as part:
        download(wheel, Path(part))
        arrived = Path(part) / wheel.file
        found = _sha256(arrived) if arrived.is_file() else "no file"
        if found != wheel.sha256:
            raise LabError(
                f"{wheel.file} has the hash {found}, the lock says {wheel.sha256}",
                next_step="something between here and the package index changes files; nothing was kept",
            )
        arrived.replace(path)
    return path


def pip_download(wheel: LockedWheel, folder: Path) -> None:
    """Fetch one wheel through this interpreter's pip and whatever index it is set up with."""
    *_, abi, platforms = wheel.file.removesuffix(".whl").split("-")
    python = wheel.python
    requirement = folder / "wanted.txt"
    requirement.write_text(f"{wheel.distribution}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    argv += ["--disable-pip-version-check", "--require-hashes", "--implementation", "cp"]
    argv += ["--python-version", f"{python[2]}.{python[3:]}", "--abi", abi]
    argv += [part for platform in platforms.split(".") for part in ("--platform", platform)]
    argv += ["--dest", str(folder), "--requirement", str(requirement)]
    where = (
        f"download {wheel.distribution} {wheel.version} on another machine and put {wheel.file} into {folder.parent}"
    )
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=DOWNLOAD_DEADLINE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{wheel.file}: not downloaded within {DOWNLOAD_DEADLINE_S:g} s", next_step=where) from error
    if "No module named pip" in done.stderr:
        raise LabError(f"{sys.executable} has no pip to download {wheel.file} with", next_step=where)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        why = errors[-1].removeprefix("ERROR: ")[:300] if errors else f"pip ended with {done.returncode}"
        raise LabError(f"{wheel.file} could not be downloaded: {why}", next_step=f"connect this machine, or {where}")


def _pushed(engine: str, interpreter: Interpreter) -> EngineSupport:
    lock = wheel_lock()
    distribution = ENGINE_DISTRIBUTIONS[engine]
    full = f"{distribution} {lock.version(distribution)}"
    this = f"this is {interpreter.shown}"
    if interpreter.implementation != "cpython":
        return _unusable(engine, f"{full} needs CPython, not {interpreter.implementation}", _OTHER_PYTHON)
    wheel = lock.find(distribution, interpreter.tag, interpreter.machine)
    if wheel is None:
        pythons = lock.pythons(distribution, interpreter.machine)
        if not pythons:
            return _unusable(engine, f"{full} has no wheel for {interpreter.machine}", _OTHER_SYSTEM)
        span = f"{full} has wheels for Python {pythons[0]} to {pythons[-1]} on {interpreter.machine}"
        return _unusable(engine, f"{span}; {this}", _OTHER_PYTHON)
    numpy = lock.find(NUMPY, interpreter.tag, interpreter.machine)
    beside = [lock.find(name, interpreter.tag, interpreter.machine) for name in BESIDE.get(engine, ())]
    own = (wheel, *(item for item in beside if item is not None))
    needed = max(item.glibc for item in (*own, numpy) if item is not None)
    if interpreter.glibc is None or interpreter.glibc < needed:
        return _unusable(engine, f"{full} needs glibc {needed[0]}.{needed[1]}; {this}", _OTHER_SYSTEM)
    if numpy is not None:
        return _usable(engine, f"{full} and numpy {numpy.version} are pushed", (*own, numpy))
    # There is no numpy wheel for 32-bit ARM: the distribution's own is used.
    return _beside_system_numpy(engine, interpreter, f"{full} is pushed", own)


def _installed(engine: str, interpreter: Interpreter) -> EngineSupport:
    distribution = ENGINE_DISTRIBUTIONS[engine]
    if engine not in interpreter.engines:
        return _unusable(
            engine,
            f"{distribution} can't be imported by the board's Python ({interpreter.shown})",
            f'install {distribution} there, or have it pushed: runtime.source = "pushed" in the board\'s file',
        )
    return _beside_system_numpy(engine, interpreter, f"the installed {distribution} is used", ())


def _beside_system_numpy(
    engine: str, interpreter: Interpreter, detail: str, wheels: tuple[LockedWheel, ...]
) -> EngineSupport:
    if interpreter.numpy is None:
        return _unusable(
            engine,
            f"numpy is not installed for the board's Python ({interpreter.shown})",
            "install the system's numpy there: apt-get install python3-numpy",
        )
    if engine == "tflite-runtime" and not interpreter.numpy.startswith(("0.", "1.")):
        return _unusable(
            engine,
            f"tflite-runtime crashes beside numpy {interpreter.numpy}; it needs numpy below 2",
            "install 'numpy<2' for the board's Python, or use the engine litert",
        )
    return _usable(engine, f"{detail}, with the system's numpy {interpreter.numpy}", wheels)


def _usable(engine: str, detail: str, wheels: tuple[LockedWheel, ...]) -> EngineSupport:
    return EngineSupport(engine=engine, usable=True, detail=detail, wheels=wheels)


def _unusable(engine: str, detail: str, next_step: str) -> EngineSupport:
    return EngineSupport(engine=engine, usable=False, detail=detail, next_step=next_step)


_OTHER_PYTHON = "set runtime.python in the board's file to an interpreter that has wheels, or use the other engine"
_OTHER_SYSTEM = "use a newer 64-bit system on the board, or the other engine"


def known_systems() -> list[tuple[str, Interpreter]]:
    """Systems that boards commonly run, as their own Python describes them (numpy: the distribution's)."""
    return [
        ("Raspberry Pi OS Bullseye, 64 bit", Interpreter((3, 9), "aarch64", (2, 31), numpy="1.19.5")),
        ("Raspberry Pi OS Bookworm, 64 bit", Interpreter((3, 11), "aarch64", (2, 36), numpy="1.24.2")),
        ("Raspberry Pi OS Bookworm, 32 bit", Interpreter((3, 11), "armv7l", (2, 36), numpy="1.24.2")),
        ("Raspberry Pi OS Trixie, 64 bit", Interpreter((3, 13), "aarch64", (2, 41), numpy="2.2.4")),
        ("Raspberry Pi OS Trixie, 32 bit", Interpreter((3, 13), "armv7l", (2, 41), numpy="2.2.4")),
        ("Ubuntu 22.04, 64 bit", Interpreter((3, 10), "aarch64", (2, 35), numpy="1.21.5")),
        ("Ubuntu 24.04, 64 bit", Interpreter((3, 12), "aarch64", (2, 39), numpy="1.26.4")),
    ]


def _numbers(text: Any) -> tuple[int, int] | None:
    match = re.match(r"(\d{1,4})\.(\d{1,4})", text) if isinstance(text, str) else None
    return (int(match[1]), int(match[2])) if match else None


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
