"""What data ask of a network, and labels that no network could learn."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from edgeloop.core.campaign import Task
from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.data import network_io
from edgeloop.errors import DataError

Kind = Literal["classification", "regression", "autoencoder"]


def data_set(y: np.ndarray | None, test_y: np.ndarray | None = None, x: np.ndarray | None = None) -> DataSet:
    def split(targets: np.ndarray | None) -> DataSplit:
        n = 6 if targets is None else len(targets)
        inputs = np.zeros((n, 4, 4, 1), "float32") if x is None else x[:n]
        return DataSplit({"image": inputs}, {} if targets is None else {"kind": targets})

    return DataSet(split(y), split(y), split(y), split(y if test_y is None else test_y), "0" * 64)


def faults(data: DataSet, kind: Kind) -> list[str]:
    with pytest.raises(DataError) as error:
        network_io(data, Task(kind=kind))
    return error.value.lines()


def test_class_numbers_ask_for_a_logit_each() -> None:
    io = network_io(data_set(np.array([0, 1, 2, 3])), Task())
    assert [(i.name, i.shape, i.dtype) for i in io.inputs] == [("image", (4, 4, 1), "float32")]
    assert [(o.name, o.shape) for o in io.outputs] == [("kind", (4,))]


def test_values_ask_for_their_own_shape_and_an_autoencoder_for_its_inputs() -> None:
    values = network_io(data_set(np.zeros((5, 2, 3), "float32")), Task(kind="regression"))
    assert [(o.name, o.shape) for o in values.outputs] == [("kind", (2, 3))]
    same = network_io(data_set(None), Task(kind="autoencoder"))
    assert same.outputs == same.inputs


def test_no_labels_is_said_with_what_to_do() -> None:
    assert "no y, and a classification needs targets" in faults(data_set(None), "classification")[0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.array([-1, 0, 1]), "label -1 is negative"),
        (np.array([1, 2, 3]), "labels go to 3, but no sample has 0"),
        (np.array([0, 10**9]), "labels go to 1000000000, but no sample has 1, 2, 3, 4, 5 and"),
        (np.array([0, 0, 0]), "all samples are of one class"),
        (np.eye(3, dtype="int64"), "use argmax where they are one-hot"),
        (np.zeros((3, 1), "float32"), "labels are class numbers"),
    ],
)
def test_labels_that_are_not_class_numbers_are_refused(labels: np.ndarray, said: str) -> None:
    assert any(said in line for line in faults(data_set(labels), "classification"))


def test_a_label_that_training_never_sees_is_named_with_its_split() -> None:
    lines = faults(data_set(np.array([0, 1, 2]), np.array([0, 7, 1])), "classification")
    assert lines == ["split 'test': y/kind: labels 7 are in no training sample"]


def test_regression_on_integers_and_an_autoencoder_of_integers_are_refused() -> None:
    assert "regression targets are floats" in faults(data_set(np.array([0, 1, 2])), "regression")[0]
    bytes_ = data_set(None, x=np.zeros((6, 3), "uint8"))
    assert "x/image: an autoencoder gives back floats, this is uint8" in faults(bytes_, "autoencoder")[0]
