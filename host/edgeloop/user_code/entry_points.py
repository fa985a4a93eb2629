"""Loads adapters that third parties install, by a group of entry points and a name in it."""

from __future__ import annotations

from importlib import metadata

from edgeloop.core.installed import installed_names
from edgeloop.errors import UserError, translated


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
