"""The files and folders on the board that a job can't do without, its agent apart."""

from __future__ import annotations

from edgeloop_agent import wire
from edgeloop_agent.engines import find_engine


def cached_files(job: wire.Job) -> list[str]:
    """Names in the cache."""
    names = [subject.model_sha256 + subject.model_suffix for subject in job.subjects]
    names += [subject.parts_sha256 + ".zip" for subject in job.subjects if subject.parts_sha256 is not None]
    names += [job.data_sha256 + ".npz"] if job.data_sha256 is not None else []
    names += [job.pipeline.sha256 + ".py"] if job.pipeline is not None else []
    return sorted(set(names))


def unpacked_folders(job: wire.Job) -> list[str]:
    """Names of folders under runtimes/."""
    models = {subject.model_sha256 for subject in job.subjects if is_unpacked(subject)}
    return [*job.python_path, *sorted(models)]


def is_unpacked(subject: wire.WireSubject) -> bool:
    """True where a subject's model is a folder under runtimes/."""
    row = find_engine(subject.engine)
    return row is not None and row.unpacks
