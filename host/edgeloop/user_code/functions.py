"""A function in a user's Python file, named `file.py:function`: the one place that runs such a file."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from edgeloop.errors import UserError


def load_function(reference: str) -> Any:
    """Return the function or class that `/absolute/file.py:name` names; the file's folder is importable from it.

    Raises UserError where the file is missing, can't be imported, or has no such name.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"{path}: no such file", next_step=f"it is named as {path.name}:{name}")
    module_name = "edgeloop_user_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, path)
        if spec is None or spec.loader is None:
            raise UserError(f"{path}: not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        folder = str(path.parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        if "keras" not in sys.modules:  # it looks once, while it is imported, and would choose tensorflow
            os.environ["KERAS_BACKEND"] = "torch"
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[module_name]
            line = _line_in(error, path)
            raise UserError(f"{path}{line}: can't be imported: {_in_one_line(error)}") from error
    if not hasattr(module, name):
        raise UserError(f"{path}: there is no {name!r} in it")
    return getattr(module, name)


def call_function(function: Any, reference: str, *args: Any, **kwargs: Any) -> Any:
    """Call a user's function; whatever it raises becomes a UserError with file, line and message."""
    try:
        return function(*args, **kwargs)
    except Exception as error:
        path = Path(reference.rpartition(":")[0])
        raise UserError(f"{reference}{_line_in(error, path)}: {_in_one_line(error)}") from error


def _in_one_line(error: Exception) -> str:
    """torch's messages go on for lines, with stack traces and addresses."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= 300 else text[:300] + '...'}"


def _line_in(error: BaseException, path: Path) -> str:
    """The last line of the user's own file in the traceback."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f", line {error.lineno}"
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""
