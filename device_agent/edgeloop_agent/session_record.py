"""The record of one session: what its process answered, with the conditions that the supervisor saw around it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Optional

from edgeloop_agent import power, wire

_DETAIL_MAX = 1000
_OF_ANY_OUTCOME = ("load_ns", "first_ns", "peak_rss_bytes", "runtime_rss_bytes", "overhead_ns")
_IF_OK: dict[str, Any] = {
    "runs": 0,
    "warmups": 0,
    "missed_periods": 0,
    "stages": [],
    "readings": {},
    "profile": None,
    "results": [],
}
"""Fields of a session that ended well, and their values for one that did not."""
_CONDITIONS = ("calibration_ns", "timed_window_monotonic_ns", "samples_cycled", "delegate")
"""Conditions that the session's process tells of itself."""


def record_of(
    job: wire.Job,
    step: wire.WireStep,
    result: dict[str, Any],
    conditions: dict[str, Any],
    energy: Optional[wire.Energy],
    boot_id: str,
    started_utc: str,
) -> wire.SessionRecord:
    """Return the record of a session by its result. Raises WireError for a result that is none."""
    ok = result["outcome"] == "ok"
    of_any = {key: result.get(key) for key in _OF_ANY_OUTCOME}
    if_ok = {key: result.get(key, default) if ok else default for key, default in _IF_OK.items()}
    plain = {
        **of_any,
        **if_ok,
        "schema": wire.SCHEMA,
        "job_id": job.id,
        "index": step.index,
        "subject": step.subject,
        "kind": step.kind,
        "outcome": result["outcome"],
        "detail": str(result.get("detail", ""))[:_DETAIL_MAX],
        "signal": result.get("signal"),
        "engine_version": result.get("engine_version", job.subjects[step.subject].engine),
        "python_version": result.get("python_version", ""),
        "inputs": result.get("inputs", []),
        "outputs": result.get("outputs", []),
        "energy": None if energy is None else asdict(energy),
        "conditions": conditions,
        "boot_id": boot_id,
        "started_utc": started_utc,
    }
    return wire.from_plain(wire.SessionRecord, plain)


def conditions_of(
    job: wire.Job,
    result: dict[str, Any],
    before: dict[str, Any],
    during: list[dict[str, Any]],
    after: dict[str, Any],
    preparation: dict[str, Any],
) -> dict[str, Any]:
    """Return the conditions of a session; `preparation` is the same for all of a job: governor, gate, soak, ..."""
    own: dict[str, Any] = {key: result.get(key) for key in _CONDITIONS}
    window = own["timed_window_monotonic_ns"]
    for sample in during:
        sample["timed"] = bool(window) and window[0] <= sample["monotonic_ns"] <= window[1]
    unknown = set(before["unknown"]).intersection(after["unknown"], *(sample["unknown"] for sample in during))
    return {
        **own,
        "pinned_cores": result.get("pinned_cores") if job.conditions.cores else None,
        "before": before,
        "during": during,
        "after": after,
        **preparation,
        "unknown": sorted(unknown),
    }


def energy_of(
    job: wire.Job, result: dict[str, Any], sensor: Optional[power.Sensor], readings: Optional[power.Sampler]
) -> Optional[wire.Energy]:
    """Return the windows of an energy session that ended well."""
    if result["outcome"] != "ok":
        return None
    return wire.Energy(
        idle_ns=result["idle_window_monotonic_ns"],
        active_ns=result["timed_window_monotonic_ns"],
        period_ms=job.session_plan.period_ms,
        sensor=sensor.label if sensor is not None else None,
        update_s=sensor.update_s if sensor is not None else None,
        readings=len(readings.seconds) if readings is not None else 0,
        reading_cpu_s=readings.cpu_s if readings is not None else 0.0,
    )


def keep(place: Path, work: Path, record: wire.SessionRecord) -> None:
    """Put a session's files into the job's folder: arrays first, the record last. Whoever sees it sees all of it."""
    if record.outcome == "ok":
        for path in sorted(work.glob("*.npy")):
            with open(path, "rb") as handle:
                os.fsync(handle.fileno())
            os.replace(path, place / wire.session_file(record.index, path.name))
    wire.write_atomically(place / wire.session_file(record.index, "json"), wire.encode(record))
