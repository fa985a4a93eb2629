"""The processor of this machine: what `native` stands for in a key, and whose library runs on this host.

A run's folder and the user's cache may be shared by several machines. LLVM names a core only where TVM is imported,
which takes seconds, so the kernel is asked instead.
"""

from __future__ import annotations

import functools
import hashlib
import platform
from pathlib import Path

_NAMES = ("vendor_id", "cpu family", "model", "model name", "CPU implementer", "CPU part")
_FEATURES = ("flags", "Features")


@functools.cache
def this_processor() -> str:
    """Name and features of this machine's cores, in 16 hexadecimal digits."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        cpuinfo = f"model name: {platform.processor()}"
    return processor_in(cpuinfo, platform.machine())


def processor_in(cpuinfo: str, machine: str) -> str:
    """The same of the text of a /proc/cpuinfo. Cores of two kinds count as both; how many there are does not."""
    pairs = [(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in cpuinfo.splitlines())]
    words = {f"{key}={value}" for key, value in pairs if key in _NAMES}
    words |= {feature for key, value in pairs if key in _FEATURES for feature in value.split()}
    return hashlib.sha256("\n".join([machine, *sorted(words)]).encode()).hexdigest()[:16]
