"""TOML text into frozen values, with all faults at once."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgeloop.errors import ConfigError, Fault

_M = TypeVar("_M", bound=BaseModel)


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parse TOML. Raises ConfigError with line and column where it is not TOML."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([Fault(where, f"not TOML: {error}")]) from error


def parse_as(kind: type[_M], plain: object, where: str) -> _M:
    """Return `plain` as a `kind`. Raises ConfigError with one fault for each wrong key, path included."""
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(list(faults_of(error, kind, where))) from error


def faults_of(error: ValidationError, kind: type[BaseModel], where: str) -> Iterable[Fault]:
    """Translate pydantic's errors into faults."""
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"])
        place = f"{where}: {path}" if path else where
        if item["type"] == "extra_forbidden":
            yield Fault(place, "unknown key", _nearest(kind, item["loc"]))
        elif item["type"] == "missing":
            yield Fault(place, "missing")
        else:
            yield Fault(
                place, item["msg"].removeprefix("Value error, ").replace("\n", " "), _value_in_words(item.get("input"))
            )


def _value_in_words(value: object) -> str | None:
    return f"found {value!r}" if isinstance(value, str | int | float | bool) else None


def _nearest(kind: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """Suggest a key of the table that the unknown one stands in."""
    table: Any = kind
    for part in location[:-1]:
        if isinstance(part, str) and isinstance(table, type) and issubclass(table, BaseModel):
            annotations = {info.alias or name: info.annotation for name, info in table.model_fields.items()}
            table = next(
                (t for t in (annotations.get(part), *getattr(annotations.get(part), "__args__", ())) if _is_table(t)),
                None,
            )
    if not _is_table(table):
        return "remove it"
    keys = [info.alias or name for name, info in table.model_fields.items()]
    close = difflib.get_close_matches(str(location[-1]), keys, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(keys)}"


def _is_table(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
