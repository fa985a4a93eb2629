"""A meter of this host beside a job: which of its readings belong to which session.

A session's readings are cut out and kept when the session is fetched, so a job that is adopted by another controller
has those of every session that was watched, and says which were not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from edgeloop.board import clocks
from edgeloop.ports import PowerMeter
from edgeloop.records.npy_files import npy_bytes
from edgeloop.records.power_files import CLOCKS_PART, METER_PART, NOT_WATCHED, ClockPlacement
from edgeloop.records.session_record import ReportedSession

MARGIN_S = 1.0
"""Readings kept before and after a session's windows."""
_WAIT_S = 5.0


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

    def parts_of(self, record: ReportedSession) -> Mapping[str, bytes]:
        """Files to keep beside a session's own; none for a session without windows. Raises as `check`."""
        if record.energy is None:
            return {}
        fit = clocks.fit(self._ask_board_ns, self._now_s)
        since_s = record.energy.idle_ns[0] / 1e9 + fit.offset_s
        until_s = record.energy.active_ns[1] / 1e9 + fit.offset_s
        self._meter.wait_until(until_s + fit.uncertainty_s, _WAIT_S)
        readings = self._meter.readings(since_s - MARGIN_S, until_s + MARGIN_S)
        is_whole = readings.shape[1] > 0 and readings[0, 0] <= since_s
        placement = ClockPlacement(
            offset_s=fit.offset_s, uncertainty_s=fit.uncertainty_s, loss="" if is_whole else NOT_WATCHED
        )
        return {METER_PART: npy_bytes(readings), CLOCKS_PART: placement.model_dump_json().encode()}
