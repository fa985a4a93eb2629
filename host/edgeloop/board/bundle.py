"""The agent as one file for the board: a zip whose bytes depend on nothing but the agent's sources.

Entries are deflated, so that the file stays small on its way and on the board. Equal sources give equal bytes with
the same zlib; where another machine's zlib packs otherwise, the board is sent the file once more and nothing else
changes, since a job names the agent it was written for.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from edgeloop.board.reproducible_zip import zip_of
from edgeloop.errors import HarnessError

BUNDLE_BYTES_MAX = 150_000
_MAIN = "import sys\nfrom edgeloop_agent.__main__ import main\nsys.exit(main())\n"


@dataclass(frozen=True, slots=True)
class AgentBundle:
    """`data` is what the board's Python runs; `sha256` is the digest of just these bytes."""

    data: bytes
    sha256: str


@functools.cache
def agent_bundle() -> AgentBundle:
    """Return the bundle of the installed agent, the same bytes on every machine and in every process."""
    spec = importlib.util.find_spec("edgeloop_agent")
    if spec is None or spec.origin is None:
        raise HarnessError("the package edgeloop_agent is not installed", next_step="install edgeloop again")
    return bundle_of(Path(spec.origin).parent)


def bundle_of(package: Path) -> AgentBundle:
    """Return the bundle of an agent package's folder. Raises HarnessError where it grew beyond the bound."""
    sources = {f"edgeloop_agent/{path.relative_to(package).as_posix()}": path for path in package.rglob("*.py")}
    entries = [("__main__.py", _MAIN.encode()), *((name, sources[name].read_bytes()) for name in sorted(sources))]
    data = zip_of(entries)
    if len(data) > BUNDLE_BYTES_MAX:
        raise HarnessError(f"the agent's bundle has {len(data)} bytes, at most {BUNDLE_BYTES_MAX}")
    return AgentBundle(data, hashlib.sha256(data).hexdigest())
