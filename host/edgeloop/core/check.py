"""A doctor's check of one thing: how it is, how it was declared or is needed, and what to do about a difference."""

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


def ok(name: str, fact: str, requirement: str | None = None) -> Check:
    return Check(name=name, state="ok", found=fact, wanted=requirement)


def note(name: str, fact: str, next_step: str | None = None, requirement: str | None = None) -> Check:
    return Check(name=name, state="note", found=fact, wanted=requirement, next_step=next_step)


def wrong(name: str, fact: str, next_step: str, requirement: str | None = None) -> Check:
    return Check(name=name, state="wrong", found=fact, wanted=requirement, next_step=next_step)


def one_bounded_line(text: str) -> str:
    """Words of a board or a runtime as a part of a message: one line, bounded, nothing that a terminal might obey."""
    line = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:300]


def printable(text: str) -> str:
    """Words that come from a board, as they may go to a terminal or a file: bounded, without control characters."""
    return "".join(letter for letter in text if letter.isprintable())[:200].strip()
