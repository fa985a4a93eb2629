"""The share of the measuring cores that others take, and their names; the harness is not foreign load."""

from __future__ import annotations

import os
import re
from typing import Callable, Iterable, Optional

from edgeloop_agent import ARCHIVE
from edgeloop_agent.root import Root
from edgeloop_agent.text import printable

CORE_LINE = re.compile(r"cpu(\d+) ")
_TOP = 5
_SCAN_FROM_PCT = 5.0  # under this, a look at every process costs more than it tells


class Load:
    """Differences between one look at /proc and the next.

    `cores` are the measuring ones, None: all. `footprint` gives the clock ticks so far of processes of ours that
    came and went.
    """

    def __init__(self, root: Root, cores: Optional[Iterable[int]], footprint: Callable[[], int]) -> None:
        self._root = root
        self._cores = None if cores is None else frozenset(cores)
        self._footprint = footprint
        self._stat: Optional[tuple[int, int, int]] = None
        self._processes: dict[int, tuple[str, int]] = {}

    def look(self, own: frozenset[int], beside: frozenset[int], *, scan: bool) -> tuple[Optional[float], list[str]]:
        """Return the share of time in percent that others took since the look before, and who took most.

        `own` are process ids of the harness on the measuring cores, `beside` those on other cores: neither they nor
        their children are foreign load. `scan` looks at every process, which is what names them; else that is done
        only where foreign load was seen.
        """
        before, now = self._stat, self._cpu_ticks(own)
        self._stat = now
        load = None
        if before is not None and now is not None and now[0] > before[0]:
            foreign = max(0, now[1] - before[1] - max(0, now[2] - before[2]))
            load = round(min(100.0, 100.0 * foreign / (now[0] - before[0])), 2)
        if scan or (load is not None and load > _SCAN_FROM_PCT):
            return load, self._scan(own | beside)
        return load, []

    def _cpu_ticks(self, own: frozenset[int]) -> Optional[tuple[int, int, int]]:
        """Return all, busy and own ticks so far, of the measuring cores."""
        everything = busy = 0
        for line in (self._root.content("proc/stat") or "").splitlines():
            core = CORE_LINE.match(line)
            if core is None or (self._cores is not None and int(core.group(1)) not in self._cores):
                continue
            ticks = [int(part) for part in line.split()[1:9] if part.isdigit()]
            everything += sum(ticks)
            busy += sum(ticks) - sum(ticks[3:5])  # idle and waiting for I/O
        if not everything:
            return None
        mine = (self._process(pid) for pid in own)
        return everything, busy, self._footprint() + sum(process[1] for process in mine if process is not None)

    def _process(self, pid: int) -> Optional[tuple[str, int, int, int]]:
        """Return name, ticks (children that ended included), parent and session of a process."""
        text = self._root.content("proc/%d/stat" % pid)
        if text is None:
            return None
        head, _, tail = text.rpartition(")")
        parts = tail.split()
        try:
            ticks = sum(int(part) for part in parts[11:15])
            return printable(head.partition("(")[2]), ticks, int(parts[1]), int(parts[3])
        except (ValueError, IndexError):
            return None

    def _scan(self, own: frozenset[int]) -> list[str]:
        processes = {}
        for pid in self._root.processes():
            process = self._process(pid)
            if process is not None and pid not in own and process[2] not in own and process[3] not in own:
                processes[pid] = (process[0], process[1])
        growth = []
        for pid, (name, ticks) in processes.items():
            earlier = self._processes.get(pid)
            if earlier is not None and earlier[0] == name and ticks > earlier[1]:
                growth.append((ticks - earlier[1], name, pid))
        self._processes = processes
        return [name for _, name, pid in sorted(growth, reverse=True)[:_TOP] if not self._is_agent(pid)]

    def _is_agent(self, pid: int) -> bool:
        line = self._root.content("proc/%d/cmdline" % pid) or ""
        return "edgeloop_agent" in line or (ARCHIVE is not None and os.path.basename(ARCHIVE) in line)
