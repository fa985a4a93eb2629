"""Versions of what converts Keras files and SavedModels, read from package metadata: nothing heavy is imported."""

from __future__ import annotations

from importlib import metadata

from edgeloop.errors import MissingExtraError

PACKAGES = ("tensorflow", "keras")

FORMAT = 1
"""Raised when this converter itself changes what it writes, so that old files are converted anew."""


def tool_versions(purpose: str) -> dict[str, str]:
    """Return installed versions by package. Raises MissingExtraError where one is absent; `purpose` needs it."""
    try:
        return {package: metadata.version(package) for package in PACKAGES}
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(str(error.name), "tensorflow", purpose) from error
