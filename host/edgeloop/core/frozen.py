"""The base of every value that is written to a file or read from one, and the keys made from such values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function


class Frozen(BaseModel):
    """Immutable, typed, and strict about unknown keys; `schema_` is written and read as `schema`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True)


def key_of(*parts: Any) -> str:
    """Return a 64-digit hexadecimal key of JSON-like parts; equal parts give equal keys, on every machine."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class OneOf:
    """Annotates a string that is one of some names. They are looked up at each validation, so that a table may grow."""

    names: Callable[[], tuple[str, ...]]
    more_names: Callable[[], tuple[str, ...]] = tuple
    """Names beside them that are slow to look up: asked for only where a name is not one of the others."""

    def __get_pydantic_core_schema__(self, source: type[str], handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "enum": [*self.names(), *self.more_names()]}

    def _check(self, name: str) -> str:
        if name in self.names() or name in self.more_names():
            return name
        names = [repr(one) for one in (*self.names(), *self.more_names())]
        if not names:
            raise PydanticCustomError("literal_error", "None is installed")
        expectation = " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
        raise PydanticCustomError("literal_error", "Input should be {expected}", {"expected": expectation})
