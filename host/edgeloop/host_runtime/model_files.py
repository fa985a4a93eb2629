"""Model files by their content, and the description that lies beside a model: `artifact.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import key_of
from edgeloop.core.model_format import ModelFormat
from edgeloop.errors import UserError
from edgeloop.processes.files import sha256_of, write_whole

DESCRIPTION: Final = "artifact.json"


def weights_beside(path: Path) -> Path | None:
    """Where a model of this name keeps its weights, if not in itself; None for a format that never does."""
    model_format = ModelFormat.from_name(path)
    suffix = model_format.row.weights_suffix if model_format is not None else None
    return path.with_name(f"{path.name}{suffix}") if suffix is not None else None


def digest(path: Path) -> str:
    """The SHA-256 of a file, or of several with their names: all of a folder, a model and its weights beside it.

    Raises UserError where it can't be read.
    """
    try:
        weights = weights_beside(path)
        if weights is not None and weights.is_file():
            return key_of("with weights", [sha256_of(path), sha256_of(weights)])
        if not path.is_dir():
            return sha256_of(path)
        parts = [[str(file.relative_to(path)), sha256_of(file)] for file in sorted(path.rglob("*")) if file.is_file()]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from error
    return key_of("folder", parts)


def write_description(folder: Path, artifact: Artifact) -> None:
    """Write what is known of a model into its folder, the model by its name alone. Raises OSError."""
    content = artifact.model_dump(mode="json") | {"path": Path(artifact.path).name}
    write_whole(folder / DESCRIPTION, json.dumps(content, indent=1))


def read_description(folder: Path) -> Artifact:
    """Return what is known of the model in a folder. Raises OSError, ValueError where the file is no description."""
    artifact = Artifact.model_validate_json((folder / DESCRIPTION).read_bytes())
    return artifact.model_copy(update={"path": str(folder / Path(artifact.path).name)})
