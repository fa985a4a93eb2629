"""The user's pipeline, looked at before anything is pushed: does the file parse, and has the class its methods?

It is never imported on this machine: it runs on the board, in the session's process.
"""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from edgeloop.core.measurement import PipelineFile
from edgeloop.errors import UserError

_METHODS = ("load", "preprocess", "postprocess")
_BYTES_MAX = 1024 * 1024


def read_pipeline(reference: str) -> PipelineFile:
    """Return the pipeline that `/absolute/file.py:Class` names. Raises UserError for what can't run on a board."""
    file, _, name = reference.rpartition(":")
    path = Path(file)
    try:
        raw = path.read_bytes()
        tree = ast.parse(raw, str(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", next_step="a pipeline is named as FILE.py:Class") from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise UserError(f"{path}{line}: not Python: {getattr(error, 'msg', error)}") from error
    if len(raw) > _BYTES_MAX:
        raise UserError(f"{path}: {len(raw)} bytes, a pipeline has at most {_BYTES_MAX}")
    own = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if own is None:
        raise UserError(f"{path}: there is no class {name!r} in it", next_step="write it at the top level of the file")
    methods = {node.name for node in own.body if isinstance(node, ast.FunctionDef)}
    missing = [method for method in _METHODS if method not in methods]
    if missing and not own.bases:
        raise UserError(
            f"{path}: {name} has no method {', '.join(missing)}",
            next_step="a pipeline has load(encoded), preprocess(decoded) and postprocess(outputs)",
        )
    return PipelineFile(path.resolve(), name, hashlib.sha256(raw).hexdigest())
