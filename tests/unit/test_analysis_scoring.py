"""A task's own metrics, a user's, agreement, and clear lines for data that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeloop.analysis.scoring import AGREEMENT_TOLERANCE, Scorer, infer_task
from edgeloop.core.campaign import Task
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import DataError, ModelError, UserError

LOGITS = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 5.0], [9.0, 0.0, 0.0]])
CLASSIFY = Scorer(Task())


def spec(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype="float32", shape=(1, *shape))


def test_top1_is_the_share_of_right_classes() -> None:
    found = CLASSIFY.scores({"out": LOGITS}, {"y": np.array([0, 1, 1, 0])})["top1"]
    assert (found.value, found.n, found.is_share, found.higher_is_better) == (0.75, 4, True, True)
    assert CLASSIFY.values({"out": LOGITS}, {"y": np.array([0, 1, 1, 0])}) == {"top1": 0.75}
    assert next(iter(CLASSIFY.metrics)) == "top1"


def test_of_several_outputs_all_must_be_right_and_unlabelled_ones_are_left_alone() -> None:
    outputs = {"a": LOGITS, "b": LOGITS, "embedding": np.zeros((4, 8))}
    labels = {"a": np.array([0, 1, 2, 0]), "y/b": np.array([0, 1, 2, 1])}
    assert CLASSIFY.values(outputs, labels)["top1"] == 0.75


def test_an_output_with_axes_of_length_one_is_a_row_of_classes() -> None:
    assert CLASSIFY.values({"out": LOGITS.reshape(4, 1, 1, 3)}, {"y": np.array([[0], [1], [2], [0]])})["top1"] == 1


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (np.array([0, 1, 3, 0]), r"y/y: label 3 at sample 2, but the output has 3 classes"),
        (np.array([0, -1, 0, 0]), r"label -1 at sample 1"),
        (np.array([0, 1]), r"y/y: 2 samples, but the outputs have 4"),
        (np.array([0.0, 1.0, 2.0, 0.0]), r"labels are class numbers.*these are float64"),
        (np.eye(3, dtype=np.int64)[[0, 1, 2, 0]], r"these are int64 \(4, 3\)"),
        (np.array([0.0, np.nan, 0.0, 0.0]), r"y/y: not finite at sample 1"),
    ],
)
def test_labels_that_do_not_fit_are_one_clear_line(labels: np.ndarray, line: str) -> None:
    with pytest.raises(DataError, match=line):
        CLASSIFY.scores({"out": LOGITS}, {"y": labels})


def test_outputs_that_are_no_numbers_are_the_models_fault() -> None:
    broken = LOGITS.copy()
    broken[2, 1] = np.nan
    with pytest.raises(ModelError, match=r"output 'out' is not finite at sample 2 of 4"):
        CLASSIFY.scores({"out": broken}, {"y": np.zeros(4, dtype=np.int64)})


def test_a_target_without_an_output_is_refused_with_the_nearest_name() -> None:
    labels = {"digit": np.zeros(4, dtype=np.int64), "b": np.zeros(4, dtype=np.int64)}
    with pytest.raises(DataError, match=r"y/digit: the model has no output of this name") as caught:
        CLASSIFY.scores({"digits": LOGITS, "b": LOGITS}, labels)
    assert caught.value.next_step == "did you mean y/digits?"


def test_regression_gives_mae_rmse_and_mse_with_means_over_elements() -> None:
    scorer = Scorer(Task(kind="regression"))
    outputs, targets = {"o": np.array([[1.0, 1.0], [3.0, 3.0]])}, {"y": np.zeros((2, 2), dtype=np.float32)}
    assert scorer.values(outputs, targets) == pytest.approx({"mae": 2, "rmse": 5**0.5, "mse": 5})
    assert scorer.scores(outputs, targets)["rmse"].value == pytest.approx(5**0.5)
    assert next(iter(scorer.metrics)) == "mae"
    assert scorer.lower_is_better == {"mae", "rmse", "mse"}
    assert scorer.proportions == {"agreement"}
    assert scorer.values({"o": np.array([[1.0], [2.0]])}, {"y": np.array([1.0, 2.0])})["mse"] == 0


def test_a_regression_of_another_shape_is_refused_rather_than_broadcast() -> None:
    with pytest.raises(DataError, match=r"y/y: shape \(2,\) beside an output of shape \(3,\)"):
        Scorer(Task(kind="regression")).values({"o": np.zeros((4, 3))}, {"y": np.zeros((4, 2))})


def test_an_autoencoder_is_compared_with_its_input() -> None:
    scorer = Scorer(Task(kind="autoencoder"))
    x = {"x": np.ones((3, 4), dtype=np.float32)}
    assert scorer.targets(x, {}) is x
    assert scorer.values({"decoded": np.full((3, 4), 1.5)}, scorer.targets(x, {}))["mse"] == pytest.approx(0.25)
    assert next(iter(scorer.metrics)) == "mse"


def test_classifiers_agree_where_they_name_the_same_class() -> None:
    other = LOGITS.copy()
    other[0] = [0.0, 0.1, 0.0]
    assert CLASSIFY.agreement({"o": LOGITS}, {"p": other}).tolist() == [False, True, True, True]
    assert CLASSIFY.agreement_scores({"o": LOGITS}, {"p": other}).value == 0.75


def test_other_outputs_agree_within_a_share_of_their_spread() -> None:
    scorer = Scorer(Task(kind="regression"))
    theirs = np.array([[-1.0], [1.0], [-1.0], [1.0]])  # standard deviation 1
    ours = theirs + np.array([[0.0], [0.99], [1.01], [-0.5]]) * AGREEMENT_TOLERANCE
    assert scorer.agreement({"o": ours}, {"o": theirs}).tolist() == [True, True, False, True]


def test_models_run_on_different_numbers_of_samples_can_not_agree() -> None:
    with pytest.raises(DataError, match="4 outputs can't be compared with 3"):
        CLASSIFY.agreement({"o": LOGITS}, {"o": LOGITS[:3]})


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    file = tmp_path / "task.py"
    file.write_text(
        """
import numpy as np
def loss(outputs, targets): ...
def hit(outputs, targets):
    return outputs["o"][:, 0] > targets["y"]
def spread(outputs, targets):
    return float(np.ptp(outputs["o"]))
spread.lower_is_better = True
def fragile(outputs, targets):
    return float("nan") if len(np.unique(outputs["o"])) < 4 else 1.0
def wrong_shape(outputs, targets):
    return np.zeros(3)
def words(outputs, targets):
    return "good"
def boom(outputs, targets):
    return outputs["missing"]
def same(outputs, other):
    return np.abs(outputs["o"] - other["o"])[:, 0] < 1
"""
    )
    return file


def custom(file: Path, *metrics: str) -> Scorer:
    named = {name: f"{file}:{name}" for name in metrics}
    return Scorer(Task(kind="custom", loss=f"{file}:loss", metrics=named, agreement=f"{file}:same"))


OUTPUTS, TARGETS = {"o": np.array([[1.0], [2.0], [3.0], [9.0]])}, {"y": np.array([0.0, 5.0, 0.0, 0.0])}


def test_a_users_metric_scores_samples_or_the_whole_set(task_file: Path) -> None:
    found = custom(task_file, "hit", "spread").scores(OUTPUTS, TARGETS)
    assert found["hit"].value == 0.75
    assert found["hit"].is_share
    assert found["spread"].value == 8
    assert not found["spread"].higher_is_better
    assert found["spread"].per_sample is None
    assert found["spread"].bound(0.95, "upper") == 8.0
    assert found["spread"].bound(0.95, "lower") < 8.0
    assert next(iter(custom(task_file, "spread", "hit").metrics)) == "spread"


def test_a_users_agreement_is_asked_instead_of_ours(task_file: Path) -> None:
    agreed = custom(task_file, "hit").agreement(OUTPUTS, {"o": np.array([[1.5], [2.0], [5.0], [9.0]])})
    assert agreed.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("metric", "line"),
    [
        ("wrong_shape", r"gave shape \(3,\); it gives one number, or one for each of 4"),
        ("words", "gave str, a metric gives numbers"),
        ("boom", r"task\.py:boom, line \d+: KeyError"),
        ("fragile", r"has no value on \d+ of 1000 resamples"),
    ],
)
def test_a_users_metric_that_fails_is_one_clear_line(task_file: Path, metric: str, line: str) -> None:
    with pytest.raises(UserError, match=line) as caught:
        custom(task_file, metric).scores(OUTPUTS, TARGETS)
    assert len(caught.value.lines()) == 1


def test_a_metric_that_is_not_in_the_file_is_refused_when_the_scorer_is_made(task_file: Path) -> None:
    with pytest.raises(UserError, match="there is no 'nothing' in it"):
        custom(task_file, "nothing")


def test_bare_data_tell_what_is_scored() -> None:
    whole = np.zeros(4, dtype=np.int64)
    assert infer_task({"y": whole}, [spec("o", 10)]).kind == "classification"
    assert infer_task({"y": np.zeros((4, 2), dtype=np.float32)}, [spec("o", 2)]).kind == "regression"
    with pytest.raises(DataError, match=r"can't tell what is scored: targets y int64 \(4,\) beside outputs o \(1, 1\)"):
        infer_task({"y": whole}, [spec("o", 1)])
    with pytest.raises(DataError, match="no y"):
        infer_task({}, [spec("o", 10)])
