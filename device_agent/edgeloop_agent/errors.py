"""The agent's errors: what a command answers with, and how a session ends that could not be measured."""

from __future__ import annotations

import errno
from typing import NoReturn, Optional

from edgeloop_agent.wire import ErrorCode

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class AgentError(Exception):
    """One line for the user; who has to act: user, model, board, lab or harness; and a code that the host acts on."""

    def __init__(self, message: str, owner: str = "board", code: ErrorCode = ErrorCode.OTHER) -> None:
        super().__init__(message)
        self.owner = owner
        self.code = code


class RefusedError(Exception):
    """The engine, or the rule for inputs, does not take this model or these data: one line."""


class DelegateError(Exception):
    """A delegate's library can't be loaded, or the delegate does not start, whatever the model: one line, and whose
    it is."""

    def __init__(self, detail: str, owner: str) -> None:
        super().__init__(detail)
        self.owner = owner


class CrashedError(Exception):
    """The process that ran the model, beside the session's own, ended badly: one line, and the signal it died of."""

    def __init__(self, detail: str, signal: Optional[int]) -> None:
        super().__init__(detail)
        self.signal = signal


class PipelineError(Exception):
    """A fault of the user's pipeline, in one line that names the method."""


def code_of(error: OSError) -> ErrorCode:
    """The code for an error of the operating system."""
    return ErrorCode.DISK_FULL if error.errno in _FULL else ErrorCode.OTHER


def raise_for_os(error: OSError, what: str) -> NoReturn:
    """Translate an OSError of the board's disk into one line."""
    words = {
        errno.ENOSPC: "no space left on the board",
        errno.EDQUOT: "the disk quota on the board is used up",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "permission denied",
        errno.EPERM: "not permitted",
    }
    text = words.get(error.errno or 0, error.strerror or type(error).__name__)
    raise AgentError("%s: %s" % (what, text), "board", code_of(error)) from error
