"""The name of a function or class in a user's Python file, as campaigns spell it: `file.py:name`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

FunctionPath = Annotated[str, Field(pattern=r"^.+\.py:[A-Za-z_]\w*$")]
"""`file.py:name`; in a loaded campaign the file's path is absolute."""
