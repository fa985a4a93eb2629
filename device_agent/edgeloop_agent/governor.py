"""Setting the frequency governor where we may, reading it back, and putting it back, also after a crash.

Before a core's governor is touched, its name is in a journal in the state folder; whoever comes next puts back what a
killed supervisor changed. A governor that somebody else set meanwhile is theirs and stays. A journal of another boot is
void: the kernel starts with its own governor.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Iterable, Optional

from edgeloop_agent import folder, processor, wire
from edgeloop_agent.errors import AgentError
from edgeloop_agent.root import Root

JOURNAL = "governor.json"
AS_FOUND = "as-found"


def set_governor(state: Path, root: Root, name: str, cores: Iterable[int]) -> dict[str, Any]:
    """Ask for a governor on the cores; return {asked, set, available, detail}. `set` is None where none was asked."""
    cores = list(cores)
    available = processor.governors_available(root, cores)
    if name == AS_FOUND:
        return {"asked": name, "set": None, "available": available, "detail": ""}
    before = processor.governors(root, cores)
    change = {core: old for core, old in before.items() if old != name}
    detail = "" if before else "this board has no frequency governor that can be read"
    if before and available and name not in available:
        detail = "it is not among those that the board offers: %s" % ", ".join(available)
    elif change:
        with folder.hold_lock(state / JOURNAL) as fd:
            journal = {"boot_id": folder.boot_id(), "set": name, "governor": change}
            folder.rewrite(fd, json.dumps(journal).encode())
        for core in change:
            problem = _write(processor.governor_path(root, int(core)), name)
            detail = detail or (problem or "")
    now = processor.governors(root, cores)
    is_set = bool(now) and set(now.values()) == {name} and len(now) == len(cores)
    if before and not is_set and not detail:
        detail = "it reads back as %s" % ", ".join(sorted(set(now.values())) or ["nothing"])
    return {"asked": name, "set": is_set, "available": available, "detail": detail}


def restore_governor(state: Path, root: Root) -> Optional[str]:
    """Put back what the journal says, if it is of this boot. Return one line where that failed."""
    raw = folder.read_bounded(state / JOURNAL, 1 << 16)
    if not raw:
        return None
    problem = None
    with contextlib.suppress(wire.WireError, KeyError, TypeError, ValueError):
        journal = wire.load_json(raw)
        entries = dict(journal["governor"]) if journal["boot_id"] == folder.boot_id() else {}
        for core, name in entries.items():
            if processor.governors(root, [int(core)]).get(core) == journal["set"]:
                problem = _write(processor.governor_path(root, int(core)), str(name)) or problem
    if problem is None:
        with contextlib.suppress(OSError), folder.hold_lock(state / JOURNAL) as fd:
            folder.rewrite(fd, b"")
    return problem


def restore_left_behind(state: Path, root: Root) -> None:
    """Restore the governor that a killed supervisor left, unless somebody measures: for commands that pass by."""
    with contextlib.suppress(OSError, AgentError):
        if not (state / JOURNAL).stat().st_size:
            return
        lock = folder.open_shared(state / wire.LOCK_FILE)
        try:
            if folder.try_lock(lock):
                restore_governor(state, root)
        finally:
            os.close(lock)


def _write(path: Path, name: str) -> Optional[str]:
    try:
        path.write_text(name)
    except OSError as error:
        return "%s can't be set: %s" % (path, error.strerror)
    return None
