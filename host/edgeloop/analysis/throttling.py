"""Signs of throttling and under-voltage in sessions, each with its figure; whether they matter is declared elsewhere.

A Raspberry Pi's firmware throttles without telling the kernel: its flags show it, and the firmware's own clock, which
then is under the kernel's. Elsewhere the kernel throttles, or the hardware counts: cooling devices, a
lowered maximum clock, counters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeloop.core.conditions import ConditionSample, SessionConditions

CLOCK_TOLERANCE = 0.02
"""Clocks are the same within this share: firmware and kernel round differently."""
LIE_TOLERANCE = 0.1
"""A firmware's clock this far under the kernel's, in most looks, is no rounding and no coincidence."""
_UNDER_VOLTAGE = "under_voltage"


def signs(conditions: SessionConditions, expected_mhz: float | None) -> Iterator[str]:
    """Yield the signs that the processor was held down while a session ran; `expected_mhz` allows a lower clock."""
    yield from _flags(conditions)
    yield from _cooling(conditions.samples)
    yield from counter_growth(conditions.before, conditions.after)
    yield from _clock_cap(conditions.samples, expected_mhz)


def _flags(conditions: SessionConditions) -> Iterator[str]:
    samples = conditions.samples
    looks = [sample for sample in samples if _now(sample)]
    new = new_flags(conditions.before, conditions.after)
    if looks:
        names = new.union(*(_now(sample) for sample in looks))
        raw = max(int(sample.throttle_flags.raw) for sample in looks if sample.throttle_flags is not None)
        yield f"throttled: {', '.join(sorted(names))} ({len(looks)} of {len(samples)} looks, flags 0x{raw:x})"
    elif new:
        yield f"throttled: {', '.join(sorted(new))} (between two looks)"


def new_flags(before: ConditionSample, after: ConditionSample) -> set[str]:
    """Return the throttle flags that were set at some time between two samples."""
    return set() if before.is_empty else _since_boot(after) - _since_boot(before)


def hiding_flags(conditions: SessionConditions) -> set[str]:
    """Return the flags that were set before a session: a short event in it would not show."""
    return _since_boot(conditions.before)


def _now(sample: ConditionSample) -> set[str]:
    return set() if sample.throttle_flags is None else set(sample.throttle_flags.now) - {_UNDER_VOLTAGE}


def _since_boot(sample: ConditionSample) -> set[str]:
    return set() if sample.throttle_flags is None else set(sample.throttle_flags.sticky) - {_UNDER_VOLTAGE}


def _cooling(samples: Sequence[ConditionSample]) -> Iterator[str]:
    """Devices of the kernel that slow the processor down, at their highest step."""
    for name in sorted({name for sample in samples for name in sample.cooling}):
        step, highest = max(sample.cooling[name] for sample in samples if name in sample.cooling)
        if step > 0:
            yield f"the kernel slowed the processor down ({name}, step {step} of {highest})"


def counter_growth(before: ConditionSample, after: ConditionSample) -> Iterator[str]:
    """Yield how often the hardware says it throttled between two samples."""
    earlier, later = before.throttle_counts, after.throttle_counts
    growth = {name: later[name] - earlier[name] for name in earlier if name in later and later[name] > earlier[name]}
    if growth:
        name, times = max(growth.items(), key=lambda item: item[1])
        yield f"the processor throttled {times} times ({name})"


def _clock_cap(samples: Sequence[ConditionSample], expected_mhz: float | None) -> Iterator[str]:
    caps = [
        (float(mhz), float(sample.clock_hardware_max_mhz[core]))
        for sample in samples
        for core, mhz in sample.clock_max_mhz.items()
        if core in sample.clock_hardware_max_mhz
    ]
    low, top = min(caps, default=(0.0, 0.0))
    is_declared = expected_mhz is not None and low >= expected_mhz * (1 - CLOCK_TOLERANCE)
    if low < top * (1 - CLOCK_TOLERANCE) and not is_declared:
        yield (
            f"the clock was held to {low:g} MHz of the {top:g} MHz that the processor can do "
            "(declare expected_clock_mhz where that is meant)"
        )


def lying_clock(conditions: SessionConditions) -> Iterator[str]:
    """Yield the firmware's clock where it is well under the kernel's, in most looks of the timed window."""
    pairs = [
        (float(sample.clock_kernel_mhz), float(sample.clock_firmware_mhz))
        for sample in conditions.in_window
        if sample.clock_kernel_mhz and sample.clock_firmware_mhz is not None
    ]
    apart = [pair for pair in pairs if pair[1] < pair[0] * (1 - LIE_TOLERANCE)]
    if apart and 2 * len(apart) > len(pairs):
        kernel, firmware = min(apart, key=lambda pair: pair[1])
        yield (
            f"the kernel says {kernel:g} MHz, the firmware measures {firmware:g} MHz "
            f"({len(apart)} of {len(pairs)} looks in the timed window)"
        )


def under_voltage(conditions: SessionConditions) -> Iterator[str]:
    """Yield the signs of under-voltage while a session ran."""
    samples = conditions.samples
    low = [sample.supply for sample in samples if sample.supply is not None and sample.supply.now]
    if low:
        yield f"under-voltage in {len(low)} of {len(samples)} looks ({low[0].source}); look at its power supply"
    elif new_under_voltage(conditions.before, conditions.after):
        yield "under-voltage between two looks; look at its power supply"


def new_under_voltage(before: ConditionSample, after: ConditionSample) -> bool:
    """True where the supply fell at some time between two samples that both have a memory of it."""
    if before.supply is None or after.supply is None:
        return False
    return before.supply.sticky is False and after.supply.sticky is True
