"""The outputter (S706): the networks that passed, each with its proof, in folders of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeloop.core.events import Entry, Finished, Trial, fold
from edgeloop.core.verdict import Outcome
from edgeloop.reports import document

BEST, FRONT = "best", "front"


@dataclass(frozen=True, slots=True)
class Written:
    """Models that were put out."""

    model: Path | None
    """The best one."""
    front: tuple[Path, ...] = ()
    """In Pareto mode every network of the front that passed, from the most accurate."""


def write_best(entries: Sequence[Entry], folder: Path) -> Written:
    """Copy the passing model to `best/`, in Pareto mode each of the front to `front/trial-N/`.

    Nothing is written where none passed. Beside a model lie `artifact.json` and `proof.json`; each folder appears whole
    or not at all. A network that edgeloop did not build (its owner measured another file) has no file here.
    """
    events = [entry.event for entry in entries]
    finished = next((event for event in events if isinstance(event, Finished)), None)
    if finished is None or finished.exit_code != 0:
        return Written(None)
    trials = {trial.number: trial for trial in fold(events)}
    best = trials[finished.best] if finished.best is not None else None
    model = _written(folder / BEST, [(Path(), best)], finished) if best is not None else []
    passed = [m.trial for m in finished.front.members if m.outcome is Outcome.PASS] if finished.front else []
    places = [(Path(f"trial-{number}"), trials[number]) for number in passed]
    front = _written(folder / FRONT, places, finished) if places else []
    return Written(next(iter(model), None), tuple(front))


def _written(final: Path, places: Sequence[tuple[Path, Trial]], finished: Finished) -> list[Path]:
    """Make the folder `final` of models with their proofs."""
    making = final.with_name(f"{final.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    models = []
    for place, trial in places:
        if trial.built is None:
            continue
        (making / place).mkdir(parents=True)
        model = Path(trial.built.artifact.path)
        shutil.copyfile(model, making / place / model.name)
        artifact = trial.built.artifact.model_dump(mode="json") | {"path": model.name}
        _write_json(making / place / "artifact.json", artifact)
        _write_json(making / place / "proof.json", _proof(trial, finished))
        models.append(final / place / model.name)
    shutil.rmtree(final, ignore_errors=True)
    if models:
        making.replace(final)
    return models


def _proof(trial: Trial, finished: Finished) -> dict[str, object]:
    assert trial.built is not None, "a trial that passed was built"
    return {
        "schema": 1,
        "sentence": finished.sentence,
        "candidate": trial.candidate.model_dump(mode="json"),
        "measurements": [document.measurement(judged, trial.built.artifact) for judged in trial.judged],
        "samples": [f"samples/{judged.job_key[:32]}" for judged in trial.judged],
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
