"""The board's own power sensor: found by name under /sys/class/hwmon, read on its own schedule while a session runs.

A sensor is written `NAME`, `NAME/CHANNEL`, `NAME@DEVICE` or `NAME@DEVICE/CHANNEL`: the text of the device's `name`
file (`ina226`), what its `device` link points to (`1-0040`: I2C bus 1, address 0x40, the same in every boot, which
hwmon's own numbers are not), and which of its inputs (`power1`). A channel is `powerN_input` (microwatts), or where a
device has none, the product of `inN_input` (millivolts) and `currN_input` (milliamperes).

The times of the readings are drawn at random, one in each interval. Readings at a fixed cadence would meet a duty
cycle of a commensurate period at the same phases again and again, and be wrong in the mean.
"""

from __future__ import annotations

import array
import contextlib
import os
import random
import re
import struct
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Tuple

from edgeloop_agent.errors import AgentError

NAME = re.compile(r"\A(?P<name>[\w .-]{1,64}?)(?:@(?P<device>[\w.:-]{1,64}))?(?:/(?P<channel>[a-z]{2,8}\d{1,3}))?\Z")
INTERVAL_S = 0.05
"""The longest from one reading to the next, on the average: 20 a second."""
INTERVAL_S_MIN = 0.01
"""The shortest: reading over I2C costs the board processor time, and that costs power."""
READINGS_MAX = 2_000_000
_INPUT = re.compile(r"\A(power|curr)(\d{1,3})_input\Z")
_Channel = Tuple[str, Tuple[Path, ...], float]
_NUMBER = re.compile(r"\A-?\d{1,18}\Z")


@dataclass(frozen=True)
class Sensor:
    """One channel of one device. `paths` are files whose product, times `scale`, is the power in watts."""

    label: str
    """Unambiguous: name, device, channel."""
    paths: tuple[Path, ...]
    scale: float
    update_s: Optional[float]
    """From one value of the sensor to its next; None where it does not say."""

    @property
    def interval_s(self) -> float:
        """The time from one reading to the next that is worth it."""
        return min(INTERVAL_S, max(INTERVAL_S_MIN, self.update_s or INTERVAL_S))

    def watts(self) -> float:
        """Read it once. Raises AgentError where it can't be read."""
        product = self.scale
        for path in self.paths:
            try:
                text = path.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise AgentError("the power sensor %s can't be read: %s" % (self.label, error), "board") from error
            if not _NUMBER.match(text):
                raise AgentError("the power sensor %s reads %r" % (self.label, text[:40]), "board")
            product *= int(text)
        return product


def find(name: str, root: Path = Path("/")) -> Sensor:
    """Return the one channel that is meant. Raises AgentError with what there is, where there is none or several."""
    match = NAME.match(name)
    if match is None:
        raise AgentError("%r is not the name of a power sensor" % name[:80], "user")
    sensors = sorted(_all(root), key=lambda sensor: sensor.label)
    matches = [s for s in sensors if _fits(s.label, match["name"], match["device"], match["channel"])]
    if len(matches) == 1:
        return matches[0]
    if matches:
        labels = ", ".join(sensor.label for sensor in matches[:8])
        raise AgentError("%s names %d power sensors: %s; name one of them" % (name, len(matches), labels), "user")
    there = ", ".join(sensor.label for sensor in sensors[:8]) or "none"
    raise AgentError("the board has no power sensor %s; found: %s" % (name, there), "user")


def describe(name: str, root: Path = Path("/")) -> dict[str, Any]:
    """Read a sensor once, for `probe`: `sensor`, `watts`, `interval_s`, `update_s`, `error`."""
    try:
        sensor = find(name, root)
        watts = sensor.watts()
    except AgentError as error:
        return {"sensor": name, "watts": None, "interval_s": None, "update_s": None, "error": str(error)}
    return {
        "sensor": sensor.label,
        "watts": watts,
        "interval_s": sensor.interval_s,
        "update_s": sensor.update_s,
        "error": None,
    }


def _fits(label: str, name: str, device: Optional[str], channel: Optional[str]) -> bool:
    head, _, its_channel = label.rpartition("/")
    its_name, _, its_device = head.rpartition("@")
    return name == its_name and device in (None, its_device) and channel in (None, its_channel)


def _all(root: Path) -> list[Sensor]:
    sensors = []
    for place in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        name = _text(place / "name")
        if name is None:
            continue
        device = os.path.basename(os.path.realpath(place / "device")) if (place / "device").exists() else place.name
        update_ms = _text(place / "update_interval")
        update_s = int(update_ms) / 1000 if update_ms is not None and _NUMBER.match(update_ms) else None
        for channel, paths, scale in _channels(place):
            sensors.append(Sensor("%s@%s/%s" % (name, device, channel), paths, scale, update_s or None))
    return sensors


def _channels(place: Path) -> list[_Channel]:
    """Power inputs; where there are none, currents that have a voltage of the same number."""
    try:
        names = sorted(os.listdir(place))
    except OSError:
        return []
    inputs = [match for match in map(_INPUT.match, names) if match]
    powers: list[_Channel] = [
        (kind + number, (place / (kind + number + "_input"),), 1e-6) for kind, number in _of("power", inputs)
    ]
    if powers:
        return powers
    return [
        ("curr" + number, (place / ("in%s_input" % number), place / ("curr%s_input" % number)), 1e-6)
        for _, number in _of("curr", inputs)
        if "in%s_input" % number in names
    ]


def _of(kind: str, inputs: list[Any]) -> list[tuple[str, str]]:
    return [(match[1], match[2]) for match in inputs if match[1] == kind]


def _text(path: Path) -> Optional[str]:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip() or None
    return None


def write_npy(path: Path, seconds: array.array[float], watts: array.array[float]) -> None:
    """Write float64 of shape (2, n): seconds, watts. By hand: the supervisor may have no numpy."""
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, %d), }" % len(seconds)
    header += " " * (-(len(header) + 11) % 64) + "\n"
    with open(path, "wb") as handle:
        handle.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("ascii"))
        for column in (seconds, watts):
            if sys.byteorder == "big":
                column = array.array("d", column)
                column.byteswap()
            handle.write(column.tobytes())


class Sampler:
    """Reads a sensor in a thread of the supervisor, on whatever cores the supervisor is on when it starts."""

    def __init__(
        self,
        sensor: Sensor,
        seed: int,
        now_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        wait: Optional[Callable[[float], bool]] = None,
    ) -> None:
        """`wait` waits so many seconds; true where the sampler is to end."""
        self._sensor = sensor
        self._random = random.Random(seed)
        self._now_ns = now_ns
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._fault: Optional[AgentError] = None
        self.seconds: array.array[float] = array.array("d")
        """CLOCK_MONOTONIC, the middle of each reading."""
        self.watts: array.array[float] = array.array("d")
        self.cpu_s = 0.0
        """Processor time that reading took."""
        self._thread = threading.Thread(target=self._run, name="power", daemon=True)

    def start(self) -> None:
        self.read()
        self._thread.start()

    def stop(self) -> None:
        """End, with one more reading. Raises AgentError where the sensor failed meanwhile."""
        self._stop.set()
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        self.read()

    def read(self) -> None:
        """Take one reading."""
        before = self._now_ns()
        watts = self._sensor.watts()
        after = self._now_ns()
        self.seconds.append((before + after) / 2e9)
        self.watts.append(watts)

    def _run(self) -> None:
        interval_s = self._sensor.interval_s
        start_s = self._now_ns() / 1e9
        try:
            while len(self.seconds) < READINGS_MAX:
                due = start_s + self._random.random() * interval_s
                if self._wait(max(0.0, due - self._now_ns() / 1e9)):
                    return
                self.read()
                start_s = max(start_s + interval_s, self._now_ns() / 1e9 - interval_s)
        except AgentError as error:
            self._fault = error
        finally:
            self.cpu_s = time.thread_time()
