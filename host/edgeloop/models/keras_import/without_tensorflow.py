"""A guard that keeps tensorflow out of a process that has torch in it. No Keras here."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

from edgeloop.errors import MissingExtraError, UserError


class _NoTensorflow(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds tensorflow, and can't import it. Keras looks into sys.modules, so a blank there would not do."""

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if fullname.partition(".")[0] == "tensorflow" else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        raise ModuleNotFoundError(f"{spec.name} can't be imported here", name=spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Never reached."""


@contextlib.contextmanager
def without_tensorflow(source: str) -> Iterator[None]:
    """Run a user's factory where tensorflow can't be imported: a process with torch in it may die of it, silently.

    Raises UserError where it is asked for, MissingExtraError where keras is and is not installed.
    """
    guards = [_NoTensorflow()] if "tensorflow" not in sys.modules and importlib.util.find_spec("tensorflow") else []
    sys.meta_path[:0] = guards
    try:
        yield
    except UserError as error:
        cause = error.__cause__
        missing = (cause.name or "").partition(".")[0] if isinstance(cause, ModuleNotFoundError) else None
        if missing == "keras":
            raise MissingExtraError("keras", "keras", source) from error
        if missing == "tensorflow":
            raise UserError(
                f"{source}: it imports tensorflow, and networks are trained on torch, in the same process",
                next_step="import keras (Keras 3) where it says tensorflow.keras, and leave KERAS_BACKEND alone",
            ) from error
        raise
    finally:
        for guard in guards:
            sys.meta_path.remove(guard)
