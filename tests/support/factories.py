"""Sessions, artifacts and boards for tests: a whole value of each, and what a test changes of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.core.artifact import Artifact
from edgeloop.core.board import Board, BoardModel
from edgeloop.core.conditions import SessionConditions
from edgeloop.core.measurement import Session

NO_TIMES = np.empty(0, np.int64)


def make_session(**changes: Any) -> Session:
    """Return a latency session that ended well and timed nothing."""
    plain: dict[str, Any] = {
        "index": 0,
        "label": "candidate",
        "kind": "latency",
        "outcome": "ok",
        "detail": "",
        "latencies_ns": NO_TIMES,
        "warmups_ns": NO_TIMES,
        "load_ns": 1,
        "first_ns": 1,
        "peak_rss_bytes": 1,
        "runtime_rss_bytes": 1,
        "conditions": SessionConditions(),
        "boot_id": "b",
    }
    return Session(**plain | changes)


def make_artifact(**changes: Any) -> Artifact:
    """Return the description of a .tflite without inputs or outputs; there is no such file."""
    plain: dict[str, Any] = {
        "path": "/m.tflite",
        "sha256": "a" * 64,
        "deployed_bytes": 1,
        "inputs": (),
        "outputs": (),
    }
    return Artifact(**plain | changes)


def make_board(**changes: Any) -> Board:
    """Return a board of a model that has a name and no more."""
    plain: dict[str, Any] = {"name": "pi", "model": BoardModel(schema=1, name="m")}
    return Board(**plain | changes)
