"""Schedules and teachers through the training process's own entry: real networks on 8x8 digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ai_edge_quantizer")

from edgeloop.builders.parity import Gate  # noqa: E402
from edgeloop.builders.tflite.builder import TfliteBuilder  # noqa: E402
from edgeloop.core.campaign import Data, Task, Training  # noqa: E402
from edgeloop.core.network import NetworkSpec  # noqa: E402
from edgeloop.data import load  # noqa: E402
from edgeloop.errors import HarnessError, UserError  # noqa: E402
from edgeloop.ports import TrainingJob  # noqa: E402
from edgeloop.training.result import read_master  # noqa: E402
from edgeloop.wiring import training_worker  # noqa: E402

pytestmark = pytest.mark.train

M1 = NetworkSpec(family="ds_cnn", width=0.5)
M2 = M1.in_size(1.0, 0)
DIGITS = Data(provider="digits")


class Trainings:
    """Jobs in one folder of networks."""

    def __init__(self, networks: Path, data: Data = DIGITS) -> None:
        self.networks = networks
        self.data = data
        self.sha256 = load(data).sha256

    def run(self, network, lightening="fp32", parent=None, teacher=None, goes_on_from=None, **recipe):
        training_worker.prepare(1)
        named = {"teacher": recipe.pop("teacher_is")} if "teacher_is" in recipe else {}
        job = TrainingJob(
            network=network,
            lightening=lightening,
            task=Task(),
            data=self.data,
            data_sha256=self.sha256,
            recipe=Training.model_validate({"epochs": 6, "lightened_epochs": 3, **named, **recipe}),
            parent=parent and parent.folder,
            teacher=teacher and teacher.folder,
            goes_on_from=goes_on_from and goes_on_from.folder,
        )
        return training_worker.train(job, self.networks, lambda _what, _fraction: None)


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    return Trainings(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def m1(trainings):
    return trainings.run(M1)


@pytest.fixture(scope="module")
def m2(trainings):
    return trainings.run(M2)


def test_m2_is_distilled_into_m1_and_the_result_teaches_m3(trainings, m1, m2):
    distilled = trainings.run(M1, parent=m1, teacher=m2)
    assert distilled.key != m1.key
    assert distilled.validation != m1.validation
    m3 = trainings.run(M2, "w4a8", parent=m2, teacher=distilled, schedule="patent3", teacher_is="m1-distilled")
    assert m3.lightened["top1"] > 0.8


def test_the_difference_of_outputs_alone_trains_m1_on_unlabelled_data_too(trainings, m2, tmp_path):
    digits = load(DIGITS)
    few = 80
    arrays = {"train/x": digits.train.x["x"][:few], "train/y": digits.train.y["y"][:few]}
    arrays["unlabelled/x"] = digits.train.x["x"][few:]
    for name in ("validation", "calibration", "test"):
        split = getattr(digits, name)
        arrays |= {f"{name}/x": split.x["x"], f"{name}/y": split.y["y"]}
    np.savez(tmp_path / "few.npz", **arrays)
    np.savez(tmp_path / "no_more.npz", **{k: v for k, v in arrays.items() if not k.startswith("unlabelled")})
    found = []
    for name in ("few", "no_more"):
        own = Trainings(trainings.networks, Data(provider="npz", path=str(tmp_path / f"{name}.npz")))
        m1 = own.run(M1, batch=16)
        recipe = {"batch": 16, "lightened_epochs": 40, "lightened_learning_rate": 4e-3}
        found.append(own.run(M1, parent=m1, teacher=m2, m1_distillation_weight=1.0, **recipe))
    with_more, without = (trained.validation["top1"] for trained in found)
    assert with_more > without + 0.05


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    builder = TfliteBuilder(tmp_path_factory.mktemp("artifacts"), Gate(Task()))
    yield builder
    builder.close()


@pytest.mark.parametrize("schedule", ["patent3", "qkd"])
def test_a_schedule_with_a_teacher_ends_in_a_network_that_the_runtime_agrees_with(trainings, m2, schedule, builder):
    m3 = trainings.run(M2, "w4a8", parent=m2, teacher=m2, schedule=schedule, teacher_is="m2")
    simple = trainings.run(M2, "w4a8", parent=m2, teacher=m2, teacher_is="m2")
    assert m3.key != simple.key
    assert m3.lightened["top1"] > 0.8
    artifact = builder.build(m3, "w4a8")
    assert artifact.parity.agreement > 0.99


def test_co_studying_leaves_the_teachers_folder_as_it_was(trainings, m2):
    before = torch.load(Path(m2.folder) / "weights.pt", weights_only=True)
    trainings.run(M2, "w8a8", parent=m2, teacher=m2, schedule="qkd", teacher_is="m2")
    after = torch.load(Path(m2.folder) / "weights.pt", weights_only=True)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_fine_tune_starts_from_another_rungs_weights_and_names_them(trainings, m2):
    first = trainings.run(M2, "w4a8", parent=m2)
    tuned = trainings.run(M2, "w8a8", parent=m2, goes_on_from=first, fine_tune_epochs=1)
    anew = trainings.run(M2, "w8a8", parent=m2, lightened_epochs=1)
    assert tuned.epochs == anew.epochs == 1
    assert tuned.key != anew.key
    start, one, other = (read_master(Path(t.folder)) for t in (first, tuned, anew))
    near = sum(float((one[n] - start[n]).square().sum()) for n in start)
    far = sum(float((other[n] - start[n]).square().sum()) for n in start)
    assert near < far
    assert json.loads((Path(tuned.folder) / "training.json").read_text())["job"]["goes_on_from"] == first.folder


def test_weights_of_another_network_are_refused(trainings, m1, m2):
    other = trainings.run(M1, "w8a8", parent=m1)
    with pytest.raises(HarnessError, match="another network"):
        trainings.run(M2, "w8a8", parent=m2, goes_on_from=other)


def test_a_gpu_that_is_asked_for_and_not_there_is_one_line(trainings):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="torch finds no GPU"):
        trainings.run(M1, device="cuda")


def test_a_lightened_training_that_does_not_get_better_stops_early_with_its_best_weights(trainings, m2):
    short = trainings.run(M2, "w8a8", parent=m2, lightened_epochs=40, patience=1, lightened_learning_rate=0.01)
    history = json.loads((Path(short.folder) / "training.json").read_text())["history"]
    losses = [epoch["validation_loss"] for epoch in history]
    assert len(losses) < 40
    assert losses[-1] >= min(losses)


@pytest.mark.parametrize(("schedule", "alone"), [("patent3", 2), ("qkd", 4)])
def test_a_patience_waits_until_the_last_lesson_has_begun(trainings, m2, schedule, alone):
    recipe = {"lightened_epochs": 6, "patience": 1, "lightened_learning_rate": 0.01}
    m3 = trainings.run(M2, "w8a8", parent=m2, teacher=m2, schedule=schedule, teacher_is="m2", **recipe)
    history = json.loads((Path(m3.folder) / "training.json").read_text())["history"]
    judged = [epoch["validation_loss"] is not None for epoch in history]
    assert judged == [False] * alone + [True] * (len(history) - alone)
    assert any(judged)


def test_without_lightened_epochs_the_network_is_calibrated_and_no_weight_moves(trainings, m2):
    calibrated = trainings.run(M2, "w8a8", parent=m2, lightened_epochs=0)
    trained = trainings.run(M2, "w8a8", parent=m2, lightened_epochs=1)
    assert calibrated.epochs == 0
    assert calibrated.lightened["top1"] > 0.8
    one, other = (read_master(Path(t.folder)) for t in (calibrated, trained))
    assert any(not torch.equal(one[name], other[name]) for name in one)
