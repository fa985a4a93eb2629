"""The child process that a delegate's compiler runs under: `python -m edgeloop.builders.delegate_child`.

A program of somebody else's gets what every child of a build gets: an end at the deadline or with its controller, a
bound on its memory, a temporary folder that goes with it. What it prints is the child's log.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from typing import Any

from edgeloop.processes import json_child


def _prepare() -> None:
    """Nothing: a compiler brings its own."""


def _work(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run the command in the folder. Says how it failed, None where it did not."""
    try:
        status = subprocess.call(job["words"], cwd=job["folder"], stdin=subprocess.DEVNULL)
    except OSError as error:
        return {"problem": f"can't be run: {error.strerror or error}"}
    if status < 0:
        return {"problem": f"was ended by signal {-status}"}
    return {"problem": f"ended with status {status}" if status else None}


if __name__ == "__main__":
    json_child.serve(_work, prepare=_prepare)
