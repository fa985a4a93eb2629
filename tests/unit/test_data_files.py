"""The .npz that a board gets, and the one that a user gives to measure."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeloop.core.dataset import DataSplit
from edgeloop.data import read_measure_npz, write_board_npz
from edgeloop.errors import DataError

SPLIT = DataSplit({"x": np.arange(24, dtype="float32").reshape(6, 4)}, {"y": np.arange(6)})


def test_a_board_gets_the_first_inputs_and_no_targets(tmp_path: Path) -> None:
    write_board_npz(SPLIT, 4, tmp_path / "board.npz")
    with np.load(tmp_path / "board.npz", allow_pickle=False) as archive:
        assert archive.files == ["x"]
        assert np.array_equal(archive["x"], SPLIT.x["x"][:4])
    assert [path.name for path in tmp_path.iterdir()] == ["board.npz"]


def test_several_inputs_are_written_by_name(tmp_path: Path) -> None:
    split = DataSplit({"b": np.zeros((3, 2), "float32"), "a": np.ones((3, 1), "int32")}, {})
    write_board_npz(split, 3, tmp_path / "board.npz")
    with np.load(tmp_path / "board.npz", allow_pickle=False) as archive:
        assert sorted(archive.files) == ["x/a", "x/b"]
        assert archive["x/a"].dtype == np.int32


def test_the_same_samples_give_the_same_bytes_at_another_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_board_npz(SPLIT, 6, tmp_path / "one.npz")
    later = time.localtime(time.time() + 86_400)
    monkeypatch.setattr(time, "localtime", lambda *_: later)
    turned = DataSplit({"x": np.asfortranarray(SPLIT.x["x"])}, {})
    write_board_npz(turned, 6, tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@settings(max_examples=25, deadline=None)
@given(
    names=st.lists(st.from_regex(r"[a-z_][a-z0-9_.-]{0,8}", fullmatch=True), min_size=1, max_size=4, unique=True),
    n=st.integers(1, 9),
)
def test_what_is_written_for_a_board_reads_back_by_name(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], n: int
) -> None:
    path = tmp_path_factory.mktemp("board") / "board.npz"
    split = DataSplit({name: np.full((9, 2), i, "float32") for i, name in enumerate(names)}, {})
    write_board_npz(split, n, path)
    x, y, _ = read_measure_npz(path)
    assert y == {}
    assert {name: (len(a), float(a[0, 0])) for name, a in x.items()} == {m: (n, float(i)) for i, m in enumerate(names)}


def test_measure_data_keep_their_order_and_every_sample(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=SPLIT.x["x"][::-1].astype("float64"), y=np.arange(6, dtype="uint8"))
    x, y, _ = read_measure_npz(tmp_path / "data.npz")
    assert np.array_equal(x["x"], SPLIT.x["x"][::-1])
    assert (x["x"].dtype, y["y"].dtype) == (np.float32, np.int64)
    assert y["y"].tolist() == list(range(6))


def test_bytes_stay_bytes_for_a_quantized_model(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.ones((2, 3), "int8"))
    x, _, _ = read_measure_npz(tmp_path / "data.npz")
    assert x["x"].dtype == np.int8


def test_measure_data_faults_come_at_once(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", **{"x": np.ones((2, 3), "float32"), "y": np.arange(3), "train/x": np.ones((2, 1))})
    with pytest.raises(DataError) as error:
        read_measure_npz(tmp_path / "data.npz")
    text = "\n".join(error.value.lines())
    assert "train/x: unknown key; arrays are named x, y, x/<input> or y/<name>" in text
    assert "arrays of different lengths: x 2, y 3" in text
