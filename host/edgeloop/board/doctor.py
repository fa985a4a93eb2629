"""The doctor of a board: asks its agent, its meter and its runtimes, and compares with what was declared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import datetime

from edgeloop.board.agent import BoardAgent
from edgeloop.board.board_words import BoardWords
from edgeloop.board.doctor_checks import (
    clock_checks,
    condition_checks,
    declared_checks,
    delegate_checks,
    sensor_checks,
    state_checks,
    support_checks,
)
from edgeloop.board.meter import open_meter
from edgeloop.board.wheels import (
    EngineSupport,
    engine_support,
    interpreter_of,
    support_of,
)
from edgeloop.core.board import Board, PowerMeterSpec
from edgeloop.core.check import Check, note, ok, wrong
from edgeloop.engines.registry import ENGINES, wheel_engines
from edgeloop.errors import EdgeloopError
from edgeloop.ports import PowerMeter
from edgeloop.sentences import command_line
from edgeloop_agent import wire

METER_LOOK_S = 2.0
"""How long a meter on this host is listened to."""


def diagnose(board: Board, agent: BoardAgent, now: Callable[[], datetime]) -> list[Check]:
    """Ask the board and compare. `now` is this host's clock. Raises where the board can't be asked at all."""
    system = board.runtime.source == "system"
    before = now()
    meter = board.power_meter
    sensor = meter.hwmon if meter is not None else None
    facts = agent.probe(
        engines=wheel_engines() if system else (),
        power_sensor=sensor,
        libraries=sorted({delegate.library for delegate in board.delegate}),
    )
    after = now()
    interpreter = interpreter_of(facts)
    support = engine_support(interpreter, board.runtime.source)
    return [
        *declared_checks(board, facts),
        *state_checks(board, facts),
        *condition_checks(board, facts),
        *clock_checks(facts, before, after),
        *(sensor_checks(facts) if sensor is not None else ()),
        *(meter_checks(meter, open_meter(meter)) if meter is not None and meter.on_host else ()),
        *delegate_checks(board, facts),
        *support_checks({name: support_of(name, interpreter, board.runtime.source) for name in ENGINES}),
        *(() if system else import_checks(board, agent, support)),
        *lease_checks(agent),
    ]


def meter_checks(spec: PowerMeterSpec, meter: PowerMeter, look_s: float = METER_LOOK_S) -> Iterator[Check]:
    """The meter's command, run on this host, and its reading."""
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
        yield note("power meter", f"`{spec}` reads {watts[-1]:.4g} W, no second time in {2 * look_s:g} s", step)
        return
    yield ok("power meter", f"`{spec}` reads {watts.mean():.4g} W, {(len(watts) - 1) / took_s:.3g} times a second")


def import_checks(board: Board, agent: BoardAgent, support: Mapping[str, EngineSupport]) -> Iterator[Check]:
    """The runtimes that were pushed there, as they load; nothing is pushed for it."""
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
    folders = [f"{board.runtime.state_dir}/{wire.RUNTIMES_DIR}/{wheel.runtime}" for wheel in support.wheels]
    try:
        facts = agent.probe(folders, [support.engine])
    except EdgeloopError as error:
        return wrong(name, f"does not load: {error.message}", step)
    engine = BoardWords(facts).part("engines").part(support.engine)
    version, problem = engine.text("version"), engine.text("error")
    if problem is not None or version is None:
        return wrong(name, f"does not load: {problem or 'no version'}", step)
    return ok(name, f"loads: {version}")


def lease_checks(agent: BoardAgent) -> Iterator[Check]:
    """The board's lease."""
    lease = BoardWords(agent.show_lease())
    if lease.flag("held") is True:
        remaining_s = lease.number("remaining_s")
        until = "" if remaining_s is None else f" for {remaining_s:.0f} s more"
        yield note("lease", f"held by {lease.text('holder')}{until}", "measurements wait for it")
    else:
        yield ok("lease", "free")
