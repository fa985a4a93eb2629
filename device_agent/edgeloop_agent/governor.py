"""Setting the frequency governor where we may, reading it back, and putting it back, also after a crash.

Before a core's governor is touched, what it was is in a journal in the state folder; whoever starts next restores
what a killed supervisor left. A journal of another boot is void: the kernel starts with its own governor.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Iterable, Optional

from edgeloop_agent import folder, wire
from edgeloop_agent.conditions import Board

JOURNAL = "governor.json"
AS_FOUND = "as-found"


def set_governor(state: Path, board: Board, name: str, cores: Iterable[int]) -> dict[str, Any]:
    """Ask for a governor on the cores; return {asked, set, detail}. `set` is None where nothing was asked."""
    if name == AS_FOUND:
        return {"asked": name, "set": None, "detail": ""}
    cores = list(cores)
    found = board.governors(cores)
    change = {core: old for core, old in found.items() if old != name}
    detail = "" if found else "this board has no frequency governor that can be read"
    if change:
        with folder.locked(state / JOURNAL) as fd:
            folder.rewrite(fd, json.dumps({"boot_id": folder.boot_id(), "governor": change}).encode())
        for core in change:
            problem = _write(board.governor_path(int(core)), name)
            detail = detail or (problem or "")
    now = board.governors(cores)
    done = bool(now) and set(now.values()) == {name} and len(now) == len(cores)
    if found and not done and not detail:
        detail = "it reads back as %s" % ", ".join(sorted(set(now.values())) or ["nothing"])
    return {"asked": name, "set": done, "detail": detail}


def restore_governor(state: Path, board: Board) -> Optional[str]:
    """Put back what the journal says, if it is of this boot. Return one line where that failed."""
    raw = folder.read_bounded(state / JOURNAL, 1 << 16)
    if not raw:
        return None
    problem = None
    try:
        journal = wire.load_json(raw)
        entries = dict(journal["governor"]) if journal["boot_id"] == folder.boot_id() else {}
        for core, name in entries.items():
            path = board.governor_path(int(core))
            if board.governors([int(core)]).get(core) != name:
                problem = _write(path, str(name)) or problem
    except (wire.WireError, KeyError, TypeError, ValueError):
        entries = {}
    if problem is None:
        with contextlib.suppress(OSError), folder.locked(state / JOURNAL) as fd:
            folder.rewrite(fd, b"")
    return problem


def _write(path: Path, name: str) -> Optional[str]:
    try:
        path.write_text(name)
    except OSError as error:
        return "%s can't be set: %s" % (path, error.strerror)
    return None
