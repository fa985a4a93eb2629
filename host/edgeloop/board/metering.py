"""Power beside a job: what of a meter's readings belongs to which session, and a session's trace out of its files.

    sessions/NNN.power.npy   float64 (2, n), seconds and watts: read by the board, on the board's CLOCK_MONOTONIC
    sessions/NNN.meter.npy   float64 (2, n), seconds and watts: read here, on this host's clock
    sessions/NNN.meter.json  where the board's clock is on this host's: offset_s, uncertainty_s; or `lost`, and why

A session's readings are cut out and kept when the session is fetched, so a job that is adopted by another controller
has those of every session that was watched, and says which were not.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeloop.board import clocks
from edgeloop.core.board import PowerMeterSpec as Declared
from edgeloop.core.frozen import Frozen
from edgeloop.core.measurement import PowerTrace
from edgeloop.errors import BoardError
from edgeloop.ports import PowerMeter
from edgeloop_agent import wire

BOARD_PART = "power.npy"
HOST_PARTS = ("meter.npy", "meter.json")
MARGIN_S = 1.0
"""Readings kept before and after a session's windows."""
_WAIT_S = 5.0
_NOT_WATCHED = "the meter's readings are lost: nobody watched it then"


class Placed(Frozen):
    """meter.json."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    offset_s: float
    """This host's clock less the board's."""
    uncertainty_s: float
    lost: str = ""


class MeterBeside:
    """A host's meter, running beside one job. A context: the meter is started and closed with it."""

    def __init__(self, meter: PowerMeter, ask_board_ns: Callable[[], int], now_s: Callable[[], float]) -> None:
        self._meter = meter
        self._ask_board_ns = ask_board_ns
        self._now_s = now_s

    def __enter__(self) -> Self:
        self._meter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._meter.close()

    def check(self) -> None:
        """Raise LabError where the meter ended, fell silent or made no sense."""
        self._meter.check()

    def parts_of(self, record: wire.SessionRecord) -> Mapping[str, bytes]:
        """What to keep beside a session's own files; nothing for a session without windows. Raises as `check`."""
        if record.energy is None:
            return {}
        placed = clocks.fit(self._ask_board_ns, self._now_s)
        since_s = record.energy.idle_ns[0] / 1e9 + placed.offset_s
        until_s = record.energy.active_ns[1] / 1e9 + placed.offset_s
        self._meter.wait_until(until_s + placed.uncertainty_s, _WAIT_S)
        readings = self._meter.readings(since_s - MARGIN_S, until_s + MARGIN_S)
        watched = readings.shape[1] > 0 and readings[0, 0] <= since_s
        note = Placed(
            offset_s=placed.offset_s, uncertainty_s=placed.uncertainty_s, lost="" if watched else _NOT_WATCHED
        )
        return {"meter.npy": _npy(readings), "meter.json": note.model_dump_json().encode()}


def check_windows(record: wire.SessionRecord, where: str) -> None:
    """Raise BoardError where a session's windows are none."""
    energy = record.energy
    if energy is None:
        if record.kind == "energy" and record.outcome == "ok":
            raise BoardError(f"{where} is refused: an energy session without windows")
        return
    pairs = (energy.idle_ns, energy.active_ns)
    if record.kind != "energy" or not all(len(pair) == 2 and 0 <= pair[0] < pair[1] < 2**63 for pair in pairs):
        raise BoardError(f"{where} is refused: its energy windows are none")
    if (
        record.runs < 1
        or energy.readings < 0
        or any(n is not None and n <= 0 for n in (energy.update_s, energy.period_ms))
    ):
        raise BoardError(f"{where} is refused: its energy counts are none of the protocol's")


def check_readings(array: NDArray[Any], record: wire.SessionRecord, where: str) -> None:
    """Raise BoardError where the board's own readings are not what the record says."""
    told = record.energy.readings if record.energy is not None else 0
    fits = array.dtype == np.float64 and array.shape == (2, told) and bool(np.isfinite(array).all())
    if not fits or (np.diff(array[0]) < 0).any():
        raise BoardError(
            f"{where}: {BOARD_PART} is refused: {array.dtype} {array.shape} where {told} readings were told"
        )


def trace_of(
    record: wire.SessionRecord,
    declared: Declared | None,
    arrays: Mapping[str, NDArray[Any]],
    parts: Mapping[str, bytes],
) -> PowerTrace | None:
    """The power trace of a checked record, on the board's clock; None for a session that measured no energy.

    `arrays` are the board's own, checked; `parts` the files of the session as they lie here.
    """
    energy = record.energy
    if energy is None:
        return None
    if energy.sensor is not None:
        readings, placed = arrays[BOARD_PART], Placed(offset_s=0.0, uncertainty_s=0.0)
    else:
        readings, placed = _watched(parts)
    return PowerTrace(
        seconds=readings[0] - placed.offset_s,
        watts=readings[1],
        idle_s=(energy.idle_ns[0] / 1e9, energy.idle_ns[1] / 1e9),
        active_s=(energy.active_ns[0] / 1e9, energy.active_ns[1] / 1e9),
        inferences=record.runs,
        period_ms=energy.period_ms,
        meter=energy.sensor or str(declared or "none"),
        accuracy_pct=declared.accuracy_pct if declared is not None else 0.0,
        clock_uncertainty_s=placed.uncertainty_s,
        update_s=energy.update_s,
        lost=placed.lost,
    )


def _watched(parts: Mapping[str, bytes]) -> tuple[NDArray[np.float64], Placed]:
    """What this host kept of its meter's readings of a session."""
    lost = _NOT_WATCHED
    if set(HOST_PARTS) <= set(parts):
        try:
            readings = np.load(io.BytesIO(parts["meter.npy"]), allow_pickle=False)
            placed = Placed.model_validate_json(parts["meter.json"])
            if readings.dtype == np.float64 and readings.ndim == 2 and len(readings) == 2:
                return readings, placed
            lost = "the meter's readings as kept here are damaged"
        except (ValueError, EOFError):  # pydantic's is a ValueError
            lost = "the meter's readings as kept here are damaged"
    return np.empty((2, 0)), Placed(offset_s=0.0, uncertainty_s=0.0, lost=lost)


def _npy(array: NDArray[np.float64]) -> bytes:
    handle = io.BytesIO()
    np.save(handle, array, allow_pickle=False)
    return handle.getvalue()
