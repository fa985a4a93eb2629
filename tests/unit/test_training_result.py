"""What a training leaves for builders."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from edgeloop.core.dataset import DataSet, DataSplit
from edgeloop.core.network import NetworkSignature
from edgeloop.training.result import ProbeInputs

pytestmark = pytest.mark.train

SIGNATURE = NetworkSignature(inputs=("x",), outputs=("y",))


def data(**sizes: int) -> DataSet:
    """Samples of a split are all of one number: train 0, validation 1, calibration 2, test 3."""

    def split(number: int, name: str) -> DataSplit:
        size = sizes[name]
        return DataSplit({"x": np.full((size, 2), number, np.float32)}, {"y": np.zeros(size, np.int64)})

    names = ("train", "validation", "calibration", "test")
    parts = {name: split(number, name) for number, name in enumerate(names)}
    return DataSet(parts["train"], parts["validation"], parts["calibration"], parts["test"], "digest")


@pytest.mark.parametrize(
    ("train", "validation", "calibration", "taken"),
    [
        (997, 350, 100, [350, 100, 550]),
        (300, 350, 100, [350, 100, 300]),
        (997, 990, 100, [990, 10, 0]),
        (997, 1500, 100, [1500, 0, 0]),
        (997, 2500, 100, [2000, 0, 0]),
    ],
)
def test_parity_inputs_are_a_thousand_or_all_there_are_and_never_test_data(
    train: int, validation: int, calibration: int, taken: list[int]
) -> None:
    splits = data(train=train, validation=validation, calibration=calibration, test=500)
    probe = ProbeInputs.of(splits, SIGNATURE)
    numbers = probe.inputs["x"][:, 0].tolist()
    assert numbers == [1.0] * taken[0] + [2.0] * taken[1] + [0.0] * taken[2]
    assert probe.n_validation == len(probe.labels["y"]) == taken[0]
