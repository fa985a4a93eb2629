"""`training.json`: the record of a finished training. Its presence says that the folder is complete. No torch."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from pydantic import ValidationError

from edgeloop.errors import HarnessError
from edgeloop.ports import TrainedNetwork, TrainingJob

_FILE = "training.json"


def write_trained(
    folder: Path, network: TrainedNetwork, job: TrainingJob, history: Sequence[Mapping[str, object]]
) -> None:
    """Write the last file of a folder. `history` has a table for each epoch."""
    content = {
        "schema": 1,
        "trained": network.model_dump(mode="json"),
        "job": job.model_dump(mode="json"),
        "history": list(history),
        "versions": {"torch": metadata.version("torch"), "python": platform.python_version()},
    }
    (folder / _FILE).write_text(json.dumps(content, indent=1))


def read_trained(folder: Path) -> tuple[TrainedNetwork, TrainingJob] | None:
    """Return a finished training and its job, or None where the folder has none. The folder may have been moved.

    Raises HarnessError for a file that can't be read.
    """
    file = folder / _FILE
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text())
        network = TrainedNetwork.model_validate({**content["trained"], "folder": str(folder)})
        return network, TrainingJob.model_validate(content["job"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise HarnessError(
            f"{file}: damaged", next_step=f"remove the folder {folder}; it is then trained anew"
        ) from error
