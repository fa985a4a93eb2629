"""Stdout belongs to results: one JSON document, and nothing else."""

from __future__ import annotations

import json
import sys
from typing import Any


def print_json(document: Any) -> None:
    """Print one document. Numbers are finite; keys keep their order."""
    json.dump(document, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")
