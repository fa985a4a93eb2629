"""The keys of conditions that are refused."""

from __future__ import annotations

from typing import Any

from edgeloop.core.conditions import ConditionsError, read_conditions


def faults(conditions: dict[str, Any]) -> tuple[str, ...]:
    try:
        read_conditions(conditions)
    except ConditionsError as error:
        return error.keys
    return ()
