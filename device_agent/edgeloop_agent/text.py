"""Text of others made fit for a message: names, error messages, the last words of a process."""

from __future__ import annotations

import signal

LINE_MAX = 300


def printable(text: str) -> str:
    """Return a text without what a terminal might obey: names of processes and devices are anybody's choice."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def one_line(error: BaseException, limit: int = LINE_MAX) -> str:
    """The last line of an error's message that says something, cut to a bound; its kind where none does."""
    return _last(str(error), limit) or type(error).__name__


def kind_and_line(error: BaseException) -> str:
    """`ValueError: what it says`, in one bounded line."""
    return "%s: %s" % (type(error).__name__, _last(str(error), LINE_MAX) or "no message")


def last_line(tail: bytes) -> str:
    """The last words of what a process printed; empty where it printed none."""
    return _last(tail.decode("utf-8", "replace"), LINE_MAX)


def _last(text: str, limit: int) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(c if c.isprintable() else " " for c in (lines[-1] if lines else ""))[:limit]


def signal_name(number: int) -> str:
    """`SIGSEGV` of 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "signal %d" % number
