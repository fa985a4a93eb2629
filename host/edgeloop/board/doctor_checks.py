"""A board as declared against the board as it describes itself: each difference with what to do about it.

The description comes from the agent's probe (docs/reference/agent.md); nothing is asked here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from edgeloop.board.board_words import BoardWords
from edgeloop.board.wheels import EngineSupport, interpreter_of
from edgeloop.config.board_models import GENERIC, LOCAL, detect_model
from edgeloop.core.board import Board
from edgeloop.core.check import Check, note, ok, wrong
from edgeloop.sentences import command_line

PROVISIONED_MIB = 200
"""Of agent, one runtime and numpy, packed and unpacked."""
SKEW_MAX_S = 5.0
_MEMORY_SHARE = 0.75
"""Firmware and graphics keep a part of a small board's memory for themselves."""
_FOREIGN_LOAD_PCT = 5.0
_LOAD_MIN = 0.5
"""Under this a load average is no load."""


def declared_checks(board: Board, facts: Mapping[str, Any]) -> Iterator[Check]:
    """The declarations of the board's file and its model."""
    words = BoardWords(facts)
    yield _model_check(board, facts, words)
    if board.serial is not None:
        yield _serial_check(board, board.serial, words)
    yield _python_check(board, facts, words)
    memory = words.number("memory_bytes")
    if memory is not None:
        yield _memory_check(board, memory / 2**20)
    yield _cores_check(board, words)


def _model_check(board: Board, facts: Mapping[str, Any], words: BoardWords) -> Check:
    calls_itself, name = words.text("model"), board.model.name
    model = detect_model(calls_itself, interpreter_of(facts).machine)
    if name in {LOCAL, GENERIC} and model is None:
        return ok("model", calls_itself or "does not say", name)
    if model == name:
        return ok("model", calls_itself or model, name)
    if model is None:
        return note("model", calls_itself or "does not say", "see whether this is the board you mean", name)
    step = f"name it: {command_line('targets add', 'NAME', ssh='...', model=model)}"
    if board.path:
        step = f'write extends = "{model}" in {board.path}'
    return note("model", f"{calls_itself} ({model})", step, name)


def _serial_check(board: Board, serial: str, words: BoardWords) -> Check:
    on_board = words.text("serial")
    if on_board == serial:
        return ok("serial", on_board, serial)
    step = f"another board answers at this address; correct serial in {board.path} if that is meant"
    return wrong("serial", on_board or "does not say", step, serial)


def _python_check(board: Board, facts: Mapping[str, Any], words: BoardWords) -> Check:
    interpreter = interpreter_of(facts)
    line = f"{interpreter}, {words.text('executable') or board.runtime.python}"
    architectures = board.model.architectures
    if architectures and interpreter.machine not in architectures:
        step = "set extends or runtime.python in the board's file"
        return wrong("python", line, step, " or ".join(architectures))
    return ok("python", line, "3.9 or newer")


def _memory_check(board: Board, mib: float) -> Check:
    least_mib = board.model.memory_mib
    if least_mib is not None and mib < least_mib * _MEMORY_SHARE:
        return note("memory", f"{mib:.0f} MiB", "see whether this is the model that is declared", f"{least_mib} MiB")
    return ok("memory", f"{mib:.0f} MiB", None if least_mib is None else f"{least_mib} MiB or more")


def _cores_check(board: Board, words: BoardWords) -> Check:
    cores = words.integers("cores") or []
    line, declared_cores = ", ".join(map(str, cores)) or "unknown", ", ".join(map(str, board.runtime.cores))
    if cores and not set(board.runtime.cores) <= set(cores):
        return wrong("cores", line, "correct runtime.cores in the board's file", declared_cores)
    return ok("cores", line, declared_cores or None)


def state_checks(board: Board, facts: Mapping[str, Any]) -> Iterator[Check]:
    """The folder that everything of ours lies in."""
    state = BoardWords(facts).part("state_dir")
    path, problem, free = (
        state.text("path") or board.runtime.state_dir,
        state.text("problem"),
        state.number("free_bytes"),
    )
    free_mib = None if free is None else free / 2**20
    line = path if free_mib is None else f"{path}, {free_mib:.0f} MiB free"
    if problem is None and state.flag("exists") is True and state.flag("writable") is False:
        problem = f"{path} can't be written"
    if problem is not None:
        yield wrong("disk", problem, "name another folder with runtime.state_dir in the board's file")
    elif free_mib is not None and free_mib < PROVISIONED_MIB:
        step = f"make room there: {command_line('targets clean', board.name, all=True)}"
        yield note("disk", line, step, f"{PROVISIONED_MIB} MiB to be provisioned")
    elif free_mib is not None and free_mib < board.runtime.cache_max_mib:
        step = f"set runtime.cache_max_mib to less than {free_mib:.0f} in the board's file"
        yield note("disk", line, step, f"{board.runtime.cache_max_mib} MiB, the quota")
    else:
        yield ok("disk", line, f"{board.runtime.cache_max_mib} MiB, the quota")


def condition_checks(board: Board, facts: Mapping[str, Any]) -> Iterator[Check]:
    """The conditions that would make measurements there slow or invalid right now."""
    words = BoardWords(facts)
    sample = words.part("conditions")
    yield _clock_speed_check(board, sample)
    yield ok("governor", ", ".join(sorted(set(sample.part("governor").values()))) or "can't be read")
    yield from _temperature_check(board, sample)
    yield from _throttling_check(sample)
    if sample.part("under_voltage").flag("now") is True:
        yield wrong("supply", "under-voltage now", "look at its power supply and its cable")
    loop_ns = words.number("calibration_ns")
    if loop_ns is not None:
        yield ok("speed", f"{loop_ns / 1e6:.2f} ms for a fixed piece of work in this Python")
    yield from _load_check(sample, words.integers("cores"))


def _clock_speed_check(board: Board, sample: BoardWords) -> Check:
    tops = sorted(set(sample.part("clock_max_mhz").numbers()))
    expected_mhz = board.environment.expected_clock_mhz
    wanted_mhz = [expected_mhz] if expected_mhz else list(board.model.clock_max_mhz)
    phrase = " or ".join(f"{mhz:.0f} MHz" for mhz in wanted_mhz) or None
    line = ", ".join(f"{mhz:.0f} MHz" for mhz in tops)
    if not tops:
        return note("clock", "its top clock can't be read", "leave the campaign's environment.clock at free", phrase)
    if wanted_mhz and not any(abs(top - mhz) < 1 for top in tops for mhz in wanted_mhz):
        return note("clock", line, "look for a limit in its configuration, its cooling or its power supply", phrase)
    return ok("clock", line, phrase)


def _temperature_check(board: Board, sample: BoardWords) -> Iterator[Check]:
    limit = board.environment.start_temperature_max_c
    hottest = max(sample.part("temperatures_c").numbers(), default=None)
    if hottest is None:
        return
    phrase = None if limit is None else f"{limit:.0f} °C at most"
    if limit is not None and hottest > limit:
        yield note("temperature", f"{hottest:.0f} °C", "sessions will wait for it to cool down", phrase)
    else:
        yield ok("temperature", f"{hottest:.0f} °C", phrase)


def _throttling_check(sample: BoardWords) -> Iterator[Check]:
    if isinstance(sample.plain.get("throttled"), Mapping):
        flags = sample.part("throttled")
        now, past = flags.words("now"), flags.words("sticky")
        if now:
            yield wrong("throttling", f"now: {', '.join(now)}", "look at its power supply and its cooling")
        elif past:
            yield note("throttling", f"since it was started: {', '.join(past)}", "a restart makes new events visible")
        else:
            yield ok("throttling", "none since it was started")
    elif sample.flag("throttling_known") is False:
        why = sample.text("firmware_problem")
        step = "let its user use vcgencmd (group video); else throttling is not known, and qualification needs to know"
        yield note("throttling", f"can't be read{': ' + why if why else ''}", step)


def _load_check(sample: BoardWords, cores: list[int] | None) -> Iterator[Check]:
    load = sample.number("load1")
    if load is None:
        return
    if cores is not None and load * 100 > _FOREIGN_LOAD_PCT * len(cores) and load > _LOAD_MIN:
        yield note("load", f"load {load:.2f}", "stop what else runs there, or it will disturb measurements")
    else:
        yield ok("load", f"load {load:.2f}")


def clock_checks(facts: Mapping[str, Any], before: datetime, after: datetime) -> Iterator[Check]:
    """The board's time against this host's; only timestamps suffer, durations do not.

    The board said its time at some moment between `before` and `after`, in whole seconds.
    """
    try:
        there = datetime.fromisoformat(str(facts.get("utc")))
    except ValueError:
        yield note("time", "the board does not say what time it is", "set its clock")
        return
    there = there if there.tzinfo else there.replace(tzinfo=UTC)
    ahead_s, behind_s = (there - after).total_seconds(), (before - there).total_seconds() - 1
    skew_s = max(ahead_s, behind_s, 0.0)
    line = f"{skew_s:.0f} s {'ahead of' if ahead_s > behind_s else 'behind'} this host" if skew_s else "as this host's"
    if skew_s > SKEW_MAX_S:
        yield note("time", line, "set its clock: timestamps of sessions come from it", f"within {SKEW_MAX_S:g} s")
    else:
        yield ok("time", line, f"within {SKEW_MAX_S:g} s")


def sensor_checks(facts: Mapping[str, Any]) -> Iterator[Check]:
    """The reading of the board's own power sensor."""
    power = BoardWords(facts).part("power")
    watts, sensor = power.number("watts"), power.text("sensor")
    if watts is None or sensor is None:
        line = power.text("error") or "the board says nothing of it"
        yield wrong("power meter", line, "correct power_meter.hwmon in the board's file")
        return
    update_s, interval_s = power.number("update_s"), power.number("interval_s")
    often = "" if interval_s is None else f", read {1 / interval_s:.0f} times a second"
    often += "" if update_s is None else f", a new value every {update_s * 1e3:g} ms"
    yield ok("power meter", f"{sensor}: {watts:.4g} W{often}")


def delegate_checks(board: Board, facts: Mapping[str, Any]) -> Iterator[Check]:
    """The libraries of its delegates, as they load there, and the compilers for them on this host.

    No delegate is started: its share of a model is told by each session.
    """
    libraries = BoardWords(facts).part("delegate_libraries")
    for delegate in board.delegate:
        name, library = f"delegate {delegate.name}", libraries.part(delegate.library)
        if library.plain.get("error", "") is not None:
            line = library.text("error") or "the board says nothing of it"
            yield wrong(name, line, f"install {delegate.library} there, or correct library in the board's file")
        elif delegate.compile_command and shutil.which(delegate.compile_command[0]) is None:
            step = "install it, or correct compile_command in the board's file"
            yield wrong(name, f"loads; {delegate.compile_command[0]} is not on this host", step)
        else:
            yield ok(name, f"{delegate.library} loads")


def support_checks(support: Mapping[str, EngineSupport]) -> Iterator[Check]:
    """The engines that can run there. One is enough to measure."""
    one_runs = any(item.usable for item in support.values())
    for item in support.values():
        name = f"engine {item.engine}"
        if item.usable:
            yield ok(name, item.detail)
        elif one_runs:
            yield note(name, item.detail, item.next_step)
        else:
            yield wrong(name, item.detail, item.next_step or "use another system on the board")
