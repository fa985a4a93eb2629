"""Models made of other ready models, kept for every run and command of this user.

Below a root lies `<key>/` with a model and `artifact.json`; a folder appears whole or not at all. Other machines may
share the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from platformdirs import user_cache_path
from pydantic import ValidationError

from edgeloop.core.artifact import Artifact
from edgeloop.errors import UserError, kept_on_disk
from edgeloop.host_runtime.model_files import digest, read_description, write_description
from edgeloop.processes.folders import clear_abandoned, folder_to_fill, older_than, publish_folder

_MAKING: Final = ".making-"
_ABANDONED_S = 7 * 24 * 3600.0
"""Much longer than any deadline."""


def cache_root(name: str) -> Path:
    """The folder of this user's cache for one kind of models."""
    return user_cache_path("edgeloop") / name


def find_or_make(source: Path, folder: Path, make: Callable[[Path], Artifact]) -> Artifact:
    """Return what is made of the file `source`: the one in `folder` where it was made before, else a new one.

    `make` leaves files in the folder that it gets, and says which of them is the model. Raises what it raises,
    StationError for this machine's disk.
    """
    before = _find(folder, source)
    if before is not None:
        return before
    root = folder.parent
    with kept_on_disk(root):
        root.mkdir(parents=True, exist_ok=True)
        clear_abandoned(root, _MAKING, older_than(_ABANDONED_S))
        with folder_to_fill(root, _MAKING) as new:
            artifact = make(new)
            write_description(new, artifact)
            publish_folder(new, folder, lambda other: _find(other, source) is not None)
    return artifact.model_copy(update={"path": str(folder / Path(artifact.path).name)})


def _find(folder: Path, source: Path) -> Artifact | None:
    """The model in a folder, if the file is still what it was."""
    try:
        artifact = read_description(folder)
        if digest(Path(artifact.path)) != artifact.sha256:
            return None
    except (OSError, UserError, ValidationError):
        return None
    return artifact.model_copy(update={"converted_from": str(source.resolve())})
