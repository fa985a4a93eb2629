"""Versions of what builds a .tflite, read from package metadata: nothing heavy is imported."""

from __future__ import annotations

from edgeloop.builders.versions import installed_versions
from edgeloop.engines.registry import LITERT

PACKAGES = ("torch", *LITERT.packages)

FORMAT = 1
"""Raised when this builder itself changes what it writes, so that old artifacts are built anew."""


def tool_versions(purpose: str = "building a .tflite") -> dict[str, str]:
    """Return installed versions by package. Raises MissingExtraError where one is absent; `purpose` needs it."""
    return installed_versions(PACKAGES, "tflite", purpose)
