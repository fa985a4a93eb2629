"""Rooms and the imports between them, as `docs/explanation/architecture.md` draws them.

`python tests/architecture/rooms.py` prints the diagram anew.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from house_figures import import_graph, sources

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/explanation/architecture.md"


def layers() -> list[list[str]]:
    """The rooms of the host, layer by layer, the highest first, as the import contract has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    drawn = next(c["layers"] for c in contracts if c["type"] == "layers" and c.get("containers") == ["edgeloop"])
    return [[room.strip() for room in line.split("|")] for line in drawn]


def imports() -> dict[str, set[str]]:
    """Room -> rooms that it imports."""
    graph: dict[str, set[str]] = {}
    for module, targets in import_graph(sources(ROOT)).items():
        room = _room(module)
        if room is not None:
            graph.setdefault(room, set()).update(other for t in targets if (other := _room(t)) not in (None, room))
    return graph


def reduced(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The edges that no longer way says as well (the transitive reduction of a graph without circles)."""

    def reach(room: str) -> set[str]:
        return set().union(*({one} | reach(one) for one in graph.get(room, ())))

    return {
        (room, target)
        for room, targets in graph.items()
        for target in targets
        if not any(target in reach(other) for other in targets - {target})
    }


def diagram() -> list[str]:
    """The lines of the drawing."""
    edges = reduced(imports())
    order = {room: place for place, room in enumerate(room for layer in layers() for room in layer)}
    lines = ["flowchart TD"]
    for number, layer in enumerate(layers()):
        if len(layer) > 1:
            lines += [f'  subgraph l{number}[" "]', f"    {' ~~~ '.join(layer)}", "  end"]
    return lines + [f"  {a} --> {b}" for a, b in sorted(edges, key=lambda edge: (order[edge[0]], order[edge[1]]))]


def _room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "edgeloop" else None


if __name__ == "__main__":
    print("\n".join(diagram()))
