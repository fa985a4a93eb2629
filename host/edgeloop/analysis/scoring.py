"""Scores of outputs: a task's metrics, and the agreement of two models. Numpy alone; no runtime, no torch.

Outputs, targets and inputs are dictionaries of arrays by tensor name, the sample first. A single output belongs to a
single target whatever their names; several are matched by name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.analysis.accuracy import REPLICATES_OF_SET, Scores, resamples
from edgeloop.core.campaign import Task
from edgeloop.core.measurement import Arrays
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import DataError, ModelError, UserError
from edgeloop.ports import Score
from edgeloop.user_code.functions import call_function, load_function

AGREEMENT_TOLERANCE = 0.1
"""Outputs without classes agree in a sample when their RMS difference is at most this share of the standard
deviation of the other model's output over all samples: about four steps of an int8 output, or 1 % of the variance."""


@dataclass(frozen=True, slots=True)
class TaskMetric:
    """A named score. `score(outputs, targets)` gives one number for each sample (n,), or one for the whole set ()."""

    name: str
    score: Score
    higher_is_better: bool
    binary: bool = False
    """True where a sample is right or wrong, so that the score is a share."""
    root: bool = False
    """True where the value is the square root of the mean score."""


class Scorer:
    """Scores a task. A user's metric is lower-is-better where its function says `metric.lower_is_better = True`."""

    def __init__(self, task: Task) -> None:
        """Raises UserError where a function that the task names can't be loaded."""
        self._task = task
        self._agreement = load_function(task.agreement) if task.agreement else None
        metrics = [*_BUILT_IN[task.kind], *(_custom(name, ref) for name, ref in task.metrics.items())]
        self.metrics: dict[str, TaskMetric] = {metric.name: metric for metric in metrics}

    @property
    def lower_is_better(self) -> frozenset[str]:
        return frozenset(name for name, metric in self.metrics.items() if not metric.higher_is_better)

    @property
    def proportions(self) -> frozenset[str]:
        """Names judged as a share of samples."""
        return frozenset({"agreement", *(name for name, metric in self.metrics.items() if metric.binary)})

    def targets(self, inputs: Arrays, labels: Arrays) -> Arrays:
        """Return what outputs are compared with: an autoencoder's own inputs, else the labels."""
        return inputs if self._task.kind == "autoencoder" else labels

    def scores(self, outputs: Arrays, targets: Arrays) -> dict[str, Scores]:
        """Return every metric with what its interval needs.

        Raises DataError for targets that don't fit, ModelError for outputs that are not numbers, UserError for a
        user's metric that fails.
        """
        n = _check(outputs, targets)
        return {name: _score(metric, outputs, targets, n) for name, metric in self.metrics.items()}

    def values(self, outputs: Arrays, targets: Arrays) -> dict[str, float]:
        """Return the value of every metric; raises as `scores`."""
        n = _check(outputs, targets)
        return {name: _value(metric, _call(metric, outputs, targets, n)) for name, metric in self.metrics.items()}

    def agreement(self, outputs: Arrays, other: Arrays) -> NDArray[np.bool_]:
        """Return in which samples (n,) two models agree.

        Classification: the same class at every output. Otherwise within AGREEMENT_TOLERANCE at every output. A task
        with its own function is asked instead. Raises DataError where the outputs can't be compared.
        """
        n = _check(outputs, {})
        if _check(other, {}) != n:
            raise DataError(f"{n} outputs can't be compared with {len(next(iter(other.values())))} of the other model")
        if self._task.agreement is not None and self._agreement is not None:
            agrees = np.asarray(call_function(self._agreement, self._task.agreement, dict(outputs), dict(other)))
            if agrees.shape != (n,):
                raise UserError(f"{self._task.agreement}: gave shape {agrees.shape}, one bool a sample is ({n},)")
            return agrees.astype(bool)
        same = _same_class if self._task.kind == "classification" else _within_tolerance
        by_output = [same(name, ours, theirs) for name, ours, theirs in _pairs(outputs, other)]
        return np.asarray(np.all(by_output, axis=0))

    def agreement_scores(self, outputs: Arrays, other: Arrays) -> Scores:
        """Return the share of samples in which two models agree; raises as `agreement`."""
        by_sample = self.agreement(outputs, other).astype(np.float64)
        return Scores(
            "agreement", higher_is_better=True, value=float(by_sample.mean()), n=len(by_sample), per_sample=by_sample
        )


def infer_task(labels: Arrays, outputs: Sequence[TensorSpec]) -> Task:
    """Return the task that bare data and a ready model amount to.

    Integer labels, one for each sample, and one output with two classes or more: classification. Float targets:
    regression. Raises DataError for anything else.
    """
    if not labels:
        raise DataError("the data have no y, so nothing can be scored", next_step="add y, or measure without accuracy")
    if all(values.dtype.kind == "f" for values in labels.values()):
        return Task(kind="regression")
    classes = [int(np.prod(spec.shape[1:])) for spec in outputs]
    if len(labels) == 1 and len(outputs) == 1 and classes[0] >= 2:
        return Task(kind="classification")
    shapes = ", ".join(f"{name} {values.dtype} {values.shape}" for name, values in labels.items())
    outs = ", ".join(f"{spec.name} {spec.shape}" for spec in outputs)
    raise DataError(
        f"can't tell what is scored: targets {shapes} beside outputs {outs}",
        next_step="give integer labels for one output of classes, or float targets of the outputs' shapes",
    )


def _top1(outputs: Arrays, targets: Arrays) -> NDArray[np.float64]:
    right = []
    for name, output, labels in _pairs(outputs, targets):
        logits = _classes(name, output)
        if labels.dtype.kind not in "iub" or labels.size != len(labels):
            raise DataError(
                f"y/{name}: labels are class numbers, integers of shape ({len(logits)},), "
                f"these are {labels.dtype} {labels.shape}",
                next_step="take argmax where they are one-hot",
            )
        numbers = labels.reshape(-1).astype(np.int64)
        strange = np.flatnonzero((numbers < 0) | (numbers >= logits.shape[1]))
        if len(strange):
            raise DataError(
                f"y/{name}: label {numbers[strange[0]]} at sample {strange[0]}, but the output has "
                f"{logits.shape[1]} classes, numbered from 0"
            )
        right.append(logits.argmax(axis=1) == numbers)
    return np.asarray(np.all(right, axis=0), dtype=np.float64)


def _mean_error(outputs: Arrays, targets: Arrays, power: int) -> NDArray[np.float64]:
    """Mean over the elements of an output, then over the outputs; (n,)."""
    errors = []
    for name, output, target in _pairs(outputs, targets):
        difference = _difference(f"y/{name}", output, target)
        errors.append((np.abs(difference) ** power).mean(axis=1))
    return np.asarray(np.mean(errors, axis=0, dtype=np.float64))


def _absolute(outputs: Arrays, targets: Arrays) -> NDArray[np.float64]:
    return _mean_error(outputs, targets, 1)


def _squares(outputs: Arrays, targets: Arrays) -> NDArray[np.float64]:
    return _mean_error(outputs, targets, 2)


_MSE = TaskMetric("mse", _squares, higher_is_better=False)
_RMSE = TaskMetric("rmse", _squares, higher_is_better=False, root=True)
_MAE = TaskMetric("mae", _absolute, higher_is_better=False)
_BUILT_IN: Mapping[str, tuple[TaskMetric, ...]] = {
    "classification": (TaskMetric("top1", _top1, higher_is_better=True, binary=True),),
    "regression": (_MAE, _RMSE, _MSE),
    "autoencoder": (_MSE, _MAE),
    "custom": (),
}


def _custom(name: str, reference: str) -> TaskMetric:
    function = load_function(reference)

    def score(outputs: Arrays, targets: Arrays) -> NDArray[np.float64]:
        numbers = call_function(function, reference, dict(outputs), dict(targets))
        try:
            return np.asarray(numbers, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"{reference}: gave {type(numbers).__name__}, a metric gives numbers: {error}") from error

    return TaskMetric(name, score, higher_is_better=not getattr(function, "lower_is_better", False))


def _score(metric: TaskMetric, outputs: Arrays, targets: Arrays, n: int) -> Scores:
    numbers = _call(metric, outputs, targets, n)
    value = _value(metric, numbers)
    if numbers.ndim:
        return Scores(metric.name, metric.higher_is_better, value, n, per_sample=numbers, root=metric.root)
    replicates = np.array(
        [
            metric.score({k: v[row] for k, v in outputs.items()}, {k: v[row] for k, v in targets.items()})
            for block in resamples(n, REPLICATES_OF_SET)
            for row in block
        ],
        dtype=np.float64,
    )
    if not np.isfinite(replicates).all():
        raise UserError(
            f"metric {metric.name!r} has no value on {np.count_nonzero(~np.isfinite(replicates))} of "
            f"{REPLICATES_OF_SET} resamples of the {n} samples",
            next_step="give a number where a class is absent, or score more samples",
        )
    return Scores(metric.name, metric.higher_is_better, value, n, replicates=replicates)


def _value(metric: TaskMetric, numbers: NDArray[np.float64]) -> float:
    mean = float(numbers.mean())
    return float(np.sqrt(mean)) if metric.root else mean


def _call(metric: TaskMetric, outputs: Arrays, targets: Arrays, n: int) -> NDArray[np.float64]:
    numbers = metric.score(outputs, targets)
    if numbers.shape not in {(), (n,)}:
        raise UserError(
            f"metric {metric.name!r} gave shape {numbers.shape}; it gives one number, or one for each of {n} samples"
        )
    if not np.isfinite(numbers).all():
        raise UserError(f"metric {metric.name!r} gave a value that is not finite")
    return numbers


def _check(outputs: Arrays, targets: Arrays) -> int:
    """Return the number of samples; all arrays have it, and all of them are finite."""
    if not outputs:
        raise DataError("there are no outputs to score")
    n = len(next(iter(outputs.values())))
    for name, output in outputs.items():
        if len(output) != n:
            raise DataError(f"output {name!r} has {len(output)} samples, the first output {n}")
        bad = _not_finite(output)
        if bad is not None:
            raise ModelError(f"output {name!r} is not finite at sample {bad} of {n}")
    for name, target in targets.items():
        if len(target) != n:
            raise DataError(f"y/{name}: {len(target)} samples, but the outputs have {n}")
        bad = _not_finite(target)
        if bad is not None:
            raise DataError(f"y/{name}: not finite at sample {bad}")
    if n == 0:
        raise DataError("there are no samples to score")
    return n


def _not_finite(values: NDArray[Any]) -> int | None:
    """The first sample with a NaN or an infinity."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return None
    return int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0])


def _pairs(outputs: Arrays, targets: Arrays) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Yield (name, output, target) for every target; outputs that nothing is compared with are left alone."""
    if not targets:
        raise DataError("there is no y to compare the outputs with")
    if len(outputs) == 1 and len(targets) == 1:
        ((name, target),) = targets.items()
        yield name, next(iter(outputs.values())), target
        return
    for name, target in targets.items():
        plain = name.removeprefix("y/")
        if plain not in outputs:
            close = difflib.get_close_matches(plain, outputs, n=1)
            raise DataError(
                f"y/{plain}: the model has no output of this name, it has {', '.join(outputs)}",
                next_step=f"did you mean y/{close[0]}?" if close else None,
            )
        yield plain, outputs[plain], target


def _classes(name: str, output: NDArray[Any]) -> NDArray[Any]:
    logits = output.reshape(len(output), -1)
    if logits.shape[1] < 2:
        raise DataError(
            f"y/{name}: the output has shape {output.shape[1:]}, a classification needs two classes or more",
            next_step="bring a metric of your own for a single score",
        )
    return logits


def _difference(where: str, output: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """(n, elements); a target may leave out or add axes of length 1."""
    shapes = [tuple(length for length in a.shape[1:] if length != 1) for a in (output, target)]
    if shapes[0] != shapes[1]:
        raise DataError(f"{where}: shape {target.shape[1:]} beside an output of shape {output.shape[1:]}")
    flat = (len(output), -1)
    return output.reshape(flat).astype(np.float64) - target.reshape(flat).astype(np.float64)


def _same_class(name: str, ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(_classes(name, ours).argmax(axis=1) == _classes(name, theirs).argmax(axis=1))


def _within_tolerance(name: str, ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.bool_]:
    rms = np.sqrt((_difference(f"output {name}", ours, theirs) ** 2).mean(axis=1))
    return np.asarray(rms <= AGREEMENT_TOLERANCE * float(theirs.astype(np.float64).std()))
