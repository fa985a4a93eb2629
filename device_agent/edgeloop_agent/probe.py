"""The board as it describes itself, for the host to choose wheels, to know the board, and to advise its user.

The interpreter is asked, not the kernel: a 32-bit system may run a 64-bit kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any, Optional, Sequence

from edgeloop_agent import conditions, folder, power, wire
from edgeloop_agent.root import Root
from edgeloop_agent.text import kind_and_line

_IMPORT_TIMEOUT_S = 120.0
_WHO_TIMEOUT_S = 2.0
_32_BIT_NAMES = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}


def probe(
    state_dir: str,
    python_path: list[str],
    engines: list[str],
    power_sensor: Optional[str] = None,
    libraries: Sequence[str] = (),
    root: Path = Path("/"),
) -> dict[str, Any]:
    """Return the board's description, as docs/reference/agent.md lists it. Nothing in it needs numpy."""
    board = conditions.ConditionProbe(Root(root))
    board.sample([os.getpid()])
    checks = {name: _check_import(name, python_path) for name in engines}
    numpy = _check_import("numpy", python_path)
    return {
        **interpreter(),
        "os": os_release(root),
        "kernel": platform.release(),
        "model": _first(root, "proc/device-tree/model", "sys/class/dmi/id/product_name"),
        "serial": _serial(root),
        "memory_bytes": board.memory_bytes("MemTotal"),
        "mem_available_bytes": board.memory_bytes("MemAvailable"),
        "cores": conditions.allowed_cores(),
        "state_dir": _state_dir(state_dir),
        "boot_id": folder.boot_id(root),
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "boottime_ns": folder.boottime_ns(),
        "users": _users(),
        "numpy": numpy["version"],
        "numpy_error": numpy["error"],
        "engines": checks,
        "delegate_libraries": {name: _check_library(name) for name in libraries},
        "calibration_ns": conditions.calibration_ns(),
        "conditions": board.sample([os.getpid()], scan=True),
        "power": None if power_sensor is None else power.describe(power_sensor, root),
        "agent_schema": wire.SCHEMA,
    }


def interpreter() -> dict[str, Any]:
    """This interpreter, and the tags of wheels for it."""
    bits = struct.calcsize("P") * 8
    kernel_machine = platform.machine()
    machine = _32_BIT_NAMES.get(kernel_machine, kernel_machine) if bits == 32 else kernel_machine
    tag = "cp%d%d" % sys.version_info[:2]
    flags = ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "") + (
        "d" if hasattr(sys, "gettotalrefcount") else ""
    )
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "machine": machine,
        "kernel_machine": kernel_machine,
        "pointer_bits": bits,
        "platform": sysconfig.get_platform(),
        "multiarch": sysconfig.get_config_var("MULTIARCH"),
        "python_tag": tag,
        "abi_tag": tag + flags,
        "soabi": sysconfig.get_config_var("SOABI"),
        "glibc": _glibc(),
    }


def _glibc() -> Optional[str]:
    try:
        match = re.match(r"\Aglibc (\d+\.\d+)", os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, OSError):
        return None
    return match.group(1) if match else None


def os_release(root: Path) -> dict[str, str]:
    """The lines of /etc/os-release that name the system."""
    names = ("ID", "VERSION_ID", "VERSION_CODENAME", "PRETTY_NAME")
    release = {}
    for line in (_first(root, "etc/os-release", "usr/lib/os-release") or "").splitlines():
        key, _, value = line.partition("=")
        if key in names:
            release[key] = value.strip().strip("\"'")
    return release


def _first(root: Path, *paths: str) -> Optional[str]:
    for path in paths:
        with contextlib.suppress(OSError):
            text = (root / path).read_text(errors="replace").strip("\0\n\t ")
            if text:
                return text
    return None


def _serial(root: Path) -> Optional[str]:
    serial = _first(root, "proc/device-tree/serial-number")
    if serial is None:
        match = re.search(r"^Serial\s*:\s*(\w+)$", _first(root, "proc/cpuinfo") or "", re.MULTILINE)
        serial = match.group(1) if match else None
    return serial


def _state_dir(path: str) -> dict[str, Any]:
    """The state folder and any problem with it; nothing is made that was not there."""
    place = Path(os.path.abspath(path))
    exists = os.path.lexists(place)
    kind = folder.file_system(place)
    problem = folder.folder_problem(place) if exists else None
    if problem is None and exists:
        try:
            with tempfile.NamedTemporaryFile(dir=place, prefix=".probe"):
                pass
        except OSError as error:
            problem = "%s can't be written: %s" % (place, error.strerror)
    try:
        free: Optional[int] = folder.free_bytes(place)
    except OSError:
        free = None
    return {
        "path": str(place),
        "exists": exists,
        "writable": exists and problem is None,
        "filesystem": kind,
        "network": folder.is_network(kind),
        "free_bytes": free,
        "problem": problem,
    }


def _users() -> Optional[list[str]]:
    who = shutil.which("who")
    if who is None:
        return None
    try:
        run = subprocess.run([who], stdin=subprocess.DEVNULL, capture_output=True, timeout=_WHO_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return sorted({line.split()[0] for line in run.stdout.decode("utf-8", "replace").splitlines() if line.strip()})


def _check_import(engine: str, python_path: list[str]) -> dict[str, Any]:
    """Import an engine, or numpy, in a process of its own: a wheel for another processor dies there."""
    command = ["import-check", "--engine", engine]
    if python_path:
        command += ["--python-path", *python_path]
    answer = _apart(command, "importing it")
    return {"version": answer.get("version"), "error": answer["error"]}


def _check_library(library: str) -> dict[str, Any]:
    """Load a delegate's library in a process of its own, and start nothing of it."""
    return {"error": _apart(["library-check", "--library", library], "loading it")["error"]}


def _apart(command: list[str], what: str) -> dict[str, Any]:
    """The answer of a command of the agent's in a process of its own; `error` where that says nothing usable."""
    try:
        run = subprocess.run(
            [*folder.own_command(), *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_IMPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": "%s took more than %g s" % (what, _IMPORT_TIMEOUT_S)}
    if run.returncode < 0:
        return {"error": "%s died of signal %d" % (what, -run.returncode)}
    try:
        answer = json.loads(run.stdout)
        return {**answer, "error": answer["error"]}
    except (ValueError, KeyError, TypeError):
        lines = run.stderr.decode("utf-8", "replace").strip().splitlines()
        return {"error": (lines[-1] if lines else "no answer")[:300]}


def library_check(library: str) -> dict[str, Any]:
    """Load a delegate's library here; `error` is the line that says why it is none."""
    try:
        ctypes.CDLL(library).tflite_plugin_create_delegate  # noqa: B018 -- looking it up is the check
    except (OSError, AttributeError) as error:
        return {"error": str(error)[:300]}
    return {"error": None}


def import_check(engine: str, python_path: list[str]) -> dict[str, Any]:
    """Import one engine here and return its version, or the line that says why not."""
    sys.path[:0] = python_path
    try:
        if engine == "numpy":
            import numpy as np

            return {"version": np.__version__, "error": None}
        from edgeloop_agent import engines

        return {"version": engines.load_engine(engine).describe()["engine_version"], "error": None}
    except Exception as error:  # noqa: BLE001 -- a runtime that does not fit the board fails in any way; it is one line
        return {"version": None, "error": kind_and_line(error)[:300]}
