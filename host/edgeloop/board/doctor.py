"""A board as declared against the board as found: each difference with what to do about it.

The board's own words come from its agent's probe (docs/reference/agent.md) and are data, not to be trusted: what is
not of the right type counts as absent.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from edgeloop.board.agent import BoardAgent
from edgeloop.board.meter import open_meter
from edgeloop.board.wheels import (
    EngineSupport,
    engine_support,
    interpreter_of,
    support_of,
)
from edgeloop.config.board_models import GENERIC, LOCAL, detect_model
from edgeloop.core.board import Board
from edgeloop.core.board import PowerMeterSpec as DeclaredMeter
from edgeloop.core.check import Check, note, ok, printable, wrong
from edgeloop.engines.registry import ENGINES, wheel_engines
from edgeloop.errors import EdgeloopError
from edgeloop.ports import PowerMeter
from edgeloop.sentences import command_line
from edgeloop_agent import wire

PROVISIONED_MIB = 200
"""What agent, one runtime and numpy take, packed and unpacked."""
SKEW_MAX_S = 5.0
METER_LOOK_S = 2.0
"""How long a meter on this host is listened to."""
_MEMORY_SHARE = 0.75
"""Firmware and graphics keep a part of a small board's memory for themselves."""
_FOREIGN_LOAD_PCT = 5.0


def diagnose(board: Board, agent: BoardAgent, now: Callable[[], datetime]) -> list[Check]:
    """Ask the board and compare. `now` is this host's clock. Raises where the board can't be asked at all."""
    system = board.runtime.source == "system"
    asked = now()
    meter = board.power_meter
    sensor = meter.hwmon if meter is not None else None
    facts = agent.probe(
        engines=wheel_engines() if system else (),
        power_sensor=sensor,
        libraries=sorted({delegate.library for delegate in board.delegate}),
    )
    answered = now()
    interpreter = interpreter_of(facts)
    support = engine_support(interpreter, board.runtime.source)
    return [
        *declared_checks(board, facts),
        *state_checks(board, facts),
        *condition_checks(board, facts),
        *clock_checks(facts, asked, answered),
        *(sensor_checks(facts) if sensor is not None else ()),
        *(meter_checks(meter, open_meter(meter)) if meter is not None and meter.on_host else ()),
        *delegate_checks(board, facts),
        *support_checks({name: support_of(name, interpreter, board.runtime.source) for name in ENGINES}),
        *(() if system else import_checks(board, agent, support)),
        *lease_checks(agent),
    ]


def declared_checks(board: Board, facts: Mapping[str, Any]) -> Iterator[Check]:
    """What the board's file and its model say it is."""
    calls_itself, detected = _text(facts, "model"), detect_model(_text(facts, "model"), interpreter_of(facts).machine)
    if board.model.name in {LOCAL, GENERIC} and detected is None:
        yield ok("model", calls_itself or "does not say", board.model.name)
    elif detected == board.model.name:
        yield ok("model", calls_itself or detected, board.model.name)
    elif detected is not None:
        step = (
            f'write extends = "{detected}" in {board.path}'
            if board.path
            else f"name it: {command_line('targets add', 'NAME', ssh='...', model=detected)}"
        )
        yield note("model", f"{calls_itself} ({detected})", step, board.model.name)
    else:
        yield note("model", calls_itself or "does not say", "see whether this is the board you mean", board.model.name)
    if board.serial is not None:
        serial = _text(facts, "serial")
        if serial == board.serial:
            yield ok("serial", serial, board.serial)
        else:
            step = f"another board answers at this address; correct serial in {board.path} if that is meant"
            yield wrong("serial", serial or "does not say", step, board.serial)
    interpreter = interpreter_of(facts)
    found = f"{interpreter}, {_text(facts, 'executable') or board.runtime.python}"
    kinds = board.model.architectures
    if kinds and interpreter.machine not in kinds:
        step = "set extends or runtime.python in the board's file"
        yield wrong("python", found, step, " or ".join(kinds))
    else:
        yield ok("python", found, "3.9 or newer")
    memory = _number(facts, "memory_bytes")
    if memory is not None:
        mib, wanted = memory / 2**20, board.model.memory_mib
        if wanted is not None and mib < wanted * _MEMORY_SHARE:
            yield note("memory", f"{mib:.0f} MiB", "see whether this is the model that is declared", f"{wanted} MiB")
        else:
            yield ok("memory", f"{mib:.0f} MiB", None if wanted is None else f"{wanted} MiB or more")
    usable = facts.get("cores")
    cores = [core for core in usable if isinstance(core, int)] if isinstance(usable, list) else []
    absent = [core for core in board.runtime.cores if core not in cores]
    shown = ", ".join(map(str, cores)) or "unknown"
    if absent and cores:
        step = "correct runtime.cores in the board's file"
        yield wrong("cores", shown, step, ", ".join(map(str, board.runtime.cores)))
    else:
        yield ok("cores", shown, ", ".join(map(str, board.runtime.cores)) or None)


def state_checks(board: Board, facts: Mapping[str, Any]) -> Iterator[Check]:
    """The folder that everything of ours lies in."""
    state = facts.get("state_dir")
    state = state if isinstance(state, dict) else {}
    path, problem = _text(state, "path") or board.runtime.state_dir, _text(state, "problem")
    free = _number(state, "free_bytes")
    free_mib = None if free is None else free / 2**20
    found = path if free_mib is None else f"{path}, {free_mib:.0f} MiB free"
    if problem is not None:
        yield wrong("disk", problem, "name another folder with runtime.state_dir in the board's file")
    elif state.get("exists") is True and state.get("writable") is False:
        yield wrong(
            "disk", f"{path} can't be written", "name another folder with runtime.state_dir in the board's file"
        )
    elif free_mib is not None and free_mib < PROVISIONED_MIB:
        step = f"make room there: {command_line('targets clean', board.name, all=True)}"
        yield note("disk", found, step, f"{PROVISIONED_MIB} MiB to be provisioned")
    elif free_mib is not None and free_mib < board.runtime.cache_max_mib:
        step = f"set runtime.cache_max_mib to less than {free_mib:.0f} in the board's file"
        yield note("disk", found, step, f"{board.runtime.cache_max_mib} MiB, the quota")
    else:
        yield ok("disk", found, f"{board.runtime.cache_max_mib} MiB, the quota")


def condition_checks(board: Board, facts: Mapping[str, Any]) -> Iterator[Check]:
    """What would make measurements there slow or invalid right now."""
    conditions = facts.get("conditions")
    sample: Mapping[str, Any] = conditions if isinstance(conditions, dict) else {}
    tops = sorted(set(_numbers(sample.get("clock_max_mhz"))))
    wanted = [board.environment.expected_clock_mhz] if board.environment.expected_clock_mhz else []
    wanted = wanted or list(board.model.clock_max_mhz)
    text = " or ".join(f"{mhz:.0f} MHz" for mhz in wanted) or None
    if not tops:
        yield note("clock", "its top clock can't be read", "leave the campaign's environment.clock at free", text)
    elif wanted and not any(abs(top - mhz) < 1 for top in tops for mhz in wanted):
        step = "look for a limit in its configuration, its cooling or its power supply"
        yield note("clock", _mhz(tops), step, text)
    else:
        yield ok("clock", _mhz(tops), text)
    governors = sample.get("governor")
    names = sorted(set(_words(list(governors.values())))) if isinstance(governors, dict) else []
    yield ok("governor", ", ".join(names) or "can't be read")
    limit = board.environment.start_temperature_max_c
    hottest = max(_numbers(sample.get("temperatures_c")), default=None)
    if hottest is not None:
        found = f"{hottest:.0f} °C"
        if limit is not None and hottest > limit:
            yield note("temperature", found, "sessions will wait for it to cool down", f"{limit:.0f} °C at most")
        else:
            yield ok("temperature", found, None if limit is None else f"{limit:.0f} °C at most")
    throttled = sample.get("throttled")
    if isinstance(throttled, dict):
        now, past = _words(throttled.get("now")), _words(throttled.get("sticky"))
        if now:
            yield wrong("throttling", f"now: {', '.join(now)}", "look at its power supply and its cooling")
        elif past:
            yield note("throttling", f"since it was started: {', '.join(past)}", "a restart makes new events visible")
        else:
            yield ok("throttling", "none since it was started")
    elif sample.get("throttling_known") is False:
        why = _words([sample.get("firmware_problem")])
        step = "let its user use vcgencmd (group video); else throttling is not known, and qualification needs to know"
        yield note("throttling", f"can't be read{': ' + why[0] if why else ''}", step)
    supply = sample.get("under_voltage")
    if isinstance(supply, dict) and supply.get("now") is True:
        yield wrong("supply", "under-voltage now", "look at its power supply and its cable")
    loop_ns = _number(facts, "calibration_ns")
    if loop_ns is not None:
        yield ok("speed", f"{loop_ns / 1e6:.2f} ms for a fixed piece of work in this Python")
    load = _number(sample, "load1")
    cores = facts.get("cores")
    if load is not None:
        busy = isinstance(cores, list) and load * 100 > _FOREIGN_LOAD_PCT * len(cores) and load > 0.5
        found = f"load {load:.2f}"
        yield (
            note("load", found, "stop what else runs there, or it will disturb measurements")
            if busy
            else ok("load", found)
        )


def clock_checks(facts: Mapping[str, Any], asked: datetime, answered: datetime) -> Iterator[Check]:
    """The board's time against this host's; only timestamps suffer, durations do not."""
    try:
        there = datetime.fromisoformat(str(facts.get("utc")))
    except ValueError:
        yield note("time", "the board does not say what time it is", "set its clock")
        return
    there = there if there.tzinfo else there.replace(tzinfo=UTC)
    # It said so at some moment between question and answer, in whole seconds.
    ahead_s, behind_s = (there - answered).total_seconds(), (asked - there).total_seconds() - 1
    skew_s = max(ahead_s, behind_s, 0.0)
    found = f"{skew_s:.0f} s {'ahead of' if ahead_s > behind_s else 'behind'} this host" if skew_s else "as this host's"
    if skew_s > SKEW_MAX_S:
        yield note("time", found, "set its clock: timestamps of sessions come from it", f"within {SKEW_MAX_S:g} s")
    else:
        yield ok("time", found, f"within {SKEW_MAX_S:g} s")


def sensor_checks(facts: Mapping[str, Any]) -> Iterator[Check]:
    """What the board's own power sensor reads now."""
    said = facts.get("power")
    power: Mapping[str, Any] = said if isinstance(said, dict) else {}
    watts, sensor = _number(power, "watts"), _text(power, "sensor")
    if watts is None or sensor is None:
        found = _text(power, "error") or "the board says nothing of it"
        yield wrong("power meter", found, "correct power_meter.hwmon in the board's file")
        return
    update_s, interval_s = _number(power, "update_s"), _number(power, "interval_s")
    often = "" if interval_s is None else f", read {1 / interval_s:.0f} times a second"
    often += "" if update_s is None else f", a new value every {update_s * 1e3:g} ms"
    yield ok("power meter", f"{sensor}: {watts:.4g} W{often}")


def meter_checks(declared: DeclaredMeter, meter: PowerMeter, look_s: float = METER_LOOK_S) -> Iterator[Check]:
    """Whether the meter's command runs on this host, and what it reads."""
    try:
        with closing(meter):
            meter.start()
            began_s = meter.readings(-math.inf, math.inf)[0, -1]
            meter.wait_until(began_s + look_s, 2 * look_s)
            seconds, watts = meter.readings(began_s, math.inf)
    except EdgeloopError as error:
        yield wrong("power meter", error.message, error.next_step or "correct power_meter.command in the board's file")
        return
    took_s = float(seconds[-1] - seconds[0])
    if took_s <= 0:
        step = "energy needs ten readings in a window: take a faster meter, or raise plan.time_s_min"
        yield note("power meter", f"`{declared}` reads {watts[-1]:.4g} W, no second time in {2 * look_s:g} s", step)
        return
    found = f"`{declared}` reads {watts.mean():.4g} W, {(len(watts) - 1) / took_s:.3g} times a second"
    yield ok("power meter", found)


def delegate_checks(board: Board, facts: Mapping[str, Any]) -> Iterator[Check]:
    """Whether the libraries of its delegates load there, and whether what compiles for them is on this host.

    No delegate is started: what it takes of a model is told by each session.
    """
    said = facts.get("delegate_libraries")
    loaded: Mapping[str, Any] = said if isinstance(said, dict) else {}
    for delegate in board.delegate:
        name, answer = f"delegate {delegate.name}", loaded.get(delegate.library)
        found = answer if isinstance(answer, dict) else {"error": "the board says nothing of it"}
        if found.get("error", "") is not None:
            error = _text(found, "error") or "the board says nothing of it"
            yield wrong(name, error, f"install {delegate.library} there, or correct library in the board's file")
        elif delegate.compile_command and shutil.which(delegate.compile_command[0]) is None:
            step = "install it, or correct compile_command in the board's file"
            yield wrong(name, f"loads; {delegate.compile_command[0]} is not on this host", step)
        else:
            yield ok(name, f"{delegate.library} loads")


def support_checks(support: Mapping[str, EngineSupport]) -> Iterator[Check]:
    """Which engines can run there. One is enough to measure."""
    usable = any(item.usable for item in support.values())
    for item in support.values():
        name = f"engine {item.engine}"
        if item.usable:
            yield ok(name, item.detail)
        elif usable:
            yield note(name, item.detail, item.next_step)
        else:
            yield wrong(name, item.detail, item.next_step or "use another system on the board")


def import_checks(board: Board, agent: BoardAgent, support: Mapping[str, EngineSupport]) -> Iterator[Check]:
    """Whether the runtimes that were pushed there load; nothing is pushed for it."""
    for item in support.values():
        if not item.usable:
            continue
        runtimes = [wheel.runtime for wheel in item.wheels]
        _, missing = agent.missing((), runtimes)
        name = f"runtime {item.engine}"
        if missing:
            step = f"the first measurement pushes it, or: {command_line('targets provision', board.name)}"
            yield note(name, "not provisioned yet", step)
        else:
            yield import_check(name, board, agent, item)


def import_check(name: str, board: Board, agent: BoardAgent, support: EngineSupport) -> Check:
    """Load an engine there, out of its unpacked runtimes."""
    clean, provision = (
        command_line("targets clean", board.name, all=True),
        command_line("targets provision", board.name),
    )
    step = f"provision it anew: {clean}, then {provision}"
    engine = support.engine
    folders = [f"{board.runtime.state_dir}/{wire.RUNTIMES_DIR}/{wheel.runtime}" for wheel in support.wheels]
    try:
        engines = agent.probe(folders, [engine]).get("engines")
    except EdgeloopError as error:
        return wrong(name, f"does not load: {error.message}", step)
    found = engines.get(engine) if isinstance(engines, dict) else None
    found = found if isinstance(found, dict) else {}
    version, error_text = _text(found, "version"), _text(found, "error")
    if error_text is not None or version is None:
        return wrong(name, f"does not load: {error_text or 'no version'}", step)
    return ok(name, f"loads: {version}")


def lease_checks(agent: BoardAgent) -> Iterator[Check]:
    """Who holds the board now."""
    lease = agent.show_lease()
    if lease.get("held") is True:
        remaining = _number(lease, "remaining_s")
        until = "" if remaining is None else f" for {remaining:.0f} s more"
        yield note("lease", f"held by {_text(lease, 'holder')}{until}", "measurements wait for it")
    else:
        yield ok("lease", "free")


def _text(facts: Mapping[str, Any], key: str) -> str | None:
    """A board's own words, bounded and printable."""
    value = facts.get(key)
    return (printable(value) or None) if isinstance(value, str) else None


def _words(values: Any) -> list[str]:
    return [printable(value) for value in values if isinstance(value, str)][:8] if isinstance(values, list) else []


def _number(facts: Mapping[str, Any], key: str) -> float | None:
    value = facts.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _numbers(table: Any) -> list[float]:
    if not isinstance(table, dict):
        return []
    return [number for key in table if (number := _number(table, key)) is not None]


def _mhz(clocks: list[float]) -> str:
    return ", ".join(f"{mhz:.0f} MHz" for mhz in clocks)
