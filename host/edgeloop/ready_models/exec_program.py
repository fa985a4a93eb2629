"""The user's own program for the engine `exec`: its .toml read, and all that the board needs packed into one file.

The pack is a .zip with equal bytes for equal contents, so that its hash names it and the board is sent it once.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

from edgeloop.core.artifact import Artifact
from edgeloop.core.parse import parse_as, parse_toml
from edgeloop.core.program import ProgramSpec
from edgeloop.errors import ConfigError, Fault, UserError, kept_on_disk
from edgeloop.processes.files import move_file, sha256_of
from edgeloop.processes.folders import folder_to_fill

_STAMP = (1980, 1, 1, 0, 0, 0)
_SCHEMA = 1


def read_program(path: Path) -> ProgramSpec:
    """Return what a .toml declares. Raises UserError where it can't be read, ConfigError with every fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a .toml that can be read", next_step="the engine exec takes the .toml of a program"
        ) from error
    program = parse_as(ProgramSpec, parse_toml(text, str(path)), str(path))
    absent = [name for name in (program.program, *program.files) if not (path.parent / name).is_file()]
    if absent:
        raise ConfigError([Fault(str(path), f"there is no file {path.parent / name}") for name in absent])
    return program


def pack_program(path: Path, program: ProgramSpec, packs: Path) -> Artifact:
    """Pack a program that was read from `path` into the folder `packs`. Its deployed bytes are those of all its files.

    Raises StationError where this machine can't keep it.
    """
    names = (program.program, *program.files)
    inputs, outputs = (tuple(tensor.spec for tensor in tensors) for tensors in (program.input, program.output))
    declaration = {
        "schema": _SCHEMA,
        "path": program.program,
        "arguments": program.arguments,
        "inputs": [spec.agent_form() for spec in inputs],
        "outputs": [spec.agent_form() for spec in outputs],
    }
    with kept_on_disk(packs):
        packs.mkdir(parents=True, exist_ok=True)
        with folder_to_fill(packs, ".part-") as folder:
            part = folder / "pack.zip"
            with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(zipfile.ZipInfo("program.json", _STAMP), json.dumps(declaration, sort_keys=True))
                for name in sorted(names):
                    member = zipfile.ZipInfo(f"program/{name}", _STAMP)
                    member.external_attr = (0o100755 if name == program.program else 0o100644) << 16
                    with (path.parent / name).open("rb") as source, archive.open(member, "w", force_zip64=True) as sink:
                        shutil.copyfileobj(source, sink)
            sha256 = sha256_of(part)
            pack = packs / f"{sha256}.zip"
            move_file(part, pack)
    return Artifact(
        path=str(pack),
        sha256=sha256,
        deployed_bytes=sum((path.parent / name).stat().st_size for name in names),
        inputs=inputs,
        outputs=outputs,
        declared_by=str(path.resolve()),
    )
