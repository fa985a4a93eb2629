"""The firmware of a Raspberry Pi, asked through `vcgencmd`: throttle flags, the true clock, temperature, core voltage.

`vcgencmd` may be missing, closed to us (it wants the group `video`), silent, or print what makes no sense: each of
these is None, and `problem` says in one line why there are no flags.
"""

from __future__ import annotations

import os
import re
import signal
from typing import Any, Optional

from edgeloop_agent.root import Root

THROTTLE_BITS = ("under_voltage", "frequency_capped", "throttled", "soft_temperature_limit")
"""Names of bits 0 to 3 (now) and 16 to 19 (at some time since boot): `vcgencmd get_throttled`."""
_STICKY_SHIFT = 16
_TIMEOUT_S = 1.0
_LET_GO_S = 0.2
_TRIES = 3
_FLAGS = "get_throttled"
_FLAG_FILES = "sys/devices/platform/soc*/*firmware*/get_throttled"
_MODEL_FILES = ("proc/device-tree/model", "sys/firmware/devicetree/base/model")


class Firmware:
    """Asks the firmware. After three failures in a row it asks no more: each may cost a second."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._program = root.program("vcgencmd")
        self._failures = 0
        self.problem: Optional[str] = None if self._program else "there is no vcgencmd"

    def is_raspberry_pi(self) -> bool:
        """True where the board says that it is one: its firmware then throttles without telling the kernel."""
        return any((self._root.content(path) or "").startswith("Raspberry Pi") for path in _MODEL_FILES)

    def throttle_flags(self) -> Optional[dict[str, Any]]:
        """Return {now, sticky, raw, source}, None where the flags can't be had or make no sense."""
        answer = self._ask(r"\Athrottled=0x([0-9a-fA-F]{1,8})\Z", _FLAGS)
        if answer is not None:
            return _flags(int(answer, 16), "vcgencmd")
        for path in self._root.folders(_FLAG_FILES):
            flags = re.match(r"\A(?:0x)?([0-9a-fA-F]{1,8})\Z", self._root.content(path) or "")
            if flags is not None:
                return _flags(int(flags.group(1), 16), "the firmware's file")
        return None

    def clock_mhz(self) -> Optional[float]:
        """Return the processor's clock as the firmware measures it."""
        answer = self._ask(r"\Afrequency\(\d+\)=(\d{1,12})\Z", "measure_clock", "arm")
        return None if answer is None else int(answer) / 1e6

    def temperature_c(self) -> Optional[float]:
        answer = self._ask(r"\Atemp=(-?\d{1,3}(?:\.\d+)?)'C\Z", "measure_temp")
        return None if answer is None else float(answer)

    def core_volts(self) -> Optional[float]:
        answer = self._ask(r"\Avolt=(\d{1,2}(?:\.\d+)?)V\Z", "measure_volts", "core")
        return None if answer is None else float(answer)

    def _ask(self, pattern: str, *question: str) -> Optional[str]:
        """Return the pattern's group in the answer; else remember why there is none."""
        if self._program is None or self._failures >= _TRIES:
            return None
        status, words = _run([self._program, *question])
        answer = re.match(pattern, words)
        if status == 0 and answer is not None:
            self._failures = 0
            self.problem = None if question[0] == _FLAGS else self.problem
            return answer.group(1)
        self._failures += 1
        if question[0] != _FLAGS:
            return None
        why = words
        if status is not None:
            why = "printed %r" % words if status == 0 else "ended with %d: %s" % (status, words)
        self.problem = "vcgencmd %s %s" % (" ".join(question), why)
        return None


def _flags(raw: int, source: str) -> dict[str, Any]:
    return {
        "now": [name for bit, name in enumerate(THROTTLE_BITS) if raw >> bit & 1],
        "sticky": [name for bit, name in enumerate(THROTTLE_BITS) if raw >> (bit + _STICKY_SHIFT) & 1],
        "raw": raw,
        "source": source,
    }


def _run(command: list[str]) -> tuple[Optional[int], str]:
    """Return exit status and the first words that it printed; without a status, why there is none."""
    import subprocess  # heavy, and most boards never get here

    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as error:
        return None, "can't be run: %s" % error.strerror
    try:
        raw, _ = process.communicate(timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        if process.stdout is not None:
            process.stdout.close()
        try:
            process.wait(timeout=_LET_GO_S)
        except subprocess.TimeoutExpired:
            process.returncode = -signal.SIGKILL  # the kernel holds it in the firmware's driver: nobody can wait for it
        return None, "gave no answer in %g s" % _TIMEOUT_S
    text = raw[:200].decode("ascii", "replace").strip()
    return process.returncode, "".join(c if c.isprintable() else " " for c in text)[:100]
