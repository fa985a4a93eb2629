"""A profile for a terminal: where memory goes, and the time of each operator."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgeloop.core.profile import MemoryPass, OperatorTime, Profile
from edgeloop.core.units import MIB

_PHASES = {
    "runtime": "runtime alone",
    "load": "model loaded",
    "first": "after the first inference",
    "runs": "after many",
}


class ProfileReport:
    """The pass of its own, told after the measurement it goes with."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("in a pass of its own:")
        for name, value in memory_facts(self._profile.memory):
            yield Text(f"  {name}: {value}")
        if console.is_terminal:
            yield Padding(self._table(), (0, 0, 0, 2))
        else:
            yield from (Text("  " + "  ".join(cell for cell in row if cell)) for row in self._rows())
        yield Text(f"  {self._profile.how}")

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for time in self._profile.operators:
            outputs = ", ".join(map(str, time.operator.outputs))
            figure = f"{time.p50_ns / 1000:.2f} us"
            if time.timed_with:
                yield str(time.operator.index), time.operator.operator, outputs, _with(time), ""
            else:
                yield str(time.operator.index), time.operator.operator, outputs, figure, f"{time.share:.1%}"

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("")
        table.add_column("operator")
        table.add_column("gives")
        table.add_column("median", justify="right")
        table.add_column("share", justify="right")
        for row in self._rows():
            table.add_row(*row)
        return table


def _with(time: OperatorTime) -> str:
    users = ", ".join(map(str, time.timed_with[:3])) + (" ..." if len(time.timed_with) > 3 else "")
    return f"with {users}"


def memory_facts(memory: MemoryPass) -> Iterator[tuple[str, str]]:
    """Lines of a memory pass."""
    phases = []
    for phase in memory.phases:
        peak = "" if phase.peak_bytes is None else f" (peak {MIB.bare(phase.peak_bytes)})"
        phases.append(f"{_PHASES[phase.phase]} {MIB.bare(phase.rss_bytes)}{peak}")
    if phases:
        yield "memory by phase, MiB", ", ".join(phases)
    if memory.polled and memory.rss_min_bytes is not None and memory.rss_max_bytes is not None:
        difference = memory.rss_max_bytes - memory.rss_min_bytes
        yield "memory between inferences", f"read {memory.polled} times, differed by {difference:,} bytes"
    if memory.model_mapped_bytes is None:
        yield "model's file", "read, not mapped"
    else:
        resident = "" if memory.model_resident_bytes is None else f", {memory.model_resident_bytes:,} in memory"
        yield "model's file", f"{memory.model_mapped_bytes:,} bytes mapped{resident}"
    if memory.activation_bytes is not None:
        yield "activations", f"{memory.activation_bytes:,} bytes, scratch buffers included"
    else:
        yield "activations", f"not known: {memory.activation_note}"
