"""Adapters that third parties install: found by a group of entry points and a name in it, loaded when they are used."""

from __future__ import annotations

from importlib import metadata

from edgeloop.errors import UserError, translated

STRATEGIES = "edgeloop.strategies"
BUILDERS = "edgeloop.builders"
BENCHES = "edgeloop.benches"
TRAINERS = "edgeloop.trainers"


def installed_names(group: str) -> tuple[str, ...]:
    """Return the names that installed packages give in a group, in order."""
    return tuple(sorted({point.name for point in metadata.entry_points(group=group)}))


def load_installed(group: str, name: str) -> object:
    """Return what an installed package gives by a name. Raises UserError where none does, or where it doesn't load."""
    points = metadata.entry_points(group=group, name=name)
    if not points:
        names = ", ".join(installed_names(group)) or "none"
        raise UserError(f"nothing is installed as {name!r} in {group}", next_step=f"installed are: {names}")
    point = next(iter(points))
    with translated(UserError, f"{group}: {name} ({point.value}) can't be loaded"):
        return point.load()


def installed_version(group: str, name: str) -> str:
    """Return the distribution that gives a name, with its version."""
    point = next(iter(metadata.entry_points(group=group, name=name)))
    return "unknown" if point.dist is None else f"{point.dist.name} {point.dist.version}"
