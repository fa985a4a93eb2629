"""The parity gate: does the built model say what the fake-quantized network says?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeloop.analysis.statistics import wilson
from edgeloop.core.artifact import Artifact, Parity
from edgeloop.core.campaign import Task
from edgeloop.core.tensors import TensorSpec
from edgeloop.errors import BuildError, ParityError

Rule = Literal["top1", "steps", "custom"]

AGREEMENT_MIN = 0.99
STEPS_MAX = 3
ELEMENTS_MIN = 0.99
CONFIDENCE = 0.95
OUTPUTS = "outputs.npz"
"""Outputs of the built model on the parity inputs by name: a child leaves them where the task's own function judges."""

Outputs = Mapping[str, NDArray[Any]]
Agreement = Callable[[Mapping[str, Any], Mapping[str, Any]], NDArray[np.bool_]]
"""(outputs, others) -> bool array (n,): the task's own."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Agreement as a task defines it. Its own function runs in the controller, never in a builder's child."""

    task: Task
    agreement: Agreement | None = None
    """The loaded function that `task.agreement` names."""

    @property
    def rule(self) -> Rule:
        if self.agreement is not None:
            return "custom"
        return "top1" if self.task.kind == "classification" else "steps"

    def judge(self, artifact: Artifact, network_folder: Path, folder: Path) -> Artifact:
        """Return the artifact judged by the task's own agreement where it has one, from the OUTPUTS of the child that
        built it in `folder`.

        Raises ParityError.
        """
        if self.agreement is None:
            return artifact
        assert artifact.parity is not None
        with np.load(folder / OUTPUTS) as arrays:
            outputs = {spec.name: arrays[spec.name] for spec in artifact.outputs}
        with np.load(network_folder / "probe.npz") as arrays:
            targets = {spec.name: arrays[f"parity/y/{spec.name}"] for spec in artifact.outputs}
        agrees = self.agreement(outputs, targets)
        parity = from_agreement(agrees, artifact.parity, str(self.task.agreement).rpartition("/")[2])
        refuse_disagreement(parity)
        (folder / OUTPUTS).unlink()
        return artifact.model_copy(update={"parity": parity})


def compare(outputs: Outputs, targets: Outputs, specs: Sequence[TensorSpec], rule: Rule) -> Parity:
    """Compare dequantized outputs (n, ...) of the built model with the network's own.

    `top1` needs one output with more than one class and falls back to `steps` where there is none. Raises BuildError
    for outputs of another shape or with values that are not numbers.
    """
    for spec in specs:
        is_shape, want_shape = outputs[spec.name].shape, targets[spec.name].shape
        if is_shape != want_shape:
            raise BuildError(f"output {spec.name!r} has the shape {is_shape}, the network's has {want_shape}")
        if not np.isfinite(outputs[spec.name]).all():
            raise BuildError(f"output {spec.name!r} of the built model is not finite on the parity inputs")
    mean, most = _steps(outputs, targets, specs)
    only = targets[specs[0].name]
    ties = 0
    if rule == "top1" and len(specs) == 1 and only.ndim == 2 and only.shape[1] > 1:
        agrees, ties = _top1(outputs[specs[0].name], only, specs[0].scale or 0.0)
        text = "top-1 class; ties and margins under one quantization step left out"
    else:
        agrees = _within(outputs, targets, specs)
        text = (
            f"at least {ELEMENTS_MIN:.0%} of a sample's output elements within {STEPS_MAX} steps; a step is the"
            " output's scale or 1/255 of its range, whichever is larger"
        )
    return _parity(agrees, text, ties, mean, most)


def from_agreement(agrees: NDArray[np.bool_], base: Parity, name: str) -> Parity:
    """Return `base` judged by a task's own agreement function instead."""
    return _parity(np.asarray(agrees, bool), f"the task's own agreement, {name}", 0, base.steps_mean, base.steps_max)


def refuse_disagreement(parity: Parity) -> None:
    """Raise ParityError where the agreement is surely under 99 %."""
    if parity.agreement_upper < AGREEMENT_MIN:
        raise ParityError(
            f"the built model agrees with the trained network on {parity.agreement:.2%} of {parity.n} inputs "
            f"(at most {parity.agreement_upper:.2%}), under {AGREEMENT_MIN:.0%}; rule: {parity.rule}",
            next_step="the network was not judged; the build log names tensors without a trained range",
        )


def _parity(agrees: NDArray[np.bool_], text: str, ties: int, mean: float | None, most: float | None) -> Parity:
    n = len(agrees)
    hits = int(agrees.sum())
    return Parity(
        n=n,
        rule=text,
        agreement=hits / n if n else 1.0,
        agreement_upper=wilson(hits, n, CONFIDENCE).high if n else 1.0,
        ties_left_out=ties,
        steps_mean=mean,
        steps_max=most,
    )


def _top1(outputs: NDArray[Any], targets: NDArray[Any], step: float) -> tuple[NDArray[np.bool_], int]:
    top = np.sort(targets, axis=1)
    # An exact tie is left out too; float outputs have no step.
    clear = top[:, -1] - top[:, -2] > step * (1 - 1e-6)
    agrees = outputs.argmax(1) == targets.argmax(1)
    return agrees[clear], int((~clear).sum())


def _within(outputs: Outputs, targets: Outputs, specs: Sequence[TensorSpec]) -> NDArray[np.bool_]:
    near = []
    for spec in specs:
        want = targets[spec.name].astype(np.float64)
        step = max(spec.scale or 0.0, float(want.max() - want.min()) / 255, 1e-9)
        near.append((np.abs(outputs[spec.name] - want) <= STEPS_MAX * step * (1 + 1e-6)).reshape(len(want), -1))
    return np.asarray(np.concatenate(near, axis=1).mean(axis=1) >= ELEMENTS_MIN, bool)


def _steps(outputs: Outputs, targets: Outputs, specs: Sequence[TensorSpec]) -> tuple[float | None, float | None]:
    differences = [
        np.abs(outputs[s.name].astype(np.float64) - targets[s.name]).ravel() / s.scale
        for s in specs
        if s.scale is not None
    ]
    if not differences:
        return None, None
    steps = np.concatenate(differences)
    return float(steps.mean()), float(steps.max())
