"""The child process that a delegate's compiler runs under: `python -m edgeloop.builders.delegate_child`.

A program of somebody else's gets what every child of a build gets: an end at the deadline or with its controller, a
bound on its memory, a temporary folder that goes with it. What it prints is the child's log.
"""

from __future__ import annotations

import subprocess

from edgeloop.builders.delegate_jobs import CompilerAnswer, CompilerJob
from edgeloop.processes import json_child


def _prepare() -> None:
    """Nothing: a compiler brings its own."""


def _work(job: CompilerJob) -> CompilerAnswer:
    """Run the command in the folder."""
    try:
        status = subprocess.call(job.words, cwd=job.folder, stdin=subprocess.DEVNULL)
    except OSError as error:
        return CompilerAnswer(problem=f"can't be run: {error.strerror or error}")
    if status < 0:
        return CompilerAnswer(problem=f"was ended by signal {-status}")
    return CompilerAnswer(problem=f"ended with status {status}" if status else None)


if __name__ == "__main__":
    json_child.serve(_work, CompilerJob, prepare=_prepare)
