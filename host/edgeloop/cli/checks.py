"""Checks of a doctor as lines: state, name, fact and requirement, and the next step under them."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.core.check import Check


def checks_text(checks: Sequence[Check]) -> str:
    """One line for each check, and one more where there is something to do."""
    width = max((len(check.name) for check in checks), default=0)
    lines: list[str] = []
    for check in checks:
        requirement = "" if check.wanted is None or check.state == "ok" else f" (wanted: {check.wanted})"
        lines.append(f"{check.state:<5}  {check.name:<{width}}  {check.found}{requirement}")
        if check.next_step:
            lines.append(f"{'':<5}  {'':<{width}}  -> {check.next_step}")
    wrongs = sum(check.state == "wrong" for check in checks)
    notes = sum(check.state == "note" for check in checks)
    return "\n".join([*lines, f"{wrongs} wrong, {notes} to note, {len(checks) - wrongs - notes} ok"])
