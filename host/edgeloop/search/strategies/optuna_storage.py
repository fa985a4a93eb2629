"""Optuna's storage as a window: told trials are written there for optuna-dashboard and for people.

Nothing is read back but to compare. Where the storage holds something else than what was told (it was lost, an older
version wrote it, somebody else's trials are in it) it is written anew: trials come from the ledger alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeloop.errors import StationError
from edgeloop.search.strategies.optuna import StudyObjective, quiet

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial


def check_storage(url: str) -> None:
    """Open a storage once, before anything is trained. Raises StationError where it can't be used."""
    with _storage_errors(url), quiet():
        _storage(url)


class Publisher:
    """Keeps one study of a storage equal to the trials that were told."""

    def __init__(self, storage: str, study: str) -> None:
        """`storage`: a URL that SQLAlchemy takes. `study`: a name that no other run has."""
        self._url = storage
        self._name = study
        self._storage: RDBStorage | None = None
        self._study: Study | None = None

    def write(self, trials: Sequence[FrozenTrial], objectives: Sequence[StudyObjective]) -> None:
        """Make the study begin with these trials. Raises StationError where the storage can't be used.

        A study that holds more than was told stays as it is: a run that is walked again tells its trials one by one.
        """
        with _storage_errors(self._url), quiet():
            study = self._study or self._open(objectives)
            there = study.get_trials(deepcopy=False)
            if not all(map(_same, there, trials)):
                assert self._storage is not None, "a study was opened from it"
                study, there = self._anew(self._storage, objectives), []
            study.add_trials(trials[len(there) :])
            self._study = study

    def _open(self, objectives: Sequence[StudyObjective]) -> Study:
        import optuna

        storage = self._storage = self._storage or _storage(self._url)
        if self._name not in optuna.get_all_study_names(storage):
            return self._create(storage, objectives)
        study = optuna.load_study(study_name=self._name, storage=storage)
        fits = [direction.name for direction in study.directions] == [_direction(o).upper() for o in objectives]
        return study if fits else self._anew(storage, objectives)

    def _anew(self, storage: RDBStorage, objectives: Sequence[StudyObjective]) -> Study:
        import optuna

        optuna.delete_study(study_name=self._name, storage=storage)
        return self._create(storage, objectives)

    def _create(self, storage: RDBStorage, objectives: Sequence[StudyObjective]) -> Study:
        import optuna

        directions = [_direction(objective) for objective in objectives]
        study = optuna.create_study(study_name=self._name, storage=storage, directions=directions)  # type: ignore[arg-type]
        study.set_metric_names([objective.name for objective in objectives])
        return study


def _storage(url: str) -> RDBStorage:
    import optuna

    return optuna.storages.RDBStorage(url)


def _direction(objective: StudyObjective) -> str:
    return "maximize" if objective.maximise else "minimize"


def _same(one: FrozenTrial, other: FrozenTrial) -> bool:
    """Return whether two trials say the same; databases round."""
    if one.state != other.state or one.params != other.params or one.constraints.keys() != other.constraints.keys():
        return False
    numbers = zip(
        [*(one.values or ()), *one.constraints.values()],
        [*(other.values or ()), *(other.constraints[name] for name in one.constraints)],
        strict=True,
    )
    return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9) for a, b in numbers)


@contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """Translate what Optuna, SQLAlchemy, a database and its driver raise."""
    from optuna.exceptions import OptunaError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (OptunaError, SQLAlchemyError, ImportError, OSError, RuntimeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, SQLAlchemyError) else error
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise StationError(
            f"search.storage {url}: can't be used: {reason}",
            next_step="put it right, or leave search.storage out: it is then a file in the run's folder",
        ) from error
