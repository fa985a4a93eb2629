"""Where a session's memory goes: by phase, the model's file, the activations. Not read while anything is timed."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Any, Iterable, Optional

from edgeloop_agent import conditions

if TYPE_CHECKING:
    from edgeloop_agent.loaded_model import LoadedModel

_RESET_PEAK = b"5"  # of VmHWM, says proc(5)
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ +(.*)$")
_AMOUNT = re.compile(r"^(Size|Rss): +(\d+) kB$")


class Phases:
    """Memory of this process, phase by phase. Each has its own peak where the kernel lets us start it anew."""

    def __init__(self) -> None:
        self.readings: list[dict[str, Any]] = []
        self._resets = _reset_peak()

    def end(self, phase: str) -> None:
        """End the phase that went on until now."""
        rss = conditions.vm_bytes("VmRSS")  # before the peak, so that it is not over it
        peak = conditions.vm_bytes("VmHWM") if self._resets else None
        if rss is not None:
            self.readings.append({"phase": phase, "rss_bytes": rss, "peak_bytes": peak})
        self._resets = _reset_peak()


def _reset_peak() -> bool:
    try:
        with open("/proc/self/clear_refs", "wb") as handle:
            handle.write(_RESET_PEAK)
    except OSError:
        return False
    return True


def mapped_bytes(path: str) -> tuple[Optional[int], Optional[int]]:
    """Bytes of a file in this process's address space, and of them in memory; None where it is not mapped."""
    size = resident = 0
    is_mapped, inside = False, False
    with contextlib.suppress(OSError), open("/proc/self/smaps", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            head = _MAPPING.match(line)
            if head is not None:
                inside = os.path.realpath(head.group(1)) == os.path.realpath(path)
                is_mapped = is_mapped or inside
                continue
            amount = _AMOUNT.match(line) if inside else None
            if amount is not None:
                size += int(amount.group(2)) * 1024 if amount.group(1) == "Size" else 0
                resident += int(amount.group(2)) * 1024 if amount.group(1) == "Rss" else 0
    return (size, resident) if is_mapped else (None, None)


def activations(model: LoadedModel, tensors: int, activations_of: Iterable[int]) -> tuple[Optional[int], str]:
    """Bytes under the addresses of a model's activations and of the runtime's scratch buffers, each counted once.

    `tensors` is how many the model has: numbers beyond are the runtime's own. Returns None and why, where the runtime
    does not tell all of them.
    """
    places = model.places()
    indices = sorted(activations_of)
    hidden = sum(places.get(index) is None for index in indices)
    if hidden:
        note = "%d of %d activations are kept by a delegate, which does not tell its memory"
        return None, note % (hidden, len(indices))
    own = [places[index] for index in [*indices, *(index for index in places if index >= tensors)]]
    spans = sorted(place for place in own if place is not None)
    total = end = 0
    for start, size in spans:
        total += max(0, start + size - max(start, end))
        end = max(end, start + size)
    return total, ""
