"""What a doctor says of one thing: what was declared or needed, what was found, and what to do about a difference."""

from __future__ import annotations

from typing import Literal

from edgeloop.core.frozen import Frozen

State = Literal["ok", "note", "wrong"]


class Check(Frozen):
    """`note` is worth knowing and hinders nothing; `wrong` hinders."""

    name: str
    state: State
    found: str
    wanted: str | None = None
    next_step: str | None = None


def ok(name: str, found: str, wanted: str | None = None) -> Check:
    return Check(name=name, state="ok", found=found, wanted=wanted)


def note(name: str, found: str, next_step: str | None = None, wanted: str | None = None) -> Check:
    return Check(name=name, state="note", found=found, wanted=wanted, next_step=next_step)


def wrong(name: str, found: str, next_step: str, wanted: str | None = None) -> Check:
    return Check(name=name, state="wrong", found=found, wanted=wanted, next_step=next_step)


def one_bounded_line(text: str) -> str:
    """Words of a board or a runtime as a part of a message: one line, bounded, nothing that a terminal might obey."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:300]


def printable(text: str) -> str:
    """Words that come from a board, as they may go to a terminal or a file: bounded, without control characters."""
    return "".join(letter for letter in text if letter.isprintable())[:200].strip()
