"""Providers: what load gives for each, how samples are divided, and what is refused, in one line each."""

from __future__ import annotations

import gzip
import importlib.util
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeloop.core.campaign import Data
from edgeloop.core.dataset import DataSet
from edgeloop.data import load
from edgeloop.errors import DataError, MissingExtraError, UserError

SPLITS = ("train", "validation", "calibration", "test")


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load(Data(provider="digits"))


@pytest.fixture(scope="module")
def mnist5k() -> DataSet:
    return load(Data(provider="mnist5k"))


def prints(data: DataSet, split: str) -> set[bytes]:
    return {sample.tobytes() for sample in getattr(data, split).x["x"]}


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 4, 4, 1)).astype("float32")


def refused(tmp_path: Path, **arrays: Any) -> list[str]:
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(DataError) as error:
        load(Data(provider="npz", path=str(tmp_path / "data.npz")))
    return error.value.lines()


@pytest.mark.parametrize(
    ("provider", "shape", "sizes"),
    [("digits", (8, 8, 1), (997, 350, 100, 350)), ("mnist5k", (28, 28, 1), (2800, 1000, 200, 1000))],
)
def test_packaged_data_are_normalised_channel_last_and_of_the_stated_sizes(
    provider: str, shape: tuple[int, ...], sizes: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    data: DataSet = request.getfixturevalue(provider)
    assert tuple(len(getattr(data, split)) for split in SPLITS) == sizes
    x, y = data.train.x["x"], data.train.y["y"]
    assert (x.dtype, x.shape[1:], y.dtype, y.shape) == (np.float32, shape, np.int64, (sizes[0],))
    assert abs(float(x.mean())) < 0.05
    assert abs(float(x.std()) - 1) < 0.05


def test_no_sample_is_in_two_splits(digits: DataSet) -> None:
    sets = [prints(digits, split) for split in SPLITS]
    assert len(set.union(*sets)) == sum(map(len, sets)) == 1797


def test_every_head_of_a_split_holds_the_classes_in_proportion(mnist5k: DataSet) -> None:
    for split in SPLITS:
        assert set(np.bincount(getattr(mnist5k, split).y["y"][:50])) == {5}


def test_a_data_set_is_the_same_each_time_it_is_loaded(digits: DataSet) -> None:
    again = load(Data(provider="digits"))
    assert again.sha256 == digits.sha256
    assert np.array_equal(again.test.x["x"], digits.test.x["x"])


def test_the_digest_sees_a_changed_value_and_a_changed_name(tmp_path: Path) -> None:
    def digest(**arrays: np.ndarray) -> str:
        np.savez(tmp_path / "data.npz", **arrays)
        return load(Data(provider="npz", path=str(tmp_path / "data.npz"))).sha256

    x, y = images(40), np.arange(40) % 2
    changed = x.copy()
    changed[0, 0, 0, 0] += 1
    assert len({digest(x=x, y=y), digest(x=changed, y=y), digest(**{"x/a": x, "y": y})}) == 3


def test_loading_needs_no_torch_and_imports_no_data_package() -> None:
    code = (
        "import sys; from edgeloop.core.campaign import Data; from edgeloop.data import load; "
        "load(Data(provider='digits')); print([m for m in ('torch', 'sklearn', 'mlxtend') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_data_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as error:
        load(Data(provider="digits"))
    assert error.value.lines() == [
        "data provider 'digits' needs the package scikit-learn, which is not installed; pip install 'edgeloop[train]'"
    ]


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}i", *values.shape)
    return gzip.compress(head + values.astype(np.uint8).tobytes())


def fashion_folder(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, n in (("train", 200), ("t10k", 50)):
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(rng.integers(0, 256, (n, 28, 28))))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(n) % 10))
    return folder


def test_fashion_mnist_is_read_from_a_folder_of_idx_files(tmp_path: Path) -> None:
    data = load(Data(provider="fashion-mnist", path=str(fashion_folder(tmp_path))))
    assert [len(getattr(data, split)) for split in SPLITS] == [162, 20, 18, 50]
    pixels = np.round((data.test.x["x"] * 0.353 + 0.286) * 255)
    assert data.test.x["x"].shape == (50, 28, 28, 1)
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_missing_fashion_mnist_names_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load(Data(provider="fashion-mnist", path=str(tmp_path)))
    assert "sudo apt install dataset-fashion-mnist" in error.value.lines()[0]


@pytest.mark.parametrize("damage", ["cut", "text", "short"])
def test_a_damaged_idx_file_is_named(tmp_path: Path, damage: str) -> None:
    file = fashion_folder(tmp_path) / "t10k-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    bad = {
        "cut": whole[: len(whole) // 2],
        "text": b"<html>not found</html>",
        "short": gzip.compress(gzip.decompress(whole)[:-5]),
    }
    file.write_bytes(bad[damage])
    with pytest.raises(DataError) as error:
        load(Data(provider="fashion-mnist", path=str(tmp_path)))
    assert len(error.value.lines()) == 1
    assert error.value.lines()[0].startswith(str(file))


def test_x_and_y_of_an_npz_are_divided_with_the_classes_in_proportion(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=images(100), y=np.repeat([0, 1], [80, 20]))
    data = load(Data(provider="npz", path=str(tmp_path / "data.npz")))
    assert [len(getattr(data, split)) for split in SPLITS] == [54, 20, 6, 20]
    assert [int(getattr(data, split).y["y"].sum()) for split in ("validation", "test")] == [4, 4]


def test_given_splits_are_kept_and_only_what_is_missing_is_carved(tmp_path: Path) -> None:
    arrays = {
        "train/x": images(100),
        "train/y": np.arange(100) % 2,
        "test/x": images(30, 1),
        "test/y": np.arange(30) % 2,
    }
    np.savez(tmp_path / "data.npz", **arrays)
    data = load(Data(provider="npz", path=str(tmp_path / "data.npz")))
    assert [len(getattr(data, split)) for split in SPLITS] == [81, 10, 9, 30]
    assert prints(data, "test") == {sample.tobytes() for sample in images(30, 1)}


def test_names_after_the_slash_become_tensor_names_and_types_are_narrowed(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "data.npz",
        **{"x/image": images(40).astype("float64"), "x/age": np.arange(40)[:, None], "y/size": np.linspace(0, 1, 40)},
    )
    data = load(Data(provider="npz", path=str(tmp_path / "data.npz")))
    assert {name: (str(a.dtype), a.shape[1:]) for name, a in data.train.x.items()} == {
        "image": ("float32", (4, 4, 1)),
        "age": ("int32", (1,)),
    }
    assert (data.train.y["size"].dtype, data.train.y["size"].shape[1:]) == (np.float32, (1,))


def test_all_faults_of_an_npz_come_at_once_one_line_each(tmp_path: Path) -> None:
    bad = images(40)
    bad[3, 0, 0, 0] = np.nan
    lines = refused(
        tmp_path,
        **{
            "train/x": bad,
            "train/y": np.arange(40) % 2,
            "train/z": np.zeros(40),
            "test/x": images(10)[..., 0],
            "test/y": np.arange(9) % 2,
            "tset/x": images(3),
        },
    )
    text = "\n".join(lines)
    assert "unknown split 'tset'; splits are train, validation, calibration, test, unlabelled" in text
    assert "split 'train': x: 1 values are NaN or infinite, the first in sample 3" in text
    assert "split 'train': z: unknown key" in text
    assert "split 'test': arrays of different lengths: x/x 10, y/y 9" in text
    assert len(lines) == 5


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.arange(30)}, "no x, only y"),
        ({"x": np.zeros((0, 4), "float32"), "y": np.zeros(0, int)}, "empty: shape (0, 4)"),
        ({"x": images(1), "y": np.zeros(1, int)}, "one sample only"),
        ({"x": images(12), "y": np.zeros(12, int)}, "12 samples are too few to divide"),
        ({"x": np.array([["a"], ["b"]])}, "an array of <U1"),
        ({"x": np.zeros(30, "float32")}, "shape (30,) has no feature axis"),
        ({"x": images(30), "x/more": images(30)}, "has both x and x/<name>"),
        ({"x": images(30), "train/x": images(30)}, "has splits and, beside them, x"),
        ({"x": np.full((30, 1), 1e300)}, "go beyond float32"),
        ({"x": np.full((30, 1), 2**40)}, "go beyond int32"),
        ({"train/x": images(30)}, "split 'test' is missing"),
        ({"train/x": images(30), "test/x": images(30, 1).repeat(2, 1)}, "samples of shape (8, 4, 1), but (4, 4, 1)"),
        ({"train/x": images(30), "test/x": images(30, 1), "test/y": np.arange(30)}, "y/y: not in train"),
    ],
)
def test_unusable_arrays_are_refused_in_one_line(tmp_path: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    lines = refused(tmp_path, **arrays)
    assert any(said in line for line in lines), lines
    assert all(line.startswith(str(tmp_path)) for line in lines)


def test_copies_between_splits_are_refused_with_their_number(tmp_path: Path) -> None:
    train, test = images(200), images(100, 1)
    test[:3] = train[:3]
    lines = refused(tmp_path, **{"train/x": train, "test/x": test, "validation/x": images(50, 2)})
    assert sum("3 of 100 samples are exact copies of samples in 'train'" in line for line in lines) == 1


def test_a_single_copy_in_a_hundred_is_let_pass(tmp_path: Path) -> None:
    train, test = images(200), images(100, 1)
    test[0] = train[0]
    arrays = {"train/x": train, "test/x": test, "validation/x": images(50, 2), "calibration/x": images(50, 3)}
    np.savez(tmp_path / "data.npz", **arrays)
    assert len(load(Data(provider="npz", path=str(tmp_path / "data.npz"))).test) == 100


def test_an_npz_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    lines = refused(tmp_path, x=np.array([Bomb(), Bomb()], dtype=object))
    assert "x: an array of objects" in lines[0]
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04cut"])
def test_what_is_not_an_npz_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"data\.npz: not an \.npz, or cut short"):
        load(Data(provider="npz", path=str(tmp_path / "data.npz")))


def test_an_npz_cut_anywhere_is_refused_in_one_line(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", x=images(40), y=np.arange(40) % 2)
    whole = (tmp_path / "whole.npz").read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        with pytest.raises(DataError) as error:
            load(Data(provider="npz", path=str(tmp_path / "cut.npz")))
        assert len(error.value.lines()) == 1


def test_a_missing_npz_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load(Data(provider="npz", path=str(tmp_path / "none.npz")))


def write_factory(tmp_path: Path, body: str) -> Data:
    (tmp_path / "data.py").write_text(f"import numpy as np\n\ndef splits():\n{body}\n")
    return Data(provider="factory", factory=f"{tmp_path / 'data.py'}:splits")


def test_a_factory_gives_splits_and_its_prints_stay_off_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = (
        "    print('hello')\n"
        "    make = lambda n, s: {'x/a': np.random.default_rng(s).random((n, 3)), 'y/b': np.arange(n) % 2}\n"
        "    return {'train': make(60, 0), 'validation': make(20, 1), 'test': make(20, 2)}"
    )
    data = load(write_factory(tmp_path, body))
    assert [len(getattr(data, split)) for split in SPLITS] == [54, 20, 6, 20]
    assert set(data.train.x) == {"a"}
    assert set(data.train.y) == {"b"}
    out, err = capsys.readouterr()
    assert (out, err) == ("", "hello\n")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("    return [1]", "returned a list"),
        ("    return {}", "split 'train' is missing"),
        ("    return {'train': 3, 'test': {'x': [1]}}", "x: is a list, not an array"),
        ("    return 1 / 0", "line 4: ZeroDivisionError"),
    ],
)
def test_a_factory_that_fails_is_named_with_what_it_did(tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        load(write_factory(tmp_path, body))
    assert any(said in line for line in error.value.lines()), error.value.lines()


def test_unlabelled_inputs_come_without_targets_and_hold_no_judged_sample(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    arrays = {"train/x": x[:40], "train/y": np.arange(40) % 2, "test/x": x[40:], "test/y": np.arange(20) % 2}
    np.savez(tmp_path / "fine.npz", **arrays, **{"unlabelled/x": rng.normal(size=(30, 3)).astype(np.float32)})
    found = load(Data(provider="npz", path=str(tmp_path / "fine.npz")))
    assert found.unlabelled is not None
    assert len(found.unlabelled) == 30
    assert found.unlabelled.y == {}
    np.savez(tmp_path / "peeks.npz", **arrays, **{"unlabelled/x": x[40:]})
    with pytest.raises(DataError, match="split 'test': 20 of 20 samples are exact copies of samples in 'unlabelled'"):
        load(Data(provider="npz", path=str(tmp_path / "peeks.npz")))
    np.savez(tmp_path / "other.npz", **arrays, **{"unlabelled/x": x[:, :2]})
    with pytest.raises(DataError, match="split 'unlabelled': x/x: samples of shape"):
        load(Data(provider="npz", path=str(tmp_path / "other.npz")))
