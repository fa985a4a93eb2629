"""A function in a user's Python file, named `file.py:function`: the one place that runs such a file."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from edgeloop.errors import EdgeloopError, UserError, one_line, translated

_Result = TypeVar("_Result")


def load_function(reference: str) -> Callable[..., Any]:
    """Return the function or class that `/absolute/file.py:name` names; the file's folder is importable from it.

    Raises UserError where the file is missing, can't be imported, or has no such name.
    """
    file, _, name = reference.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"{path}: no such file", next_step=f"it is named as {path.name}:{name}")
    module_name = "edgeloop_user_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    module = sys.modules.get(module_name) or _run_file(path, module_name)
    if not hasattr(module, name):
        raise UserError(f"{path}: there is no {name!r} in it")
    function: Callable[..., Any] = getattr(module, name)
    return function


def call_function(function: Callable[..., _Result], reference: str, *args: object, **kwargs: object) -> _Result:
    """Call a user's function. Its exceptions become a UserError with file, line and message."""
    path = Path(reference.rpartition(":")[0])
    with translated(UserError, reference, explain=partial(_at_line, path=path, where=reference)):
        return function(*args, **kwargs)


def _run_file(path: Path, module_name: str) -> ModuleType:
    """Run a file as the module of that name; where it fails, the name is free again."""
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
        explain = partial(_at_line, path=path, where=str(path), what="can't be imported: ")
        with translated(UserError, str(path), explain=explain):
            spec.loader.exec_module(module)
    except EdgeloopError:
        del sys.modules[module_name]
        raise
    return module


def _at_line(error: Exception, path: Path, where: str, what: str = "") -> UserError:
    """The error as the user reads it, with the line of their own file."""
    return UserError(f"{where}{_line_in(error, path)}: {what}{one_line(error)}")


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
