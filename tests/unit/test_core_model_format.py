"""A format of models is one row: each suffix has one, and each converter and compiler that a row names exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeloop.core.model_format import Compiler, Converter, ModelFormat
from edgeloop.engines.registry import ENGINES, TVM
from edgeloop.ready_models import compilation, compile_model_child, conversion


@pytest.mark.parametrize(
    ("name", "model_format"),
    [
        ("m.tflite", ModelFormat.TFLITE),
        ("/somewhere/m.keras", ModelFormat.KERAS),
        ("m.h5", ModelFormat.KERAS),
        ("m.pt2", ModelFormat.TORCH_EXPORT),
        ("m.onnx", ModelFormat.ONNX),
        ("model.so", ModelFormat.TVM_LIBRARY),
        ("program.toml", ModelFormat.PROGRAM),
        ("m.onnx.data", None),
        ("m", None),
    ],
)
def test_a_name_tells_the_format(name: str, model_format: ModelFormat | None) -> None:
    assert ModelFormat.from_name(name) is model_format
    assert ModelFormat.of(Path("/nowhere") / name) is model_format


def test_a_folder_is_a_format_by_what_is_in_it_and_not_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "m.keras"
    folder.mkdir()
    assert ModelFormat.of(folder) is None
    (folder / "saved_model.pb").touch()
    assert ModelFormat.of(folder) is ModelFormat.SAVED_MODEL


def test_no_two_formats_share_a_suffix() -> None:
    suffixes = [suffix for one in ModelFormat for suffix in one.row.suffixes]
    assert len(set(suffixes)) == len(suffixes)


def test_a_format_is_run_as_a_tflite_or_compiled_or_is_a_program() -> None:
    ways = {one: (one.runs_as_tflite, one.runs_compiled) for one in ModelFormat}
    assert [one for one, way in ways.items() if way == (False, True)] == [ModelFormat.ONNX, ModelFormat.TVM_LIBRARY]
    assert [one for one, way in ways.items() if way == (False, False)] == [ModelFormat.PROGRAM]


def test_the_rows_of_engines_name_suffixes_that_formats_have() -> None:
    compiled_by_tvm = {s for one in ModelFormat if one.row.compiler is Compiler.TVM for s in one.row.suffixes}
    assert compiled_by_tvm == set(TVM.compiles)
    for row in ENGINES.values():
        for suffix in (row.runs, *row.compiles, *row.claims):
            assert ModelFormat.from_name(f"m{suffix}") is not None, suffix


def test_everything_that_a_row_names_has_somebody_who_does_it() -> None:
    assert set(conversion._CONVERTERS) == set(Converter)
    readers = {one.row.reader for one in ModelFormat if one.row.compiler is Compiler.TVM}
    assert set(compilation._READER_VERSIONS) == set(compile_model_child._OPENERS) == readers
