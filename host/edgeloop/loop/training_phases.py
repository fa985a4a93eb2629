"""The phases (S704, embodiment 3): the trainings that make a candidate, in order, and what each starts from.

Phase 1 trains M2, and M1 where it teaches; `m1-distilled` distils M2 into M1 (claims 2, 6, 8). Phase 2 lightens M2 to
M3 and trains it from M2's weights, taught or not. Phase 3, of the schedule `patent3` alone, goes on from the M3 that
the board has judged: the same network at another rung is fine-tuned from there. How a training is divided between
labels and teacher is the trainer's: docs/explanation/training.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgeloop.core.events import Trial
from edgeloop.core.lightening import Lightening
from edgeloop.core.network import Candidate, NetworkSpec

Source = Literal["m1", "m2", "m1-distilled", "m3"]
"""What a training gives, by its role in the method."""


@dataclass(frozen=True, slots=True)
class TrainingPhase:
    """One training. `parent` and `teacher` are earlier phases of the same candidate."""

    gives: Source
    network: NetworkSpec
    lightening: str = "fp32"
    parent: Source | None = None
    teacher: Source | None = None
    widens: Source | None = None
    """The earlier phase whose network, and function, it starts with."""
    goes_on_from: str | None = None
    """Key of a lightened training of the same network whose weights it starts from instead."""

    def __str__(self) -> str:
        match self.gives:
            case "m1" if self.network.file is not None:
                return "M1 as it is, run on the data"
            case "m2" if self.widens is not None:
                return "M1 widened to M2, trained on labels"
            case "m1" | "m2":
                return f"{self.gives.upper()} trained on labels"
            case "m1-distilled":
                return "M2 distilled into M1"
            case _:
                teacher = f", taught by {_NAMES[self.teacher]}" if self.teacher else ""
                return f"M3 as {self.lightening}{teacher}" + (", fine-tuned" if self.goes_on_from else "")


_NAMES: dict[Source, str] = {"m1": "M1", "m2": "M2", "m1-distilled": "M1 distilled from M2", "m3": "M3"}


def phases(candidate: Candidate, m1: NetworkSpec, trials: Sequence[Trial], *, fine_tunes: bool) -> list[TrainingPhase]:
    """Return the trainings that make a candidate, each after those it builds on; the last gives what is deployed.

    `trials` are those so far; with `fine_tunes` the last of them with the same network and teacher, lightened
    to another rung, is where the training goes on from.
    """
    if candidate.network.file is not None:
        return [TrainingPhase("m1", m1)]
    own: Source = "m1" if candidate.network == m1 else "m2"
    widens = candidate.network.widened_from is not None
    trainings = [TrainingPhase("m1", m1)] if widens else []
    trainings.append(TrainingPhase(own, candidate.network, widens="m1" if widens else None))
    if candidate.lightening == "fp32":
        return trainings
    if candidate.teacher in {"m1", "m1-distilled"} and own != "m1" and not widens:
        trainings.append(TrainingPhase("m1", m1))
    if candidate.teacher == "m1-distilled" and own != "m1":
        trainings.append(TrainingPhase("m1-distilled", m1, parent="m1", teacher="m2"))
    teacher: Source | None = None if candidate.teacher == "none" else candidate.teacher
    if own == "m1" and teacher is not None:  # M1 itself is lightened: whoever was to teach, it is M1
        teacher = "m1"
    before = _earlier_training(candidate, trials) if fine_tunes else None
    trainings.append(
        TrainingPhase("m3", candidate.network, candidate.lightening, parent=own, teacher=teacher, goes_on_from=before)
    )
    return trainings


def _earlier_training(candidate: Candidate, trials: Sequence[Trial]) -> str | None:
    """The key of the last training of the same network at another rung.

    What was trained once, for another engine say, is that training again: only what came before it counts.
    """
    before: str | None = None
    pruned_pct = Lightening.parse(candidate.lightening).pruned_pct
    for trial in trials:
        other = trial.candidate
        if trial.training is None or (other.network, other.teacher) != (candidate.network, candidate.teacher):
            continue
        if Lightening.parse(other.lightening).pruned_pct != pruned_pct:  # its weights have other shapes
            continue
        if other.lightening == candidate.lightening:
            return before
        if other.lightening != "fp32":
            before = trial.training.key
    return before
