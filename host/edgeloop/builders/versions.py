"""Versions of toolchains, read from package metadata: nothing heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

from edgeloop.errors import MissingExtraError


def installed_versions(packages: Sequence[str], extra: str, purpose: str) -> dict[str, str]:
    """Return versions by package. Raises MissingExtraError where one is absent, which `purpose` needs."""
    try:
        return {package: metadata.version(package) for package in packages}
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(str(error.name), extra, purpose) from error
