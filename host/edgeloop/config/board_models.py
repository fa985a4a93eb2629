"""The board models that travel with edgeloop: one TOML for each, in `targets/` of the source tree or in the wheel."""

from __future__ import annotations

from pathlib import Path

from edgeloop.core.board import BoardModel
from edgeloop.core.parse import parse_as, parse_toml
from edgeloop.errors import HarnessError, UserError

LOCAL = "local"
GENERIC = "generic-aarch64-debian"


def shipped_folder() -> Path:
    """The folder of shipped board models: in the package of a wheel, at the source root of an editable install."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "targets", package.parent.parent / "targets"):
        if (folder / f"{LOCAL}.toml").is_file():
            return folder
    raise HarnessError(
        f"no board models beside {package}", next_step="the installation is incomplete: install edgeloop again"
    )


def model_names() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(path.stem for path in shipped_folder().glob("*.toml"))


def load_model(name: str) -> BoardModel:
    """Return the shipped model. Raises UserError for an unknown name."""
    if name not in model_names():
        raise UserError(f"no board model {name!r}", next_step=f"models are {', '.join(model_names())}")
    return read_model(shipped_folder() / f"{name}.toml")


def read_model(path: Path) -> BoardModel:
    """Read one model file. Raises ConfigError with all its faults."""
    return parse_as(BoardModel, parse_toml(path.read_text(encoding="utf-8"), str(path)), str(path))


def detect_model(device_tree_model: str | None, machine: str | None = None) -> str | None:
    """The name of the shipped model whose detect text the board's device tree starts with; the longest text wins.

    Where the interpreter's machine is given, a model for other ones does not match.
    """
    if not device_tree_model:
        return None
    text = device_tree_model.rstrip("\0 \n")
    matches = [
        (len(start), model.name)
        for model in map(load_model, model_names())
        for start in model.detect
        if text.startswith(start) and (machine is None or machine in model.architectures)
    ]
    return max(matches)[1] if matches else None
