"""Write net.bin, the weights, and net.npz: samples, and for each the class that the network gives in float64."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

INPUTS, HIDDEN, OUTPUTS, SAMPLES = 256, 64, 10, 200


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)
    w1 = rng.normal(0, INPUTS**-0.5, (INPUTS, HIDDEN)).astype("<f4")
    b1 = rng.normal(0, 0.1, HIDDEN).astype("<f4")
    w2 = rng.normal(0, HIDDEN**-0.5, (HIDDEN, OUTPUTS)).astype("<f4")
    b2 = rng.normal(0, 0.1, OUTPUTS).astype("<f4")
    (folder / "net.bin").write_bytes(b"".join(part.tobytes() for part in (w1, b1, w2, b2)))
    x = rng.normal(size=(SAMPLES, INPUTS)).astype(np.float32)
    scores = np.maximum(x @ w1.astype(float) + b1, 0) @ w2.astype(float) + b2
    np.savez(folder / "net.npz", x=x, y=scores.argmax(1))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
