"""A program's .toml: what it may say, and the one file that it is packed into."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest
from known_systems import known_systems

from edgeloop.board.wheels import Interpreter, support_of, wheels_for
from edgeloop.core.campaign import Reference, Search
from edgeloop.engines.registry import EXEC
from edgeloop.errors import BoardError, ConfigError, UserError
from edgeloop.ready_models.exec_program import pack_program, read_program
from edgeloop_agent import wire

GOOD = """schema = 1
program = "bin/net"
files = ["net.bin"]
arguments = ["net.bin"]
[[input]]
name = "x"
dtype = "int8"
shape = [2, 3]
scale = 0.5
zero_point = -1
[[output]]
name = "y"
dtype = "float32"
shape = []
"""


def written(folder: Path, text: str = GOOD) -> Path:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin/net").write_bytes(b"program")
    (folder / "net.bin").write_bytes(b"weights")
    path = folder / "net.toml"
    path.write_text(text)
    return path


def test_a_pack_holds_what_the_agent_reads_and_equal_contents_have_one_hash(tmp_path: Path) -> None:
    path = written(tmp_path)
    packs = [pack_program(path, read_program(path), tmp_path / name) for name in ("a", "b")]
    assert packs[0].sha256 == packs[1].sha256
    assert packs[0].deployed_bytes == len(b"program") + len(b"weights")
    assert packs[0].origin == str(path)
    assert (packs[0].inputs[0].shape, packs[0].outputs[0].shape) == ((1, 2, 3), (1,))
    with zipfile.ZipFile(packs[0].path) as archive:
        told = wire.decode(wire.WireProgram, archive.read(wire.PROGRAM_FILE))
        modes = {info.filename: info.external_attr >> 16 & stat.S_IXUSR for info in archive.infolist()}
    assert (told.path, told.arguments) == ("bin/net", ["net.bin"])
    assert told.inputs == [wire.Tensor("x", "int8", [1, 2, 3], 0.5, -1)]
    assert bool(modes[f"{wire.PROGRAM_DIR}/bin/net"]) is True
    assert bool(modes[f"{wire.PROGRAM_DIR}/net.bin"]) is False
    (tmp_path / "net.bin").write_bytes(b"other weights")
    assert pack_program(path, read_program(path), tmp_path / "a").sha256 != packs[0].sha256
    assert sorted(place.suffix for place in (tmp_path / "a").iterdir()) == [".zip", ".zip"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"bin/net"', '"../net"', "program: name a file in the folder of this file, or below it"),
        ('["net.bin"]', '["/net.bin"]', "files.0: name a file in the folder of this file, or below it"),
        ('["net.bin"]', '["bin/net"]', "two files are called 'bin/net'"),
        ('["net.bin"]', '["absent.bin"]', "there is no file"),
        ("zero_point = -1", "", "scale and zero_point go together"),
        ('dtype = "int8"', 'dtype = "float32"', "a float32 has no scale"),
        ('dtype = "int8"', 'dtype = "complex64"', "input.0.dtype"),
        ("schema = 1", "schema = 1\nperoid = true", "peroid: unknown key; did you mean 'period'?"),
        ("schema = 1", 'schema = 1\ntimings = ["end_to_end"]', "timings.0"),
        ("[[output]]", "[[inputs]]", "output: missing"),
        ("schema = 1", "schema", "not TOML"),
    ],
)
def test_a_fault_is_named_with_its_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_program(written(tmp_path, GOOD.replace(old, new, 1)))
    assert said in "\n".join(caught.value.lines())


def test_what_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_program(tmp_path / "none.toml")
    (tmp_path / "model.tflite").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"not a \.toml") as caught:
        read_program(tmp_path / "model.tflite")
    assert caught.value.next_step == "the engine exec takes the .toml of a program"


def test_a_campaign_says_that_no_builder_makes_programs() -> None:
    for make in (lambda: Search(engines=("exec",)), lambda: Reference(family="ds_cnn", engine="exec")):
        with pytest.raises(ValueError, match="exec runs a program of your own, which no builder makes"):
            make()


@pytest.mark.parametrize(("name", "system"), known_systems())
def test_every_system_with_numpy_can_run_a_program_even_where_no_engine_can(name: str, system: Interpreter) -> None:
    assert support_of(EXEC.name, system).usable, name
    assert all(wheel.distribution == "numpy" for wheel in support_of(EXEC.name, system).wheels)
    assert support_of(EXEC.name, system, "system").wheels == ()


def test_without_numpy_the_next_step_is_said() -> None:
    facts = {"python": "3.13.1", "machine": "armv7l", "glibc": "2.41"}
    with pytest.raises(BoardError, match="numpy is not installed") as caught:
        wheels_for(facts, ["exec"], "pushed")
    assert caught.value.next_step == "install the system's numpy there: apt-get install python3-numpy"
