"""The power files of a session: what a meter read beside it, checked, and as a trace on the board's clock.

sessions/NNN.power.npy   float64 (2, n), seconds and watts: read by the board, on the board's CLOCK_MONOTONIC
sessions/NNN.meter.npy   float64 (2, n), seconds and watts: read on this host, on its clock
sessions/NNN.meter.json  where the board's clock is on this host's: offset_s, uncertainty_s; or `lost`, and why
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from edgeloop.core.board import PowerMeterSpec
from edgeloop.core.frozen import Frozen
from edgeloop.core.measurement import PowerTrace
from edgeloop.errors import BoardError
from edgeloop.records.session_record import ReportedSession

BOARD_PART = "power.npy"
METER_PART, CLOCKS_PART = "meter.npy", "meter.json"
HOST_PARTS = (METER_PART, CLOCKS_PART)
NOT_WATCHED = "the meter's readings are lost: nobody watched it then"
_DAMAGED = "the meter's readings as kept here are damaged"


class ClockPlacement(Frozen):
    """meter.json."""

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal[1] = Field(default=1, alias="schema")
    offset_s: float
    """This host's clock less the board's."""
    uncertainty_s: float
    loss: str = Field(default="", alias="lost")
    """Why there are no readings; empty where there are."""


def check_windows(record: ReportedSession, where: str) -> None:
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


def check_readings(array: NDArray[Any], record: ReportedSession, where: str) -> None:
    """Raise BoardError where the board's own readings are not what the record says."""
    count = record.energy.readings if record.energy is not None else 0
    fits = array.dtype == np.float64 and array.shape == (2, count) and bool(np.isfinite(array).all())
    if not fits or (np.diff(array[0]) < 0).any():
        raise BoardError(
            f"{where}: {BOARD_PART} is refused: {array.dtype} {array.shape} where {count} readings were told"
        )


def trace_of(
    record: ReportedSession,
    meter: PowerMeterSpec | None,
    arrays: Mapping[str, NDArray[Any]],
    parts: Mapping[str, bytes],
) -> PowerTrace | None:
    """The power trace of a record, on the board's clock; None for a session that measured no energy.

    `arrays` are the board's own, checked; `parts` the files of the session as they lie here.
    """
    energy = record.energy
    if energy is None:
        return None
    if energy.sensor is not None:
        readings, clocks = arrays[BOARD_PART], ClockPlacement(offset_s=0.0, uncertainty_s=0.0)
    else:
        readings, clocks = _meter_readings(parts)
    return PowerTrace(
        seconds=readings[0] - clocks.offset_s,
        watts=readings[1],
        idle_s=(energy.idle_ns[0] / 1e9, energy.idle_ns[1] / 1e9),
        active_s=(energy.active_ns[0] / 1e9, energy.active_ns[1] / 1e9),
        inferences=record.runs,
        period_ms=energy.period_ms,
        meter=energy.sensor or str(meter or "none"),
        accuracy_pct=meter.accuracy_pct if meter is not None else 0.0,
        clock_uncertainty_s=clocks.uncertainty_s,
        update_s=energy.update_s,
        lost=clocks.loss,
    )


def _meter_readings(parts: Mapping[str, bytes]) -> tuple[NDArray[np.float64], ClockPlacement]:
    """The readings of this host's meter that were kept of a session."""
    loss = NOT_WATCHED
    if set(HOST_PARTS) <= set(parts):
        loss = _DAMAGED
        try:
            readings = np.load(io.BytesIO(parts[METER_PART]), allow_pickle=False)
            clocks = ClockPlacement.model_validate_json(parts[CLOCKS_PART])
            if readings.dtype == np.float64 and readings.ndim == 2 and len(readings) == 2:
                return readings, clocks
        except (ValueError, EOFError):  # pydantic's is a ValueError
            pass
    return np.empty((2, 0)), ClockPlacement(offset_s=0.0, uncertainty_s=0.0, loss=loss)
