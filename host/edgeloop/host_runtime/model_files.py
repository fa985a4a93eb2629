"""Model files by their content: an .onnx with its weights beside it, a SavedModel as its whole folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgeloop.core.frozen import key_of
from edgeloop.errors import UserError

ONNX = ".onnx"


def beside(path: Path) -> Path:
    """Where an .onnx keeps its weights, if not in itself: torch's exporter calls it so."""
    return path.with_name(f"{path.name}.data")


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of several with their names: all of a folder, an .onnx and its weights beside it.

    Raises UserError where it can't be read.
    """
    try:
        if path.suffix == ONNX and beside(path).is_file():
            return key_of("with weights", [_digest(path), _digest(beside(path))])
        if not path.is_dir():
            return _digest(path)
        parts = [[str(file.relative_to(path)), _digest(file)] for file in sorted(path.rglob("*")) if file.is_file()]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from error
    return key_of("folder", parts)


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
