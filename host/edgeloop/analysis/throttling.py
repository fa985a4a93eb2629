"""Signs of throttling and under-voltage in sessions, each with its figure; whether they matter is declared elsewhere.

A Raspberry Pi's firmware throttles without telling the kernel: its flags show it, and the firmware's own clock, which
then is under what the kernel believes. Elsewhere the kernel throttles, or the hardware counts: cooling devices, a
lowered maximum clock, counters.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgeloop.analysis.condition_access import Sample, part, sample, samples, timed
from edgeloop.core.measurement import Session

CLOCK_TOLERANCE = 0.02
"""Clocks are the same within this share: firmware and kernel round differently."""
LIE_TOLERANCE = 0.1
"""A firmware's clock this far under the kernel's, in most looks, is no rounding and no coincidence."""
_UNDER_VOLTAGE = "under_voltage"


def signs(session: Session, expected_mhz: float | None) -> Iterator[str]:
    """Yield what shows that the processor was held down while a session ran; `expected_mhz` allows a lower clock."""
    yield from _flags(session)
    seen = samples(session)
    steps = {name: max(part(c, "cooling")[name] for c in seen if name in part(c, "cooling")) for name in _devices(seen)}
    for name, (step, highest) in sorted(steps.items()):
        if step > 0:
            yield f"the kernel slowed the processor down ({name}, step {step} of {highest})"
    yield from counted(sample(session, "before"), sample(session, "after"))
    yield from _capped(seen, expected_mhz)


def _flags(session: Session) -> Iterator[str]:
    seen = samples(session)
    shown = [_names(c, "now") for c in seen]
    new = new_flags(sample(session, "before"), sample(session, "after"))
    now = {name for names in shown for name in names}
    if now:
        raw = max((int(part(c, "throttled").get("raw") or 0) for c in seen if _names(c, "now")), default=0)
        looks = sum(bool(names) for names in shown)
        yield f"throttled: {', '.join(sorted(now | new))} ({looks} of {len(seen)} looks, flags 0x{raw:x})"
    elif new:
        yield f"throttled: {', '.join(sorted(new))} (between two looks)"


def new_flags(before: Sample, after: Sample) -> set[str]:
    """Return the throttle flags that were set at some time between two samples."""
    return _names(after, "sticky") - _names(before, "sticky") if before else set()


def hidden(session: Session) -> set[str]:
    """Return the flags that were set before a session: a short event in it would not show."""
    return _names(sample(session, "before"), "sticky")


def _names(of: Sample, which: str) -> set[str]:
    return {str(name) for name in part(of, "throttled").get(which) or ()} - {_UNDER_VOLTAGE}


def _devices(seen: list[Sample]) -> set[str]:
    return {str(name) for c in seen for name in part(c, "cooling")}


def counted(before: Sample, after: Sample) -> Iterator[str]:
    """Yield how often the hardware says it throttled between two samples."""
    earlier, later = part(before, "throttle_counts"), part(after, "throttle_counts")
    grown = {name: later[name] - earlier[name] for name in earlier if name in later and later[name] > earlier[name]}
    if grown:
        name, times = max(grown.items(), key=lambda item: item[1])
        yield f"the processor throttled {times} times ({name})"


def _capped(seen: list[Sample], expected_mhz: float | None) -> Iterator[str]:
    caps = [
        (float(mhz), float(hardware[core]))
        for c in seen
        for hardware in (part(c, "clock_hardware_max_mhz"),)
        for core, mhz in part(c, "clock_max_mhz").items()
        if core in hardware
    ]
    low, top = min(caps, default=(0.0, 0.0))
    meant = expected_mhz is not None and low >= expected_mhz * (1 - CLOCK_TOLERANCE)
    if low < top * (1 - CLOCK_TOLERANCE) and not meant:
        yield (
            f"the clock was held to {low:g} MHz of the {top:g} MHz that the processor can do "
            "(declare expected_clock_mhz where that is meant)"
        )


def lying_clock(session: Session) -> Iterator[str]:
    """Yield the firmware's clock where it is well under what the kernel says, in most looks of the timed window."""
    pairs = [
        (float(c["clock_kernel_mhz"]), float(c["clock_firmware_mhz"]))
        for c in timed(session)
        if c.get("clock_kernel_mhz") and c.get("clock_firmware_mhz") is not None
    ]
    apart = [pair for pair in pairs if pair[1] < pair[0] * (1 - LIE_TOLERANCE)]
    if apart and 2 * len(apart) > len(pairs):
        kernel, firmware = min(apart, key=lambda pair: pair[1])
        yield (
            f"the kernel says {kernel:g} MHz, the firmware measures {firmware:g} MHz "
            f"({len(apart)} of {len(pairs)} looks in the timed window)"
        )


def under_voltage(session: Session) -> Iterator[str]:
    """Yield the signs of under-voltage while a session ran."""
    seen = samples(session)
    low = [c for c in seen if part(c, _UNDER_VOLTAGE).get("now")]
    if low:
        source = part(low[0], _UNDER_VOLTAGE).get("source")
        yield f"under-voltage in {len(low)} of {len(seen)} looks ({source}); look at its power supply"
    elif new_under_voltage(sample(session, "before"), sample(session, "after")):
        yield "under-voltage between two looks; look at its power supply"


def new_under_voltage(before: Sample, after: Sample) -> bool:
    """True where the supply fell at some time between two samples that both have a memory of it."""
    earlier, later = part(before, _UNDER_VOLTAGE).get("sticky"), part(after, _UNDER_VOLTAGE).get("sticky")
    return earlier is False and later is True


def is_known(of: Sample) -> bool:
    """True where throttling would be seen on this board."""
    return bool(of.get("throttling_known", of.get("throttled") is not None))
