"""The inputs and outputs that a data set asks of a network: names and shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeloop.core.campaign import Task
from edgeloop.core.dataset import DataSet
from edgeloop.core.network import NetworkIO, TensorShape
from edgeloop.errors import DataError, Fault


def network_io(data: DataSet, task: Task) -> NetworkIO:
    """Return the inputs and outputs that the data ask of a network for this task.

    Raises DataError with a line for each fault: no targets, labels that are not class numbers, classes that
    training never sees, an autoencoder of integers.
    """
    inputs = tuple(TensorShape(name=k, shape=v.shape[1:], dtype=str(v.dtype)) for k, v in data.train.x.items())
    faults: list[Fault] = []
    if task.kind == "autoencoder":
        outputs = inputs
        faults += [
            Fault(f"x/{shape.name}", f"an autoencoder gives back floats, this is {shape.dtype}", "give float32")
            for shape in inputs
            if shape.dtype != "float32"
        ]
    elif not data.train.y:
        raise DataError(
            f"split 'train': no y, and a {task.kind} needs targets",
            next_step='give y, or set [task] kind = "autoencoder"',
        )
    else:
        outputs = tuple(TensorShape(name=k, shape=_output_shape(v, task)) for k, v in data.train.y.items())
        if task.kind == "classification":
            for name in data.train.y:
                faults += _label_faults(data, name)
        if task.kind == "regression":
            for name, values in data.train.y.items():
                if values.dtype.kind != "f":
                    faults.append(
                        Fault(f"y/{name}", f"regression targets are floats, these are {values.dtype}", "give float32")
                    )
    if faults:
        raise DataError("\n".join(map(str, faults)))
    return NetworkIO(kind=task.kind, inputs=inputs, outputs=outputs)


def _output_shape(values: NDArray[Any], task: Task) -> tuple[int, ...]:
    """Logits for class numbers, else the target's own shape."""
    labels = values.ndim == 1 and values.dtype.kind in "iu" and task.kind != "regression"
    return (max(2, int(values.max()) + 1),) if labels else values.shape[1:]


def _label_faults(data: DataSet, name: str) -> Iterator[Fault]:
    where = f"y/{name}"
    labels = data.train.y[name]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        yield Fault(
            where,
            f"labels are class numbers, integers of shape (samples,), these are {labels.dtype} {labels.shape}",
            'use argmax where they are one-hot, or set [task] kind = "regression"',
        )
        return
    classes = np.unique(labels)
    if classes[0] < 0:
        yield Fault(f"split 'train': {where}", f"label {classes[0]} is negative", "number classes from 0")
        return
    absent = sorted(set(range(int(min(classes[-1], 10_000)))) - set(classes.tolist()))
    if absent:
        yield Fault(
            f"split 'train': {where}",
            f"labels go to {classes[-1]}, but no sample has {_few(absent)}",
            "number classes from 0 without gaps",
        )
    elif len(classes) < 2:
        yield Fault(f"split 'train': {where}", "all samples are of one class", "give at least two classes")
    for split_name in ("validation", "calibration", "test"):
        strange = sorted(set(np.unique(getattr(data, split_name).y[name]).tolist()) - set(classes.tolist()))
        if strange:
            yield Fault(f"split {split_name!r}: {where}", f"labels {_few(strange)} are in no training sample")


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (f" and {len(numbers) - 5} more" if len(numbers) > 5 else "")
