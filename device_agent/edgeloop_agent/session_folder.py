"""The working folder of one session: what the supervisor writes into it, and what the session answers there.

The supervisor reads it too, so nothing here needs numpy.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from edgeloop_agent import folder, wire

ARGS_FILE = "args.json"
RESULT_FILE = "result.json"
PROGRAM_PID_FILE = "program.pid"
"""The process id of a program that the session runs: what it takes is no foreign load."""
PROFILE = "profile"
TUNE = "tune"
SOAK = "soak"
"""The kind of a process that heats the board as the latency sessions do, until it is killed; never recorded."""


@dataclass
class UserCode:
    """The user's pipeline: a file, a class in it, and its name for people."""

    path: str
    class_name: str
    label: str


@dataclass
class Arguments:
    """args.json: everything resolved by the supervisor."""

    kind: str
    engine: str
    model: str
    threads: int
    inputs: list[str]
    outputs: list[str]
    data: Optional[str]
    pipeline: Optional[UserCode]
    parts: Optional[str]
    python_path: list[str]
    plan: wire.SessionPlan
    seed: int
    parent: int
    shapes: Optional[list[list[int]]] = None
    """The shapes that the inputs are resized to; None: the file's own."""
    delegate: Optional[wire.WireDelegate] = None


def write_arguments(work: Path, arguments: Arguments) -> None:
    """Write args.json."""
    (work / ARGS_FILE).write_text(json.dumps(asdict(arguments)))


def read_arguments(work: Path) -> Arguments:
    """Read args.json."""
    raw = json.loads((work / ARGS_FILE).read_bytes())
    code = raw["pipeline"] and UserCode(**raw["pipeline"])
    delegate = raw["delegate"] and wire.WireDelegate(**raw["delegate"])
    plan = wire.SessionPlan(**raw["plan"])
    return Arguments(**{**raw, "plan": plan, "pipeline": code, "delegate": delegate})


def write_result(work: Path, result: dict[str, Any], *, final: bool = True) -> None:
    """Write result.json. `final=False`: what is known so far, kept in case that the process dies before its end."""
    raw = json.dumps({**result, "final": final}, allow_nan=False).encode()
    wire.write_atomically(work / RESULT_FILE, raw, durable=False)


def read_result(work: Path) -> dict[str, Any]:
    """Read result.json; empty where there is none that makes sense."""
    try:
        result = wire.load_json(folder.read_bounded(work / RESULT_FILE) or b"")
    except wire.WireError:
        return {}
    return result if isinstance(result, dict) else {}
