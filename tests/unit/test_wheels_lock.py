"""Which engine runs on which interpreter, and the wheels that a board is given."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from known_systems import known_systems

from edgeloop.board import wheels
from edgeloop.board.wheels import (
    Interpreter,
    LockedWheel,
    cached_wheel,
    engine_support,
    interpreter_of,
    pip_download,
    wheel_lock,
    wheels_for,
)
from edgeloop.errors import BoardError, LabError
from edgeloop.processes.files import sha256_of

BOOKWORM: dict[str, Any] = {"python": "3.11.2", "machine": "aarch64", "glibc": "2.36", "abi_tag": "cp311"}
REFERENCE = Path(__file__).parents[2] / "docs/reference/targets.md"


def wheel_of(content: bytes, file: str = "thing-1.0-cp311-cp311-manylinux_2_17_aarch64.whl") -> LockedWheel:
    return LockedWheel(
        distribution="thing",
        version="1.0",
        python="cp311",
        machine="aarch64",
        glibc=(2, 17),
        file=file,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
    )


def download_for(wanted: list[str]) -> wheels.Download:
    def download(wheel: LockedWheel, folder: Path) -> None:
        wanted.append(wheel.file)
        (folder / wheel.file).write_bytes(b"not what the lock says")

    return download


@pytest.mark.parametrize(
    ("system", "usable"),
    [
        ("Raspberry Pi OS Bullseye, 64 bit", set()),
        ("Raspberry Pi OS Bookworm, 64 bit", {"litert", "tflite-runtime", "tvm"}),
        ("Raspberry Pi OS Bookworm, 32 bit", {"tflite-runtime"}),
        ("Raspberry Pi OS Trixie, 64 bit", {"litert", "tvm"}),
        ("Raspberry Pi OS Trixie, 32 bit", set()),
        ("Ubuntu 22.04, 64 bit", {"litert", "tflite-runtime", "tvm"}),
        ("Ubuntu 24.04, 64 bit", {"litert", "tvm"}),
    ],
)
def test_each_system_has_the_engines_that_wheels_exist_for(system: str, usable: set[str]) -> None:
    support = engine_support(dict(known_systems())[system])
    assert {engine for engine, item in support.items() if item.usable} == usable
    assert all(item.next_step for item in support.values() if not item.usable)


def test_the_reference_page_has_the_table_that_doctor_judges_by() -> None:
    page = REFERENCE.read_text()
    for name, interpreter in known_systems():
        cells = ["yes" if item.usable else "no" for item in engine_support(interpreter).values()]
        assert f"| {name} | {cells[0]} | {cells[1]} |" in page


def test_tflite_runtime_is_never_put_beside_numpy_2() -> None:
    for wheel in wheel_lock().wheel:
        if wheel.distribution == "tflite-runtime":
            numpy = wheel_lock().find("numpy", wheel.python, wheel.machine)
            assert numpy is None or numpy.version.startswith("1.")


def test_every_locked_wheel_with_an_engine_has_a_numpy_but_on_32_bit_arm() -> None:
    for wheel in wheel_lock().wheel:
        numpy = wheel_lock().find("numpy", wheel.python, wheel.machine)
        assert (numpy is None) == (wheel.machine == "armv7l")
        assert len(wheel.sha256) == 64
        assert wheel.file.split("-")[2] in {wheel.python, "py3"}
        assert wheel.file.endswith((f"{wheel.machine}.whl", "-none-any.whl"))


def test_a_free_threaded_interpreter_gets_no_ordinary_wheel() -> None:
    free = interpreter_of({**BOOKWORM, "python": "3.13.1", "abi_tag": "cp313t"})
    assert not any(item.usable for item in engine_support(free).values())


def test_an_engine_that_is_installed_and_does_not_import_is_not_there() -> None:
    engines = {"litert": {"version": "2.3.0", "error": None}, "tflite-runtime": {"version": None, "error": "no module"}}
    assert interpreter_of({**BOOKWORM, "engines": engines}).engines == ("litert",)


@pytest.mark.parametrize("strange", [{"engines": 3}, {"numpy": {}}, {"glibc": 2.36}, {"engines": {"litert": "x"}}])
def test_strange_answers_of_a_board_are_taken_for_absent(strange: dict[str, Any]) -> None:
    found = interpreter_of({**BOOKWORM, **strange})
    assert (found.version, found.engines) == ((3, 11), ())


def test_a_board_that_says_too_little_is_a_board_error() -> None:
    with pytest.raises(BoardError, match="does not say which Python"):
        interpreter_of({"machine": "aarch64"})


def test_both_engines_share_one_numpy(tmp_path: Path) -> None:
    asked: list[str] = []
    with pytest.raises(LabError):
        wheels_for(BOOKWORM, ["litert"], "pushed", cache=tmp_path, download=download_for(asked))
    assert asked == ["ai_edge_litert-2.3.0-cp311-cp311-manylinux_2_27_aarch64.whl"]
    support = engine_support(interpreter_of(BOOKWORM))
    assert support["litert"].wheels[1] == support["tflite-runtime"].wheels[1]


def test_everything_that_is_missing_is_named_before_anything_is_downloaded(tmp_path: Path) -> None:
    trixie32 = {"python": "3.13.5", "machine": "armv7l", "kernel_machine": "aarch64", "glibc": "2.41"}
    asked: list[str] = []
    with pytest.raises(BoardError) as caught:
        wheels_for(trixie32, ["litert", "tflite-runtime"], "pushed", cache=tmp_path, download=download_for(asked))
    assert "engine litert: ai-edge-litert 2.3.0 has no wheel for armv7l" in caught.value.message
    assert "engine tflite-runtime: tflite-runtime 2.14.0 has wheels for Python 3.9 to 3.11" in caught.value.message
    assert asked == []


def test_an_old_glibc_is_named_with_the_one_that_is_needed() -> None:
    support = engine_support(Interpreter((3, 11), "aarch64", (2, 31)))["tflite-runtime"]
    assert "needs glibc 2.34" in support.detail
    assert not engine_support(Interpreter((3, 11), "aarch64", None))["litert"].usable


def test_another_implementation_of_python_gets_no_wheel() -> None:
    assert not any(s.usable for s in engine_support(Interpreter((3, 11), "aarch64", (2, 36), "pypy")).values())


def test_32_bit_arm_needs_the_systems_numpy() -> None:
    armv7 = {**BOOKWORM, "machine": "armv7l"}
    with pytest.raises(BoardError, match="numpy is not installed") as caught:
        wheels_for(armv7, ["tflite-runtime"], "pushed")
    assert "apt-get install python3-numpy" in (caught.value.next_step or "")
    support = engine_support(interpreter_of({**armv7, "numpy": "1.24.2"}))
    assert [wheel.distribution for wheel in support["tflite-runtime"].wheels] == ["tflite-runtime"]


def test_source_system_pushes_nothing_and_uses_what_is_there() -> None:
    facts = {**BOOKWORM, "numpy": "2.2.4", "engines": {"litert": {"version": "2.1.0", "error": None}}}
    assert wheels_for(facts, ["litert"], "system") == wheels.WheelSet()
    with pytest.raises(BoardError, match="tflite-runtime can't be imported"):
        wheels_for(facts, ["tflite-runtime"], "system")


def test_source_system_refuses_tflite_runtime_beside_numpy_2() -> None:
    facts = {**BOOKWORM, "numpy": "2.2.4", "engines": {"tflite-runtime": {"version": "2.14.0", "error": None}}}
    with pytest.raises(BoardError, match=r"crashes beside numpy 2\.2\.4"):
        wheels_for(facts, ["tflite-runtime"], "system")


def test_a_cached_wheel_is_used_without_the_network(tmp_path: Path) -> None:
    wheel = wheel_of(b"content")
    (tmp_path / wheel.file).write_bytes(b"content")
    asked: list[str] = []
    assert cached_wheel(wheel, tmp_path, download_for(asked)) == tmp_path / wheel.file
    assert asked == []


def test_a_wheel_that_is_not_the_locked_one_is_not_kept(tmp_path: Path) -> None:
    wheel = wheel_of(b"content")
    (tmp_path / wheel.file).write_bytes(b"cut sho")
    with pytest.raises(LabError, match="the lock says"):
        cached_wheel(wheel, tmp_path / "cache", download_for([]))
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_spoilt_cached_wheel_is_fetched_again(tmp_path: Path) -> None:
    wheel = wheel_of(b"content")
    (tmp_path / wheel.file).write_bytes(b"cut sho")
    path = cached_wheel(wheel, tmp_path, lambda w, folder: (folder / w.file).write_bytes(b"content") and None)
    assert path.read_bytes() == b"content"


def small_wheel(folder: Path) -> LockedWheel:
    """A real wheel for another platform than this one, in a folder that pip can look into."""
    import zipfile

    path = folder / "edgething-1.0-cp311-cp311-manylinux_2_17_aarch64.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = "edgething-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: edgething\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_17_aarch64\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel_of(path.read_bytes(), path.name).model_copy(update={"distribution": "edgething"})


def test_pip_fetches_a_wheel_for_another_machine_by_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index"
    index.mkdir()
    wheel = small_wheel(index)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    path = cached_wheel(wheel, tmp_path / "cache", pip_download)
    assert path.read_bytes() == (index / wheel.file).read_bytes()
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [wheel.file]
    other = wheel.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(LabError, match="could not be downloaded") as caught:
        cached_wheel(other, tmp_path / "other", pip_download)
    assert wheel.file in (caught.value.next_step or "")


def test_an_interpreter_without_pip_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    bare.write_text(f"#!/bin/sh\necho '{sys.executable}: No module named pip' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    with pytest.raises(LabError, match="has no pip"):
        pip_download(wheel_of(b""), tmp_path)


def test_of_a_wheel_that_is_mostly_a_compiler_a_board_gets_what_it_needs(tmp_path: Path) -> None:
    def whole(wheel: LockedWheel, folder: Path) -> None:
        with zipfile.ZipFile(folder / wheel.file, "w") as archive:
            for name in ("tvm/lib/libtvm_runtime.so", "tvm/lib/libtvm_compiler.so", "tvm/__init__.py"):
                archive.writestr(name, name)

    locked = wheel_lock().find("apache-tvm", "cp311", "aarch64")
    assert locked is not None
    whole(locked, tmp_path)
    wheel = locked.model_copy(update={"sha256": sha256_of(tmp_path / locked.file)})
    kept = wheels._for_board(wheel, tmp_path / wheel.file)
    with zipfile.ZipFile(kept) as archive:
        assert archive.namelist() == ["tvm/lib/libtvm_runtime.so"]
    again = kept.read_bytes()
    kept.unlink()
    assert wheels._for_board(wheel, tmp_path / wheel.file).read_bytes() == again
    assert wheel.runtime != wheel.sha256  # another folder on the board than the whole wheel's
    assert len(wheel.runtime) == 64
