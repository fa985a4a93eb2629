"""The gate before the first session: wait for an idle and cool board, up to a limit, and say how that went."""

from __future__ import annotations

import time
from typing import Any, Callable, Optional

from edgeloop_agent import wire
from edgeloop_agent.conditions import ConditionProbe

NOT_ASKED = {"asked": False, "passed": None, "waited_s": 0.0, "detail": ""}
_IDLE_SAMPLES = 4
_IDLE_MAX_PCT = 10.0


def wait_for_calm(
    board: ConditionProbe,
    limits: wire.Conditions,
    own: tuple[list[int], list[int]],
    pause: Callable[[str], None],
    now_s: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Return {asked, passed, waited_s, detail}; `passed` is None where a figure of it can't be read.

    `pause` waits until the next look; its text says for what. A board that is to be soaked need not be cool.
    """
    limit_c = limits.start_temperature_max_c if limits.soak_max_s is None else None
    if not limits.idle_gate and limit_c is None:
        return dict(NOT_ASKED)
    load_max = limits.foreign_load_max_pct if limits.foreign_load_max_pct is not None else _IDLE_MAX_PCT
    start = now_s()
    loads: list[Optional[float]] = []
    names: dict[str, None] = {}
    board.sample(*own, scan=True)
    while True:
        waited_s = now_s() - start
        reasons, unknown = [], []
        if limit_c is not None:
            zones = board.temperatures_c()
            if not zones:
                unknown.append("no temperature can be read")
            elif max(zones.values()) > limit_c:
                reasons.append("%.1f C, wanted at most %g C" % (max(zones.values()), limit_c))
        if limits.idle_gate:
            sample = board.sample(*own)
            loads.append(sample["foreign_load_pct"])
            names.update(dict.fromkeys(sample["foreign_top"]))
            recent = [load for load in loads if load is not None][-_IDLE_SAMPLES:]
            if not recent and len(loads) > _IDLE_SAMPLES:
                unknown.append("the load of others can't be read")
            elif len(recent) < _IDLE_SAMPLES or sum(recent) / len(recent) > load_max:
                reasons.append(_busy(recent, load_max, list(names)))
        if not reasons or waited_s >= limits.cool_down_max_s:
            return {
                "asked": True,
                "passed": None if unknown and not reasons else not reasons,
                "waited_s": round(waited_s, 3),
                "detail": "; ".join(reasons + unknown),
            }
        pause("waiting for an idle and cool board: %s" % "; ".join(reasons))


def _busy(recent: list[float], load_max: float, names: list[str]) -> str:
    if not recent:
        return "load of others, wanted at most %g %%" % load_max
    who = " (%s)" % ", ".join(names[:3]) if names else ""
    return "load of others %.1f %%%s, wanted at most %g %%" % (sum(recent) / len(recent), who, load_max)
