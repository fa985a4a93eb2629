"""The job of the TFLite builder's child process and its answer, shared by both halves."""

from __future__ import annotations

from pathlib import Path

from edgeloop.builders.parity import Rule
from edgeloop.core.artifact import Artifact
from edgeloop.core.frozen import Frozen


class BuildTfliteJob(Frozen):
    """Build a trained network."""

    network: Path
    """A trained folder, with `network.pt2`, `recipe.json` and `probe.npz`."""
    folder: Path
    """Where `model.tflite` goes, and `outputs.npz` where the task brings its own agreement."""
    rule: Rule


class BuildTfliteAnswer(Frozen):
    artifact: Artifact
    """Its path is the model's name in the folder."""
    calibrated_tensors: tuple[str, ...]
    """Activation tensors with a calibrated range, as the converter called them."""
    missing_layers: tuple[str, ...]
    """Trained layers with other than 8 bits that the converted model does not have."""
