"""Versions of what converts Keras files and SavedModels, read from package metadata: nothing heavy is imported."""

from __future__ import annotations

from edgeloop.builders.versions import installed_versions

PACKAGES = ("tensorflow", "keras")

FORMAT = 1
"""Raised when this converter itself changes what it writes, so that old files are converted anew."""


def tool_versions(purpose: str) -> dict[str, str]:
    """Return installed versions by package. Raises MissingExtraError where one is absent; `purpose` needs it."""
    return installed_versions(PACKAGES, "tensorflow", purpose)
