"""Puts out the networks that passed (S706), each with its proof, in folders of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.core.artifact import Artifact
from edgeloop.core.events import ArtifactBuilt, Entry, RunFinished, Trial, fold
from edgeloop.core.verdict import Outcome
from edgeloop.host_runtime.model_files import write_description
from edgeloop.processes.folders import clear_abandoned, folder_to_fill, publish_folder
from edgeloop.reports import document

BEST, FRONT = "best", "front"


@dataclass(frozen=True, slots=True)
class Written:
    """Models that were put out."""

    models: tuple[Path, ...]
    """The best one; where targets are of several processors, its file for each."""
    front: tuple[Path, ...] = ()
    """In Pareto mode every network of the front that passed, from the most accurate."""


def write_best(entries: Sequence[Entry], folder: Path) -> Written:
    """Copy the passing model to `best/`, in Pareto mode each of the front to `front/trial-N/`.

    Nothing is written where none passed. Beside a model lie `artifact.json` and `proof.json`; where it was compiled for
    several processors, each file is in a folder of its processor, with its `artifact.json`. What is written appears
    whole or not at all. A network that edgeloop did not build (its owner measured another file) has no file here.
    """
    events = [entry.event for entry in entries]
    end = next((event for event in events if isinstance(event, RunFinished)), None)
    if end is None or end.exit_code != 0:
        return Written(())
    trials = {trial.number: trial for trial in fold(events)}
    best = trials[end.best] if end.best is not None else None
    model = _write_models(folder / BEST, [(Path(), best)], end) if best is not None else []
    numbers = [m.trial for m in end.front.members if m.outcome is Outcome.PASS] if end.front else []
    places = [(Path(f"trial-{number}"), trials[number]) for number in numbers]
    front = _write_models(folder / FRONT, places, end) if places else []
    return Written(tuple(model), tuple(front))


def _write_models(final: Path, places: Sequence[tuple[Path, Trial]], end: RunFinished) -> list[Path]:
    """Make the folder `final` of models with their proofs."""
    prefix = f".making-{final.name}-"
    clear_abandoned(final.parent, prefix, lambda _path: True)  # one process writes to a run's folder at a time
    with folder_to_fill(final.parent, prefix) as folder:
        models = _fill(folder, final, places, end)
        if models:
            publish_folder(folder, final)
        else:
            shutil.rmtree(final, ignore_errors=True)
    return models


def _fill(folder: Path, final: Path, places: Sequence[tuple[Path, Trial]], end: RunFinished) -> list[Path]:
    """Copy the models; return where each is going to be."""
    models = []
    for place, trial in places:
        if trial.build is None:
            continue
        (folder / place).mkdir(parents=True, exist_ok=True)
        for inner, artifact in by_processor(trial.build).items():
            (folder / place / inner).mkdir(exist_ok=True)
            model = Path(artifact.path)
            shutil.copyfile(model, folder / place / inner / model.name)
            write_description(folder / place / inner, artifact)
            models.append(final / place / inner / model.name)
        _write_json(folder / place / "proof.json", _proof(trial, end))
    return models


def by_processor(build: ArtifactBuilt) -> dict[str, Artifact]:
    """Files by the folders that they go to: one goes to none of its own, several as to `aarch64-cortex-a72`."""
    if len(build.artifacts) == 1:
        return {".": build.artifact}
    folders: dict[str, Artifact] = {}
    for artifact in build.artifacts:
        triple, _, core = artifact.tools["processor"].partition(" ")
        name = f"{triple.partition('-')[0]}-{core}"
        folders[name if name not in folders else f"{name}-{artifact.sha256[:8]}"] = artifact
    return folders


def _proof(trial: Trial, end: RunFinished) -> dict[str, object]:
    assert trial.build is not None, "a trial that passed was built"
    return {
        "schema": 1,
        "sentence": end.sentence,
        "candidate": trial.candidate.model_dump(mode="json"),
        "measurements": [document.measurement(one, trial.build.on(one.target)) for one in trial.judgements],
        "samples": [f"samples/{one.job_key[:32]}" for one in trial.judgements],
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
