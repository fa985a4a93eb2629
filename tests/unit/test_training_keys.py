"""A training's key follows what decides its bytes, and nothing else; errors survive the way between processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from edgeloop.core.campaign import Data, Task, Training
from edgeloop.core.network import NetworkSpec
from edgeloop.errors import ConfigError, DataError, Fault, MissingExtraError, UserError
from edgeloop.ports import TrainedNetwork, TrainingJob
from edgeloop.training.key import training_key
from edgeloop.training.summary import read_trained, write_trained

pytest.importorskip("torch")  # its version is a part of the key


def job(**changes):
    plain = {
        "network": NetworkSpec(family="ds_cnn"),
        "lightening": "fp32",
        "task": Task(),
        "data": Data(),
        "data_sha256": "d" * 64,
        "recipe": Training(),
    }
    return TrainingJob(**{**plain, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"network": NetworkSpec(family="ds_cnn", width=2.0)},
        {"network": NetworkSpec(family="ds_cnn", seed=1)},
        {"lightening": "w8a8"},
        {"task": Task(kind="regression")},
        {"data_sha256": "e" * 64},
        {"recipe": Training(epochs=3)},
        {"recipe": Training(batch=32)},
        {"parent": "/run/networks/abc"},
        {"teacher": "/run/networks/abc"},
        {"channel_multiple": 8},
    ],
    ids=lambda c: next(iter(c)),
)
def test_what_decides_the_bytes_decides_the_key(changes):
    assert training_key(job(**changes)) != training_key(job())


def test_where_things_lie_does_not_decide_the_key():
    here, there = {"parent": "/a/networks/abc"}, {"parent": "/b/networks/abc"}
    assert training_key(job(**here)) == training_key(job(**there))
    assert training_key(job(data=Data(board_samples_max=5))) == training_key(job())
    moved = [NetworkSpec(factory=f"/{folder}/net.py:build", source_sha256="s" * 64) for folder in "ab"]
    assert training_key(job(network=moved[0])) == training_key(job(network=moved[1]))


def test_what_a_float_training_does_not_use_does_not_train_it_anew():
    unused = Training(lightened_epochs=9, lightened_learning_rate=0.5, temperature=4.0, distillation_weight=0.1)
    assert training_key(job(recipe=unused)) == training_key(job())
    lightened = {"lightening": "w8a8", "parent": "/run/abc"}
    assert training_key(job(recipe=unused, **lightened)) != training_key(job(**lightened))


def test_an_edited_loss_is_another_training(tmp_path):
    file = tmp_path / "task.py"
    file.write_text("def loss(outputs, targets): ...")
    task = Task(kind="regression", loss=f"{file}:loss")
    before = training_key(job(task=task))
    file.write_text("def loss(outputs, targets): return 0")
    assert training_key(job(task=task)) != before


def test_a_missing_task_file_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"gone\.py"):
        training_key(job(task=Task(loss=f"{tmp_path}/gone.py:loss")))


def test_a_summary_is_read_where_the_folder_lies_now(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    trained = TrainedNetwork(key="k", folder=str(first), seconds=1.0, epochs=2, validation={"top1": 0.5})
    write_trained(first, trained, job(), [{"epoch": 1, "loss": 0.1}])
    first.rename(second)
    assert read_trained(first) is None
    found = read_trained(second)
    assert found is not None
    assert found == (trained.model_copy(update={"folder": str(second)}), job())


def test_a_damaged_summary_names_its_file(tmp_path):
    (tmp_path / "training.json").write_text('{"schema": 1')
    with pytest.raises(Exception, match=r"training\.json: damaged") as raised:
        read_trained(Path(tmp_path))
    assert "remove the folder" in raised.value.lines()[0]


@pytest.mark.parametrize(
    "error",
    [
        ConfigError([Fault("a.toml: x", "wrong", "do this"), Fault("b", "c")]),
        MissingExtraError("torch", "train", "training"),
        DataError("one\ntwo", next_step="three"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_are_the_same_on_the_other_side_of_a_process(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert again.lines() == error.lines()
    assert vars(again) == vars(error)
