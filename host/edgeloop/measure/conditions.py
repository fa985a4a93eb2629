"""The conditions of a measurement in a few figures, for tables and reports; the whole is with the samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from edgeloop.core.measurement import Session


def digest(sessions: Sequence[Session]) -> dict[str, Any]:
    """Return ranges over all samples of all sessions; a key is absent where nothing could be read."""
    samples = [sample for session in sessions for sample in _samples(session)]
    found: dict[str, Any] = {}
    for key, name in (("temperatures_c", "temperature_c"), ("clock_mhz", "clock_mhz")):
        values = [float(v) for sample in samples for v in (sample.get(key) or {}).values() if v is not None]
        if values:
            found[name] = [min(values), max(values)]
    governors = {str(g) for sample in samples for g in (sample.get("governor") or {}).values()}
    if governors:
        found["governor"] = sorted(governors)
    loads = [float(sample["foreign_load_pct"]) for sample in samples if sample.get("foreign_load_pct") is not None]
    if loads:
        found["foreign_load_pct_max"] = max(loads)
    throttled = {str(flag) for sample in samples for flag in (sample.get("throttled") or {}).get("now", ())}
    if any(sample.get("throttled") is not None for sample in samples):
        found["throttled"] = sorted(throttled)
    found["boot_ids"] = sorted({session.boot_id for session in sessions if session.boot_id})
    found["pinned_cores"] = sorted({core for s in sessions for core in s.conditions.get("pinned_cores") or ()})
    return found


def _samples(session: Session) -> Iterable[dict[str, Any]]:
    for part in ("before", "after"):
        sample = session.conditions.get(part)
        if isinstance(sample, dict):
            yield sample
    yield from (sample for sample in session.conditions.get("during") or () if isinstance(sample, dict))
