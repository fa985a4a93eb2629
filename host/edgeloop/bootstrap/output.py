"""The outputter (S706): the network that passed, with its proof, in a folder of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from edgeloop.core.events import Entry, Finished, Trial, fold
from edgeloop.reports import document

BEST = "best"


def write_best(entries: Sequence[Entry], folder: Path) -> Path | None:
    """Copy the passing model to `best/`, with `artifact.json` and `proof.json`; None where none passed.

    The folder appears whole or not at all.
    """
    events = [entry.event for entry in entries]
    finished = next((event for event in events if isinstance(event, Finished)), None)
    if finished is None or finished.exit_code != 0:
        return None
    trial = next(trial for trial in fold(events) if trial.number == finished.best)
    assert trial.built is not None, "a trial that passed was built"
    final, making = folder / BEST, folder / f"{BEST}.making"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    model = Path(trial.built.artifact.path)
    shutil.copyfile(model, making / model.name)
    _write_json(making / "artifact.json", trial.built.artifact.model_dump(mode="json") | {"path": model.name})
    _write_json(making / "proof.json", _proof(trial, finished))
    shutil.rmtree(final, ignore_errors=True)
    making.replace(final)
    return final / model.name


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
