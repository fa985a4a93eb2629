"""The adapters that installed packages give by entry points: their groups, and their names.

What a name stands for is code of third parties, which `edgeloop.user_code.entry_points` loads.
"""

from __future__ import annotations

from importlib import metadata

STRATEGIES = "edgeloop.strategies"
BUILDERS = "edgeloop.builders"
BENCHES = "edgeloop.benches"
TRAINERS = "edgeloop.trainers"


def installed_names(group: str) -> tuple[str, ...]:
    """Return the names that installed packages give in a group, in order."""
    return tuple(sorted({point.name for point in metadata.entry_points(group=group)}))
