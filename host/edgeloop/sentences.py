"""Sentences for callers of two languages: Python's, and the command line's.

A message names an argument of the request that it is about, or a command of ours. Python callers read it as Python
spells it; the command line spells the same arguments as its options (`cli.words`). Code that says something need not
know who reads it, and a test holds that no option is spelled below the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self


class Argument(str):
    """An argument of a request by its path: `plan.profile`, or with what to give it, `engine='exec'`.

    As a string it is spelled as Python spells it. The command line has a table of its own (`cli.words`).
    """

    __slots__ = ("path", "value")
    path: str
    value: object

    def __new__(cls, path: str, value: object = None) -> Self:
        argument = super().__new__(cls, path if value is None else f"{path}={value!r}")
        argument.path, argument.value = path, value
        return argument

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.value)


Spell = Callable[[Argument], str]
"""Spells an argument as a caller has it."""


class Sentence(str):
    """A text that names arguments of the request, so that each caller may read it in words of its own.

    `Sentence("leave out {}, or use standard", Argument("limits"))`: each `{}` takes one value. As a string it is
    spelled as Python spells it, and whatever is made of that string is plain text.
    """

    __slots__ = ("parts",)
    parts: tuple[str, ...]

    def __new__(cls, template: str, *values: object) -> Self:
        texts = template.split("{}")
        if len(texts) != len(values) + 1:
            raise ValueError(f"{template!r} has {len(texts) - 1} places for {len(values)} values")
        parts: list[str] = [texts[0]]
        for value, text in zip(values, texts[1:], strict=True):
            parts += [*_parts(value), text]
        return cls.of(parts)

    @classmethod
    def of(cls, parts: Sequence[str]) -> Self:
        """Return the sentence that texts and arguments make together."""
        sentence = super().__new__(cls, "".join(parts))
        sentence.parts = tuple(parts)
        return sentence

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).of, (self.parts,)


def _parts(text: object) -> tuple[str, ...]:
    if isinstance(text, Sentence):
        return text.parts
    return (text,) if isinstance(text, Argument) else (str(text),)


def spelled_by(spell: Spell, text: str) -> str:
    """Return a text with the arguments that it names as a caller spells them."""
    return "".join(spell(part) if isinstance(part, Argument) else part for part in _parts(text))


def names_argument(text: str | None, *paths: str) -> bool:
    """Return True where a text names one of the arguments."""
    return text is not None and any(isinstance(part, Argument) and part.path in paths for part in _parts(text))


def text_to_json(text: str | None) -> str | list[str | list[object]] | None:
    """Return a text so that it comes out of JSON with the arguments that it names."""
    if not isinstance(text, Argument | Sentence):
        return text
    return [[part.path, part.value] if isinstance(part, Argument) else part for part in _parts(text)]


def text_from_json(value: str | list[str | list[Any]] | None) -> str | None:
    """Return the text that `text_to_json` was given."""
    if not isinstance(value, list):
        return value
    return Sentence.of([part if isinstance(part, str) else Argument(*part) for part in value])


def command_line(command: str, *words: str, **options: str | bool) -> str:
    """Return a command of ours as a shell takes it: `edgeloop targets clean pi4`, with its options.

    A test compares each command and option that is named this way with those that there are.
    """
    parts = ["edgeloop", command, *words]
    for name, value in options.items():
        parts += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return " ".join(parts)
