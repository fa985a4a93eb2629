"""The base of every value that is written to a file or read from one, and the keys made from such values."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable, typed, and strict about unknown keys; `schema_` is written and read as `schema`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, serialize_by_alias=True)


def key_of(*parts: Any) -> str:
    """Return a 64-digit hexadecimal key of JSON-like parts; equal parts give equal keys, on every machine."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
